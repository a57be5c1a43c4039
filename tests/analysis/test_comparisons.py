"""Differences between models, tasks and layers: planted ones are found, chance is not."""

import numpy as np
import pandas as pd
import pytest

from s2txai.analysis.comparisons import COLUMNS, comparisons
from s2txai.analysis.headline import headline_of_means
from s2txai.study import results as tables
from tests.analysis.test_correlations import pick

UTTERANCES = [f"u{number}" for number in range(12)]


def table(means, *, names=UTTERANCES, seed=0, spread=0.1):
    """Return correlations of utterances: those of the mean of all heads, then of each layer."""
    rng = np.random.default_rng(seed)
    # Of an utterance, shared by all maps of all models.
    ease = np.random.default_rng(99).normal(0, 0.3, size=len(names))
    rows = []
    for position, mean in enumerate(means):
        values = mean + ease + rng.normal(0, spread, size=len(names))
        for saliency in ("smx_avg2d", "smh"):
            for name, value in zip(names, values, strict=True):
                attention = "ca_layer" if position else "ca_mean"
                layer = position - 1 if position else None
                for metric in ("pearson", "spearman"):
                    rows.append(
                        (name, attention, layer, saliency, metric, "token", value,
                         f"saliency:{saliency}")
                    )  # fmt: skip
    columns = ["utterance", "attention", "layer", "saliency", "metric", "normalise", "value",
               "signature"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def compared(tables):
    return comparisons(tables, pooling="avg2d", seed=0)


def test_a_planted_difference_of_models_is_found_though_utterances_differ_more():
    found = compared(
        {
            ("d", "small", "asr-en"): table([0.4]),
            ("d", "large", "asr-en"): table([0.6], seed=1),
        }
    )
    assert list(found.columns) == COLUMNS
    row = pick(found, comparison="models", saliency="smh")
    assert (row["model_a"], row["model_b"]) == ("small", "large")
    assert row["difference"] == pytest.approx(row["rho_b"] - row["rho_a"])
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    # Noise of 0.1 on each side; utterances differ by 0.3, which is no noise here.
    assert row["difference"] == pytest.approx(0.2, abs=3 * 0.14 / np.sqrt(12))
    assert row["difference_high"] - row["difference_low"] < 0.3
    assert row["p_value"] < 0.01
    assert row["n_utterances"] == 12


def test_only_shared_utterances_count():
    found = compared(
        {
            ("d", "m", "asr-en"): table([0.4]),
            ("d", "m", "st-en-it"): table([0.4], names=["u1", "u3", "x"], seed=1),
        }
    )
    assert set(found["comparison"]) == {"tasks"}
    assert (found["n_utterances"] == 2).all()


def test_speech_in_another_language_shares_nothing():
    found = compared(
        {
            ("d", "m", "asr-en"): table([0.4]),
            ("d", "m", "asr-it"): table([0.4], names=["y", "z"]),
            ("other", "m", "asr-en"): table([0.4]),
        }
    )
    assert found.empty


def test_neighbouring_layers_and_the_first_against_the_last():
    found = compared({("d", "m", "asr-en"): table([0.5, 0.1, 0.3, 0.6])})
    pairs = found[found["saliency"] == "smh"][["layer_a", "layer_b"]].to_numpy().tolist()
    assert pairs == [[0, 1], [1, 2], [0, 2]]
    assert (found["difference"] > 0).all()
    assert (found["p_holm"] >= found["p_value"]).all()
    # Six tests: the smallest p is multiplied by six.
    assert found["p_holm"].min() == pytest.approx(6 * found["p_value"].min())


def test_two_layers_are_compared_once():
    found = compared({("d", "m", "asr-en"): table([0.5, 0.1, 0.3])})
    assert len(found) == 2  # SMX and SMH


def test_chance_is_no_difference():
    found = compared(
        {
            ("d", "a", "asr-en"): table([0.5], seed=1),
            ("d", "b", "asr-en"): table([0.5], seed=1).assign(
                value=lambda rows: (
                    rows["value"] + np.random.default_rng(5).normal(0, 0.1, size=len(rows))
                )
            ),
        }
    )
    assert (found["p_holm"] > 0.05).all()


def test_one_run_of_one_layer_has_nothing_to_compare():
    found = compared({("d", "m", "asr-en"): table([0.5, 0.1])})
    assert found.empty
    assert list(found.columns) == COLUMNS


def test_headlines_are_read_in_blocks(tmp_path, monkeypatch):
    """Ids stay texts, whole numbers may be absent from a block, heads and other metrics go."""
    written = table([0.4, 0.5, 0.6], names=["007", "NA", "u3"])
    head = written[written["attention"] == "ca_layer"].assign(attention="ca_head")
    written = pd.concat([written, head], ignore_index=True)
    written.to_csv(tmp_path / "utterances.csv", index=False)
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 5)
    found = tables.read_in_blocks(tmp_path / "utterances.csv", headline_of_means)
    expected = written[(written["metric"] == "pearson") & (written["attention"] != "ca_head")]
    pd.testing.assert_frame_equal(found, expected.reset_index(drop=True), check_dtype=False)
    assert set(found["utterance"]) == {"007", "NA", "u3"}
