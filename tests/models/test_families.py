"""Every family through the six steps, and what is special in one of them."""

import json
import logging
import os

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from transformers import CanaryProcessor, CohereAsrProcessor

from s2txai.datasets import parse_task, read_manifest, select
from s2txai.errors import UserError
from s2txai.models.base import n_steps
from s2txai.models.families import FAMILIES
from s2txai.models.handle import ModelHandle
from s2txai.models.loading import load_model
from s2txai.saliency.deletion_maps import map_names
from s2txai.saliency.design import MaskDesign
from s2txai.saliency.masks import N_FOLDS
from s2txai.steps.aggregate import aggregate_shard
from s2txai.steps.attention import attention_shard
from s2txai.steps.correlate import correlation_tables
from s2txai.steps.decode import decode_shard
from s2txai.steps.deletion import DeletionDesign, deletion_shard
from s2txai.steps.deletion_curves import deletion_tables
from s2txai.steps.gradients import gradients_shard
from s2txai.steps.shard import Workplace, maps_of
from s2txai.steps.smh import smh_shard
from s2txai.steps.smx import smx_shard
from s2txai.storage.artifacts import load_shard
from s2txai.storage.store import Store
from s2txai.study.fetch_model import fetch_model
from tests.models.test_model_contract import noise
from tests.tiny_models import TAGS, TINY, save_speech_to_text

TASK = parse_task("asr-en")
SECONDS = {"short": 0.5, "long": 0.8}
POOLINGS = ("avg2d",)
# What the Conformer's folder must hold: tests/models/test_conformer.py.
TRANSFORMERS = [name for name in TINY if name != "conformer"]


def write_corpus(root):
    lines = ["id\tpath\tlanguage\ttranscript"]
    for number, (name, seconds) in enumerate(SECONDS.items()):
        soundfile.write(root / f"{name}.wav", noise(seconds, number), 16_000)
        lines.append(f"{name}\t{name}.wav\ten\tnorth east")
    (root / "manifest.tsv").write_text("\n".join(lines))
    return select(read_manifest(root / "manifest.tsv"), TASK)


@pytest.fixture(scope="module", params=TINY)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def results(family, tmp_path_factory):
    """Run the six steps; return a function that reads a step's artefacts, and the table's parts."""
    root = tmp_path_factory.mktemp(family)
    (root / "model").mkdir()
    TINY[family](root / "model")
    utterances = write_corpus(root)
    handle = ModelHandle(family, root / "model", device="cpu", precision="float32")

    def place(step):
        return Workplace(handle, Store(root / "store"), root / step)

    def made(step):
        return load_shard(root / step, list(SECONDS), step)

    smx = MaskDesign(32, n_segments=(200, 400), token_p=0.2)
    smh = MaskDesign(32, "attention-mask")
    parameters = {"n_segments": (200, 400), "n_masks": 32, "p": 0.5, "seed": 0}
    decode_shard(place("decode"), utterances, TASK, beam=2)
    attention_shard(place("attention"), made("decode"))
    smx_shard(place("smx"), made("decode"), smx, batch_size=8)
    smh_shard(place("smh"), made("decode"), smh, batch_size=8)
    gradients_shard(place("grad"), "grad", made("decode"), parameters=parameters, batch_size=8)
    earlier = [made(step) for step in ("decode", "attention", "smx", "smh")]
    aggregate_shard(
        root / "aggregate", *earlier, poolings=POOLINGS, gradients={"grad": made("grad")}
    )
    deletion_shard(
        place("deletion"), made("decode"), made("smx"), made("aggregate"),
        DeletionDesign(1, [0, 50, 100], 0), poolings=POOLINGS, batch_size=8,
    )  # fmt: skip
    return made


def test_no_family_is_left_out():
    assert set(TINY) == set(FAMILIES)


def test_hypotheses_have_words(results):
    for artifact in results("decode"):
        assert "text" in artifact["roles"]
        assert str(artifact["text"])
        assert (artifact["log_probs"] < 0).all()


def test_attention_over_speech_and_outside_sums_to_one(results):
    for decoded, artifact in zip(results("decode"), results("attention"), strict=True):
        weights = artifact["cross_attention"]
        steps = n_steps(len(decoded["features"]), int(decoded["subsampling"]))
        assert weights.shape[2:] == (len(decoded["tokens"]), steps)
        np.testing.assert_allclose(weights.sum(-1) + artifact["padding_mass"], 1, atol=1e-5)


def test_maps_have_the_shape_of_the_input_and_of_the_steps(results):
    for decoded, smx, aggregated in zip(
        results("decode"), results("smx"), results("aggregate"), strict=True
    ):
        full = maps_of(smx, "mean")(range(N_FOLDS))
        assert full.shape == (len(decoded["tokens"]), *decoded["features"].shape)
        assert full.std() > 0
        for name in ("smh", "smx_avg2d", "ca_mean"):
            assert aggregated[name].shape == aggregated["smh"].shape
            assert np.isfinite(aggregated[name]).all()


def test_segments_of_a_waveform_are_stretches_of_time(results, family):
    for decoded, smx, grad in zip(results("decode"), results("smx"), results("grad"), strict=True):
        full = maps_of(smx, "mean")(range(N_FOLDS))
        within_a_frame = np.ptp(full, axis=2).max()
        names = smx.meta["masks"]["segmentations"]
        assert bool(decoded["time_only"]) is (family == "moonshine")
        if family == "moonshine":
            assert names == ["time-200", "time-400"]
            assert grad.meta["masks"]["segmentations"] == ["grad-time-200", "grad-time-400"]
            assert within_a_frame < 1e-12
        else:
            assert names[0] == "slic-200"
            assert within_a_frame > 0


def test_attention_is_correlated_with_every_map(results):
    summary = correlation_tables(results("aggregate"), poolings=POOLINGS, rows="all").summary
    assert {"smh", "smx_avg2d"} <= set(summary["saliency"])
    assert summary["rho"].abs().max() <= 1
    assert summary[summary["metric"] == "pearson"]["rho"].notna().all()


def test_deletion_starts_and_ends_alike_for_every_map(results):
    for artifact in results("deletion"):
        hypotheses = artifact["hypotheses"]
        assert hypotheses.shape == (len(map_names(POOLINGS)), 3)
        assert len(set(hypotheses[:, 0])) == len(set(hypotheses[:, -1])) == 1
    tables = deletion_tables(
        ["north east"] * 2, results("deletion"), TASK, text_normalisation="whisper"
    )
    # Two of word errors, two of the hypothesis' probability.
    assert len(tables.areas) == 4 * len(map_names(POOLINGS))
    assert np.isfinite(tables.areas["auc"]).all()


def test_what_a_family_asks_for_is_what_save_pretrained_writes(family, tmp_path):
    TINY[family](tmp_path)
    names = [path.name for path in tmp_path.iterdir()]
    kept = FAMILIES[family].files(names)
    assert FAMILIES[family].has_weights(names)
    assert FAMILIES[family].has_settings(names)
    for name in set(names) - set(kept):
        (tmp_path / name).unlink()
    load_model(tmp_path, family, device="cpu")


@pytest.mark.parametrize("family", TRANSFORMERS, indirect=True)
@pytest.mark.parametrize(
    "file", ["model.safetensors", "tokenizer_config.json", "preprocessor_config.json"]
)
def test_missing_files_are_told(family, tmp_path, file):
    TINY[family](tmp_path)
    for name in (file, "tokenizer.json"):
        if (name == file or file == "tokenizer_config.json") and (tmp_path / name).exists():
            (tmp_path / name).unlink()
    if family == "whisper" and file == "preprocessor_config.json":
        return  # its features follow from the weights
    if family == "speech-to-text" and file == "tokenizer_config.json":
        (tmp_path / "vocab.json").unlink()
    with pytest.raises(UserError, match=str(tmp_path)):
        load_model(tmp_path, family, device="cpu")


def damages(whole):
    yield from (b"", b"[]", b"{", bytes(range(256)), b"[" * 100_000, whole[: len(whole) // 2])
    if b'"F32"' in whole:  # the list of weights
        yield (2**62).to_bytes(8, "little") + whole[8:]
        yield whole.replace(b'"shape":[', b'"shape":[9', 1)
        yield whole.replace(b'"F32"', b'"F99"', 1)
        yield whole.replace(b'"F32"', b'"F16"', 1)


@pytest.mark.parametrize("family", ["whisper", "speech-to-text"], indirect=True)
@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "generation_config.json"])
def test_damaged_files_are_told(family, tmp_path, file):
    TINY[family](tmp_path)
    path = tmp_path / file
    for damaged in damages(path.read_bytes()):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=str(tmp_path)) as raised:
            load_model(tmp_path, family, device="cpu")
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize("family", ["whisper", "speech-to-text"], indirect=True)
def test_a_damaged_tokenizer_is_told(family, tmp_path):
    TINY[family](tmp_path)
    [path] = tmp_path.glob("tokenizer.json" if family == "whisper" else "tokenizer_config.json")
    for damaged in damages(path.read_bytes()):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=str(tmp_path)):
            load_model(tmp_path, family, device="cpu")


@pytest.mark.parametrize("family", TRANSFORMERS, indirect=True)
def test_missing_weights_are_told(family, tmp_path):
    from safetensors.torch import load_file, save_file

    TINY[family](tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[sorted(weights)[0]]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks weights"):
        load_model(tmp_path, family, device="cpu")


@pytest.mark.parametrize("family", TRANSFORMERS, indirect=True)
def test_lengths_and_numbers_of_the_checkpoint_do_not_disturb_the_search(family, tmp_path, capfd):
    """Published checkpoints have such entries, which would be told of in every batch."""
    model = tiny(family, tmp_path)
    features = model.features(noise(0.5))
    states = model.encode(torch.from_numpy(features.values)[None], features.padding_value)
    prompt = model.prompt(TASK)
    expected = model.generate(states, prompt, beam=3, max_new_tokens=4)
    file = tmp_path / "generation_config.json"
    entries = {"max_length": 448, "num_beams": 4, "num_return_sequences": 2}
    entries |= {"return_dict_in_generate": True}
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))
    model = load_model(tmp_path, family, device="cpu", precision="float32")
    capfd.readouterr()
    found = model.generate(states.expand(2, -1, -1), prompt, beam=3, max_new_tokens=4)
    assert found == expected * 2
    told = capfd.readouterr().err
    assert "max_length" not in told
    assert "attention mask" not in told


def tiny(family, folder):
    TINY[family](folder)
    return load_model(folder, family, device="cpu", precision="float32")


def test_whisper_reads_the_tokenizer_as_it_was_saved_before(tmp_path):
    """Many fine-tuned models have a vocabulary and merges in place of one file."""
    model = tiny("whisper", tmp_path)
    names = model._tokenizer.get_vocab()
    tags = {name: number for name, number in names.items() if name.startswith("<|")}
    spoken = {f"Ġ{name.strip()}": names[name] for name in names.keys() - tags.keys()}
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError, match=r"no tokenizer\.json, and no vocab\.json with merges\.txt"):
        load_model(tmp_path, "whisper", device="cpu")
    (tmp_path / "vocab.json").write_text(json.dumps(spoken))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "added_tokens.json").write_text(json.dumps(tags))
    again = load_model(tmp_path, "whisper", device="cpu", precision="float32")
    tokens = range(len(names))
    assert again.token_table(tokens) == model.token_table(tokens)
    assert again.prompt(TASK) == model.prompt(TASK)


def test_speech_to_text_translates_by_tag(tmp_path):
    save_speech_to_text(tmp_path, languages=True)
    model = load_model(tmp_path, "speech-to-text", device="cpu")
    start, tag = model.prompt(parse_task("st-en-it"))
    assert start == model._network.config.decoder_start_token_id
    assert model.token_table([tag]).pieces == ["<lang:it>"]
    assert model.token_table([tag]).roles == ["special"]
    for task in ("asr-en", "st-en-ja"):
        with pytest.raises(UserError, match=f"only translates, into de, es.*cannot do '{task}'"):
            model.prompt(parse_task(task))


def test_canary_is_told_both_languages(tmp_path):
    model = tiny("canary", tmp_path)
    pieces = model.token_table(model.prompt(parse_task("st-en-it"))).pieces
    assert pieces == TAGS
    pieces = model.token_table(model.prompt(parse_task("asr-it"))).pieces
    assert pieces[3:5] == ["<|it|>", "<|it|>"]
    with pytest.raises(UserError, match=r"no token <\|fr\|>"):
        model.prompt(parse_task("asr-fr"))


def test_cohere_prompt_is_that_of_its_processor(tmp_path):
    model = tiny("cohere-asr", tmp_path)
    processor = CohereAsrProcessor(model._extractor, model._pieces._tokenizer)
    assert model.prompt(parse_task("asr-it")) == processor.get_decoder_prompt_ids("it")
    with pytest.raises(UserError, match=r"only transcribes.*'st-en-it'; use 'asr-en'"):
        model.prompt(parse_task("st-en-it"))
    with pytest.raises(UserError, match=r"lasts 36\.0 s.*at most 35 s"):
        model.features(np.zeros(36 * 16_000, dtype=np.float32))


def test_feature_extractors_are_found_in_the_settings_of_a_processor(tmp_path):
    """Where a processor was saved, they have no file of their own."""
    model = tiny("canary", tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    CanaryProcessor(model._extractor, model._pieces._tokenizer).save_pretrained(tmp_path)
    assert not (tmp_path / "preprocessor_config.json").exists()
    again = load_model(tmp_path, "canary", device="cpu", precision="float32")
    audio = noise(0.5)
    np.testing.assert_array_equal(again.features(audio).values, model.features(audio).values)


def test_seamless_is_told_the_language_of_the_text(tmp_path):
    model = tiny("seamless-m4t-v2", tmp_path)
    assert model.token_table(model.prompt(parse_task("st-fr-it"))).pieces == ["</s>", "__ita__"]
    assert model.prompt(parse_task("asr-ita")) == model.prompt(parse_task("asr-it"))
    with pytest.raises(UserError, match=r"writes no 'de'.*'asr-de'; it writes eng, fra, ita"):
        model.prompt(parse_task("asr-de"))
    (tmp_path / "generation_config.json").unlink()
    with pytest.raises(UserError, match="no text_decoder_lang_to_code_id"):
        load_model(tmp_path, "seamless-m4t-v2", device="cpu")


@pytest.mark.parametrize(("n_frames", "n_states"), [(46, 3), (48, 4), (50, 4), (64, 5)])
def test_seamless_has_a_step_more_than_cells_after_a_whole_number_of_them(
    tmp_path, n_frames, n_states
):
    model = tiny("seamless-m4t-v2", tmp_path)
    for extra in (0, 160):  # of an odd number of frames the last is left out
        features = model.features(noise(1)[: 400 + 160 * (n_frames - 1) + extra])
        assert features.values.shape == (n_frames, 16)
        states = model.encode(torch.from_numpy(features.values)[None], 0.0)
        assert states.shape[1] == n_states
    assert n_states - n_steps(n_frames, 16) == (n_frames % 16 == 0)


def test_seamless_features_are_frames_one_after_the_other(tmp_path):
    """A click in time is one in the frames whose windows hold it, not in two bands."""
    model = tiny("seamless-m4t-v2", tmp_path)
    audio = 1e-4 * noise(0.6)
    audio[4840] = 0.9
    loud = model.features(audio).values.mean(axis=1) > 1
    # Window t covers samples 160 t to 160 t + 400.
    assert np.flatnonzero(loud).tolist() == [28, 29, 30]


@pytest.mark.parametrize("n_samples", [4_800, 6_144, 6_145, 9_999])
def test_moonshine_hears_silence_after_the_utterance(tmp_path, n_samples):
    model = tiny("moonshine", tmp_path)
    audio = noise(1)[:n_samples]
    features = model.features(audio)
    np.testing.assert_array_equal(features.values.ravel()[:n_samples], audio)
    assert len(features.values) == -(-n_samples // 64)
    heard = model._inputs(torch.from_numpy(features.values)[None], features.padding_value)[0]
    np.testing.assert_array_equal(heard[:n_samples], audio)
    assert (heard[n_samples:] == 0).all()
    assert len(heard) - n_samples < 895  # what one step sees
    states = model.encode(torch.from_numpy(features.values)[None], features.padding_value)
    assert states.shape[1] == n_steps(len(features.values), 6)
    with pytest.raises(UserError, match="Moonshine only transcribes"):
        model.prompt(parse_task("st-en-it"))


CUSTOM = """
from transformers import WhisperForConditionalGeneration

class Custom(WhisperForConditionalGeneration):
    was_run = True
"""


def save_with_code(folder):
    """Write a tiny Whisper whose settings name a class of their own."""
    TINY["whisper"](folder)
    settings = json.loads((folder / "config.json").read_text())
    settings["auto_map"] = {"AutoModelForSpeechSeq2Seq": "custom.Custom"}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "custom.py").write_text(CUSTOM)


@pytest.mark.parametrize("trusted", [False, True])
def test_code_beside_the_weights_is_run_only_if_trusted(tmp_path, monkeypatch, trusted):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "c"))
    source = tmp_path / "snapshot"
    source.mkdir()
    save_with_code(source)
    entry = {"family": "whisper", "source": {"hub": {"repo": "a/b", "revision": "0" * 40}}}
    if trusted:
        entry["options"] = {"trust_remote_code": True}

    def snapshot(repo, revision, patterns):
        assert ("*.py" in patterns) is trusted
        return source

    fetch_model(entry, tmp_path / "model", logging.getLogger(), snapshot=snapshot)
    assert (tmp_path / "model" / "custom.py").exists() is trusted
    handle = ModelHandle("whisper", tmp_path / "model", device="cpu", precision="float32")
    assert getattr(handle.model._network, "was_run", False) is trusted


def change_settings(**changes):
    def change(folder):
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


class Opens:
    """Reading a pickle of this without care makes a folder beside the file."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder / "opened"),)


def keep_pickle_only(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"x": Opens(folder)}, folder / "pytorch_model.bin")


def index_names(name):
    def change(folder):
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(weights | {"x": Opens(folder)}, folder / name)
        index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # The library would fetch this repository and run what it holds.
        (
            change_settings(attn_implementation="owner/code"),
            "'attn_implementation' is 'owner/code'",
        ),
        (change_settings(_attn_implementation="owner/code@v1:f"), "code from elsewhere"),
        (change_settings(attn_implementation={"": "owner/code"}), "is 'owner/code', code from"),
        (
            change_settings(text_config={"attn_implementation": "owner/code"}),
            "'text_config.attn_implementation' is 'owner/code'",
        ),
        (change_settings(quantization_config={"quant_method": "gptq", "bits": 4}), "optimum"),
        (keep_pickle_only, r"holds no weights \(\*\.safetensors\)"),
        (index_names("pytorch_model.bin"), "index.json names 'pytorch_model.bin', which is no"),
        (index_names("../outside.safetensors"), "names '../outside.safetensors', which is no"),
    ],
)
def test_a_folder_cannot_ask_for_more_than_weights(tmp_path, change, words):
    folder = tmp_path / "model"
    folder.mkdir()
    TINY["whisper"](folder)
    change(folder)
    with pytest.raises(UserError, match=words):
        load_model(folder, "whisper", device="cpu")
    assert not list(tmp_path.rglob("opened"))


@pytest.mark.parametrize("implementation", ["eager", "sdpa", None])
def test_attention_of_the_library_may_be_named(tmp_path, implementation):
    TINY["whisper"](tmp_path)
    change_settings(attn_implementation=implementation)(tmp_path)
    load_model(tmp_path, "whisper", device="cpu")


def test_weights_in_several_files_are_read(tmp_path):
    """As ``save_pretrained`` divides large ones."""
    TINY["whisper"](tmp_path)
    whole = load_model(tmp_path, "whisper", device="cpu")._network.state_dict()
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    files = {name: f"model-{number % 2}.safetensors" for number, name in enumerate(weights)}
    for file in set(files.values()):
        part = {name: values for name, values in weights.items() if files[name] == file}
        save_file(part, tmp_path / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": files}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    parts = load_model(tmp_path, "whisper", device="cpu")._network.state_dict()
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
