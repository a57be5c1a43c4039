"""A finished run without a model: files and tables as the six steps write them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

from s2txai.datasets import Utterance
from s2txai.report.page import ReportPaths
from s2txai.saliency.aggregation import all_attention_maps
from s2txai.saliency.statistics import Statistics
from s2txai.steps.correlate import correlation_tables
from s2txai.storage.artifacts import load, save

L, H, T, F = 4, 6, 331, 80
N_ROWS = 12  # I
STEPS = 166  # T' = ceil(T / 2)
POOLINGS = ("avg2d", "max2d")
MAPS = ("ca_mean", "ca_last", "smx_avg2d", "smx_max2d", "smx_full", "random")
PIECES = [
    *(" he", " might", " even", " have", " been", " made", " am", "iable", " himself"),
    *("!", " <b>&", "<|endoftext|>"),
]
ROLES = ["text"] * 11 + ["eos"]
WORDS = [0, 1, 2, 3, 4, 5, 6, 6, 7, 7, 8, -1]
IDS = ("first", "second")
KEY = ("librivox", "whisper-tiny.en", "asr-en")
HOSTILE = "<script>alert('reference')</script> & $\\frac{1}$"


def paths_in(folder: Path) -> ReportPaths:
    """Return where a report in a folder goes; the results that it names are beside it."""
    return ReportPaths(
        page=folder / "index.html",
        sweep=folder / "sweep.csv",
        layers=folder / "layers.csv",
        figures=folder / "figures",
        explorer=folder / "explorer",
        results=Path("results"),
    )


def write_run(
    root: Path,
    ids: tuple[str, ...] = IDS,
    scores: tuple[str, ...] = ("wer", "wer_max"),
    key: tuple[str, str, str] = KEY,
    noise: float = 1.0,
    n_layers: int = L,
    maps: tuple[str, ...] = MAPS,
) -> dict[str, Utterance]:
    """Write ``root/{decode,...}`` and return the utterances by id.

    ``noise`` is that of the saliency maps; attention follows them the more the later its layer.
    ``maps`` are those of the tables of deletion.
    """
    audio = {}
    for number, utterance in enumerate(ids):
        rng = np.random.default_rng(number)
        planted = alignment()
        _save(root, "decode", utterance, decode_arrays(rng), _DECODE_AXES, {"beam": 5})
        attention = attention_arrays(rng, planted, n_layers)
        _save(root, "attention", utterance, attention, _ATTENTION_AXES, {})
        for step, statistics in (("smx", smx(rng, planted)), ("smh", smh(rng, planted))):
            _save(
                root, step, utterance, statistics.arrays(), Statistics.AXES, {"p": 0.5, "seed": 1}
            )
        aggregate = aggregate_arrays(rng, planted, attention, noise)
        parameters = {"smx": {"p": 0.5, "n_segments": [100, 200]}, "smh": {"p": 0.5}}
        _save(root, "aggregate", utterance, aggregate, aggregate_axes(aggregate), parameters)
        _save(root, "deletion", utterance, deletion_arrays(), _DELETION_AXES, {"beam": 1})
        audio[utterance] = Utterance(utterance, root / f"{utterance}.wav", "en", "")
        samples = 0.1 * rng.standard_normal(int(3.3 * 16000))
        soundfile.write(audio[utterance].path, samples, 16000)
    write_tables(root, ids, scores, key, noise, maps)
    write_failures(root)
    return audio


def write_failures(root: Path, *rows: tuple[str, str, str]) -> None:
    """Write the table of failures: utterance, step, message."""
    lines = ["utterance\tstep\taudio\tmessage"]
    lines += [f"{name}\t{step}\t{name}.wav\t{message}" for name, step, message in rows]
    (root / "failures.tsv").write_text("\n".join(lines) + "\n")


def alignment() -> np.ndarray:
    """Return [I, T'], every token at its own moment."""
    centres = np.linspace(8, STEPS - 10, N_ROWS)[:, None]
    return np.exp(-0.5 * ((np.arange(STEPS)[None] - centres) / 5) ** 2)


def decode_arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    time, frequency = np.arange(T)[:, None], np.arange(F)[None]
    voiced = np.sin(time / 9) ** 2 * np.exp(-((frequency - 20 - 8 * np.sin(time / 23)) ** 2) / 90)
    return {
        "tokens": np.arange(N_ROWS),
        "pieces": np.array(PIECES),
        "roles": np.array(ROLES),
        "word_index": np.array(WORDS),
        "log_probs": -np.abs(rng.standard_normal(N_ROWS)).astype(np.float32),
        "prompt": np.array([50257, 50362]),
        "features": (voiced + 0.1 * rng.standard_normal((T, F))).astype(np.float32),
        "padding_value": np.float32(-1),
        "frame_shift": np.float32(0.01),
        "subsampling": np.int64(2),
        "time_only": np.False_,
        "text": np.array("He might even have been made amiable himself! <b>&"),
    }


def attention_arrays(
    rng: np.random.Generator, planted: np.ndarray, n_layers: int
) -> dict[str, np.ndarray]:
    weights = 0.05 * rng.random((n_layers, H, N_ROWS, STEPS))
    weights += np.linspace(0, 1, n_layers)[:, None, None, None] * planted
    padding = rng.uniform(0.3, 0.7, (n_layers, H, N_ROWS))
    weights *= (1 - padding[..., None]) / weights.sum(axis=-1, keepdims=True)
    return {
        "cross_attention": weights.astype(np.float32),
        "value_norm_attention": weights.astype(np.float32),
        "rolled_out_attention": weights.astype(np.float32),
        "padding_mass": padding.astype(np.float32),
    }


def smx(rng: np.random.Generator, planted: np.ndarray) -> Statistics:
    """Return SPES sums of a grid of 8 frames by 20 bins."""
    rows, columns = np.arange(T)[:, None] // 8, np.arange(F)[None] // 20
    statistics = Statistics.zeros((rows * 4 + columns)[None].astype(np.int32), N_ROWS, 2, STEPS)
    S = statistics.occluded_count.shape[1]
    middle = np.minimum(np.arange(S) // 4 * 4 + 2, STEPS - 1)  # the step each segment lies at
    statistics.occluded_count[:] = 20
    statistics.occluded_sum[:] = 20 * (
        planted[:, middle].T
        + 0.3 * rng.random((4, S, N_ROWS))
        + 0.2 * (np.arange(S) % 4 == 1)[:, None]
    )
    statistics.n_masks[:] = 40
    return statistics


def smh(rng: np.random.Generator, planted: np.ndarray) -> Statistics:
    segments = np.arange(STEPS, dtype=np.int32)[None, :, None]
    statistics = Statistics.zeros(segments, N_ROWS, 1, STEPS)
    statistics.occluded_count[:] = 50
    statistics.occluded_sum[:] = 50 * (planted.T + 0.3 * rng.random((4, STEPS, N_ROWS)))
    statistics.n_masks[:] = 100
    return statistics


def aggregate_arrays(
    rng: np.random.Generator,
    planted: np.ndarray,
    attention: dict[str, np.ndarray],
    noise: float,
) -> dict[str, np.ndarray]:
    decoded = decode_arrays(rng)
    arrays = all_attention_maps(attention)
    arrays["padding_mass"] = attention["padding_mass"]
    for name, share in (("smx_avg2d", 0.4), ("smx_max2d", 0.25), ("smh", 0.15)):
        halves = planted + noise * share * rng.standard_normal((3, 2, N_ROWS, STEPS))
        arrays[f"{name}_halves"] = halves.astype(np.float32)
        arrays[name] = halves[0].mean(axis=0).astype(np.float32)
    arrays["n_masks_smx"], arrays["n_masks_smh"] = np.array(160), np.array(400)
    return arrays | {name: decoded[name] for name in ("tokens", "pieces", "roles", "word_index")}


MASKS = {
    step: {"n_masks": n, "reliability": 0.8, "target_reliability": 0.9, "converged": False}
    for step, n in (("smx", 160), ("smh", 400))
}


def aggregate_axes(arrays: dict[str, np.ndarray]) -> dict[str, list[str]]:
    full = ["layer", "head", "token", "step"]
    known = {
        **{f"{kind}_head": full for kind in ("ca", "vn", "ro")},
        **{f"{kind}_layer": ["layer", "token", "step"] for kind in ("ca", "vn", "ro")},
        "padding_mass": ["layer", "head", "token"],
        "n_masks_smx": [],
        "n_masks_smh": [],
        **{name: ["token"] for name in ("tokens", "pieces", "roles", "word_index")},
    }
    for name in set(arrays) - set(known):
        halves = name.endswith("_halves")
        known[name] = ["split", "half", "token", "step"] if halves else ["token", "step"]
    return known


def deletion_arrays() -> dict[str, np.ndarray]:
    return {
        "maps": np.array(MAPS),
        "percents": np.array([0, 50, 100]),
        "modes": np.array(["deletion", "insertion"]),
        "sizes": np.linspace(10, 50, len(MAPS)),
        "log_probs": np.full((2, len(MAPS), 3), -0.5),
        "hypotheses": np.array([["he might", "he", "\x1b[31mred"]] * len(MAPS)),
    }


def write_tables(
    root: Path,
    ids: tuple[str, ...],
    metrics: tuple[str, ...],
    key: tuple[str, str, str],
    noise: float,
    maps: tuple[str, ...],
) -> None:
    """Write the tables of decode, correlate and deletion."""

    def write_table(path: Path, table: pd.DataFrame) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        names = dict(zip(("dataset", "model", "task"), key, strict=True))
        pd.concat([pd.DataFrame(names, index=table.index), table], axis=1).to_csv(path, index=False)

    texts = [
        ("he might even", "NA", 100.0),
        (HOSTILE, "He might </td><img src=x onerror=alert(1)>", 12.5),
    ]
    transcripts = pd.DataFrame(
        [(name, *texts[number % 2]) for number, name in enumerate(ids)],
        columns=["utterance", "reference", "hypothesis", metrics[0]],
    )
    write_table(root / "decode" / "transcripts.csv", transcripts)
    table = pd.DataFrame({"metric": list(metrics), "score": [112.5, 100.0][: len(metrics)]})
    write_table(
        root / "decode" / "scores.csv",
        table.assign(n_utterances=len(ids), signature="metric:wer|beam:5"),
    )
    aggregated = [load(root / "aggregate" / "0000" / f"{name}.npz") for name in ids]
    tables = correlation_tables(aggregated, poolings=POOLINGS, rows="all")
    for name in ("utterances", "reliability", "summary", "mixing", "best_heads", "classes"):
        write_table(root / "correlate" / f"{name}.csv", getattr(tables, name))
    verdict = {"sentences": ["The mean of all heads explains 50 %.", HOSTILE]}
    (root / "heads").mkdir()
    (root / "heads" / "verdict.json").write_text(json.dumps(verdict))
    percents = range(0, 101, 10)
    curves = pd.DataFrame(
        [
            (name, mode, percent, metric, min(100.0, 8 + percent * (0.7 + 0.4 * number)))
            for mode, metric in _scores(metrics)
            for number, name in enumerate(maps)
            for percent in percents
        ],
        columns=["map", "mode", "percent", "metric", "score"],
    ).assign(n_utterances=len(ids), signature="metric:wer|beam:1")
    write_table(root / "deletion" / "curves.csv", curves)
    areas = []
    for mode, metric in _scores(metrics):
        for number, name in enumerate(maps):
            auc, above = 38.0 + 7 * number + 2 * noise, 7.0 * (number - maps.index("random"))
            areas.append((name, mode, metric, auc, auc - 3, auc + 3, above, above - 2, above + 2))
    numbers = ["auc", "auc_low", "auc_high", "above_random", "above_random_low",
               "above_random_high"]  # fmt: skip
    write_table(
        root / "deletion" / "auc.csv",
        pd.DataFrame(areas, columns=["map", "mode", "metric", *numbers]).assign(
            n_utterances=len(ids), signature="metric:wer|beam:1"
        ),
    )


def write_timestamps(root: Path) -> pd.DataFrame:
    """Write errors of words whose boundaries a human and a machine set, and return them.

    By hand the error of a head's starts is 10 (head + 6 layer) + 5 ms; a machine's words were not
    recognised, but for those that the best head timed.
    """
    heads = [("ca_head", layer, head) for layer in range(L) for head in range(H)]
    layers = [("ca_layer", layer, None) for layer in range(L)]
    rows = pd.DataFrame(
        [
            (evidence, *name)
            for evidence in ("hand", "machine")
            for name in [("ca_mean", None, None), *layers, ("smh", None, None), *heads]
        ]
        + [("machine", "ca_best_head", None, None)],
        columns=["evidence", "map", "layer", "head"],
    ).astype({"layer": "Int64", "head": "Int64"})
    known = (rows["evidence"] == "hand") | (rows["map"] == "ca_best_head")
    start = 0.005 + 0.01 * (rows["head"].fillna(0) + H * rows["layer"].fillna(0)).astype(float)
    values = {"start_mae": start, "start_bias": -start, "end_mae": 2 * start, "end_bias": start}
    for number, within in enumerate((20, 50, 100, 200)):
        values |= {f"start_within_{within}": 0.1 + 0.2 * number + 0 * start,
                   f"end_within_{within}": 0.15 + 0.2 * number + 0 * start}  # fmt: skip
    table = pd.concat([rows, pd.DataFrame(values).where(known)], axis=1).assign(
        n_words=14, n_matched=12 * known, n_utterances=3, signature="median:7"
    )
    (root / "timestamps").mkdir()
    table.to_csv(root / "timestamps" / "summary.csv", index=False)
    return table


def add_gradient(root: Path) -> None:
    """Add GRAD, which agrees with what was planted, to what was aggregated."""
    for path in sorted(root.glob("aggregate/*/*.npz")):
        found = load(path)
        planted = (0.5 * alignment()).astype(np.float32)
        arrays = found.arrays | {"grad": planted, "grad_halves": np.tile(planted, (3, 2, 1, 1))}
        axes = aggregate_axes(arrays)
        save(path, arrays, found.meta | {"axes": axes})


def _scores(metrics: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return modes and scores of the tables of deletion."""
    probable = [(mode, name) for name in ("log_prob", "probability")
                for mode in ("deletion", "insertion")]  # fmt: skip
    return [("deletion", metric) for metric in metrics] + probable


_TOKEN = {name: ["token"] for name in ("tokens", "pieces", "roles", "word_index", "log_probs")}
_SCALARS = {
    name: [] for name in ("padding_value", "frame_shift", "subsampling", "time_only", "text")
}
_DECODE_AXES = _TOKEN | _SCALARS | {"prompt": ["prompt token"], "features": ["frame", "frequency"]}
_ATTENTION_AXES = {
    "cross_attention": ["layer", "head", "token", "step"],
    "value_norm_attention": ["layer", "head", "token", "step"],
    "rolled_out_attention": ["layer", "head", "token", "step"],
    "padding_mass": ["layer", "head", "token"],
}
_DELETION_AXES = {
    "maps": ["map"],
    "percents": ["percent"],
    "modes": ["mode"],
    "sizes": ["map"],
    "log_probs": ["mode", "map", "percent"],
    "hypotheses": ["map", "percent"],
}
_UNITS = {
    "decode": {"log_probs": "nat", "frame_shift": "s"},
    "smx": Statistics.UNITS,
    "smh": Statistics.UNITS,
    "deletion": {"percents": "% of cells", "sizes": "% of cells", "log_probs": "nat"},
}


def _save(
    root: Path,
    step: str,
    utterance: str,
    arrays: dict[str, np.ndarray],
    axes: dict[str, list[str]],
    parameters: dict[str, object],
) -> None:
    meta = {
        "step": step,
        "utterance": utterance,
        "model_sha256": "ab" * 32,
        "audio_sha256": "cd" * 32,
        "task": "asr-en",
        "parameters": parameters,
        "axes": axes,
        "units": _UNITS.get(step, {}),
    }
    if step == "aggregate":
        meta["masks"] = MASKS
    save(root / step / "0000" / f"{utterance}.npz", arrays, meta)
