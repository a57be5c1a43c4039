"""All steps in process: words, attention and saliency of the toy model are known."""

import re
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest

from s2txai.datasets import shards
from s2txai.errors import UserError
from s2txai.saliency.deletion_maps import map_names
from s2txai.storage.artifacts import check_same_source, load, save
from s2txai.study.plan import Run
from s2txai.study.results import load_shards, write_table
from tests.studies import PERCENTS, POOLINGS, TASK, Study, again, pick
from tests.toy import (
    MISPLACED,
    PLANTED,
    WordModel,
)


def test_planted_attention_is_recovered(finished):
    summary = finished.study.correlate().summary
    headline = summary[(summary["metric"] == "pearson") & (summary["normalise"] == "token")]
    heads = headline[headline["attention"] == "ca_head"]
    assert pick(heads, head=PLANTED, saliency="smh")["rho"] > 0.95
    assert pick(heads, head=PLANTED, saliency="smx_avg2d")["rho"] > 0.5
    for saliency in ("smh", "smx_avg2d", "smx_max2d"):
        assert abs(pick(heads, head=MISPLACED, saliency=saliency)["rho"]) < 0.15
    # The end of sentence depends on no input, so its row cannot be correlated.
    assert set(headline["n_constant_rows"]) == {2}
    assert set(headline["n_rows"]) == {5 + 4}


def test_corrected_correlation_of_the_planted_head_is_one(finished):
    summary = finished.study.correlate().summary
    row = pick(
        summary, attention="ca_head", head=PLANTED, saliency="smh", metric="pearson",
        normalise="token",
    )  # fmt: skip
    assert row["rho"] < row["rho_corrected"]
    assert row["rho_corrected"] == pytest.approx(1, abs=0.02)


def test_probability_of_the_hypothesis_at_the_ends(finished):
    """At 0 % it is that of decoding; the geometric mean of what the tokens have."""
    curves = finished.study.scores().curves
    decoded = [one["log_probs"].mean(dtype=float) for one in finished.study.read("decode")]
    whole = {"map": "ca_mean", "mode": "deletion", "percent": 0}
    log_prob = pick(curves, metric="log_prob", **whole)["score"]
    assert log_prob == pytest.approx(np.mean(decoded), rel=1e-5)
    probability = pick(curves, metric="probability", **whole)["score"]
    assert probability == pytest.approx(100 * np.mean(np.exp(decoded)), rel=1e-5)


def test_sizes(finished):
    sizes = finished.study.scores().sizes.set_index("map")
    assert sizes.index.tolist() == list(map_names(POOLINGS))
    for name in sizes.index:
        m = list(sizes.index).index(name)
        values = [one["sizes"][m] for one in finished.study.read("deletion")]
        assert sizes.at[name, "size"] == pytest.approx(np.mean(values))
        assert sizes.at[name, "size_low"] <= np.mean(values) <= sizes.at[name, "size_high"]
    # Uniform noise is half salient on average.
    assert sizes.at["random", "size"] == pytest.approx(50, abs=5)
    assert "n_masks:600" in sizes.at["smx_full", "signature"]
    assert "beam" not in sizes.at["smx_full", "signature"]


def test_curves_and_areas(finished):
    tables = finished.study.scores()
    assert not tables.curves.duplicated(["map", "mode", "percent", "metric"]).any()
    probable = tables.curves["metric"].isin(["log_prob", "probability"])
    assert probable.sum() == 2 * 7 * 11
    table = tables.curves[~probable]
    assert set(table["mode"]) == {"deletion"}
    assert len(table) == 2 * 7 * 11
    assert (table[table["percent"] == 0]["score"] == 0).all()
    wer = table[table["metric"] == "wer"].pivot(index="map", columns="percent", values="score")
    assert wer[100].nunique() == 1
    found = tables.areas
    assert len(found) == 2 * 7 + 2 * 7
    assert (found["auc_low"] <= found["auc"]).all()
    assert (found["auc"] <= found["auc_high"]).all()
    for name in map_names(POOLINGS):
        expected = np.trapezoid(wer.loc[name], PERCENTS) / 100
        assert pick(found, map=name, metric="wer")["auc"] == pytest.approx(expected)
    # What knows where the words are deletes them sooner than what does not.
    auc = found[found["metric"] == "wer"].set_index("map")
    assert auc["above_random"]["smx_full"] == auc["auc"]["smx_full"] - auc["auc"]["random"]
    assert auc.loc["random", auc.columns.str.startswith("above")].isna().all()
    auc = auc["auc"]
    assert auc["smx_full"] > auc["random"] + 10
    assert auc["ca_mean"] > auc["random"]


def test_sources_are_stated_and_checked(finished):
    steps = ("decode", "attention", "smx", "smh", "aggregate", "deletion")
    first, second = zip(*(finished.study.read(step) for step in steps), strict=True)
    check_same_source(*first)
    check_same_source(*second)
    assert first[1].meta["hypothesis_sha256"] != second[1].meta["hypothesis_sha256"]
    with pytest.raises(UserError, match="utterance differs"):
        check_same_source(first[0], second[1])


def test_a_second_run_never_loads_the_model(finished):
    second = again(finished, "second", model=None)
    second.everything()
    assert second.files() == finished.study.files()
    assert len(second.files()) == 6 * 2


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def flip(path):
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.compress_size)
    data[largest.header_offset + largest.compress_size // 2] ^= 16
    path.write_bytes(data)


def of_the_other_utterance(path):
    other = next(one for one in path.parent.parent.glob("*/*.npz") if one.parent != path.parent)
    path.write_bytes(other.read_bytes())


def of_other_parameters(path):
    found = load(path)
    meta = {**found.meta, "parameters": {**found.meta["parameters"], "beam": 7}}
    save(path, found.arrays, meta)


DAMAGES = (cut, flip, of_the_other_utterance, of_other_parameters)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("step", ["decode", "smx", "deletion"])
def test_a_damaged_entry_is_moved_aside_and_its_work_done_again(
    finished, tmp_path, caplog, step, damage
):
    shutil.copytree(finished.root / "store", tmp_path / "store")
    study = Study(tmp_path, finished.study.utterances, WordModel())
    # The store has it all: these files are its entries under another name.
    study.everything()
    entry = sorted((tmp_path / "store" / step / "five").iterdir())[0]
    intact = entry.read_bytes()
    damage(entry)
    damaged = entry.read_bytes()
    getattr(study, step)()
    aside = entry.with_name(f"{entry.name}.damaged")
    assert aside.read_bytes() == damaged
    assert f"{entry} is damaged or of other work, so the work is done again" in caplog.text
    assert entry.read_bytes() == intact
    assert study.files() == finished.study.files()


@pytest.mark.parametrize("damage", [cut, flip, of_the_other_utterance])
@pytest.mark.parametrize(
    ("step", "next_step"),
    [("decode", "attention"), ("smx", "aggregate"), ("aggregate", "deletion")],
)
def test_a_damaged_result_is_refused_by_the_next_step(finished, tmp_path, step, next_step, damage):
    shutil.copytree(finished.root / "results", tmp_path / "results")
    study = Study(tmp_path, finished.study.utterances, WordModel())
    (result,) = (tmp_path / "results" / step).rglob("five.npz")
    if damage is of_the_other_utterance:
        result.write_bytes(result.with_name("four.npz").read_bytes())
    else:
        damage(result)
    with pytest.raises(UserError, match=re.escape(str(result))) as raised:
        getattr(study, next_step)()
    # Snakemake does not notice a file that is gone from a folder.
    assert "delete the folder it lies in" in str(raised.value)


def test_tables_of_a_run(finished, tmp_path):
    study = finished.study
    run = Run("toys", "words", TASK, tuple(study.utterances), shards(study.ids, 8))
    artifacts = load_shards(run, [study.results / "decode" / "0000"], "decode")
    assert [one.meta["utterance"] for one in artifacts] == study.ids
    write_table(study.correlate().summary, run, tmp_path / "new" / "summary.csv")
    read = pd.read_csv(tmp_path / "new" / "summary.csv")
    assert list(read.columns[:3]) == ["dataset", "model", "task"]
    assert set(read["dataset"]) == {"toys"}
    assert set(read["task"]) == {"asr-en"}
