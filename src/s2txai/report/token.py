"""Figures of one explained utterance: all tokens as maps, or the rows of a single one."""

from collections.abc import Mapping

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from s2txai.report.figures import STYLE, curve_style, draw_input, new_figure, utterance_maps
from s2txai.report.names import map_name, row_labels
from s2txai.saliency.correlation import standardise_rows


def tokens_figure(
    decoded: Mapping[str, np.ndarray], maps: Mapping[str, np.ndarray], *, frame_shift: float
) -> Figure:
    """Draw the input and each map with a row per token.

    Parameters
    ----------
    decoded
        Arrays of the step ``decode``.
    maps
        [I, T'] by their names in the tables.
    frame_shift
        Time between two frames, in seconds.
    """
    return utterance_maps(
        decoded["features"],
        {map_name(name): values for name, values in maps.items()},
        _labels(decoded),
        frame_shift=frame_shift,
        subsampling=int(decoded["subsampling"]),
        time_only=bool(decoded["time_only"]),
    )


def token_figure(
    decoded: Mapping[str, np.ndarray],
    maps: Mapping[str, np.ndarray],
    token: int,
    *,
    frame_shift: float,
) -> Figure:
    """Draw the input and one token's row of each map, on one time axis.

    Parameters are those of :func:`tokens_figure`; ``token`` is the row. Rows are standardised over
    the steps, as in the headline correlation.
    """
    features = decoded["features"]
    step = frame_shift * int(decoded["subsampling"])
    with matplotlib.rc_context(STYLE):
        figure = new_figure(3.6)
        top, bottom = figure.subplots(2, 1, sharex=True)
        draw_input(top, features, frame_shift, time_only=bool(decoded["time_only"]))
        for name, values in maps.items():
            row = standardise_rows(np.asarray(values[token], dtype=np.float64)[None])[0]
            seconds = (np.arange(len(row)) + 0.5) * step
            colour, _, line = curve_style(name)
            bottom.plot(seconds, row, color=colour, linestyle=line, label=map_name(name))
        bottom.set_title(f"Token {token % len(decoded['tokens'])}: {_labels(decoded)[token]}")
        bottom.set_xlabel("time (s)")
        bottom.set_ylabel("standard deviations\nabove the row's mean")
        bottom.set_xlim(0, len(features) * frame_shift)
        bottom.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _labels(decoded: Mapping[str, np.ndarray]) -> list[str]:
    columns = (decoded[name].tolist() for name in ("pieces", "roles", "word_index"))
    return list(row_labels(*columns))
