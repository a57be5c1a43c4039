"""What a configuration will cost, before anything runs: jobs, masks, time and disk.

Time is measured, not guessed: each model that is here is run on a few masks of noise as long as the
average utterance. What cannot be known before decoding is the number of tokens; it is assumed.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from s2txai.log import Progress, duration
from s2txai.models.base import Model
from s2txai.models.handle import ModelHandle
from s2txai.models.memory import BEAM_SEARCH_BATCH
from s2txai.saliency.checks import N_LEARNING, N_MEASURING
from s2txai.saliency.deletion_maps import ENDS, map_names
from s2txai.saliency.heard import Heard
from s2txai.saliency.masks import N_FOLDS
from s2txai.saliency.methods import METHODS
from s2txai.saliency.statistics import HALVES
from s2txai.study import layout
from s2txai.study.choices import gradient_settings
from s2txai.study.plan import Run, Study

# The LibriVox clips have 3.5 to 4 tokens a second.
TOKENS_PER_SECOND = 4.0
# Starting Python, importing torch and loading a small model, for each job that runs a model.
SECONDS_PER_JOB = 8.0
TIMED_BATCH = 8  # masks
# Of the masks that are scored both ways where `smx.check` is auto: the middle of its choices.
CHECK_SHARE = 0.05
REFERENCE_FRAMES = 500  # that n_segments speaks of
# Floating-point operations a second of an H100 in float16, uncompiled: 1,810 masks a second of a
# Conformer as large as FAMA small, at 117 GFLOP each, measured with a prototype of the engine.
GPU_FLOPS = 2.1e14
# A guess: a step of beam search waits for kernels to start rather than for sums.
SECONDS_PER_TOKEN = 0.01
STEPS_PER_SECOND = 25.0  # of the encoder of such a model
BYTES = {"float32": 4, "float64": 8}


@dataclass(frozen=True)
class Cost:
    """Seconds for one mask, one decoder pass over encoder states, one decoded input.

    ``deleted`` includes a teacher-forced pass over the hypothesis. ``cheap_mask`` is a mask of the
    input by the model's cheapest pass; None where there is none.

    ``n_maps`` counts layers times heads; ``backward`` is one backward pass, of one row; of the
    input there are ``frames_per_second`` of ``n_bins``, r = ``subsampling`` for an encoder step.
    """

    mask: float
    state_mask: float
    deleted: float
    hypothesis: float
    n_maps: int
    cheap_mask: float | None = None
    backward: float = 0.0
    frames_per_second: float = 100.0
    n_bins: int = 80
    subsampling: int = 2


@dataclass(frozen=True)
class Estimate:
    """What one run will take.

    ``seconds`` and ``bytes`` are None where the model is not here to be timed and its size is not
    known; ``on_gpu``: the time is assumed from the size, for a GPU.
    """

    run: Run
    jobs: int
    masks: int
    seconds: float | None
    bytes: int | None
    on_gpu: bool = False


def measure(model: Model, run: Run, config: Mapping[str, Any]) -> Cost:
    """Time a model on noise as long as the average utterance of a run."""
    speech = mean(utterance.seconds() for utterance in run.utterances)
    n_samples = int(speech * model.facts.sampling_rate)
    features = model.features(torch.randn(n_samples).numpy() * 0.05)
    tokens = [1] * (round(speech * TOKENS_PER_SECOND) + 1)
    prompt = model.prompt(run.task)
    heard = Heard(features.values, features.padding_value, prompt, tokens)
    n = TIMED_BATCH
    inputs = heard.inputs(model.device).expand(n, -1, -1)
    steps = heard.n_steps(model.facts.subsampling)
    states = model.encode(inputs, heard.padding_value)
    occluded = torch.rand((n, steps), device=model.device) < 0.5
    occluded_value = torch.zeros_like(states[0, 0])

    def generate(beam: int, n_inputs: int) -> Callable[[], object]:
        return lambda: model.generate(
            states[:n_inputs], prompt, beam=beam, max_new_tokens=len(tokens)
        )

    encode = _seconds(lambda: model.encode(inputs, heard.padding_value)) / n
    decode = _seconds(lambda: model.decode(states, prompt, tokens)) / n
    decode_occluded = _seconds(
        lambda: model.decode_occluded(states[:1], occluded, prompt, tokens, occluded_value)
    ) / n  # fmt: skip
    attention = model.cross_attention(states[:1], prompt, tokens).weights
    return Cost(
        mask=encode + decode,
        state_mask=decode_occluded,
        deleted=encode + decode + _seconds(generate(config["deletion"]["beam"], n)) / n,
        hypothesis=encode + _seconds(generate(config["decode"]["beam"], 1)),
        n_maps=attention.shape[0] * attention.shape[1],
        cheap_mask=_cheap(model, heard, inputs) if config["smx"]["encoder"] == "auto" else None,
        backward=_backward(model, heard) if config["gradient"]["methods"] else 0,
        frames_per_second=1 / model.facts.frame_shift,
        n_bins=features.values.shape[1],
        subsampling=model.facts.subsampling,
    )


def assume(shape: Mapping[str, int], run: Run, config: Mapping[str, Any]) -> Cost:
    """Return what a model of some size should cost on a GPU, from its number of weights.

    Every weight is multiplied and added once an encoder step, or once a row.

    Parameters
    ----------
    shape
        Of the model's entry in the table of models.
    run, config
        What shall run.
    """
    speech = mean(utterance.seconds() for utterance in run.utterances)
    rows = TOKENS_PER_SECOND * speech + 1
    encode = 2 * shape["encoder_parameters"] * STEPS_PER_SECOND * speech / GPU_FLOPS
    decode = 2 * shape["decoder_parameters"] * rows / GPU_FLOPS
    at_once = config["compute"]["batch_size"]
    at_once = BEAM_SEARCH_BATCH if at_once == "auto" else at_once
    search = SECONDS_PER_TOKEN * rows
    return Cost(
        mask=encode + decode,
        state_mask=decode,
        deleted=encode + decode + search / at_once,
        hypothesis=encode + search,
        n_maps=shape["layers"] * shape["heads"],
        backward=2 * (encode + decode),
        subsampling=round(Cost.frames_per_second / STEPS_PER_SECOND),
    )


def _cheap(model: Model, heard: Heard, inputs: torch.Tensor) -> float | None:
    """Return the seconds of an input by the model's cheapest pass, if it has one."""
    passes = model.cheap_passes(inputs[:1], heard.padding_value)
    if not passes:
        return None
    work = partial(passes[0].logits, inputs, heard.prompt, heard.tokens)
    return _seconds(work) / len(inputs)


def _backward(model: Model, heard: Heard) -> float:
    """Return the seconds of a backward pass alone: the forward passes are counted as masks."""
    inputs = heard.inputs(model.device).requires_grad_()
    logits = model.differentiable_logits(inputs, heard.padding_value, heard.prompt, heard.tokens)
    row = logits[:, 0].sum()
    with model.arithmetic():
        return _seconds(lambda: torch.autograd.grad(row, inputs, retain_graph=True))


def _seconds(work: Callable[[], object]) -> float:
    work()  # the first call pays for what later ones reuse
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def estimate(study: Study, run: Run, config: Mapping[str, Any], cost: Cost | None) -> Estimate:
    """Return what a run takes, in time and disk where the cost of its model is known.

    Parameters
    ----------
    study
        Which gradient methods and other designs of the perturbation there are.
    run
        What shall run.
    config
        The configuration of both.
    cost
        Of the run's model.
    """
    n = len(run.utterances)
    jobs = layout.jobs_of_run(study, run).total()
    designs = study.designs.values()
    settings = gradient_settings(config)
    parameters = {method: METHODS[method].parameters(settings) for method in study.methods}
    input_masks = config["smx"]["n_masks"] + sum(design["n_masks"] for design in designs)
    gradient_masks = sum(values.get("n_masks", 0) for values in parameters.values())
    masks = n * (input_masks + config["smh"]["n_masks"] + gradient_masks)
    if cost is None:
        return Estimate(run, jobs=jobs, masks=masks, seconds=None, bytes=None)
    # How many layers the decoder has, and so which of these are further ones, is not asked for.
    n_maps = len(map_names(config["aggregate"]["poolings"], study.methods, run.layers))
    n_inner = len(range(0, 101, config["deletion"]["step"])) - len(ENDS)
    # Without decoding a pass of encoder and decoder, as for a mask.
    inserted = {"none": 0.0, "log_prob": cost.mask, "decode": cost.deleted}
    input_mask, pilot = cost.mask, 0.0
    if cost.cheap_mask is not None:
        check = config["smx"]["check"]
        share = CHECK_SHARE if check == "auto" else check
        input_mask = cost.cheap_mask + share * cost.mask
        # One of each design.
        pilot = (N_LEARNING + N_MEASURING) * cost.mask + N_MEASURING * cost.cheap_mask
    seconds = layout.model_jobs(study, run) * SECONDS_PER_JOB + n * (
        input_masks * input_mask
        + (1 + len(designs)) * pilot
        + config["smh"]["n_masks"] * cost.state_mask
        + (n_maps * n_inner + len(ENDS)) * cost.deleted
        + n_maps * n_inner * inserted[config["deletion"]["insertion"]]
        + cost.hypothesis
    )
    size = 0
    for utterance in run.utterances:
        speech = utterance.seconds()
        rows = TOKENS_PER_SECOND * speech + 1
        for method in study.methods:
            forward, backward = METHODS[method].passes(settings, rows)
            seconds += forward * cost.mask + backward * cost.backward
        size += _bytes(speech, config, cost, study.methods)
        # Of the other designs only the sums over masks lie on disk as well.
        size += sum(_bytes_of_sums(speech, design, cost) for design in designs)
    return Estimate(run, jobs=jobs, masks=masks, seconds=seconds, bytes=size)


def _bytes(speech: float, config: Mapping[str, Any], cost: Cost, methods: Collection[str]) -> int:
    """Return the uncompressed size of the files of an utterance of ``speech`` seconds."""
    T, F = cost.frames_per_second * speech, cost.n_bins
    steps, rows = T / cost.subsampling, TOKENS_PER_SECOND * speech + 1
    n_sampled = sum(METHODS[method].sampled for method in methods)
    sums = _bytes_of_sums(speech, config["smx"], cost)
    sums += n_sampled * _bytes_of_sums(speech, {**config["smx"], "encoder": "exact"}, cost)
    sums += int(N_FOLDS * steps * (rows + 1) * BYTES["float64"])
    features = T * F * BYTES["float32"]
    attention = 3 * cost.n_maps * rows * steps * BYTES["float32"]
    saliency = len(config["aggregate"]["poolings"]) + 1 + n_sampled
    pooled = saliency * (1 + 2 * len(HALVES)) * rows * steps * BYTES["float32"]
    cells = (len(methods) - n_sampled) * rows * T * F * BYTES["float32"]
    return int(sums + features + attention + pooled + cells)


def _bytes_of_sums(speech: float, smx: Mapping[str, Any], cost: Cost) -> int:
    """Return the uncompressed size of an utterance's sums over masks of the input."""
    T, F = cost.frames_per_second * speech, cost.n_bins
    rows = TOKENS_PER_SECOND * speech + 1
    K = len(smx["n_segments"])
    S = sum(smx["n_segments"]) * T / REFERENCE_FRAMES
    sums = N_FOLDS * S * (rows + 1) * BYTES["float64"]
    if smx["encoder"] == "auto":
        sums *= 2  # and those of the differences of checked masks
    return int(sums + K * T * F * BYTES["float32"])


def estimate_table(
    study: Study, config: Mapping[str, Any], models: Path, *, n_jobs: int, threads: int
) -> str:
    """Return the table that ``s2txai estimate`` prints.

    Parameters
    ----------
    study, config
        What shall run.
    models
        Folder of the fetched models.
    n_jobs
        Of the whole study, see :func:`s2txai.study.dry_run.planned_jobs`.
    threads
        CPU threads of a job.
    """
    lines = [f"{'run':44} {'utterances':>10} {'jobs':>6} {'masks':>11} {'time':>22} {'disk':>9}"]
    estimates: list[Estimate] = []
    handles = {
        name: ModelHandle(
            entry["family"],
            models / name,
            device=config["compute"]["device"],
            precision=config["compute"]["precision"],
        )
        for name, entry in study.models.items()
    }
    # Of equally long speech a model is timed once: another task has another prompt at most.
    measured: dict[tuple[str, float], Cost] = {}
    with Progress("timing models", len(study.runs), "runs") as progress:
        for planned in study.runs.values():
            # Recordings that cannot be used have no length, and cost nothing.
            run = planned.only(
                {utterance.id for utterance in planned.utterances} - planned.unusable.keys()
            )
            shape = study.models[run.model].get("shape")
            if (models / run.model).is_dir():
                key = run.model, mean(utterance.seconds() for utterance in run.utterances)
                if key not in measured:
                    measured[key] = measure(handles[run.model].model, run, config)
                entry = estimate(study, run, config, measured[key])
            elif shape:
                cost = assume(shape, run, config)
                entry = replace(estimate(study, run, config, cost), on_gpu=True)
            else:
                entry = estimate(study, run, config, None)
            estimates.append(entry)
            lines.append(
                _line("/".join(run.key), len(run.utterances), entry.jobs, entry.masks, [entry])
            )
            progress.add(1)
    n_utterances = sum(len(entry.run.utterances) for entry in estimates)
    n_masks = sum(entry.masks for entry in estimates)
    lines.append(_line("in all", n_utterances, n_jobs, n_masks, estimates))
    return "\n".join(
        [
            *lines,
            *_remarks(study, estimates, models, threads),
            *study.missing,
            *study.unusable,
            *study.remarks,
        ]
    )


def _line(name: str, n: int, jobs: int, masks: int, estimates: Sequence[Estimate]) -> str:
    size = sum(entry.bytes for entry in estimates if entry.bytes is not None)
    disk = _disk(size if size else None)
    return f"{name:44} {n:>10} {jobs:>6} {masks:>11,} {_times(estimates):>22} {disk:>9}"


def _times(estimates: Sequence[Estimate]) -> str:
    """Return measured time and assumed GPU-hours, which cannot be added up."""
    times = [(entry.seconds, entry.on_gpu) for entry in estimates if entry.seconds is not None]
    measured = [seconds for seconds, on_gpu in times if not on_gpu]
    assumed = [seconds for seconds, on_gpu in times if on_gpu]
    parts = [duration(sum(measured))] if measured else []
    parts += [f"~{sum(assumed) / 3600:.1f} GPU-hours"] if assumed else []
    return " + ".join(parts) or "unknown"


def _remarks(study: Study, estimates: Sequence[Estimate], models: Path, threads: int) -> list[str]:
    """Return what must be known to read the table."""
    device = "one GPU" if torch.cuda.is_available() else f"{threads} CPU threads"
    lines = [
        f"Time on {device} as measured now, one job after the other; {TOKENS_PER_SECOND:g} tokens "
        "a second of speech assumed; disk before compression."
    ]
    if any(entry.on_gpu for entry in estimates):
        lines.append(
            f"~: not measured, but computed for one H100 from the number of weights, at "
            f"{GPU_FLOPS / 1e12:.0f} TFLOP/s for masks and a guess of {1000 * SECONDS_PER_TOKEN:g} "
            "ms a step of beam search."
        )
    unknown = dict.fromkeys(entry.run.model for entry in estimates if entry.seconds is None)
    return lines + [
        f"{name} is not fetched yet, so its time is unknown and missing from the sum; "
        f"fetch it with: snakemake --cores 1 {models / name}"
        for name in unknown
    ]


def _disk(size: int | None) -> str:
    if size is None:
        return "unknown"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
