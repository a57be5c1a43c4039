"""Files from elsewhere, damaged or forged: a reader answers, or refuses in one sentence.

Bits under a checksum are tested in ``test_artifacts.py``; weights have none within their file, so
there a flipped bit may change a number, but nothing else.
"""

import io
import json
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from s2txai.datasets import read_alignment, read_manifest
from s2txai.datasets.audio import read_audio
from s2txai.datasets.files import read_yaml
from s2txai.datasets.formats.must_c import read_must_c
from s2txai.errors import UserError
from s2txai.models.conformer.checkpoint import load_fairseq_checkpoint
from s2txai.models.conformer.vocabulary import read_preprocessing
from s2txai.models.ctranslate2 import read_variables
from s2txai.models.loading import load_model
from s2txai.models.token_names import TokenNames
from s2txai.models.whisper import _count_layers, _ctranslate2_settings
from s2txai.report.show import show
from s2txai.storage.artifacts import load, save
from s2txai.storage.failures import Failure, failures, record
from tests.models.test_ctranslate2 import model as ctranslate2_model
from tests.models.test_ctranslate2 import variable
from tests.storage.test_artifacts import ARRAYS, meta
from tests.tiny_conformer import hyperparameters, random_state

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = (
    "id\tpath\tlanguage\ttranscript\ttranslation_en\talignment\talignment_evidence\n"
    "a\ta.wav\tit\tha detto sì\the said yes\ta.tsv\thand\nb\ta.wav\ten\tyes\t\t\t\n"
)
ALIGNMENT = "tier\tstart_s\tend_s\tlabel\nword\t0.0\t0.25\tyes\nphone\t0\t1\tY\nword\t1\t2\tno\n"
YAML = "a: 1\nb: [x, {c: 2024-01-01}]\nd: &e {f: !!int '3'}\ng: *e\n"
SEGMENTS = "- {duration: 0.5, offset: 0.1, wav: a.wav}\n"
MUST_C = {"folder": ".", "source": "en", "target": "it", "split": "dev"}


def small_state():
    return random_state(
        12, width=4, heads=1, hidden=4, kernel=3, channels=4, layers=1, decoder_layers=1, n_source=3
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a valid file for every reader, and what manifests name."""
    folder = tmp_path_factory.mktemp("fuzz")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 4000)
    for name in ("a.wav", "sound.wav", "sound.flac"):
        soundfile.write(folder / name, noise, 16_000)
    (folder / "a.tsv").write_text(ALIGNMENT)
    save(folder / "result.npz", ARRAYS, meta())
    record(Failure("a", "smx", "no number"), folder)
    (folder / "manifest.tsv").write_text(MANIFEST)
    (folder / "alignment.tsv").write_text(ALIGNMENT)
    (folder / "table.yaml").write_text(YAML)
    (folder / "model.bin").write_bytes(ctranslate2_model())
    torch.save({"model": small_state(), "args": hyperparameters()}, folder / "model.pt")
    texts = folder / "en-it" / "data" / "dev" / "txt"
    texts.mkdir(parents=True)
    (texts.parent / "wav").mkdir()
    (texts.parent / "wav" / "a.wav").write_bytes((folder / "a.wav").read_bytes())
    (texts / "dev.en").write_text("yes\n")
    (texts / "dev.it").write_text("sì\n")
    (texts / "dev.yaml").write_text(SEGMENTS)
    return folder


def read_segments(path):
    return read_must_c(MUST_C, path.parents[4])


READERS = {
    "result.npz": load,
    "manifest.tsv": read_manifest,
    "alignment.tsv": read_alignment,
    "table.yaml": read_yaml,
    "en-it/data/dev/txt/dev.yaml": read_segments,
    "model.bin": read_variables,
    "model.pt": load_fairseq_checkpoint,
    "a.failure.json": lambda path: failures(path.parent, ["a"]),
    "sound.wav": lambda path: read_audio(path, 8000),
    "sound.flac": lambda path: read_audio(path, 8000),
}
MODEST = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
EXTREMES = (0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**62, 2**64 - 1)


@st.composite
def damage(draw, valid):
    """Return bytes of a valid file with some of them changed, moved, lost or added."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        end = max(len(data) - 1, 0)
        # Sizes stand at the beginning, or at the end of archives.
        near = st.integers(0, min(100, end)), st.integers(max(end - 300, 0), end)
        at = draw(st.one_of(st.integers(0, end), *near))
        kind = draw(st.sampled_from(["flip", "forge", "cut", "lose", "splice", "insert"]))
        length = draw(st.integers(1, 64))
        if kind == "flip":
            data[at : at + 1] = bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in data[at:][:1])
        elif kind == "forge":
            width = draw(st.sampled_from([1, 2, 4, 8]))
            value = draw(st.sampled_from(EXTREMES)) % 256**width
            data[at : at + width] = value.to_bytes(width, draw(st.sampled_from(["little", "big"])))
        elif kind == "cut":
            del data[at:]
        elif kind == "lose":
            del data[at : at + length]
        elif kind == "splice":
            start = draw(st.integers(0, end))
            data[at : at + length] = data[start : start + length]
        else:
            data[at:at] = draw(st.binary(max_size=64))
    return bytes(data)


def answer(read, path, data):
    """Return what a reader makes of the bytes; None where it refuses as it should."""
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        return read(path)
    except UserError as error:
        said = str(error)
    finally:
        path.write_bytes(before)
    assert path.name in said
    assert "\n" not in said
    return None


@pytest.mark.parametrize("name", READERS)
def test_the_valid_files_are_read(folder, name):
    assert READERS[name](folder / name) is not None


@pytest.mark.parametrize("name", READERS)
@MODEST
@given(data=st.data())
def test_damage_is_read_or_refused(folder, name, data):
    path = folder / name
    answer(READERS[name], path, data.draw(damage(path.read_bytes())))


@pytest.mark.parametrize("name", READERS)
@MODEST
@given(data=st.binary(max_size=300))
def test_any_bytes_are_refused(folder, name, data):
    answer(READERS[name], folder / name, data)


# What the tables are made of, so that more than the first check is reached.
ODD = ("../../x", "-rf", "", " ", ".", "/", "\0", "\u2028", "\r", "\u202e", "nan", "inf", "-1")
PLAIN = ("a", "a.wav", "en", "hand", "word", "0", "1", "x" * 300, "a/" * 3000, "9" * 5000)
CELLS = st.sampled_from([*ODD, *PLAIN]) | st.text(max_size=20)


def tables(first):
    rows = st.lists(st.lists(CELLS, min_size=4, max_size=4), min_size=1, max_size=3)
    return rows.map(lambda rows: "\n".join([first, *("\t".join(cells) for cells in rows)]).encode())


@MODEST
@given(data=tables("id\tpath\tlanguage\ttranscript"))
def test_any_cells_of_a_manifest(folder, data):
    utterances = answer(read_manifest, folder / "manifest.tsv", data) or []
    assert all(utterance.path.is_file() for utterance in utterances)
    assert not any("/" in utterance.id for utterance in utterances)


@MODEST
@given(data=tables("tier\tstart_s\tend_s\tlabel"))
def test_any_cells_of_an_alignment(folder, data):
    words = answer(read_alignment, folder / "alignment.tsv", data) or []
    assert all(0 <= word.start <= word.end < np.inf for word in words)


@MODEST
@given(data=st.text(alphabet="[]{}-:,?&*!|>'\"# \nab019.\t\0%@`", max_size=40))
@pytest.mark.parametrize("name", ["table.yaml", "en-it/data/dev/txt/dev.yaml"])
def test_any_yaml(folder, name, data):
    answer(READERS[name], folder / name, data.encode())


def repacked(archive, member, data, method=zipfile.ZIP_STORED):
    """Return an archive with another content of one member, whose checksum is right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(out, "w", method) as new:
        for name in old.namelist():
            is_it = name.endswith(member)
            new.writestr(
                zipfile.ZipInfo(name), data if is_it else old.read(name),
                compress_type=method if is_it else zipfile.ZIP_STORED,
            )  # fmt: skip
    return out.getvalue()


def member_of(archive, ending):
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return next(opened.read(name) for name in opened.namelist() if name.endswith(ending))


@pytest.mark.parametrize(
    ("name", "member"),
    [("result.npz", "meta.npy"), ("result.npz", "pieces.npy"), ("model.pt", "data.pkl")],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@MODEST
@given(data=st.data())
def test_damage_under_a_right_checksum(folder, name, member, data):
    whole = (folder / name).read_bytes()
    forged = repacked(whole, member, data.draw(damage(member_of(whole, member))))
    answer(READERS[name], folder / name, forged)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


def with_meta(whole, text):
    """Return a result file with another ``meta``."""
    out = io.BytesIO()
    np.lib.format.write_array(out, np.array(text))
    return repacked(whole, "meta.npy", out.getvalue())


@MODEST
@given(key=st.sampled_from(["axes", "units", "step", "format_version", "parameters"]), value=JSON)
def test_any_meta(folder, key, value):
    whole = (folder / "result.npz").read_bytes()
    text = json.dumps(meta(format_version=1) | {key: value})
    answer(load, folder / "result.npz", with_meta(whole, text))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' + "9" * 5000 + "}"])
def test_json_that_python_does_not_read(folder, text):
    whole = (folder / "result.npz").read_bytes()
    assert answer(load, folder / "result.npz", with_meta(whole, text)) is None


@pytest.mark.parametrize("settings_key", ["state", "cls", "self", "unknown"])
def test_settings_may_have_any_name(folder, settings_key):
    content = {"model": small_state(), "args": hyperparameters(**{settings_key: 1})}
    out = io.BytesIO()
    torch.save(content, out)
    assert answer(load_fairseq_checkpoint, folder / "model.pt", out.getvalue()) is not None


@pytest.mark.parametrize("bins", ["x", [1], -1, 10**9, None])
def test_bins_that_are_no_number(tmp_path, bins):
    for name in ("dict.txt", "spm.model"):
        (tmp_path / name).touch()
    tokenizer = {"bpe": "sentencepiece", "sentencepiece_model": "spm.model"}
    content = {"bpe_tokenizer": tokenizer, "input_feat_per_channel": bins}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"c\.yaml: 'input_feat_per_channel' must be a number"):
        read_preprocessing(tmp_path)


def whisper_folder(folder, names, config="{}"):
    """Write a Whisper of CTranslate2 whose variables are all the same."""
    variables = [variable(name, np.zeros((2, 2, 2), "float32")) for name in names]
    (folder / "model.bin").write_bytes(ctranslate2_model(variables, {}))
    Tokenizer(WordLevel({"a": 0}, unk_token="a")).save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(config)
    return folder


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": 1}', '{"version": "1.0"}'])
def test_tokenizers_that_are_none(tmp_path, content):
    folder = whisper_folder(tmp_path, [])
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(UserError, match=r"tokenizer\.json is no tokenizer \("):
        load_model(folder, "whisper", device="cpu")


LAYER = "encoder/conv1/weight encoder/layer_{}/a decoder/layer_0/a decoder/embeddings/weight"


@pytest.mark.parametrize("number", ["0", "1", "4000000000", "9" * 5000])
def test_variables_of_no_whisper(tmp_path, number):
    folder = whisper_folder(tmp_path, LAYER.format(number).split())
    with pytest.raises(UserError, match=r"model\.bin does not hold the weights of a Whisper"):
        load_model(folder, "whisper", device="cpu")


def test_a_model_of_ten_billion_layers_is_not_built():
    names = "encoder/layer_0/a", "encoder/layer_9999999999/a"
    with pytest.raises(ValueError, match="not numbered from 0 on"):
        _count_layers(dict.fromkeys(names), "encoder")


@pytest.mark.parametrize("config", ["", "[]", "{", "[" * 100_000])
def test_settings_of_no_whisper(tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        _ctranslate2_settings(tmp_path / "config.json", TokenNames({}, frozenset()))


def test_show_refuses_an_archive_with_a_damaged_list(folder):
    path = folder / "result.npz"
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\1\2")
    data[at : at + 4] = bytes(4)
    assert answer(lambda one: show(one, None), path, bytes(data)) is None


# Sizes that are not there


ROOM = 2 << 30  # bytes of address space beside those of the program and its libraries
GROWTH = 700  # MiB of memory that a refusal may take, most of it the largest small archive
SECONDS = 30

# Each case in a process of its own, forked from one that has imported everything.
CHILD = """
import json, os, resource, signal, sys
from pathlib import Path
import torchaudio
from s2txai.errors import UserError
from tests.test_fuzz import FORGED, ROOM, SECONDS

def outcome(name, path):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
    signal.alarm(SECONDS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        FORGED[name][1](path)
        said = "read"
    except UserError as error:
        said = str(error)
    except BaseException as error:
        said = f"failed: {error!r}"
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([name, said[:2000], growth // 1024]), flush=True)

for name in FORGED:
    if (pid := os.fork()) == 0:
        outcome(name, Path(sys.argv[1]) / name.replace(" ", "-"))
        os._exit(0)
    os.waitpid(pid, 0)
"""


def npy(shape, dtype, data=b""):
    out = io.BytesIO()
    header = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue() + data


def result_with(member, method=zipfile.ZIP_DEFLATED):
    def write(path):
        save(path, ARRAYS, meta())
        path.write_bytes(repacked(path.read_bytes(), "pieces.npy", member(), method))

    return write


def bomb():
    return npy((300 << 20,), "|u1", bytes(300 << 20))


def claims_gigabytes(path):
    """Write a result whose list of members states 2^32 - 2 bytes."""
    save(path, ARRAYS, meta())
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\1\2")
    struct.pack_into("<I", data, at + 24, 2**32 - 2)
    path.write_bytes(data)


def large_dictionary(path):
    """Write a result with a member whose method, LZMA, asks for 4 GiB."""
    result_with(lambda: npy((9,), "|u1", bytes(9)), zipfile.ZIP_LZMA)(path)
    data = path.read_bytes()
    properties = b"]\0\0\x80\0"
    assert data.count(properties) == 1
    path.write_bytes(data.replace(properties, b"]\xff\xff\xff\xff"))


def checkpoint(change=None, **settings_):
    def write(path):
        state = small_state() | (change() if change else {})
        torch.save({"model": state, "args": hyperparameters(**settings_)}, path)

    return write


def one_number_for_many():
    return {"encoder.many": torch.zeros(1, dtype=torch.float16).expand(2**33)}


def laughs():
    """Return a list that is small in memory and endless in writing."""
    nested = ["ha"]
    for _ in range(60):
        nested = [nested, nested]
    return nested


def forged_storage(path):
    checkpoint(lambda: {"encoder.many": torch.zeros(12_345)})(path)
    whole = path.read_bytes()
    pickled = member_of(whole, "data.pkl")
    size = b"M" + struct.pack("<H", 12_345)
    assert size in pickled
    forged = pickled.replace(size, b"J" + struct.pack("<i", 2**31 - 1))
    path.write_bytes(repacked(whole, "data.pkl", forged))


def compressed_record(path):
    checkpoint()(path)
    path.write_bytes(
        repacked(path.read_bytes(), "data.pkl", bytes(300 << 20), zipfile.ZIP_DEFLATED)
    )


def variable_of(shape, n_bytes):
    array = np.zeros(4, dtype="float32")
    return lambda path: path.write_bytes(
        ctranslate2_model([variable("a", array, shape=shape, n_bytes=n_bytes)], {})
    )


def yaml_of(text):
    def write(path):
        path.write_text(text)

    return write


def segments_of(text):
    def write(path):
        folder = path / "en-it" / "data" / "dev" / "txt"
        folder.mkdir(parents=True)
        (folder / "dev.yaml").write_text(text)

    return write


def laughing_preprocessing(path):
    path.mkdir()
    lines = ["a0: &a0 [ha]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    (path / "c.yaml").write_text("\n".join([*lines, "bpe_tokenizer: {bpe: *a59}"]))


def endless_flac(path):
    """Write a recording whose header states 2^36 samples."""
    soundfile.write(path, np.linspace(-0.5, 0.5, 16_000), 16_000, format="FLAC")
    data = bytearray(path.read_bytes())
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    path.write_bytes(data)


def odd_rate(rate):
    return lambda path: soundfile.write(path, np.ones(rate), rate, format="WAV")


FORGED = {
    "shape of an array": (result_with(lambda: npy((2**60,), "<f8")), load),
    "shape without bytes": (result_with(lambda: npy((2**60,), "<U0")), load),
    "size of an item": (result_with(lambda: npy((), "|V2000000000")), load),
    "zip bomb": (result_with(bomb), load),
    "size of a member": (claims_gigabytes, load),
    "dictionary of LZMA": (large_dictionary, load),
    "elements of a variable": (variable_of([2**30, 2**30], 2**32 - 4), read_variables),
    "bytes of a variable": (variable_of([2**30 - 1], 2**32 - 4), read_variables),
    "one number for many": (checkpoint(one_number_for_many), load_fairseq_checkpoint),
    "size of a storage": (forged_storage, load_fairseq_checkpoint),
    "compressed record": (compressed_record, load_fairseq_checkpoint),
    "settings that laugh": (checkpoint(activation_fn=laughs()), load_fairseq_checkpoint),
    "YAML that laughs": (laughing_preprocessing, read_preprocessing),
    "YAML too deep": (yaml_of("a: " + "[" * 100_000), read_yaml),
    "segments too deep": (segments_of("[" * 100_000), lambda path: read_must_c(MUST_C, path)),
    "blocks too deep": (segments_of("- " * 100_000), lambda path: read_must_c(MUST_C, path)),
    "samples of a FLAC file": (endless_flac, lambda path: read_audio(path, 16_000)),
    "a rate that is prime": (odd_rate(44_101), lambda path: read_audio(path, 16_000)),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What each reader said, and how many MiB it took; nothing from one that crashed or hung."""
    folder = tmp_path_factory.mktemp("forged")
    for name, (write, _) in FORGED.items():
        write(folder / name.replace(" ", "-"))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return {name: (said, mib) for name, said, mib in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", FORGED)
def test_forged_sizes_take_no_memory(outcomes, name):
    said, mib = outcomes[name]
    assert name.replace(" ", "-") in said
    assert "\n" not in said
    assert len(said) < 1000
    assert mib < GROWTH


def test_the_bomb_is_one():
    """The archive of the tests above is what it is called: small, and far larger unpacked."""
    assert len(zlib.compress(bomb())) * 100 < len(bomb())
