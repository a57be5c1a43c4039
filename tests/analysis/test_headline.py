"""The headline and its variants are those of the registry of metrics."""

import numpy as np
import pandas as pd
import pytest

from s2txai.analysis.correlations import correlate
from s2txai.analysis.headline import headline, headline_of_means, token_variants, variants
from s2txai.report.names import variant_name
from s2txai.saliency.correlation import METRICS, Metric, correlation, pearson
from s2txai.steps.plain import utterance_data
from tests.analysis.test_correlations import POOLINGS, aggregated, pick


@pytest.fixture
def new_metric(monkeypatch):
    monkeypatch.setattr(METRICS, "_entries", dict(METRICS._entries))
    METRICS.register("cubes")(Metric(lambda rows: rows**3, pearson, by_row=False))


def names(of):
    return [(variant.metric, variant.normalise) for variant in of]


BUILT_IN = [
    ("pearson", "token"),
    ("pearson", "none"),
    ("pearson", "frame"),
    ("spearman", "token"),
    ("kendall", "token"),
    ("cosine", "token"),
    ("overlap", "token"),
]


def test_built_in_variants():
    assert names(variants()) == BUILT_IN
    assert names(token_variants()) == [name for name in BUILT_IN if name[1] == "token"]


@pytest.mark.usefixtures("new_metric")
def test_a_registered_metric_is_in_every_table():
    assert names(variants()) == [*BUILT_IN, ("cubes", "token")]
    maps = utterance_data(aggregated("a", 0))
    tables = correlate([maps, utterance_data(aggregated("b", 1))], poolings=POOLINGS, rows="all")
    for table in (tables.utterances, tables.reliability, tables.summary, tables.mixing):
        assert list(table["metric"].unique())[-1] == "cubes"
    row = pick(
        tables.utterances, utterance="a", attention="ca_mean", saliency="smh", metric="cubes"
    )
    expected = correlation(maps["ca_mean"], maps["smh"], metric="cubes").value
    assert row["value"] == pytest.approx(expected)
    assert row["ceiling_kind"] == "empirical"
    assert variant_name(variants()[-1]) == "Cubes, rows"


def test_names_of_variants():
    assert [variant_name(variant) for variant in variants()][:4] == [
        "Pearson, rows (headline)", "Pearson, none", "Pearson, columns", "Spearman, rows",
    ]  # fmt: skip


def test_the_headline_of_a_table():
    rows = [
        (attention, *name) for attention in ("ca_mean", "ca_layer", "ca_head") for name in BUILT_IN
    ]
    table = pd.DataFrame(rows, columns=["attention", "metric", "normalise"])
    assert headline(table)["attention"].tolist() == ["ca_mean", "ca_layer", "ca_head"]
    assert headline_of_means(table)["attention"].tolist() == ["ca_mean", "ca_layer"]
    assert np.all(headline(table)["metric"] == "pearson")
