"""Checkpoints whose parts fit in unusual ways give the right text; those that do not, a refusal."""

import json
import logging
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from transformers import WhisperConfig, WhisperForConditionalGeneration

from s2txai.datasets import parse_task
from s2txai.errors import UserError
from s2txai.models.abilities import check_abilities
from s2txai.models.decoding import decode
from s2txai.models.families import FAMILIES
from s2txai.models.loading import load_model
from s2txai.models.whisper import WhisperVocabulary
from s2txai.study.config import check_task
from s2txai.study.fetch_model import fetch_model
from tests.tiny_models import TINY, save_speech_to_text
from tests.tiny_whisper import save_tiny_whisper

TASK = parse_task("asr-en")
NO_OPTIONS: dict = {}
TEXT = [f" w{number}" for number in range(12)]
END, BEGIN, PLAIN = "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"
ENGLISH = [END, BEGIN, PLAIN]
MANY = [*ENGLISH, "<|en|>", "<|ko|>", "<|yue|>", "<|transcribe|>", "<|translate|>"]
AUDIO = 0.1 * np.random.default_rng(4).standard_normal(8000).astype("f4")


def network_of(names, *, rows=None, seed=0, **changes):
    torch.manual_seed(seed)
    sizes = {
        "num_mel_bins": 8,
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 24,
        "max_source_positions": 50,
        "max_target_positions": 12,
        "init_std": 0.4,
        "vocab_size": rows or len(names),
        "suppress_tokens": None,
        "begin_suppress_tokens": None,
        "decoder_start_token_id": names.index(BEGIN),
    }
    ids = dict.fromkeys(("eos_token_id", "bos_token_id", "pad_token_id"), names.index(END))
    return WhisperForConditionalGeneration(WhisperConfig(**{**sizes, **ids, **changes})).eval()


def tokenizer_of(names):
    vocabulary = {name: number for number, name in enumerate(names)}
    return Tokenizer(WordLevel(vocabulary, unk_token=TEXT[0]))


def save_whisper(folder, names, *, decoding=None, tokenizer=None, **network):
    folder.mkdir(exist_ok=True, parents=True)
    network_of(names, **network).save_pretrained(folder)
    (tokenizer or tokenizer_of(names)).save(str(folder / "tokenizer.json"))
    change_json(folder / "generation_config.json", **(decoding or {}))


def change_json(file, **changes):
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | changes))


def load(folder, **options):
    return load_model(folder, "whisper", device="cpu", precision="float32", options=options or None)


def names_of_prompt(model, names, task):
    return [names[token] for token in model.prompt(parse_task(task))]


def hypothesis_of(model, **options):
    features = model.features(AUDIO)
    states = model.encode(torch.from_numpy(features.values)[None], features.padding_value)
    return model.generate(states, model.prompt(TASK), beam=2, max_new_tokens=6, **options)[0]


NETWORKS = {
    "whisper": WhisperForConditionalGeneration,
    "speech-to-text": transformers.Speech2TextForConditionalGeneration,
    "canary": transformers.CanaryForConditionalGeneration,
    "seamless-m4t-v2": transformers.SeamlessM4Tv2ForSpeechToText,
    "moonshine": transformers.MoonshineForConditionalGeneration,
    "cohere-asr": transformers.CohereAsrForConditionalGeneration,
}


def text_of(folder, family):
    model = load_model(folder, family, device="cpu", precision="float32")
    return str(decode(model, AUDIO, TASK, beam=2)["text"])


# Roles, text and languages come from the tokenizer and the settings.


@pytest.mark.parametrize(
    "names",
    [
        MANY + TEXT,
        TEXT[:4] + MANY + TEXT[4:],
        [name for pair in zip(MANY, TEXT, strict=False) for name in pair] + TEXT[len(MANY) :],
        TEXT + MANY[::-1],
    ],
    ids=["first", "between", "alternating", "last, backwards"],
)
def test_special_tokens_may_stand_anywhere(tmp_path, names):
    save_whisper(tmp_path, names)
    model = load(tmp_path)
    spoken = [names.index(name) for name in (" w3", " w11", " w0")]
    assert model.text([names.index(BEGIN), *spoken, names.index(END)]).split() == [
        "w3",
        "w11",
        "w0",
    ]
    roles = dict(zip(names, model.token_table(range(len(names))).roles, strict=True))
    assert {name for name, role in roles.items() if role == "text"} == set(TEXT)
    assert roles[END] == "eos"
    assert names_of_prompt(model, names, "asr-ko")[1:3] == ["<|ko|>", "<|transcribe|>"]
    assert names_of_prompt(model, names, "st-yue-en")[1:3] == ["<|yue|>", "<|translate|>"]
    with pytest.raises(UserError, match=r"<\|fr\|>.*knows en, ko, yue"):
        model.prompt(parse_task("asr-fr"))


@pytest.mark.parametrize("word", [" aspirin", "ology", " São"])
def test_an_added_word_is_text(word):
    tokenizer = tokenizer_of(TEXT + ENGLISH)
    tokenizer.add_special_tokens(ENGLISH)
    tokenizer.add_tokens([AddedToken(word, special=False, normalized=False)])
    token = tokenizer.token_to_id(word)
    vocabulary = WhisperVocabulary(tokenizer, tokenizer.token_to_id(END))
    assert vocabulary.role(token) == "text"
    assert vocabulary.text([2, token]).endswith(word.strip())


@pytest.mark.parametrize("time", ["<|0.00|>", "<|7.42|>", "<|30.00|>"])
def test_times_are_no_text_wherever_they_stand(time):
    names = [time, *TEXT, *ENGLISH]
    vocabulary = WhisperVocabulary(tokenizer_of(names), names.index(END))
    assert vocabulary.role(0) == "special"
    assert vocabulary.text([0, 3, 0]) == "w2"


def test_times_that_the_tokenizer_leaves_out_are_special(tmp_path):
    names = TEXT + MANY
    save_whisper(tmp_path, names, rows=len(names) + 51)
    model = load(tmp_path)
    assert model.token_table([len(names), len(names) + 50]).roles == ["special"] * 2
    assert model.text([1, len(names) + 7]) == "w1"


@pytest.mark.parametrize(
    ("names", "decoding", "languages"),
    [
        (TEXT + MANY, {}, "en, ko, yue"),
        (TEXT + MANY, {"is_multilingual": False}, None),
        (TEXT + ENGLISH, {}, None),
        (TEXT + MANY, {"lang_to_id": {"<|ko|>": 16}}, "ko"),
        # The English-only models have the tokenizer of GPT-2, with all tags.
        (
            [*TEXT, "ĠSolidGoldMagikarp", "ĠRandomRedditorWithNo", "ĠTheNitromeFan", *MANY],
            {},
            None,
        ),
    ],
)
def test_languages_are_those_of_the_settings_else_of_the_tokenizer(
    tmp_path, names, decoding, languages
):
    save_whisper(tmp_path, names, decoding=decoding)
    model = load(tmp_path)
    with pytest.raises(UserError, match=f"it knows {languages}" if languages else "English-only"):
        model.prompt(parse_task("asr-sw"))
    # The same while planning, without the network.
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match=f"it knows {languages}" if languages else "English-only"):
        check_abilities("whisper", tmp_path, parse_task("asr-sw"), NO_OPTIONS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": len(TEXT + MANY) + 1}, "20 tokens, but its network knows 21"),
        ({"rows": len(TEXT + MANY) - 1}, "20 tokens, but its network knows 19"),
        ({"rows": len(TEXT + MANY) + 64}, "network knows 84"),
        ({"eos_token_id": 3}, r"'eos_token_id' that the token <\|endoftext\|> is 3"),
        ({"decoder_start_token_id": 12}, "'decoder_start_token_id'"),
        ({"pad_token_id": 7}, "'pad_token_id' is 7, which is the text ' w7'"),
        ({"bos_token_id": 2}, "'bos_token_id' is 2, which is the text"),
        ({"decoding": {"lang_to_id": {"<|en|>": 3}}}, "'lang_to_id'"),
        ({"decoding": {"lang_to_id": {"<|de|>": 3}}}, r"<\|de\|> is 3, but.*it is unknown"),
        ({"decoding": {"task_to_id": {"transcribe": 15}}}, "'task_to_id'"),
        ({"decoding": {"no_timestamps_token_id": 1}}, "'no_timestamps_token_id'"),
        ({"decoding": {"eos_token_id": 4}}, "ends a sentence with 4"),
        ({"decoding": {"eos_token_id": [12, 13]}}, "ends a sentence with"),
        ({"decoding": {"suppress_tokens": [3, 20]}}, "numbers of tokens from 0 to 19"),
        ({"decoding": {"suppress_tokens": [12]}}, "holds the end of sentence"),
    ],
)
def test_parts_that_do_not_fit_are_refused(tmp_path, changes, words):
    save_whisper(tmp_path, TEXT + MANY, **changes)
    with pytest.raises(UserError, match=words) as raised:
        load(tmp_path)
    assert str(tmp_path) in str(raised.value)


@pytest.mark.parametrize("family", sorted(NETWORKS))
def test_a_padded_vocabulary_is_refused_and_can_be_cut(tmp_path, family):
    TINY[family](tmp_path)
    expected = text_of(tmp_path, family)
    network = NETWORKS[family].from_pretrained(tmp_path)
    n_tokens = network.get_decoder().embed_tokens.num_embeddings

    def resize(n_rows):
        network.resize_token_embeddings(n_rows, mean_resizing=False)
        network.config.vocab_size = n_rows
        network.save_pretrained(tmp_path)

    resize(n_tokens + 7)
    with pytest.raises(UserError, match=r"if the last 7 are padding.*'config.vocab_size'"):
        load_model(tmp_path, family, device="cpu")
    resize(n_tokens)
    assert text_of(tmp_path, family) == expected


@pytest.mark.parametrize("missing", ENGLISH)
def test_a_tokenizer_without_the_tokens_of_the_prompt_is_refused(tmp_path, missing):
    save_whisper(tmp_path, TEXT + MANY)
    names = [name if name != missing else "<|other|>" for name in TEXT + MANY]
    tokenizer_of(names).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="no token <"):
        load(tmp_path)


OTHERS = [name for name in TINY if name not in ("whisper", "conformer")]


@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.parametrize("name", ["eos_token_id", "pad_token_id", "bos_token_id"])
def test_every_family_compares_ids_with_its_tokenizer(tmp_path, family, name):
    TINY[family](tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    change_json(tmp_path / "config.json", **{name: config["vocab_size"] - 4})
    with pytest.raises(UserError, match=f"{name}|ends a sentence"):
        load_model(tmp_path, family, device="cpu")


@pytest.mark.parametrize("family", [name for name in OTHERS if name != "speech-to-text"])
def test_every_family_compares_the_size_of_its_tokenizer(tmp_path, family):
    TINY[family](tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.add_tokens(["paracetamol"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UserError, match="tokens, but its network knows"):
        load_model(tmp_path, family, device="cpu")


# Weights.


@pytest.mark.parametrize("family", ["whisper", *OTHERS])
def test_left_over_weights_are_refused(tmp_path, family):
    TINY[family](tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.decoder.another.weight"] = torch.ones(2)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="no place for"):
        load_model(tmp_path, family, device="cpu")


@pytest.mark.parametrize("part", ["encoder_layers", "decoder_layers"])
def test_a_config_with_fewer_layers_is_refused(tmp_path, part):
    save_tiny_whisper(tmp_path)
    change_json(tmp_path / "config.json", **{part: 1})
    with pytest.raises(UserError, match=r"no place for.*layers\.1\."):
        load(tmp_path)


@pytest.mark.parametrize("family", ["whisper", "moonshine", "canary"])
@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_adapters_are_refused_everywhere(tmp_path, family, name):
    folder = tmp_path / "tuned"
    folder.mkdir()
    TINY[family](folder)
    if name.endswith("json"):
        (folder / name).write_text(json.dumps({"peft_type": "IA3"}))
    else:
        save_file({"base_model.model.x.lora_A.weight": torch.ones(2, 16)}, folder / name)
    with pytest.raises(UserError, match="merge it into its base model"):
        load_model(folder, family, device="cpu")
    with pytest.raises(UserError, match="merge it into its base model"):
        check_abilities(family, folder, TASK, NO_OPTIONS)
    entry = {"family": family, "source": {"path": str(folder)}}
    with pytest.raises(UserError, match="merge it into its base model"):
        fetch_model(entry, tmp_path / "model", logging.getLogger())


def in_the_weights(folder):
    """Save a network as peft leaves it before it is merged."""
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    layer = name.removesuffix(".weight")
    wrapped = {f"base_model.model.{key}": value for key, value in weights.items() if key != name}
    wrapped[f"base_model.model.{layer}.base_layer.weight"] = weights[name]
    wrapped[f"base_model.model.{layer}.lora_A.default.weight"] = torch.ones(2, 16)
    save_file(wrapped, folder / "model.safetensors", metadata={"format": "pt"})


def beside_the_weights(folder):
    weights = load_file(folder / "model.safetensors")
    weights["model.decoder.layers.0.fc1.ia3_l"] = torch.ones(32, 1)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def in_a_folder(*parts):
    def save(folder):
        file = folder.joinpath(*parts)
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".safetensors":
            save_file({"decoder.layers.0.fc1.lora_B.weight": torch.ones(2, 2)}, file)
        else:
            file.write_text("{}")

    return save


@pytest.mark.parametrize("family", ["whisper", "speech-to-text", "canary", "seamless-m4t-v2"])
@pytest.mark.parametrize(
    "save",
    [
        in_the_weights,
        beside_the_weights,
        in_a_folder("adapter", "adapter_config.json"),
        in_a_folder("checkpoint-100", "default", "adapter_model.bin"),
        in_a_folder("pytorch_lora_weights.safetensors"),
        in_a_folder("tuned", "model.safetensors"),
    ],
)
def test_adapters_are_found_wherever_they_lie(tmp_path, family, save):
    folder = tmp_path / "tuned"
    folder.mkdir()
    TINY[family](folder)
    save(folder)
    with pytest.raises(UserError, match="merge it into its base model"):
        load_model(folder, family, device="cpu")
    with pytest.raises(UserError, match="merge it into its base model"):
        check_abilities(family, folder, TASK, NO_OPTIONS)


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    changed = {name: change(name, values) for name, values in weights.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("family", sorted(NETWORKS))
@pytest.mark.parametrize("kind", [torch.int8, torch.int16, torch.uint8])
def test_integers_without_a_scale_are_refused_in_every_family(tmp_path, family, kind):
    TINY[family](tmp_path)
    change_weights(
        tmp_path, lambda name, values: (50 * values).to(kind) if values.dim() > 1 else values
    )
    with pytest.raises(UserError, match="holds integers"):
        load_model(tmp_path, family, device="cpu")


@pytest.mark.parametrize("family", sorted(NETWORKS))
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_halves_and_doubles_are_read(tmp_path, family, kind):
    TINY[family](tmp_path)
    expected = text_of(tmp_path, family)
    change_weights(
        tmp_path, lambda name, values: values.to(kind) if values.is_floating_point() else values
    )
    assert text_of(tmp_path, family) == expected


@pytest.mark.parametrize("family", sorted(NETWORKS))
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(tmp_path, family, number):
    TINY[family](tmp_path)

    def spoil(name, values):
        weight = "decoder" in name and values.dim() == 2
        return values.index_fill(0, torch.tensor([0]), number) if weight else values

    change_weights(tmp_path, spoil)
    with pytest.raises(UserError, match="no finite numbers"):
        load_model(tmp_path, family, device="cpu")


def shard(folder):
    weights = load_file(folder / "model.safetensors")
    files = {
        name: f"model-0000{1 + n % 2}-of-00002.safetensors"
        for n, name in enumerate(sorted(weights))
    }
    for file in set(files.values()):
        part = {name: weights[name] for name in weights if files[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": files})
    )


@pytest.mark.parametrize("family", sorted(NETWORKS))
def test_shards_are_read_but_no_second_set_of_weights(tmp_path, family):
    TINY[family](tmp_path)
    expected = text_of(tmp_path, family)
    shard(tmp_path)
    with pytest.raises(UserError, match=r"holds model\.safetensors and"):
        load_model(tmp_path, family, device="cpu")
    (tmp_path / "model.safetensors").unlink()
    assert text_of(tmp_path, family) == expected
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match="whole checkpoint"):
        load_model(tmp_path, family, device="cpu")


@pytest.mark.parametrize("family", sorted(NETWORKS))
@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("config.json", "has no config.json, which says what the weights are"),
        ("model.safetensors", r"holds no weights \(\*\.safetensors\)"),
    ],
)
def test_what_is_not_there_is_not_made_up(tmp_path, family, file, words):
    """The library would take settings of its own, which are those of Whisper tiny."""
    TINY[family](tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    (tmp_path / file).unlink()
    with pytest.raises(UserError, match=words):
        load_model(tmp_path, family, device="cpu")


@pytest.mark.parametrize(
    ("family", "setting"),
    [
        ("whisper", {"d_model": 32}),
        ("whisper", {"num_mel_bins": 16}),
        ("whisper", {"max_target_positions": 8}),
        ("moonshine", {"hidden_size": 32}),
        ("speech-to-text", {"decoder_ffn_dim": 64}),
        ("seamless-m4t-v2", {"decoder_ffn_dim": 64}),
        ("cohere-asr", {"intermediate_size": 64}),
    ],
)
def test_weights_of_other_shapes_are_named(tmp_path, family, setting):
    TINY[family](tmp_path)
    change_json(tmp_path / "config.json", **setting)
    with pytest.raises(UserError, match=r"other shapes than its config.json says \(.*\) for \("):
        load_model(tmp_path, family, device="cpu")


# CTranslate2's files. As its converter writes them; checked against it (version 4.8.5) by hand.


def linear(state, name, *, weights=("",)):
    rows = [state[f"{name}{part}.weight"] for part in weights]
    width = len(rows[0])
    biases = [state.get(f"{name}{part}.bias", np.zeros(width, "f4")) for part in weights]
    return {"weight": np.concatenate(rows), "bias": np.concatenate(biases)}


def ctranslate2_variables(network):
    state = {name: array.detach().numpy() for name, array in network.state_dict().items()}
    variables = {}

    def put(target, arrays):
        variables.update({f"{target}/{name}": array for name, array in arrays.items()})

    def norm(target, name):
        put(target, {"gamma": state[f"{name}.weight"], "beta": state[f"{name}.bias"]})

    for conv in ("conv1", "conv2"):
        put(f"encoder/{conv}", linear(state, f"model.encoder.{conv}"))
    for part in ("encoder", "decoder"):
        positions = state[f"model.{part}.embed_positions.weight"]
        put(f"{part}/position_encodings", {"encodings": positions})
        norm(f"{part}/layer_norm", f"model.{part}.layer_norm")
        for layer in range(2):
            source, target = f"model.{part}.layers.{layer}", f"{part}/layer_{layer}"
            norm(f"{target}/self_attention/layer_norm", f"{source}.self_attn_layer_norm")
            stacked = linear(state, f"{source}.self_attn.", weights=("q_proj", "k_proj", "v_proj"))
            put(f"{target}/self_attention/linear_0", stacked)
            out = linear(state, f"{source}.self_attn.out_proj")
            put(f"{target}/self_attention/linear_1", out)
            if part == "decoder":
                cross = f"{source}.encoder_attn"
                norm(f"{target}/attention/layer_norm", f"{cross}_layer_norm")
                put(f"{target}/attention/linear_0", linear(state, f"{cross}.q_proj"))
                stacked = linear(state, f"{cross}.", weights=("k_proj", "v_proj"))
                put(f"{target}/attention/linear_1", stacked)
                put(f"{target}/attention/linear_2", linear(state, f"{cross}.out_proj"))
            norm(f"{target}/ffn/layer_norm", f"{source}.final_layer_norm")
            for number in (0, 1):
                put(f"{target}/ffn/linear_{number}", linear(state, f"{source}.fc{number + 1}"))
        variables[f"{part}/num_heads"] = np.int16(2)
    put("decoder/embeddings", {"weight": state["model.decoder.embed_tokens.weight"]})
    return variables


CODES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4, "bfloat16": 5}


def quantised(variables, kind):
    """Return (type, array) by name, as the specification of CTranslate2 says."""
    integers, _, floats = kind.partition("_")
    floats = floats or ("float32" if integers.startswith("int") else integers)
    stored = {}
    for name, array in variables.items():
        array = np.asarray(array)
        if array.ndim == 0:
            stored[name] = (array.dtype.name, array)
        elif name.endswith("/weight") and integers == "int8":
            largest = np.abs(array.reshape(len(array), -1)).max(1)
            scale = (127 / np.where(largest == 0, 127, largest)).astype("f4")
            rows = scale.reshape(-1, *[1] * (array.ndim - 1))
            stored[name] = ("int8", np.rint(array * rows).astype("i1"))
            stored[f"{name}_scale"] = ("float32", scale)
        elif name.endswith("/weight") and integers == "int16":
            scale = np.float32(2**10 / np.abs(array).max())
            stored[name] = ("int16", np.rint(array * scale).astype("i2"))
            stored[f"{name}_scale"] = ("float32", np.asarray(scale))
        elif floats == "bfloat16":
            upper = torch.from_numpy(array.copy()).bfloat16().view(torch.int16).numpy()
            stored[name] = ("bfloat16", upper)
        else:
            stored[name] = (floats, array.astype(floats))
    return stored


def text(value):
    data = value.encode() + b"\0"
    return struct.pack("<H", len(data)) + data


def write_model_bin(file, stored):
    data = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(stored))
    for name, (kind, array) in stored.items():
        data += text(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        data += struct.pack("<BI", CODES[kind], array.nbytes) + array.tobytes()
    aliases = {"decoder/projection/weight": "decoder/embeddings/weight"}
    data += struct.pack("<I", len(aliases))
    file.write_bytes(data + b"".join(text(alias) + text(name) for alias, name in aliases.items()))


def save_ctranslate2(folder, names, kind, *, network=None, change=lambda stored: None):
    folder.mkdir(exist_ok=True, parents=True)
    stored = quantised(ctranslate2_variables(network or network_of(names)), kind)
    change(stored)
    write_model_bin(folder / "model.bin", stored)
    tokenizer_of(names).save(str(folder / "tokenizer.json"))
    content = {"suppress_ids": [], "suppress_ids_begin": [], "lang_ids": [], "alignment_heads": []}
    (folder / "config.json").write_text(json.dumps(content))


def logits_of(model, names):
    features = model.features(AUDIO)
    states = model.encode(torch.from_numpy(features.values)[None], features.padding_value)
    tokens = [names.index(" w1"), names.index(" w2"), names.index(END)]
    return model.decode(states, model.prompt(TASK), tokens)


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [
        ("float32", 1e-5),
        ("float16", 0.01),
        ("bfloat16", 0.1),
        ("int8", 0.3),
        ("int8_float32", 0.3),
        ("int8_float16", 0.3),
        ("int8_bfloat16", 0.4),
        ("int16", 0.1),
    ],
)
def test_quantised_files_are_read_with_their_scales(tmp_path, kind, tolerance):
    names = MANY + TEXT
    network = network_of(names)
    save_ctranslate2(tmp_path / "small", names, kind, network=network)
    network.save_pretrained(tmp_path / "whole")
    tokenizer_of(names).save(str(tmp_path / "whole" / "tokenizer.json"))
    exact = logits_of(load(tmp_path / "whole"), names)
    torch.testing.assert_close(
        logits_of(load(tmp_path / "small"), names), exact, atol=tolerance, rtol=0
    )
    assert exact.abs().max() > 8 * tolerance


ONES = np.ones(16, "f4")
FIRST = "encoder/layer_0/ffn/linear_0/weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda stored: stored.pop(f"{FIRST}_scale"), "integers without a scale"),
        (lambda stored: stored.pop("decoder/embeddings/weight_scale"), "integers without a scale"),
        (
            lambda stored: stored.update(
                {"encoder/conv1/bias_scale": ("float32", np.ones(16, "f4"))}
            ),
            "scale of no integers",
        ),
        (
            lambda stored: stored.update({f"{FIRST}_scale": ("float32", np.ones(3, "f4"))}),
            "3 factors for 32 rows",
        ),
        (
            lambda stored: stored.update({f"{FIRST}_scale": ("float32", np.zeros(32, "f4"))}),
            "no positive scale",
        ),
        (
            lambda stored: stored["decoder/layer_norm/gamma"][1].fill(np.nan),
            "'model.decoder.layer_norm.weight' is not finite",
        ),
        (
            lambda stored: stored.update({"decoder/extra/bias": ("float32", np.ones(2, "f4"))}),
            "left over: decoder/extra/bias",
        ),
        (
            lambda stored: stored.update({"decoder/pre_norm": ("int8", np.array(0, "i1"))}),
            "decoder/pre_norm",
        ),
        (
            lambda stored: stored.update({"decoder/activation": ("int8", np.array(0, "i1"))}),
            "decoder/activation",
        ),
    ],
)
def test_variables_that_do_not_fit_are_refused(tmp_path, change, words):
    save_ctranslate2(tmp_path, MANY + TEXT, "int8", change=change)
    with pytest.raises(UserError, match=words):
        load(tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("config.json", {"beam": 3}, "'beam' is no setting"),
        ("config.json", {"lang_ids": [99]}, "'lang_ids'"),
        ("config.json", {"suppress_ids": [-1]}, "numbers of tokens"),
        ("vocabulary.json", TEXT + MANY, "number 20 tokens differently"),
        ("preprocessor_config.json", {"feature_size": 80}, "'feature_size' is 80"),
    ],
)
def test_files_beside_a_model_bin_must_fit(tmp_path, file, content, words):
    save_ctranslate2(tmp_path, MANY + TEXT, "float16")
    (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(UserError, match=words):
        load(tmp_path)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_checkpoint_gives_the_right_text_or_a_refusal(tmp_path_factory, data):
    """Random numbers of words, orders of special tokens, ids in the settings, quantisations."""
    words = [f" v{number}" for number in range(data.draw(st.integers(3, 30)))]
    names = data.draw(st.permutations(words + data.draw(st.sampled_from([ENGLISH, MANY]))))
    kind = data.draw(st.sampled_from(["float32", "float16", "bfloat16", "int8", "int16"]))
    folder = tmp_path_factory.mktemp("checkpoint")
    rows = len(names) + data.draw(st.sampled_from([0, 0, 1, -1, 51]))
    network = network_of(names, rows=rows, eos_token_id=0, bos_token_id=0, pad_token_id=0)
    save_ctranslate2(folder, names, kind, network=network)
    tokenizer_of([*words, *ENGLISH])  # the text must not depend on another order
    # Its word for the unknown must be in the vocabulary.
    vocabulary = {name: number for number, name in enumerate(names)}
    Tokenizer(WordLevel(vocabulary, unk_token=words[0])).save(str(folder / "tokenizer.json"))
    if rows - len(names) not in (0, 51):
        with pytest.raises(UserError, match="but its network knows"):
            load(folder)
        return
    model = load(folder)
    spoken = data.draw(st.lists(st.sampled_from(words), min_size=1, max_size=5))
    mixed = [BEGIN, *spoken, PLAIN, END]
    assert model.text([names.index(name) for name in mixed]).split() == [w.strip() for w in spoken]
    prompt = names_of_prompt(model, names, "asr-en")
    assert prompt == [BEGIN, *(["<|en|>", "<|transcribe|>"] if "<|en|>" in names else []), PLAIN]
    decoded = decode(model, AUDIO, TASK, beam=2)
    kept = [names[token] for token in decoded["tokens"] if token < len(names)]
    assert str(decoded["text"]).split() == [name.strip() for name in kept if name in words]


# Settings of decoding and of features.


@pytest.mark.parametrize(
    "setting",
    [
        {"min_new_tokens": 5},
        {"min_length": 9},
        {"max_time": 1e-9},
        {"max_length": 3},
        {"num_beams": 7, "do_sample": True, "temperature": 3.0},
        {"forced_decoder_ids": [[1, 3], [2, 4]]},
        {"language": "ko", "task": "translate", "return_timestamps": True},
        {"output_scores": True, "return_dict_in_generate": True},
        {"encoder_no_repeat_ngram_size": 0, "guidance_scale": 1.0},
    ],
)
def test_overridden_settings_cannot_act(tmp_path, setting):
    names = TEXT + MANY
    decoding = {"suppress_tokens": [token for token in range(20) if token not in (2, 3, 12)]}
    save_whisper(tmp_path / "a", names, decoding=decoding)
    save_whisper(tmp_path / "b", names, decoding=decoding | setting)
    assert hypothesis_of(load(tmp_path / "b")) == hypothesis_of(load(tmp_path / "a"))


@pytest.mark.parametrize(
    "setting",
    [
        {"stop_strings": ["w3"]},
        {"forced_bos_token_id": 2},
        {"forced_eos_token_id": 12},
        {"sequence_bias": [[[3], -10.0]]},
        {"exponential_decay_length_penalty": [2, 1.5]},
        {"guidance_scale": 2.0},
        {"encoder_no_repeat_ngram_size": 2},
        {"renormalize_logits": True},
        {"an_unknown_one": 4},
    ],
)
def test_settings_that_are_in_no_list_are_refused(tmp_path, setting):
    save_whisper(tmp_path, TEXT + MANY, decoding=setting)
    with pytest.raises(UserError, match=f"'{next(iter(setting))}' is"):
        load(tmp_path)


@pytest.mark.parametrize(
    "setting",
    [{"num_return_sequences": 2}, {"assistant_ensemble_weight": 2}, {"compile_config": 3}],
)
def test_settings_that_no_library_reads_are_blamed_on_their_file(tmp_path, setting):
    save_whisper(tmp_path, TEXT + MANY, decoding=setting)
    with pytest.raises(UserError, match=r"generation_config\.json holds settings that cannot"):
        load(tmp_path)


@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.parametrize("setting", [{"stop_strings": ["x"]}, {"guidance_scale": 3.0}])
def test_every_family_refuses_them(tmp_path, family, setting):
    TINY[family](tmp_path)
    change_json(tmp_path / "generation_config.json", **setting)
    with pytest.raises(UserError, match=f"'{next(iter(setting))}' is"):
        load_model(tmp_path, family, device="cpu")


@pytest.mark.parametrize("family", ["whisper", "moonshine", "cohere-asr"])
@pytest.mark.parametrize(
    "setting",
    [
        {"repetition_penalty": 0},
        {"repetition_penalty": "1.2"},
        {"length_penalty": "long"},
        {"length_penalty": float("nan")},
        {"no_repeat_ngram_size": 1.5},
        {"no_repeat_ngram_size": -1},
        {"bad_words_ids": [[999]]},
        {"bad_words_ids": [3]},
    ],
)
def test_values_that_beam_search_cannot_use_are_refused(tmp_path, family, setting):
    TINY[family](tmp_path)
    change_json(tmp_path / "generation_config.json", **setting)
    with pytest.raises(UserError, match=f"'{next(iter(setting))}' is .* but must be"):
        load_model(tmp_path, family, device="cpu")


def test_no_bad_words_are_none(tmp_path):
    save_whisper(tmp_path, TEXT + MANY)
    expected = hypothesis_of(load(tmp_path))
    change_json(tmp_path / "generation_config.json", bad_words_ids=[])
    assert hypothesis_of(load(tmp_path)) == expected


def test_honoured_settings_act(tmp_path):
    names = TEXT + MANY
    others = [token for token in range(20) if token not in (2, 3, 12)]
    save_whisper(tmp_path / "a", names, decoding={"suppress_tokens": others})
    tokens = hypothesis_of(load(tmp_path / "a"))
    assert set(tokens) <= {2, 3, 12}
    once = {"suppress_tokens": others, "no_repeat_ngram_size": 1}
    save_whisper(tmp_path / "b", names, decoding=once)
    tokens = hypothesis_of(load(tmp_path / "b"))
    assert len(set(tokens)) == len(tokens)


@pytest.mark.parametrize("missing", ["suppress_tokens", "begin_suppress_tokens"])
def test_missing_lists_are_said(tmp_path, caplog, missing):
    lists = {"suppress_tokens": [1], "begin_suppress_tokens": [12]}
    save_whisper(tmp_path, TEXT + MANY, decoding=lists)
    with caplog.at_level(logging.WARNING, "s2txai"):
        load(tmp_path)
    assert "nothing is suppressed" not in caplog.text
    content = json.loads((tmp_path / "generation_config.json").read_text())
    del content[missing]
    (tmp_path / "generation_config.json").write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING, "s2txai"):
        load(tmp_path)
    assert f"have no '{missing}', so that nothing is suppressed" in caplog.text


@pytest.mark.parametrize(
    "setting",
    [
        {"n_fft": 512},
        {"hop_length": 80},
        {"sampling_rate": 8000},
        {"chunk_length": 30},
        {"feature_size": 128},
        {"dither": 0.1},
        {"do_normalize": True},
    ],
)
def test_features_that_the_network_was_not_made_for_are_refused(tmp_path, setting):
    save_whisper(tmp_path, TEXT + MANY)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(setting))
    with pytest.raises(UserError, match=f"'{next(iter(setting))}'"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("family", "setting"),
    [
        ("speech-to-text", {"num_mel_bins": 24}),
        ("canary", {"feature_size": 80}),
        ("cohere-asr", {"feature_size": 80}),
        ("seamless-m4t-v2", {"num_mel_bins": 20}),
        ("moonshine", {"feature_size": 2}),
        ("moonshine", {"a_new_filter": 3}),
        ("seamless-m4t-v2", {"sampling_rate": 32_000}),
        ("canary", {"win_length": 800}),
        ("cohere-asr", {"n_fft": 256}),
        ("canary", {"dither": 0.5}),
    ],
)
def test_every_family_refuses_features_of_another_kind(tmp_path, family, setting):
    TINY[family](tmp_path)
    change_json(tmp_path / "preprocessor_config.json", **setting)
    with pytest.raises(UserError, match="settings of the features"):
        load_model(tmp_path, family, device="cpu")


@pytest.mark.parametrize("family", ["speech-to-text", "cohere-asr"])
def test_features_are_the_same_each_time(tmp_path, family):
    TINY[family](tmp_path)
    change_json(tmp_path / "preprocessor_config.json", dither=0.5)
    model = load_model(tmp_path, family, device="cpu", precision="float32")
    first, second = (model.features(AUDIO).values for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("positions", "seconds"), [(75, 1.5), (20, 0.4), (62, 1.24)])
def test_contexts_that_are_no_whole_seconds_lose_no_sound(tmp_path, positions, seconds):
    save_whisper(tmp_path, TEXT + MANY, max_source_positions=positions)
    model = load(tmp_path)
    n_samples = round(seconds * 16_000)
    audio = np.zeros(n_samples, "f4")
    audio[-800:] = np.random.default_rng(0).standard_normal(800)  # the last 50 ms
    features = model.features(audio)
    assert features.values.shape == (2 * positions, 8)
    quiet, loud = features.values[:-8].mean(), features.values[-5:].mean()
    assert loud > quiet + 0.5
    model.encode(torch.from_numpy(features.values)[None], features.padding_value)
    with pytest.raises(UserError, match=f"at most {seconds:g} s"):
        model.features(np.zeros(n_samples + 1, "f4"))


# The token limit.


@pytest.mark.parametrize(("end", "at_limit"), [(True, False), (False, True)])
def test_a_hypothesis_that_reaches_the_limit_is_marked(tmp_path, end, at_limit):
    names = TEXT + MANY
    save_whisper(tmp_path, names)
    model = load(tmp_path)
    spoken = [names.index(name) for name in TEXT]
    n_tokens = model.facts.max_new_tokens
    tokens = [*spoken[:2], names.index(END)] if end else spoken[:1] * n_tokens
    model.generate = lambda *_, **__: [tokens]
    assert bool(decode(model, AUDIO, TASK, beam=1)["at_limit"]) is at_limit


# Tasks while planning.

OWN = [BEGIN, "<|{target}|>", "<|transcribe|>", PLAIN]


@pytest.mark.parametrize("task", ["st-en-ko", "st-ko-yue", "st-yue-ko"])
def test_translation_into_other_languages_needs_its_prompt(tmp_path, task):
    names = TEXT + MANY
    save_whisper(tmp_path, names)
    parsed = parse_task(task)
    entry = {"family": "whisper", "languages": ["en", "ko", "yue"]}
    entry["translation_targets"] = ["ko", "yue"]
    for check in (
        lambda: load(tmp_path).prompt(parsed),
        lambda: check_abilities("whisper", tmp_path, parsed, NO_OPTIONS),
        lambda: check_abilities("whisper", None, parsed, NO_OPTIONS),
        lambda: check_task("m", entry, parsed),
    ):
        with pytest.raises(UserError, match=r"English only.*options\.translation_prompt") as raised:
            check()
        assert "st-en-en" not in str(raised.value)
    check_abilities("whisper", tmp_path, parsed, {"translation_prompt": OWN})
    prompt = names_of_prompt(load(tmp_path, translation_prompt=OWN), names, task)
    assert prompt == [BEGIN, f"<|{parsed.target}|>", "<|transcribe|>", PLAIN]
    assert names_of_prompt(load(tmp_path, translation_prompt=OWN), names, "asr-ko")[1] == "<|ko|>"


@pytest.mark.parametrize(
    "prompt", [[BEGIN, "<|it|>"], [BEGIN, " w3"], ["<|en|>", PLAIN], [BEGIN, "<|{target}|>", "x"]]
)
def test_a_prompt_of_other_tokens_is_refused(tmp_path, prompt):
    save_whisper(tmp_path, TEXT + MANY)
    with pytest.raises(UserError, match="'translation_prompt'"):
        load(tmp_path, translation_prompt=prompt)
    with pytest.raises(UserError, match="'translation_prompt'"):
        check_abilities("whisper", tmp_path, parse_task("st-en-ko"), {"translation_prompt": prompt})


@pytest.mark.parametrize(
    ("family", "task"),
    [
        ("canary", "asr-fr"),
        ("canary", "st-en-de"),
        ("cohere-asr", "asr-fr"),
        ("cohere-asr", "st-en-it"),
        ("moonshine", "st-en-it"),
        ("seamless-m4t-v2", "asr-de"),
        ("conformer", "st-en-fr"),
    ],
)
def test_every_family_refuses_impossible_tasks_while_planning(tmp_path, family, task):
    TINY[family](tmp_path)
    with pytest.raises(UserError, match=f"cannot do '{task}'"):
        check_abilities(family, tmp_path, parse_task(task), NO_OPTIONS)
    check_abilities(family, tmp_path, TASK, NO_OPTIONS)


def test_a_translator_by_tag_is_known_while_planning(tmp_path):
    save_speech_to_text(tmp_path, languages=True)
    check_abilities("speech-to-text", tmp_path, parse_task("st-en-it"), NO_OPTIONS)
    with pytest.raises(UserError, match=r"only translates, into de, es.*cannot do 'asr-en'"):
        check_abilities("speech-to-text", tmp_path, TASK, NO_OPTIONS)


@pytest.mark.parametrize(
    ("listed", "possible", "impossible"),
    [("transcribe", "asr-ko", "st-ko-en"), ("translate", "st-yue-en", "asr-yue")],
)
def test_tasks_are_those_that_the_settings_list(tmp_path, listed, possible, impossible):
    names = TEXT + MANY
    tasks = {"task_to_id": {listed: names.index(f"<|{listed}|>")}}
    save_whisper(tmp_path, names, decoding=tasks)
    model = load(tmp_path)
    assert names_of_prompt(model, names, possible)[2] == f"<|{listed}|>"
    for check in (
        lambda: model.prompt(parse_task(impossible)),
        lambda: check_abilities("whisper", tmp_path, parse_task(impossible), NO_OPTIONS),
    ):
        with pytest.raises(UserError, match=f"under 'task_to_id'.*they list {listed}"):
            check()


# Experimental families.


@pytest.mark.parametrize("family", list(TINY))
def test_families_without_trained_weights_are_experimental(tmp_path, caplog, family):
    TINY[family](tmp_path)
    with caplog.at_level(logging.WARNING, "s2txai"):
        load_model(tmp_path, family, device="cpu")
    assert ("experimental" in caplog.text) is FAMILIES[family].experimental
    assert FAMILIES[family].experimental is (family != "whisper")
    row = next(
        line
        for line in (Path(__file__).parents[2] / "docs/models.md").read_text().splitlines()
        if line.startswith(f"| `{family}`")
    )
    assert (" (experimental) |" in row) is FAMILIES[family].experimental
