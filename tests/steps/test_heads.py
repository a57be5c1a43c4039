"""The step writes a ranking, the chosen heads as Transformers reads them, and a verdict."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from s2txai.datasets import Utterance, parse_task
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


@pytest.mark.parametrize(
    ("task", "alignment", "reason", "said"),
    [
        ("st-en-it", "a.tsv", "translation", "a translation's words have no times in the speech."),
        ("asr-en", None, "no alignments", "the manifest names no alignment for these utterances."),
        ("asr-en", "a.tsv", "failed", "every utterance with an alignment failed."),
    ],
)
def test_why_timestamps_were_not_tested(tmp_path, task, alignment, reason, said):
    maps = [aggregated(f"u{n}", n) for n in range(3)]
    decoded = [Artifact({}, {"utterance": f"u{n}", "parameters": {"beam": 5}}) for n in range(3)]
    correlation_tables(maps, poolings=POOLINGS, rows="all").summary.to_csv(
        tmp_path / "summary.csv", index=False
    )
    failed = Utterance("u9", Path("u9.wav"), "en", "a", alignment=alignment and Path(alignment))
    run = replace(RUN, task=parse_task(task), failed=(failed,))
    outputs = {name: tmp_path / name for name in OUTPUTS}
    heads_run(run, maps, decoded, tmp_path / "summary.csv", outputs, **OPTIONS)
    verdict = json.loads(outputs["verdict"].read_text())
    assert verdict["timestamps"] == {"good_enough": "not tested", "reason": reason}
    assert f"Timestamps were not tested: {said}" in verdict["sentences"]
