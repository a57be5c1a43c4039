"""The Python API: the workflow's numbers, without the workflow."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure

import s2txai
from s2txai.errors import UserError
from s2txai.saliency.aggregation import AGGREGATIONS, Aggregation
from s2txai.saliency.pooling import POOLINGS, Pooling, pool
from s2txai.saliency.statistics import heatmap
from tests.studies import TEXTS, Study, write_corpus
from tests.toy import PLANTED, SAMPLING_RATE, WordModel, n_words
from tests.weights import ROOT, model_directory

MASKS = {"n_segments": (400, 800), "n_masks": 96, "n_smh_masks": 120, "seed": 1}
DESIGN = {"p": 0.5, "seed": 1, "n_masks": 96, "n_segments": [400, 800], "batch_size": 32}


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    root = tmp_path_factory.mktemp("recordings")
    return next(utterance.path for utterance in write_corpus(root) if utterance.id == "five")


@pytest.fixture(scope="module")
def explanation(recording):
    return s2txai.explain(WordModel(), recording, "asr-en", utterance="five", **MASKS)


def test_what_an_explanation_holds(explanation):
    words = TEXTS["five"].split()
    I, steps = len(words) + 1, 4 * len(words)
    assert explanation.text == TEXTS["five"]
    assert explanation.pieces == [*(f" {word}" for word in words), "<eos>"]
    assert len(explanation.tokens) == I
    assert explanation.cross_attention.shape == (1, 2, I, steps)
    for values in (explanation.smx(), explanation.smx("max2d"), explanation.smh()):
        assert values.shape == (I, steps)
        assert values.dtype == np.float32
    assert explanation.smx(None).shape == (I, *explanation.decoded["features"].shape)
    np.testing.assert_array_equal(
        explanation.smx("avg2d"),
        pool(heatmap(explanation.smx_statistics), "avg2d", 2, steps).astype(np.float32),
    )


def test_the_bits_are_those_of_the_workflow(explanation, tmp_path):
    study = Study(tmp_path, write_corpus(tmp_path), WordModel())
    study.decode()
    study.attention()
    study.smx(**DESIGN, encoder="auto")
    study.smh(p=0.5, seed=1, n_masks=120, batch_size=64)
    parts = {
        "decode": explanation.decoded,
        "attention": explanation.attention,
        "smx": explanation.smx_statistics.arrays(),
        "smh": explanation.smh_statistics.arrays(),
    }
    for step, arrays in parts.items():
        artifact = next(one for one in study.read(step) if one.meta["utterance"] == "five")
        assert artifact.arrays.keys() == arrays.keys()
        for name, values in artifact.arrays.items():
            assert values.tobytes() == np.asarray(arrays[name]).tobytes(), (step, name)
    study.aggregate()
    table = study.correlate().utterances
    table = table[(table["utterance"] == "five") & (table["metric"] == "pearson")]
    for normalise in ("token", "none", "frame"):
        for saliency in ("smx_avg2d", "smx_max2d", "smh"):
            rows = table[(table["normalise"] == normalise) & (table["saliency"] == saliency)]
            rows = rows.set_index(["attention", "head"])
            rho = explanation.rho(saliency, normalise=normalise)
            assert rho == rows.loc["ca_mean", "value"].item()
            head = explanation.rho(saliency, f"ca_head_0_{PLANTED}", normalise=normalise)
            assert head == rows.loc[("ca_head", PLANTED), "value"]
            if saliency != "smx_max2d":
                reliability = explanation.reliability(saliency, normalise=normalise)
                assert reliability == rows.loc["ca_mean", "reliability"].item()
                ceiling = explanation.ceiling(saliency, normalise=normalise)
                assert ceiling == rows.loc["ca_mean", "ceiling"].item()


def test_smx_is_short_for_its_mean(explanation):
    assert explanation.rho("smx") == explanation.rho("smx_avg2d")
    assert explanation.reliability("smx") == explanation.reliability("smx_avg2d")
    assert explanation.ceiling("smx") == pytest.approx(explanation.reliability("smx") ** 0.5)
    spearman = explanation.ceiling("smh", metric="spearman")
    assert 0 < spearman < 1
    assert np.isnan(explanation.reliability("smh", metric="spearman"))


def test_an_array_is_heard_as_its_file_is(explanation, recording):
    samples, rate = soundfile.read(recording, dtype="int16")
    for array in (samples, samples / 32768, np.stack([samples, samples], axis=1)):
        again = s2txai.explain(
            WordModel(), array, "asr-en", sampling_rate=rate, utterance="five", **MASKS
        )
        np.testing.assert_array_equal(again.smx(None), explanation.smx(None))


def test_another_utterance_or_seed_draws_other_masks(explanation, recording):
    for change in ({"utterance": "four"}, {"seed": 2}):
        options = {**MASKS, "utterance": "five", **change}
        again = s2txai.explain(WordModel(), recording, "asr-en", **options)
        assert not np.array_equal(again.smx(), explanation.smx())


def test_saved_and_loaded(explanation, tmp_path):
    explanation.save(tmp_path / "five.npz")
    again = s2txai.Explanation.load(tmp_path / "five.npz")
    assert again.text == explanation.text
    assert again.rho("smx") == explanation.rho("smx")
    np.testing.assert_array_equal(again.smh(), explanation.smh())
    np.testing.assert_array_equal(again.cross_attention, explanation.cross_attention)
    with np.load(tmp_path / "five.npz", allow_pickle=False) as arrays:
        assert "attention.cross_attention" in arrays.files
    assert again.parameters == explanation.parameters
    explanation.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "five.npz").read_bytes()


def test_files_of_steps_are_no_explanations(tmp_path):
    study = Study(tmp_path, write_corpus(tmp_path), WordModel())
    study.decode()
    path = study.read("decode")[0].path
    with pytest.raises(UserError, match="made by the step 'decode'"):
        s2txai.Explanation.load(path)


def test_progress_counts_all_masks(recording):
    calls = []
    s2txai.explain(
        WordModel(), recording, "asr-en", batch_size=40, progress=lambda *args: calls.append(args),
        **MASKS,
    )  # fmt: skip
    assert calls[-1] == ("smh", 120, 120)
    assert [done for step, done, _ in calls if step == "smx"][-1] == 96
    assert all(0 < done <= total for _, done, total in calls)


@pytest.mark.parametrize("token", [None, 0, 3, -1])
def test_figures(explanation, token, tmp_path):
    figure = explanation.plot(token=token)
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "figure.png")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    if token == -1:
        assert titles[1].startswith("Token 5:")
    assert any("Spectrogram" in title for title in titles)


def test_mistakes_are_sentences(explanation, recording, tmp_path, monkeypatch):
    model = WordModel()
    with pytest.raises(UserError, match="sampling_rate"):
        s2txai.explain(model, np.ones(SAMPLING_RATE), "asr-en")
    with pytest.raises(UserError, match="nothing but silence"):
        s2txai.explain(model, np.zeros(SAMPLING_RATE), "asr-en", sampling_rate=SAMPLING_RATE)
    with pytest.raises(UserError, match=r"0\.010 s of audio"):
        s2txai.explain(model, np.ones(80), "asr-en", sampling_rate=SAMPLING_RATE)
    with pytest.raises(UserError, match="floats or signed integers"):
        s2txai.explain(model, np.ones(8000, np.uint8), "asr-en", sampling_rate=SAMPLING_RATE)
    with pytest.raises(UserError, match=r"Unknown map 'smy'.*smx_avg2d"):
        explanation.rho("smy")
    for name in ("ca_layer_7", "ca_head_0", "sa_mean", "ca_layer_x", "ca", "ca_nothing"):
        with pytest.raises(UserError, match=f"Unknown attention '{name}'"):
            explanation.rho("smx", name)
    with pytest.raises(UserError, match="Unknown pooling"):
        explanation.smx("avg3d")
    with pytest.raises(UserError, match="Unknown metric"):
        explanation.rho("smx", metric="pearsons")
    with pytest.raises(UserError, match="There is no token 6"):
        explanation.plot(token=6)
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=r"did you mean 'whisper-tiny\.en'"):
        s2txai.load_model("whisper-tinyen")
    monkeypatch.setattr("s2txai.study.checkout.find_checkout", lambda: None)
    with pytest.raises(UserError, match=r"There is no folder 'whisper-tiny\.en'"):
        s2txai.load_model("whisper-tiny.en")


def test_a_checkout_is_found_from_below_and_else_is_that_of_the_package(tmp_path):
    from s2txai.study.checkout import find_checkout

    assert find_checkout(ROOT / "docs") == ROOT
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "models.yaml").touch()
    (tmp_path / "Snakefile").touch()
    (tmp_path / "notebooks").mkdir()
    assert find_checkout(tmp_path / "notebooks") == tmp_path


def test_importing_the_package_imports_no_torch():
    code = "import sys, s2txai; print('torch' in sys.modules, sorted(dir(s2txai)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False ['Explanation', '__version__', 'explain', 'load_model']"
    with pytest.raises(AttributeError, match="no attribute 'explian'"):
        _ = s2txai.explian


def test_planted_attention_agrees_more_than_misplaced(explanation):
    assert explanation.rho("smh", f"ca_head_0_{PLANTED}") > 0.5
    assert explanation.rho("smh", "ca_head_0_1") < 0.1
    assert n_words(explanation.cross_attention.shape[-1]) == 5


def test_the_page_of_the_library_runs(explanation, recording, tmp_path, monkeypatch):
    """Word for word, on a model whose saliency is known."""
    page = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    first, second = (block.split("```")[0] for block in page.split("```python\n")[1:])
    (tmp_path / "talk.wav").write_bytes(Path(recording).read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("s2txai.api.load_model", lambda folder: WordModel())
    names = {}
    exec(compile(first, "docs/library.md", "exec"), names)
    exec(compile(second, "docs/library.md", "exec"), names)
    assert names["explanation"].text == TEXTS["five"]
    assert names["statistics"].total_masks == 800
    I, steps = len(TEXTS["five"].split()) + 1, explanation.smh().shape[1]
    assert names["steps"].shape == (I, steps)
    assert names["cells"].shape == explanation.smx(None).shape
    np.testing.assert_array_equal(names["weights"], explanation.cross_attention)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_masks": 7}, "at least 8, not 7, for 2 levels"),
        ({"n_smh_masks": 3}, "at least 4, not 3"),
        ({"n_segments": ()}, "names no level of segments"),
        ({"n_segments": (0, 50)}, "at least 1 each"),
        ({"p": 0}, "more than 0 and less than 1"),
        ({"p": 1.5}, "more than 0 and less than 1"),
        ({"batch_size": -1}, "at least 1 or auto"),
        ({"batch_size": "big"}, "at least 1 or auto"),
        ({"sampling_rate": 8000}, "states its own sampling rate"),
    ],
)
def test_numbers_that_give_no_map_are_refused(recording, change, words):
    with pytest.raises(UserError, match=words):
        s2txai.explain(WordModel(), recording, "asr-en", **{**MASKS, **change})


def test_what_is_registered_later_changes_no_other_number(explanation, monkeypatch):
    rho = explanation.rho("smx")
    constant = Pooling(lambda cells: np.zeros(len(cells)), linear=True)
    monkeypatch.setattr(POOLINGS, "_entries", {**POOLINGS._entries, "nothing": constant})
    half = AGGREGATIONS._entries | {"top_half": Aggregation(lambda heads: heads.max(axis=(0, 1)))}
    monkeypatch.setattr(AGGREGATIONS, "_entries", half)
    again = replace(explanation)
    assert again.rho("smx") == rho
    assert np.isnan(again.rho("smx_nothing"))
    assert again.rho("smx", "ca_top_half") > 0


@pytest.mark.model
def test_the_notebook_of_the_readme(tmp_path, monkeypatch, capsys):
    """Word for word, with real weights on real speech."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = readme.split("## In a notebook")[1].split("\n## ")[0].split("```python\n")[1:]
    clip = ROOT / "resources/speech/librivox/sense_and_sensibility_01_austen_64kb-0880.wav"
    (tmp_path / "talk.wav").write_bytes(clip.read_bytes())
    (tmp_path / "resources").mkdir()
    (tmp_path / "resources" / "models").symlink_to(model_directory("whisper-tiny.en").parent)
    monkeypatch.chdir(tmp_path)
    exec(compile(block.split("```")[0], "README.md", "exec"), {})
    text, numbers = capsys.readouterr().out.splitlines()
    assert text == "He was not an ill-disposed young man."
    rho_smx, ceiling, rho_smh = map(float, numbers.split())
    assert 0.3 < rho_smx < ceiling < 1
    assert 0.3 < rho_smh < 1
    assert Path("token.png").stat().st_size > 10_000
    assert s2txai.Explanation.load("talk.npz").text == text
