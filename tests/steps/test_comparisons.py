"""The step reads the headline of every run and writes one table."""

import pandas as pd

from s2txai.analysis.comparisons import comparisons
from s2txai.steps.comparisons import comparisons_of_study
from tests.analysis.test_comparisons import table

RUNS = {
    ("d", "small", "asr-en"): table([0.4, 0.3, 0.5], names=["007", "NA", "u3", "u4"]),
    ("d", "large", "asr-en"): table([0.6, 0.3, 0.5], names=["007", "NA", "u3", "u4"], seed=1),
}


def test_the_table_is_that_of_the_runs(tmp_path):
    paths = {}
    for key, rows in RUNS.items():
        paths[key] = tmp_path / f"{key[1]}.csv"
        rows.to_csv(paths[key], index=False)
    output = tmp_path / "results" / "comparisons.csv"
    comparisons_of_study(paths, output, pooling="avg2d", seed=0)
    written = pd.read_csv(output, dtype={"layer_a": "Int64", "layer_b": "Int64"})
    expected = comparisons(RUNS, pooling="avg2d", seed=0)
    assert set(written["comparison"]) == {"models", "layers"}
    assert (written["n_utterances"] == 4).all()
    pd.testing.assert_frame_equal(written, expected, check_dtype=False, rtol=1e-12)
