"""The explorer's data: a small script for every utterance, which the page loads when it is opened.

The page must work from the disk, where browsers refuse to fetch files but run scripts that a page
asks for. So the data are JSON in a call of the one function that the page registers.
"""

import base64
import io
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import soundfile

from s2txai.datasets import Utterance, parse_task
from s2txai.report.names import map_name, row_labels
from s2txai.report.runs import RunFiles, RunResults
from s2txai.saliency.methods import METHODS
from s2txai.saliency.statistics import Statistics, heatmap
from s2txai.storage.artifacts import Artifact, check_same_source, replacing

# The function that the page registers; a data file calls it.
REGISTER = "s2txaiExplorer"
SAMPLING_RATE = 16_000  # Hz, of the recordings in the page
LEVELS = 255
# More cells than pixels of a narrow window show nothing new.
MOST_CELLS = (200, 80)
MOST_FRAMES = 3000


def write_explorer(run: RunResults, folder: Path) -> None:
    """Write ``folder/{run key}/{utterance}.js`` for every utterance of a run.

    Parameters
    ----------
    run
        The run, read.
    folder
        Directory of all runs' data.

    Raises
    ------
    UserError
        If a result file or recording is missing or refused.
    """
    transcripts = run.tables["transcripts"].set_index("utterance")["reference"]
    files = run.files
    # One at a time: the maps of a large dataset would not fit into memory.
    for utterance in files.ids:
        record = utterance_record(files, utterance, str(transcripts.get(utterance, "")))
        with replacing(folder / files.key / f"{utterance}.js") as partial:
            partial.write_text(script(record), encoding="utf-8")


def source_of_data(files: RunFiles, utterance: str) -> str:
    """Return the address of an utterance's data, relative to the page."""
    return quote(f"explorer/{files.key}/{utterance}.js")


def script(record: Mapping[str, Any]) -> str:
    """Return the call that hands a record to the page.

    Transcripts are untrusted: no text may end the script or the line that it stands in.
    """
    text = json.dumps(record, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    # ASCII alone leaves no line separator; "<" begins an end tag or a comment.
    return f"{REGISTER}({text.replace('<', chr(92) + 'u003c')});\n"


def utterance_record(files: RunFiles, utterance: str, reference: str) -> dict[str, Any]:
    """Return all that the explorer shows of one utterance, ready for JSON.

    Parameters
    ----------
    files
        Where its run lies.
    utterance
        Its id.
    reference
        What a human heard.

    Raises
    ------
    UserError
        If a result file or the recording is missing or refused.
    """
    decoded, aggregated, smx = (
        files.artifact(step, utterance) for step in ("decode", "aggregate", "smx")
    )
    check_same_source(decoded, aggregated, smx)
    audio = files.audio[utterance]
    features = decoded["features"]
    return {
        "run": files.key,
        "id": utterance,
        "text": str(decoded["text"]),
        "reference": reference,
        "language": parse_task(files.task).target,
        "offset": audio.offset,
        "frameShift": float(decoded["frame_shift"]),
        "subsampling": int(decoded["subsampling"]),
        "frames": len(features),
        "steps": int(aggregated["ca_mean"].shape[1]),
        "timeOnly": bool(decoded["time_only"]),
        "tokens": _tokens(decoded),
        "input": _input(features),
        "attention": quantised(aggregated["ca_head"]),
        "maps": [*_step_maps(aggregated), _cell_map(smx, aggregated)],
        "audio": recording(audio),
    }


def quantised(values: npt.NDArray[Any]) -> dict[str, Any]:
    """Return an array as one byte a value, each row (the last axis) on its own scale.

    An undefined value becomes the least of its row: it shows nothing.

    Returns
    -------
    dict
        ``shape``; ``scale``, float32 [rows, 2], the least and the greatest value of each row;
        ``data``, the bytes; both compressed by zlib, as base64. A value is
        low + byte / 255 (high − low), at most (high − low) / 510 from the true one, beside the
        rounding of float32.
    """
    finite = np.isfinite(values)
    rows = np.where(finite, values, np.nan).astype(np.float32).reshape(-1, values.shape[-1])
    low, high = _least(rows), _greatest(rows)
    span = np.where(high > low, high.astype(np.float64) - low, 1.0)
    share = (np.nan_to_num(rows, nan=-np.inf) - low[:, None]) / span[:, None]
    levels = np.rint(np.clip(share, 0, 1) * LEVELS).astype(np.uint8)
    return {
        "shape": list(values.shape),
        "scale": _packed(np.stack([low, high], axis=1).astype("<f4")),
        "data": _packed(levels),
    }


def _least(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    least = np.where(np.isnan(rows), np.inf, rows).min(axis=1, initial=np.inf)
    return np.where(np.isfinite(least), least, 0).astype(np.float32)


def _greatest(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    greatest = np.where(np.isnan(rows), -np.inf, rows).max(axis=1, initial=-np.inf)
    return np.where(np.isfinite(greatest), greatest, 0).astype(np.float32)


def _packed(values: npt.NDArray[Any]) -> str:
    # Attention is almost empty: compressed it takes a fraction, and browsers can undo that.
    return base64.b64encode(zlib.compress(np.ascontiguousarray(values).tobytes(), 9)).decode()


def coarse(values: npt.NDArray[Any], most: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return means over blocks of the last two axes, so that neither is longer than ``most``.

    The last block of an axis may be smaller than the others.
    """
    for axis, longest in zip((-2, -1), most, strict=True):
        length = values.shape[axis]
        starts = np.arange(0, length, math.ceil(length / longest))
        sums = np.add.reduceat(values.astype(np.float64), starts, axis=axis)
        sizes = np.diff([*starts, length])
        values = sums / (sizes[:, None] if axis == -2 else sizes)
    return values


def recording(utterance: Utterance) -> str:
    """Return the speech of an utterance, cut out of its file, as data URI.

    Raises
    ------
    UserError
        If the file is missing or no recording.
    """
    # Lossless, and half as large as WAV.
    buffer = io.BytesIO()
    samples = utterance.read(SAMPLING_RATE)
    soundfile.write(buffer, samples, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
    return f"data:audio/flac;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _tokens(decoded: Artifact) -> list[dict[str, Any]]:
    pieces, roles, words = (decoded[name].tolist() for name in ("pieces", "roles", "word_index"))
    columns = (pieces, row_labels(pieces, roles, words), roles, words, decoded["log_probs"])
    return [
        {"piece": piece, "label": label, "role": role, "word": word, "logProb": _number(log_prob)}
        for piece, label, role, word, log_prob in zip(*columns, strict=True)
    ]


def _number(value: float) -> float | None:
    # JSON knows neither infinity nor "not a number".
    return round(float(value), 4) if math.isfinite(value) else None


def _input(features: npt.NDArray[Any]) -> dict[str, Any]:
    """Return the input on one scale, with the frames of each cell."""
    T, F = features.shape
    cells = coarse(features, (MOST_FRAMES, MOST_CELLS[1]))
    return {
        **quantised(cells.reshape(1, -1)),
        "shape": list(cells.shape),
        "cell": [math.ceil(T / MOST_FRAMES), math.ceil(F / MOST_CELLS[1])],
    }


def _step_maps(aggregated: Artifact) -> Iterator[dict[str, Any]]:
    """Yield the saliency maps at encoder steps, those of the input first."""
    pooled = [name for name in aggregated.arrays if _is_map(name)]
    for name in sorted(pooled, key=lambda name: (not name.startswith("smx_"), name != "smh", name)):
        values = aggregated[name][:, :, None]
        yield {
            "name": name,
            "label": map_name(name),
            "cell": [1, 1],
            **quantised(aggregated[name]),
            "shape": list(values.shape),
        }


def _is_map(name: str) -> bool:
    saliency = name.startswith("smx_") or name == "smh" or name in METHODS
    return saliency and not name.endswith("_halves")


def _cell_map(smx: Artifact, aggregated: Artifact) -> dict[str, Any]:
    """Return SMX before pooling, a row a token, with the frames and bins of each cell."""
    # The log-linear fit takes minutes; what it fits, the mean over masks, is there at once.
    values = heatmap(Statistics.from_mapping(smx.arrays))
    I, T, F = values.shape
    cells = coarse(values, MOST_CELLS)
    estimator = aggregated.meta["parameters"].get("smx", {}).get("estimator", "mean")
    return {
        "name": "smx_full",
        "label": map_name("smx_full") + ("" if estimator == "mean" else " (mean over masks)"),
        "cell": [math.ceil(T / MOST_CELLS[0]), math.ceil(F / MOST_CELLS[1])],
        **quantised(cells.reshape(I, -1)),
        "shape": list(cells.shape),
    }
