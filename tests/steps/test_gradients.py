"""The step grad and what later steps make of it: a toy, and a Whisper of random weights."""

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile

from s2txai.datasets import read_manifest, select
from s2txai.report.page import ReportContext, write_report
from s2txai.report.runs import RunFiles
from s2txai.report.show import describe_file, draw_file, show
from s2txai.saliency import gradients
from s2txai.saliency.deletion_maps import map_names
from s2txai.saliency.design import MaskDesign
from s2txai.saliency.heard import Heard
from s2txai.saliency.masks import occlusion
from s2txai.saliency.methods import METHODS
from s2txai.steps.correlate import correlation_tables
from s2txai.steps.deletion import DeletionDesign
from s2txai.steps.deletion_curves import deletion_tables
from s2txai.storage.artifacts import load
from s2txai.study.plan import Run
from tests.studies import POOLINGS, TASK, TEXTS, Study, write_corpus, write_tables_of_run
from tests.synthetic_results import paths_in
from tests.tiny_whisper import tiny_whisper
from tests.toy import WordModel
from tests.weights import ROOT

SCORING = {"text_normalisation": "whisper"}
KEY = ("toys", "words", "asr-en")


def run_all(study, methods, n_masks=64):
    """Run every step with some gradient methods, and return the study."""
    study.decode(beam=2)
    study.attention()
    study.smx(n_masks=n_masks)
    study.smh(n_masks=n_masks, batch_size=32)
    for method in methods:
        study.gradient(method)
    study.aggregate(methods=methods)
    design = DeletionDesign(beam=1, percents=[0, 50, 100], seed=0)
    study.deletion(design, methods=methods, batch_size=8)
    return study


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    root = tmp_path_factory.mktemp("toy")
    study = Study(root, write_corpus(root), WordModel())
    return run_all(study, list(METHODS), n_masks=2000)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """All steps with random weights; half a second of noise."""
    root = tmp_path_factory.mktemp("whisper")
    samples = 0.1 * np.random.default_rng(0).standard_normal(8000)
    soundfile.write(root / "noise.wav", samples, 16000)
    (root / "manifest.tsv").write_text(
        "id\tpath\tlanguage\ttranscript\nnoise\tnoise.wav\ten\tword1 word2"
    )
    utterances = select(read_manifest(root / "manifest.tsv"), TASK)
    return run_all(Study(root, utterances, tiny_whisper()), list(METHODS), n_masks=16)


@pytest.fixture
def study(tmp_path):
    study = Study(tmp_path, write_corpus(tmp_path), WordModel())
    study.decode(beam=2)
    return study


# The step


def test_the_planted_step_stands_out_in_every_method(toy):
    for artifact in toy.read("aggregate"):
        n_words = len(artifact["tokens"]) - 1
        for method in METHODS:
            best = np.abs(artifact[method][:n_words]).argmax(axis=1)
            assert best.tolist() == [4 * row + 1 for row in range(n_words)], method


def test_masks_are_not_those_of_smx(toy):
    for smx, grad in zip(toy.read("smx"), toy.read("grad"), strict=True):
        names = [one.meta["masks"]["segmentations"] for one in (smx, grad)]
        assert not set(names[0]) & set(names[1])
        assert len(names[0]) == len(names[1])
        np.testing.assert_array_equal(smx["segments"], grad["segments"])
        # Half of the segments agree by chance.
        masks = [
            occlusion(
                seed=1, utterance=smx.meta["utterance"], segmentation=name[0],
                start=0, stop=32, n_segments=200, p=0.5,
            )
            for name in names
        ]  # fmt: skip
        assert np.mean(masks[0] == masks[1]) == pytest.approx(0.5, abs=0.03)


def test_more_masks_run_only_what_is_missing(study):
    model = study.handle.model
    study.gradient("grad", n_masks=32)
    model.calls.clear()
    study.gradient("grad", n_masks=64)
    # Each of the two utterances: 32 more, and the unperturbed input.
    assert model.calls["encode"] == 2 * (32 + 1)
    extended = study.files("grad")
    fresh = Study(study.results.parent / "fresh", study.utterances, model)
    fresh.decode(beam=2)
    fresh.gradient("grad", n_masks=64)
    assert fresh.files("grad") == extended
    for artifact in study.read("grad"):
        np.testing.assert_array_equal(artifact["n_masks"], 8)
        assert artifact.meta["masks"]["n_masks"] == 64
        assert 0 <= artifact.meta["masks"]["reliability"] <= 1
    study.gradient("grad", n_masks=16)
    assert study.files("grad") == extended


def test_a_killed_step_continues_at_its_last_checkpoint(study, monkeypatch):
    monkeypatch.setattr("s2txai.steps.masked.SECONDS_BETWEEN_CHECKPOINTS", 0)
    model, passes = study.handle.model, 0
    whole = model.differentiable_logits

    def killed(*inputs):
        nonlocal passes
        passes += 1
        if passes == 6:
            raise KeyboardInterrupt
        return whole(*inputs)

    model.differentiable_logits = killed
    with pytest.raises(KeyboardInterrupt):
        study.gradient("grad", batch_size=8)
    model.differentiable_logits = whole
    model.calls.clear()
    study.gradient("grad", batch_size=8)
    # Of the first utterance the unperturbed input and 4 passes of 8 masks were done.
    assert model.calls["encode"] == (64 - 4 * 8 + 1) + (64 + 1)
    once = Study(study.results.parent / "once", study.utterances, model)
    once.decode(beam=2)
    once.gradient("grad", batch_size=8)
    assert once.files("grad") == study.files("grad")


@pytest.mark.parametrize("method", list(METHODS))
def test_a_second_run_never_loads_the_model(toy, method):
    again = Study(toy.results.parent, toy.utterances, None, "again")
    again.decode(beam=2)
    again.gradient(method)
    assert again.files(method) == toy.files(method)


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("grad", {"seed": 2}),
        ("grad", {"p": 0.4}),
        ("grad", {"n_segments": (400,)}),
        ("integrated_gradients", {"n_points": 9}),
    ],
)
def test_other_parameters_are_other_work(toy, method, change):
    other = Study(toy.results.parent, toy.utterances, None, "other")
    other.decode(beam=2)
    with pytest.raises(AssertionError, match="the model was loaded"):
        other.gradient(method, **change)


def test_the_batch_is_settled_by_memory_where_it_is_automatic(whisper):
    found = whisper.read("grad")
    other = Study(whisper.results.parent / "auto", whisper.utterances, whisper.handle.model)
    other.decode(beam=2)
    other.gradient("grad", batch_size="auto")
    for one, same in zip(other.read("grad"), found, strict=True):
        np.testing.assert_allclose(
            one["segment_sum"], same["segment_sum"], atol=1e-5 * np.abs(same["segment_sum"]).max()
        )


def test_without_the_step_the_bits_are_the_same(toy):
    """What the library makes of an utterance is what the step writes."""
    design = MaskDesign(64, n_segments=(400, 800), p=0.5, seed=1)
    for decoded, written in zip(toy.read("decode"), toy.read("grad"), strict=True):
        found = gradients.grad(
            toy.handle.model, Heard.of(decoded), design,
            utterance=decoded.meta["utterance"], batch_size=16,
        )  # fmt: skip
        for name, array in found.arrays().items():
            assert array.tobytes() == written[name].tobytes()


# Later steps


def test_listed_methods_change_no_other_number(toy):
    without = Study(toy.results.parent, toy.utterances, toy.handle.model, "without")
    run_all(without, [], n_masks=2000)
    for one, other in zip(toy.read("aggregate"), without.read("aggregate"), strict=True):
        assert set(one.arrays) - set(other.arrays) == {
            "grad", "grad_halves", "n_masks_grad", "input_x_gradient", "integrated_gradients",
        }  # fmt: skip
        for name, array in other.arrays.items():
            np.testing.assert_array_equal(one[name], array)
        assert "grad" not in json.dumps(other.meta)
    full, part = (
        correlation_tables(study.read("aggregate"), poolings=POOLINGS, rows="all")
        for study in (toy, without)
    )
    for name in ("utterances", "summary", "reliability"):
        table, expected = getattr(full, name), getattr(part, name)
        kept = table[~table["saliency"].isin(list(METHODS))].reset_index(drop=True)
        assert kept.to_csv() == expected.to_csv()
    assert full.mixing.to_csv() == part.mixing.to_csv()
    for one, other in zip(toy.read("deletion"), without.read("deletion"), strict=True):
        kept = [name in other["maps"].tolist() for name in one["maps"].tolist()]
        np.testing.assert_array_equal(one["hypotheses"][kept], other["hypotheses"])


def test_aggregate_pools_and_keeps_signs(toy):
    for artifact, grad, found in zip(
        toy.read("aggregate"), toy.read("grad"), toy.read("input_x_gradient"), strict=True
    ):
        cells = found["map"]
        steps = cells.reshape(len(cells), -1, 2 * cells.shape[2]).mean(axis=2)
        np.testing.assert_allclose(artifact["input_x_gradient"], steps, rtol=1e-5, atol=1e-9)
        assert artifact["grad_halves"].shape == (3, 2, *artifact["grad"].shape)
        np.testing.assert_allclose(
            artifact["grad_halves"].mean(axis=(0, 1)), artifact["grad"], atol=1e-6
        )
        assert artifact["n_masks_grad"] == 64
        assert artifact.meta["masks"]["grad"] == grad.meta["masks"]
        assert artifact.meta["parameters"]["integrated_gradients"]["n_points"] == 8


def test_maps_without_masks_need_no_correction_and_grad_has_an_exact_one(toy):
    tables = correlation_tables(toy.read("aggregate"), poolings=POOLINGS, rows="all")
    summary = tables.summary[tables.summary["attention"] == "ca_head"]
    assert set(summary["saliency"]) == {"smx_avg2d", "smx_max2d", "smh", *METHODS}
    for method in ("input_x_gradient", "integrated_gradients"):
        rows = summary[summary["saliency"] == method]
        assert set(rows["ceiling_kind"]) == {"deterministic"}
        assert (rows[["reliability", "ceiling"]] == 1).all(axis=None)
        np.testing.assert_array_equal(rows["rho_corrected"], rows["rho"])
        assert "n_masks" not in rows["signature"].iloc[0]
    grad = summary[(summary["saliency"] == "grad") & (summary["metric"] == "pearson")]
    assert set(grad["ceiling_kind"]) == {"exact"}
    assert "n_masks:64" in grad["signature"].iloc[0]
    # The head that attends to the step that is read, and the one that looks away.
    headline = summary[(summary["metric"] == "pearson") & (summary["normalise"] == "token")]
    for method in METHODS:
        read, away = headline[headline["saliency"] == method].sort_values("head")["rho"]
        assert abs(read) > 0.5, method
        assert abs(away) < 0.2, method
    assert set(tables.masks["step"]) == {"smx", "smh", "grad"}


def test_a_map_that_is_constant_in_one_method_drops_its_row_there_alone(toy):
    artifact = toy.read("aggregate")[0]
    artifact.arrays["input_x_gradient"][0] = 0.5
    tables = correlation_tables([artifact], poolings=POOLINGS, rows="all")
    counts = tables.utterances.groupby("saliency")["n_rows"].first()
    assert counts["input_x_gradient"] == counts["grad"] - 1 == counts["smx_avg2d"] - 1


def test_deletion_orders_cells_by_the_full_maps(toy):
    tables = deletion_tables(list(TEXTS.values()), toy.read("deletion"), TASK, **SCORING)
    assert tables.curves["map"].unique().tolist() == list(map_names(POOLINGS, list(METHODS)))
    auc = tables.areas
    auc = auc[auc["metric"] == "wer"].set_index("map")
    for method in METHODS:
        assert auc.loc[method, "auc"] > auc.loc["random", "auc"]
    signatures = auc["signature"]
    assert "n_segments:400,800" in signatures["grad"]
    assert "n_masks:64" in signatures["grad"]
    assert "n_points:8" in signatures["integrated_gradients"]
    for name in ("ca_mean", "random", "input_x_gradient"):
        assert "n_masks" not in signatures[name]
        assert "n_points" not in signatures[name]


def test_whisper_goes_through_all_steps(whisper):
    (artifact,) = whisper.read("aggregate")
    n_rows, steps = artifact["smh"].shape
    for method in METHODS:
        assert artifact[method].shape == (n_rows, steps)
        assert np.isfinite(artifact[method]).all()
        assert artifact[method].min() < 0 < artifact[method].max()
    (deleted,) = whisper.read("deletion")
    assert deleted["maps"].tolist() == list(map_names(POOLINGS, list(METHODS)))


# What people read


@pytest.mark.parametrize("method", list(METHODS))
def test_show(toy, method, tmp_path):
    text = show(toy.results / method / "0000" / "five.npz", tmp_path / "map.png")
    assert f"step        {method}" in text
    assert (tmp_path / "map.png").stat().st_size > 10_000
    assert ("masks       64" in text) == (method == "grad")


@pytest.mark.parametrize("method", list(METHODS))
def test_a_method_that_no_registry_knows_has_the_same_figure(toy, method):
    """As of an extension: ``s2txai show`` is given a file, not a configuration."""
    artifact = load(toy.results / method / "0000" / "five.npz")
    foreign = replace(artifact, meta={**artifact.meta, "step": "of_an_extension"})
    text = describe_file(foreign)
    assert text.replace("of_an_extension", method) == describe_file(artifact)
    figure = draw_file(foreign)
    assert (
        figure.axes[0].get_title("left") == "of_an_extension at full resolution, mean over tokens"
    )


def test_the_page_shows_every_method(toy, tmp_path):
    run = Run(*KEY[:2], TASK, tuple(toy.utterances), {"0000": toy.ids})
    write_tables_of_run(toy.read, run, toy.results, poolings=POOLINGS, **SCORING)
    context = ReportContext(
        config={}, versions={}, git_commit="",
        models={"words": {"family": "toy", "description": "", "licence": "", "source": {}}},
        datasets={"toys": {"manifest": "m.tsv", "description": "", "licence": ""}},
        paper_reference=ROOT / "config" / "paper_reference.csv",
    )  # fmt: skip
    recordings = {one.id: one for one in toy.utterances}
    files = RunFiles(*KEY, toy.results, run.shards, recordings)
    write_report([files], paths_in(tmp_path), context)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    for name in ("GRAD", "input × gradient", "integrated gradients"):
        assert page.count(name) > 3, name
    assert "by definition: the map is made without random masks" in page
    sweep = (tmp_path / "sweep.csv").read_text().splitlines()[0].split(",")
    for method in METHODS:
        assert {f"rho_{method}", f"signature_{method}", f"auc_{method}"} <= set(sweep)
