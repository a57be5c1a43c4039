"""Context mixing: how much better attention agrees with encoder outputs than with the input."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from s2txai.analysis.intervals import interval

_KEYS = ["attention", "layer", "head", "metric", "normalise", "rows"]


def mixing_table(
    summary: pd.DataFrame, poolings: Sequence[str], rho: np.ndarray, rho_corrected: np.ndarray
) -> pd.DataFrame:
    """Return delta = rho(CA, SMH) - rho(CA, SMX) for every attention map and pooling.

    Both are of the same rows of the same utterances, and of the same resamples.

    Parameters
    ----------
    summary
        Means over utterances with their corrected values.
    poolings
        Of SMX.
    rho, rho_corrected
        Each row of the summary in each resample of the utterances, [rows, R].
    """
    placed = summary.assign(place=np.arange(len(summary)))
    smh = placed[placed["saliency"] == "smh"]
    tables = []
    for pooling in poolings:
        smx = placed[placed["saliency"] == f"smx_{pooling}"]
        both = smx.merge(smh, on=_KEYS, suffixes=("_smx", "_smh"))
        delta = both["rho_smh"] - both["rho_smx"]
        delta_corrected = both["rho_corrected_smh"] - both["rho_corrected_smx"]
        low, high = _ends(both, rho)
        corrected_low, corrected_high = _ends(both, rho_corrected)
        tables.append(
            both[_KEYS].assign(
                pooling=pooling,
                rho_smx=both["rho_smx"],
                rho_smh=both["rho_smh"],
                delta=delta,
                delta_low=low,
                delta_high=high,
                delta_relative=delta / both["rho_smh"],
                delta_corrected=delta_corrected,
                delta_corrected_low=corrected_low,
                delta_corrected_high=corrected_high,
                delta_relative_corrected=delta_corrected / both["rho_corrected_smh"],
                signature_smx=both["signature_smx"],
                signature_smh=both["signature_smh"],
            )
        )
    return pd.concat(tables, ignore_index=True)


def _ends(both: pd.DataFrame, resampled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the intervals of SMH minus SMX."""
    n_utterances = both[["n_utterances_smx", "n_utterances_smh"]].min(axis=1).to_numpy()
    smh, smx = resampled[both["place_smh"].to_numpy()], resampled[both["place_smx"].to_numpy()]
    return interval(smh - smx, n_utterances)
