"""The step writes a ranking, the chosen heads as Transformers reads them, and a verdict."""

import json

import pandas as pd

from s2txai.datasets import parse_task
from s2txai.steps.correlate import correlation_tables
from s2txai.steps.heads import OUTPUTS, head_findings, heads_run
from s2txai.storage.artifacts import Artifact
from s2txai.study.plan import Run
from tests.analysis.test_correlations import POOLINGS, H, L, aggregated

RUN = Run("d", "m", parse_task("asr-en"), utterances=(), shards={})
OPTIONS = {"pooling": "avg2d", "seed": 0}


def test_everything_is_written(tmp_path):
    maps = [aggregated(f"u{n}", n) for n in range(3)]
    decoded = [Artifact({}, {"utterance": f"u{n}", "parameters": {"beam": 5}}) for n in range(3)]
    summary = correlation_tables(maps, poolings=POOLINGS, rows="all").summary
    summary.to_csv(tmp_path / "summary.csv", index=False)
    outputs = {
        name: tmp_path / f"{name}.{'csv' if name == 'ranking' else 'json'}" for name in OUTPUTS
    }
    heads_run(RUN, maps, decoded, tmp_path / "summary.csv", outputs, **OPTIONS)
    findings = head_findings(maps, decoded, summary, [], **OPTIONS)
    ranking = pd.read_csv(outputs["ranking"])
    assert len(ranking) == L * H
    assert ranking["rank_smh"].tolist() == findings.ranking["rank_smh"].tolist()
    # Head 0 of each layer has no noise.
    assert set(ranking.loc[ranking["rank_smh"] <= L, "head"]) == {0}
    chosen = json.loads(outputs["generation_config"].read_text())
    assert chosen == findings.generation_config
    verdict = json.loads(outputs["verdict"].read_text())
    assert verdict["n_utterances"] == 3
    assert verdict["sentences"] == findings.verdict["sentences"]
    assert outputs["verdict"].read_text().endswith("}\n")
