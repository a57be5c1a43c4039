"""The six steps in process: words, attention and saliency of the toy model are known."""

import json
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from s2txai.datasets import parse_task, read_manifest, select, shards
from s2txai.errors import UserError
from s2txai.saliency.deletion_maps import map_names
from s2txai.saliency.statistics import Statistics
from s2txai.steps.aggregate import aggregate_shard
from s2txai.steps.attention import attention_shard
from s2txai.steps.correlate import correlation_tables
from s2txai.steps.decode import decode_shard
from s2txai.steps.deletion import Search, deletion_shard
from s2txai.steps.deletion_curves import deletion_tables
from s2txai.steps.masked import CheckpointClock
from s2txai.steps.shard import Workplace
from s2txai.steps.smh import smh_shard
from s2txai.steps.smx import smx_shard
from s2txai.steps.transcripts import transcript_tables
from s2txai.storage.artifacts import check_same_source, load, load_shard, save
from s2txai.storage.failures import failures
from s2txai.storage.store import Store
from s2txai.study.plan import Run
from s2txai.study.results import load_shards, write_table
from tests.toy import (
    EOS,
    MISPLACED,
    PLANTED,
    PROMPT,
    SUBSAMPLING,
    WORD_STEPS,
    Handle,
    WordModel,
    step_of,
    write_speech,
)

TASK = parse_task("asr-en")
TEXTS = {"five": "north east south west east", "four": "west south north east"}
POOLINGS = ("avg2d", "max2d")
SMX = {"n_segments": [400, 800], "n_masks": 600, "p": 0.5, "seed": 1, "batch_size": 32}
SMH = {"n_masks": 600, "p": 0.5, "seed": 1, "batch_size": 64}
PERCENTS = list(range(0, 101, 10))
SEARCH = Search(beam=1, batch_size=4, seed=1)


def write_corpus(root: Path):
    lines = ["id\tpath\tlanguage\ttranscript"]
    for number, (name, text) in enumerate(TEXTS.items()):
        write_speech(root / f"{name}.wav", text, seed=number)
        lines.append(f"{name}\t{name}.wav\ten\t{text}")
    (root / "manifest.tsv").write_text("\n".join(lines))
    return select(read_manifest(root / "manifest.tsv"), TASK)


class Study:
    """Runs steps on one shard and reads their results, as the workflow's scripts do."""

    def __init__(self, root, utterances, model, name="results"):
        self.utterances = utterances
        self.ids = [utterance.id for utterance in utterances]
        self.handle = Handle(model)
        self._store, self._results = Store(root / "store"), root / name

    def place(self, step):
        return Workplace(model=self.handle, store=self._store, output=self._results / step / "0000")

    def read(self, step):
        return load_shard(self._results / step / "0000", self.ids, step)

    def decode(self, beam=5):
        decode_shard(self.place("decode"), self.utterances, TASK, beam=beam)

    def attention(self):
        attention_shard(self.place("attention"), self.read("decode"))

    def smx(self, **changes):
        smx_shard(self.place("smx"), self.read("decode"), **(SMX | changes))

    def smh(self, **changes):
        smh_shard(self.place("smh"), self.read("decode"), **(SMH | changes))

    def aggregate(self, poolings=POOLINGS):
        earlier = [self.read(step) for step in ("decode", "attention", "smx", "smh")]
        aggregate_shard(self._results / "aggregate" / "0000", *earlier, poolings=poolings)

    def deletion(self, maps=map_names(POOLINGS), search=SEARCH):  # noqa: B008
        earlier = [self.read(step) for step in ("decode", "smx", "aggregate")]
        deletion_shard(
            self.place("deletion"), *earlier, maps=maps, percents=PERCENTS, search=search
        )

    def everything(self):
        for step in (self.decode, self.attention, self.smx, self.smh, self.aggregate):
            step()
        self.deletion()

    def correlate(self):
        return correlation_tables(self.read("aggregate"), poolings=POOLINGS, rows="all")

    def scores(self):
        references = [utterance.transcript for utterance in self.utterances]
        return deletion_tables(
            references, self.read("deletion"), TASK, text_normalisation="whisper"
        )

    def files(self):
        return {
            path.relative_to(self._results): path.read_bytes()
            for path in sorted(self._results.rglob("*.npz"))
        }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """All steps, once. Tests that run more steps work on a copy of the store."""
    root = tmp_path_factory.mktemp("finished")
    study = Study(root, write_corpus(root), WordModel())
    study.everything()
    return SimpleNamespace(root=root, study=study)


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path, write_corpus(tmp_path), WordModel())


def again(finished, name, model=None):
    """Return the same study with an empty results folder and the filled store."""
    return Study(finished.root, finished.study.utterances, model, name)


def pick(table, **wanted):
    found = table
    for name, value in wanted.items():
        found = found[found[name] == value]
    assert len(found) == 1
    return found.iloc[0]


def test_decoding(finished):
    for artifact, (name, text) in zip(finished.study.read("decode"), TEXTS.items(), strict=True):
        words, n_words = text.split(), len(text.split())
        assert str(artifact["text"]) == text
        assert artifact["pieces"].tolist() == [*(f" {word}" for word in words), "<eos>"]
        assert artifact["roles"].tolist() == ["text"] * n_words + ["eos"]
        assert artifact["word_index"].tolist() == [*range(n_words), -1]
        assert artifact["tokens"][-1] == EOS
        assert artifact["prompt"].tolist() == PROMPT
        assert artifact["features"].shape == (n_words * WORD_STEPS * SUBSAMPLING, 4)
        assert (artifact["log_probs"] < 0).all()
        assert (artifact["log_probs"] > -0.2).all()
        assert artifact.meta["utterance"] == name
        assert artifact.meta["parameters"] == {"beam": 5, "precision": "float32"}


def test_transcripts(finished):
    study = finished.study
    utterances = [replace(one, transcript=f"{one.transcript} end") for one in study.utterances]
    transcripts, scores = transcript_tables(
        utterances, study.read("decode"), TASK, text_normalisation="whisper"
    )
    assert transcripts["utterance"].tolist() == list(TEXTS)
    assert transcripts["hypothesis"].tolist() == list(TEXTS.values())
    assert transcripts["wer"].tolist() == pytest.approx([100 / 6, 100 / 5])
    row = pick(scores, metric="wer")
    assert row["score"] == pytest.approx(200 / 11)  # of the corpus, not the mean
    assert row["n_utterances"] == 2
    assert "beam:5" in row["signature"]
    assert "text_normalisation:whisper" in row["signature"]


def test_a_hypothesis_no_better_than_none_is_told_of(finished, caplog):
    study = finished.study
    first, second = study.utterances
    utterances = [replace(first, transcript="something else was said"), second]
    transcript_tables(utterances, study.read("decode"), TASK, text_normalisation="whisper")
    (told,) = [record.getMessage() for record in caplog.records]
    assert f"'{first.id}'" in told
    assert str(first.path) in told


def test_attention(finished):
    for artifact, text in zip(finished.study.read("attention"), TEXTS.values(), strict=True):
        n_words = len(text.split())
        weights = artifact["cross_attention"]
        assert weights.shape == (1, 2, n_words + 1, n_words * WORD_STEPS)
        np.testing.assert_allclose(weights.sum(-1) + artifact["padding_mass"], 1, rtol=1e-6)
        np.testing.assert_allclose(artifact["padding_mass"], 0.1, rtol=1e-6)
        best = weights[0, PLANTED, :n_words].argmax(axis=-1)
        assert best.tolist() == [step_of(row) for row in range(n_words)]
        np.testing.assert_allclose(artifact["value_norm_attention"], 2 * weights)


def test_masks_are_all_counted(finished):
    for step in ("smx", "smh"):
        for artifact in finished.study.read(step):
            assert artifact["n_masks"].sum() == 600


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


def test_aggregate_holds_what_correlate_needs(finished):
    for artifact, smh in zip(
        finished.study.read("aggregate"), finished.study.read("smh"), strict=True
    ):
        n_rows, steps = artifact["smh"].shape
        assert artifact["smx_max2d_halves"].shape == (3, 2, n_rows, steps)
        assert artifact["ca_mean"].shape == (n_rows, steps)
        total = smh["occluded_sum"].sum(axis=0) / smh["occluded_count"].sum(axis=0)[:, None]
        np.testing.assert_allclose(artifact["smh"], total.T, rtol=1e-6)
        assert artifact["n_masks_smx"] == 600
        assert artifact.meta["parameters"]["smx"]["n_segments"] == [400, 800]


def test_deletion_ends_are_the_same_for_every_map(finished):
    for artifact, text in zip(finished.study.read("deletion"), TEXTS.values(), strict=True):
        assert artifact["maps"].tolist() == list(map_names(POOLINGS))
        assert artifact["percents"].tolist() == PERCENTS
        hypotheses = artifact["hypotheses"]
        assert hypotheses.shape == (7, 11)
        assert set(hypotheses[:, 0]) == {text}
        assert len(set(hypotheses[:, -1])) == 1
        assert hypotheses[0, -1] != text
        assert artifact["modes"].tolist() == ["deletion", "insertion"]
        deleted, inserted = artifact["log_probs"]  # (map, percent)
        # All inserted is nothing deleted.
        assert len(set(deleted[:, 0]) | set(inserted[:, -1])) == 1
        assert len(set(deleted[:, -1]) | set(inserted[:, 0])) == 1
        assert (deleted[:, 0] > deleted[:, -1]).all()


def test_probability_of_the_hypothesis_at_the_ends(finished):
    """At 0 % it is that of decoding; the geometric mean of what the tokens have."""
    curves = finished.study.scores().curves
    decoded = [one["log_probs"].mean(dtype=float) for one in finished.study.read("decode")]
    for mode, percent in (("deletion", 0), ("insertion", 100)):
        whole = {"map": "ca_mean", "mode": mode, "percent": percent}
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


def test_insertion_is_decoded_when_asked_for(study):
    for step in (study.decode, study.attention, study.smx, study.smh, study.aggregate):
        step()
    study.deletion(maps=("smx_full", "random"))
    before, model = study.read("deletion"), study.handle.model
    assert all("insertion_hypotheses" not in one.arrays for one in before)
    model.calls.clear()
    study.deletion(maps=("smx_full", "random"), search=replace(SEARCH, insertion=True))
    # Deletions and both ends are in the store.
    assert model.calls["generate"] == 2 * 2 * (len(PERCENTS) - 2)
    for old, new in zip(before, study.read("deletion"), strict=True):
        np.testing.assert_array_equal(new["hypotheses"], old["hypotheses"])
        np.testing.assert_array_equal(new["log_probs"], old["log_probs"])
        inserted = new["insertion_hypotheses"]
        assert set(inserted[:, 0]) == set(old["hypotheses"][:, -1])
        assert set(inserted[:, -1]) == set(old["hypotheses"][:, 0])
    areas = study.scores().areas
    wer = areas[(areas["metric"] == "wer") & (areas["mode"] == "insertion")].set_index("map")
    # The words are there as soon as the cells that hold them are.
    assert wer.at["smx_full", "auc"] < wer.at["random", "auc"] - 10
    log_prob = areas[areas["metric"] == "log_prob"].set_index(["mode", "map"])["auc"]
    assert log_prob["deletion", "smx_full"] < log_prob["deletion", "random"]
    assert log_prob["insertion", "smx_full"] > log_prob["insertion", "random"]


def test_curves_and_areas(finished):
    tables = finished.study.scores()
    assert not tables.curves.duplicated(["map", "mode", "percent", "metric"]).any()
    probable = tables.curves["metric"].isin(["log_prob", "probability"])
    assert probable.sum() == 2 * 2 * 7 * 11
    table = tables.curves[~probable]
    assert set(table["mode"]) == {"deletion"}
    assert len(table) == 2 * 7 * 11
    assert (table[table["percent"] == 0]["score"] == 0).all()
    wer = table[table["metric"] == "wer"].pivot(index="map", columns="percent", values="score")
    assert wer[100].nunique() == 1
    found = tables.areas
    assert len(found) == 2 * 7 + 2 * 2 * 7
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


def test_mixed_hypotheses_are_refused(finished, tmp_path):
    decoded, attention, smx, smh = (
        finished.study.read(step) for step in ("decode", "attention", "smx", "smh")
    )
    other = [replace(one, meta=one.meta | {"hypothesis_sha256": "0" * 64}) for one in smh]
    with pytest.raises(UserError, match="hypothesis_sha256 differs"):
        aggregate_shard(tmp_path, decoded, attention, smx, other, poolings=POOLINGS)


def test_a_second_run_never_loads_the_model(finished):
    second = again(finished, "second", model=None)
    second.everything()
    assert second.files() == finished.study.files()
    assert len(second.files()) == 6 * 2


def test_other_batches_change_no_mask(finished, tmp_path):
    other = Study(tmp_path, finished.study.utterances, WordModel())
    other.decode()
    other.smx(batch_size=7)
    other.smh(batch_size=5)
    for step in ("smx", "smh"):
        for one, same in zip(other.read(step), finished.study.read(step), strict=True):
            for name in Statistics.from_mapping(one.arrays).arrays():
                np.testing.assert_allclose(one[name], same[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("fewer", "more"), [(128, 256), (40, 100)])
@pytest.mark.parametrize(("step", "unit"), [("smx", "encode"), ("smh", "decode")])
def test_more_masks_run_only_what_is_missing(study, step, unit, fewer, more):
    """Also where the first ones end within a batch: both have the same bits."""
    study.decode()
    model = study.handle.model
    getattr(study, step)(n_masks=fewer, batch_size=16)
    model.calls.clear()
    getattr(study, step)(n_masks=more, batch_size=16)
    # Each of the two utterances: those masks, and the unperturbed input.
    assert model.calls[unit] == 2 * (more - fewer + 1)
    extended = study.files()
    fresh = Study(study._results.parent / "fresh", study.utterances, WordModel())
    fresh.decode()
    getattr(fresh, step)(n_masks=more, batch_size=16)
    assert fresh.files() == extended


def test_slow_writing_comes_less_often(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("s2txai.steps.masked.time.monotonic", lambda: now[0])
    clock = CheckpointClock()

    def seconds_until_due():
        started = now[0]
        while not clock.due:
            now[0] += 0.5
        return now[0] - started

    assert seconds_until_due() == 5
    for cost, expected in ((0.01, 5), (0.1, 10), (0.2, 20), (60, 30), (0, 5)):
        with clock.writing():
            now[0] += cost
        assert seconds_until_due() == pytest.approx(expected, abs=0.5)


def test_outputs_that_are_no_numbers_never_reach_the_store(study, monkeypatch):
    """As of a network that overflows in float16 under some mask."""
    monkeypatch.setattr("s2txai.steps.masked.SECONDS_BETWEEN_CHECKPOINTS", 0)
    study.decode()
    model, decode = study.handle.model, WordModel.decode
    passes = 0

    def overflowing(states, prompt, tokens):
        nonlocal passes
        passes += 1
        logits = decode(model, states, prompt, tokens)
        return logits * torch.nan if passes == 4 else logits

    model.decode = overflowing
    study.smh()
    failed = failures(study.place("smh").output, [one.id for one in study.utterances])
    assert ["not finite on this input" in one.message for one in failed] == [True]
    del model.decode
    study.smh()
    assert all(np.isfinite(one["occluded_sum"]).all() for one in study.read("smh"))
    assert [one["n_masks"].sum() for one in study.read("smh")] == [600, 600]


def test_a_killed_step_continues_at_its_last_checkpoint(study, monkeypatch):
    monkeypatch.setattr("s2txai.steps.masked.SECONDS_BETWEEN_CHECKPOINTS", 0)
    study.decode()
    model, decode = study.handle.model, WordModel.decode
    passes = 0

    def killed(states, prompt, tokens):
        nonlocal passes
        passes += 1
        if passes == 9:
            raise KeyboardInterrupt
        return decode(model, states, prompt, tokens)

    model.decode = killed
    with pytest.raises(KeyboardInterrupt):
        study.smh()
    del model.decode
    model.calls.clear()
    study.smh()
    # 9 passes of 64 masks: one for the unperturbed input, 7 done, one killed.
    assert model.calls["decode"] == (600 - 7 * 64 + 1) + (600 + 1)
    whole = Study(study._results.parent / "whole", study.utterances, WordModel())
    whole.decode()
    whole.smh()
    assert whole.files() == study.files()


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


def masks_told(study, step):
    return {artifact.meta["utterance"]: artifact.meta["masks"] for artifact in study.read(step)}


def test_masks_are_added_until_the_target_is_reached(study):
    study.decode()
    design = {"n_masks": 64, "batch_size": 64, "max_masks": 4000}
    study.smh(**design, target_reliability=0.9)
    told = masks_told(study, "smh")
    for utterance, masks in told.items():
        assert masks["converged"] is True
        assert masks["reliability"] >= 0.9
        assert masks["n_masks"] % 64 == 0
        assert 64 < masks["n_masks"] < 4000, utterance
    # With one chunk less the target was not reached.
    fewer = Study(study._results.parent / "fewer", study.utterances, WordModel())
    fewer.decode()
    n_masks = told["five"]["n_masks"] - 64
    fewer.smh(n_masks=n_masks, batch_size=64)
    plain = masks_told(fewer, "smh")["five"]
    assert plain["reliability"] < 0.9
    assert plain["target_reliability"] is plain["converged"] is None


def test_the_search_for_the_target_ends(study, caplog):
    study.decode()
    study.smh(n_masks=64, max_masks=160, target_reliability=0.99)
    for masks in masks_told(study, "smh").values():
        assert masks["n_masks"] == 160
        assert masks["converged"] is False
    assert "reliability" in caplog.text
    assert "under the target of 0.99: raise max_masks." in caplog.text


def test_a_target_counts_the_masks_of_the_store(study):
    study.decode()
    study.smh(n_masks=64, max_masks=4000, target_reliability=0.9, batch_size=64)
    in_one_go = study.files()
    steps = Study(study._results.parent / "steps", study.utterances, WordModel())
    steps.decode()
    steps.smh(n_masks=64, batch_size=64)
    model = steps.handle.model
    model.calls.clear()
    steps.smh(n_masks=64, max_masks=4000, target_reliability=0.9, batch_size=64)
    assert steps.files() == in_one_go
    added = sum(masks["n_masks"] - 64 for masks in masks_told(steps, "smh").values())
    # The unperturbed input is decoded once for every chunk.
    assert model.calls["decode"] == added + added // 64


def test_the_job_tells_where_and_how_it_worked(study):
    study.decode()
    study.smx(batch_size="auto")
    (folder,) = {path.parent for path in study._results.glob("smx/*/*.npz")}
    for utterance in study.ids:
        told = json.loads((folder / f"{utterance}.job.json").read_text())
        assert told["host"]
        assert told["device"] == "cpu"
        assert 1 <= told["batch_size"] <= 16
        assert told["masks_computed"] == 600
        assert told["seconds"] > 0
        meta = json.dumps(load(folder / f"{utterance}.npz").meta)
        assert told["host"] not in meta
        assert "batch" not in meta
    study.smx()
    told = json.loads((folder / "five.job.json").read_text())
    assert told["masks_computed"] == 0


def test_running_out_of_memory_halves_the_batch(study, caplog):
    study.decode()
    study.smh()
    expected = [artifact["occluded_sum"] for artifact in study.read("smh")]
    cramped = Study(study._results.parent / "cramped", study.utterances, WordModel())
    cramped.decode()
    model, decode = cramped.handle.model, WordModel.decode
    largest = []

    def decode_few(states, prompt, tokens):
        if len(states) > 20:
            torch.empty(2**50, dtype=torch.float64)  # what running out looks like
        largest.append(len(states))
        return decode(model, states, prompt, tokens)

    model.decode = decode_few
    cramped.smh()
    assert max(largest) == 16  # 64, 32, 16
    assert caplog.text.count("Out of memory") == 2  # the next utterance begins with what fitted
    for found, wanted in zip(cramped.read("smh"), expected, strict=True):
        np.testing.assert_array_equal(found["occluded_sum"], wanted)


@pytest.mark.parametrize("batch_size", [32, "auto"])
def test_an_input_that_does_not_fit_by_itself_is_a_sentence(study, batch_size):
    study.decode()

    def no_memory(states, prompt, tokens):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    study.handle.model.decode = no_memory
    with pytest.raises(UserError, match="not even hold a forward pass of one input"):
        study.smx(batch_size=batch_size)


@pytest.mark.parametrize(
    ("step", "change"),
    [
        ("smx", {"seed": 2}),
        ("smx", {"p": 0.4}),
        ("smx", {"n_segments": [400]}),
        ("smh", {"seed": 2}),
        ("smh", {"p": 0.4}),
    ],
)
def test_other_parameters_are_other_work(finished, tmp_path, step, change):
    other = Study(tmp_path, finished.study.utterances, WordModel())
    other._store = finished.study._store
    other.decode()
    other.handle = Handle(None)
    getattr(other, step)()
    with pytest.raises(AssertionError, match="the model was loaded"):
        getattr(other, step)(**change)


def test_other_weights_audio_or_precision_are_other_work(finished):
    for changed in ("sha256", "precision"):
        other = again(finished, f"other-{changed}")
        setattr(other.handle, changed, "other")
        with pytest.raises(AssertionError, match="the model was loaded"):
            other.decode()


def test_changed_audio_under_the_same_name_is_decoded_again(study):
    study.decode()
    write_speech(study.utterances[0].path, "south south north east", seed=5)
    study.decode()
    assert [str(one["text"]) for one in study.read("decode")] == [
        "south south north east",
        TEXTS["four"],
    ]


def test_one_more_map_decodes_only_that_map(study):
    for step in (study.decode, study.attention, study.smx, study.smh, study.aggregate):
        step()
    model = study.handle.model
    study.deletion(maps=("ca_mean", "random"))
    before = study.read("deletion")
    model.calls.clear()
    study.deletion(maps=("ca_mean", "smx_full", "random"))
    inner = len(PERCENTS) - 2  # both ends are known
    assert model.calls["generate"] == 2 * inner
    for old, new in zip(before, study.read("deletion"), strict=True):
        assert new["maps"].tolist() == ["ca_mean", "smx_full", "random"]
        np.testing.assert_array_equal(new["hypotheses"][[0, 2]], old["hypotheses"])


def test_another_pooling_needs_no_model(finished):
    other = again(finished, "pooling")
    for step in (other.decode, other.attention, other.smx, other.smh):
        step()
    other.aggregate(poolings=("max_freq_avg_time",))
    assert all("smx_max_freq_avg_time" in one.arrays for one in other.read("aggregate"))


def test_tables_of_a_run(finished, tmp_path):
    study = finished.study
    run = Run("toys", "words", TASK, tuple(study.utterances), shards(study.ids, 8))
    artifacts = load_shards(run, [study._results / "decode" / "0000"], "decode")
    assert [one.meta["utterance"] for one in artifacts] == study.ids
    write_table(study.correlate().summary, run, tmp_path / "new" / "summary.csv")
    read = pd.read_csv(tmp_path / "new" / "summary.csv")
    assert list(read.columns[:3]) == ["dataset", "model", "task"]
    assert set(read["dataset"]) == {"toys"}
    assert set(read["task"]) == {"asr-en"}
