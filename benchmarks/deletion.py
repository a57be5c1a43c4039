"""How much faster deletion is than one map at a time, on a finished study.

``python -m benchmarks.deletion results`` repeats the deletion of every utterance of a study in two
ways, one after the other: as releases before ``deletion.insertion: none`` did, map by map, both
ends apart, with the log-probability of insertion, a batch encoded at once; and as now, all maps
together without insertion, on a CPU one input encoded after the other.
Printed are the seconds of both (of the processor, which other work on the machine disturbs less,
and of the clock), and how far the second differs from the first and from the files of
the study: number of hypotheses that are not equal, largest difference of a log-probability.

``--search`` times the beam search alone instead, of deleted inputs of the first utterance of each
model: as the library does it, with keys and values of cross-attention projected for every
hypothesis, and as now.
"""

import argparse
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.clip import ROOT
from s2txai.analysis.deletion import BeamSearch, Outcome, Perturbation, delete, perturb
from s2txai.models.base import Model
from s2txai.models.loading import load_model
from s2txai.models.memory import BEAM_SEARCH_BATCH, ENCODED_AT_ONCE
from s2txai.models.transformers_base import TransformersModel
from s2txai.saliency.deletion_maps import ENDS, scaled_maps
from s2txai.saliency.heard import Heard
from s2txai.saliency.statistics import ALL_FOLDS
from s2txai.steps.deletion import DeletionDesign
from s2txai.steps.shard import forced_of, maps_of
from s2txai.storage.artifacts import Artifact, load


@dataclass(frozen=True)
class Case:
    """One utterance of a study.

    Attributes
    ----------
    run
        Its dataset, model and task.
    deleted, decoded
        Its artefacts of these names.
    heard, search, seed
        What its deletion works with.
    maps
        Sentence maps [T, F] in the order of the artefact.
    """

    run: str
    deleted: Artifact
    decoded: Artifact
    heard: Heard
    search: BeamSearch
    seed: int
    maps: list[np.ndarray]

    @property
    def inner(self) -> list[int]:
        return [percent for percent in self.deleted["percents"].tolist() if percent not in ENDS]

    @property
    def ends(self) -> Perturbation:
        return Perturbation(np.zeros(self.heard.features.shape), ENDS)


def cases(results: Path) -> Iterator[Case]:
    """Yield every utterance whose deletion is finished."""
    for path in sorted(results.glob("*/*/*/deletion/*/*.npz")):
        run, shard = path.parents[2], path.parent.name
        deleted = load(path)
        decoded, smx, aggregated = (
            load(run / step / shard / path.name) for step in ("decode", "smx", "aggregate")
        )
        heard = Heard.of(decoded)
        parameters = deleted.meta["parameters"]
        design = DeletionDesign(
            parameters["beam"], deleted["percents"].tolist(), parameters["seed"]
        )
        seed = design.seed_of(decoded.meta["utterance"])
        full = maps_of(smx, aggregated.meta["parameters"]["smx"]["estimator"])(ALL_FOLDS)
        maps = [
            scaled_maps(
                name, aggregated.arrays, full, int(decoded["subsampling"]), seed,
                features=heard.features, time_only=bool(decoded["time_only"]),
            ).mean(axis=0)
            for name in deleted["maps"].tolist()
        ]  # fmt: skip
        limit = 2 * len(heard.tokens) + 10
        search = BeamSearch(design.beam, limit, forced_of(decoded))
        yield Case("/".join(run.parts[-3:]), deleted, decoded, heard, search, seed, maps)


def one_map_at_a_time(case: Case, model: Model) -> tuple[Outcome, list[Outcome]]:
    """Return what becomes of both ends and of each map, as earlier releases computed them."""

    def alone(perturbation: Perturbation, search: BeamSearch | None) -> Outcome:
        (outcome,) = perturb(
            model, case.heard, [perturbation],
            search=search, batch_size=BEAM_SEARCH_BATCH, seed=case.seed,
        )  # fmt: skip
        return outcome

    outcomes = []
    with mock.patch.dict(ENCODED_AT_ONCE, cpu=BEAM_SEARCH_BATCH):
        ends = alone(case.ends, case.search)
        for saliency in case.maps:
            outcomes.append(alone(Perturbation(saliency, case.inner), case.search))
            alone(Perturbation(saliency, case.inner, "insertion"), None)
    return ends, outcomes


def all_maps_together(case: Case, model: Model) -> tuple[Outcome, list[Outcome]]:
    """Return the same, from batches over maps."""
    perturbations = [case.ends, *(Perturbation(saliency, case.inner) for saliency in case.maps)]
    ends, *outcomes = perturb(
        model, case.heard, perturbations,
        search=case.search, batch_size=BEAM_SEARCH_BATCH, seed=case.seed,
    )  # fmt: skip
    return ends, outcomes


def arrays_of(
    case: Case, ends: Outcome, outcomes: Sequence[Outcome]
) -> tuple[list[list[str]], np.ndarray]:
    """Return hypotheses and log-probabilities [map, percent], as the artefact holds them."""

    def rows(field: Callable[[Outcome], list]) -> list[list]:
        first, last = field(ends)
        return [[first, *field(outcome), last] for outcome in outcomes]

    return rows(lambda outcome: outcome.texts), np.array(rows(lambda outcome: outcome.log_probs))


def timed(work: Callable[[], Any]) -> tuple[np.ndarray, Any]:
    """Return seconds of the processor and of the clock, and what the work returned."""
    started = time.process_time(), time.perf_counter()
    result = work()
    return np.array([time.process_time(), time.perf_counter()]) - started, result


def compare_ways(results: Path, models: Path) -> None:
    """Print the table of both ways."""
    print(
        f"{'':52} {'processor, s':>21} {'clock, s':>21} {'other texts':>14} {'log-prob':>15}\n"
        f"{'utterance':52} {'one':>7} {'all':>6} {'times':>6} {'one':>7} {'all':>6} {'times':>6} "
        f"{'one':>6} {'study':>7} {'one':>7} {'study':>7}"
    )
    loaded: dict[str, Model] = {}
    totals = np.zeros((2, 2))
    for case in cases(results):
        name = case.run.split("/")[1]
        if name not in loaded:
            loaded[name] = load_model(models / name)
            all_maps_together(case, loaded[name])  # the first pays for what later ones reuse
        model = loaded[name]
        before, slow = timed(partial(one_map_at_a_time, case, model))
        after, fast = timed(partial(all_maps_together, case, model))
        totals += before, after
        old_texts, old_log_probs = arrays_of(case, *slow)
        texts, log_probs = arrays_of(case, *fast)
        stored = case.deleted["hypotheses"].tolist()
        print(
            f"{case.run + '/' + case.decoded.meta['utterance']:52} {seconds(before, after)} "
            f"{n_unequal(texts, old_texts):6} {n_unequal(texts, stored):7} "
            f"{np.abs(log_probs - old_log_probs).max():7.0e} "
            f"{np.abs(log_probs - case.deleted['log_probs'][0]).max():7.0e}",
            flush=True,
        )
    print(f"{'in all':52} {seconds(*totals)}")


def seconds(before: np.ndarray, after: np.ndarray) -> str:
    """Return both times of both ways, and how many times faster the second is."""
    return " ".join(
        f"{one:7.1f} {other:6.1f} {one / other:6.2f}"
        for one, other in zip(before, after, strict=True)
    )


def n_unequal(texts: list[list[str]], others: list[list[str]]) -> int:
    return int((np.array(texts) != np.array(others)).sum())


def compare_searches(results: Path, models: Path, beam: int, batches: Sequence[int]) -> None:
    """Print the table of the beam search with copied and with shared keys and values."""
    print(
        f"{'':25} {'processor, s':>21} {'clock, s':>21}\n{'model':18} {'inputs':>6} "
        f"{'copied':>7} {'shared':>6} {'times':>6} {'copied':>7} {'shared':>6} {'times':>6} "
        f"{'other tokens':>12}"
    )
    names = set()
    for case in cases(results):
        name = case.run.split("/")[1]
        if name in names:
            continue
        names.add(name)
        model = load_model(models / name)
        search = partial(
            model.generate,
            prompt=case.heard.prompt,
            beam=beam,
            max_new_tokens=case.search.max_new_tokens,
            forced=case.search.forced,
        )
        for n in batches:
            states = deleted_states(case, model, n)
            search(states[:1])  # the first pays for what later ones reuse
            with mock.patch.object(
                TransformersModel, "_shared_cross_attention", lambda _, states: nullcontext(states)
            ):
                copied, expected = timed(partial(search, states))
            shared, tokens = timed(partial(search, states))
            unequal = sum(one != other for one, other in zip(tokens, expected, strict=True))
            print(f"{name:18} {n:6} {seconds(copied, shared)} {unequal:12}", flush=True)


def deleted_states(case: Case, model: Model, n: int) -> torch.Tensor:
    """Return the encoder states of n inputs, each with one per cent more of its cells deleted."""
    variants = [delete(case.heard.features, case.maps[0], percent) for percent in range(n)]
    return model.encode(torch.from_numpy(np.stack(variants)), case.heard.padding_value)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="of a finished study")
    parser.add_argument("--models", type=Path, default=ROOT / "resources/models")
    parser.add_argument("--search", action="store_true", help="time the beam search alone")
    parser.add_argument("--beam", type=int, default=5, help="of --search")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16], help="of --search")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    if options.search:
        compare_searches(options.results, options.models, options.beam, options.batches)
    else:
        compare_ways(options.results, options.models)


if __name__ == "__main__":
    main()
