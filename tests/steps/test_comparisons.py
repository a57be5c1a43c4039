"""The step reads the headline of every run and writes one table."""

import pandas as pd

from s2txai.analysis.comparisons import comparisons
from s2txai.steps.comparisons import comparisons_of_study
from s2txai.study.results import run_of
from tests.analysis.test_comparisons import table

RUNS = {
    ("d", "007", "asr-en"): table([0.4, 0.3, 0.5], names=["007", "NA", "u3", "u4"]),
    ("d", "large", "asr-en"): table([0.6, 0.3, 0.5], names=["007", "NA", "u3", "u4"], seed=1),
}


def written_tables(folder):
    """Write the table of each run, which names the run as those of the step correlate do."""
    paths = []
    for key, rows in RUNS.items():
        names = dict(zip(("dataset", "model", "task"), key, strict=True))
        paths.append(folder / f"{key[1]}.csv")
        rows.assign(**names).to_csv(paths[-1], index=False)
    return paths


def test_the_table_is_that_of_the_runs(tmp_path):
    paths = written_tables(tmp_path)
    output = tmp_path / "results" / "comparisons.csv"
    comparisons_of_study(paths, output, pooling="avg2d", seed=0)
    written = pd.read_csv(output, dtype={"layer_a": "Int64", "layer_b": "Int64"})
    expected = comparisons(RUNS, pooling="avg2d", seed=0)
    assert set(written["comparison"]) == {"models", "layers"}
    assert (written["n_utterances"] == 4).all()
    pd.testing.assert_frame_equal(written, expected, check_dtype=False, rtol=1e-12)


def test_a_table_says_of_which_run_it_is(tmp_path):
    """Names are texts, also those that look like numbers, in whatever order the files come."""
    paths = written_tables(tmp_path)
    assert [run_of(path) for path in reversed(paths)] == list(reversed(RUNS))
