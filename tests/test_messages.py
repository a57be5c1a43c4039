"""Every sentence for the user is in a table, with the test that brings it about.

``tests/messages.tsv`` names, for each sentence of an error, a warning or the verdict in ``src``,
the test whose situation raises it; "…" stands for what is filled in. Who writes or changes a
sentence reads it there once more: is it true in every situation that reaches it, does it blame
what is at fault, can its advice be followed?
"""

import ast
import csv
import errno
import io
import os
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import yaml

from s2txai.analysis.comet import SCORES
from s2txai.analysis.deletion import delete
from s2txai.datasets.absent import absent_utterances
from s2txai.datasets.formats.must_c import _segments
from s2txai.datasets.tasks import parse_task
from s2txai.errors import UserError
from s2txai.models.base import Model
from s2txai.models.conformer.checkpoint import load_fairseq_checkpoint
from s2txai.models.conformer.network import Conformer
from s2txai.models.conformer.vocabulary import Preprocessing, Vocabulary
from s2txai.models.loading import resolve_device
from s2txai.models.token_names import TokenNames, read_token_names
from s2txai.models.whisper import _copy_stacked, _ctranslate2_settings
from s2txai.models.whisper_tokens import whisper_tokens
from s2txai.report.page import _sweep_warnings, _warnings
from s2txai.report.runs import _read_json
from s2txai.report.show import draw_file
from s2txai.report.tables import PaperFigures
from s2txai.saliency.design import MaskDesign
from s2txai.saliency.gradients import gradient_sums
from s2txai.storage.artifacts import Artifact, replacing
from s2txai.study.config import check_task
from s2txai.study.fetch_dataset import _suffix
from s2txai.study.schema_errors import config_errors
from s2txai.wording import number_beside
from tests.tiny_conformer import hyperparameters, random_state, tiny_network
from tests.tiny_whisper import tiny_whisper

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "s2txai"
TABLE = ROOT / "tests" / "messages.tsv"
LIMITS = ROOT / "docs" / "limits.md"

ERRORS = {"UserError", "UtteranceError"}
# Functions whose texts are sentences of the verdict, and the table of reasons.
VERDICT = "analysis/verdict.py"
VERDICT_PARTS = {
    "NOT_TESTED", "_undecided", "_sentences", "_share_sentence", "_heads_sentence",
    "_timing_sentence",
}  # fmt: skip
_SHORTEST_SENTENCE = 30  # letters; shorter texts are parts of another

Sentence = tuple[str, str]  # module, text


def text_of(node: ast.expr) -> str:
    """Return a text as it stands in the source, with … for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[+]?(?:\.\d+)?[dsrgf]", "…", node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(value) for value in node.values)
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return "…"


def is_message(call: ast.Call) -> bool:
    if isinstance(call.func, ast.Name):
        return call.func.id in ERRORS
    if not isinstance(call.func, ast.Attribute):
        return False
    return call.func.attr in ("warning", "warn") or ast.unparse(call.func) == "warnings.append"


def messages_of(path: Path) -> Iterator[Sentence]:
    module = path.relative_to(PACKAGE).as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and is_message(node):
            yield module, text_of(node.args[0])
    if module == VERDICT:
        for part in tree.body:
            target = part.targets[0] if isinstance(part, ast.Assign) else part
            name = getattr(target, "name", getattr(target, "id", ""))
            if name in VERDICT_PARTS:
                yield from ((module, text) for text in verdict_texts(part))


def verdict_texts(part: ast.stmt) -> Iterator[str]:
    inside = {
        id(value)
        for node in ast.walk(part)
        if isinstance(node, ast.JoinedStr)
        for value in node.values
    }
    for node in ast.walk(part):
        if isinstance(node, ast.JoinedStr | ast.Constant) and id(node) not in inside:
            text = text_of(node)
            if len(text) >= _SHORTEST_SENTENCE and not is_docstring(part, text):
                yield text


def is_docstring(part: ast.stmt, text: str) -> bool:
    return isinstance(part, ast.FunctionDef) and text == ast.get_docstring(part, clean=False)


@cache
def sentences() -> Counter[Sentence]:
    return Counter(
        sentence for path in sorted(PACKAGE.rglob("*.py")) for sentence in messages_of(path)
    )


def table() -> list[tuple[str, str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert rows[0] == ["module", "sentence", "test"]
    return [(module, sentence.replace("\\n", "\n"), test) for module, sentence, test in rows[1:]]


@cache
def functions_of(path: Path) -> dict[str, str]:
    """Return the source of the functions of a file, with their parameters, by name."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    return {
        node.name: "\n".join(
            lines[min(part.lineno for part in [node, *node.decorator_list]) - 1 : node.end_lineno]
        )
        for node in ast.parse(text).body
        if isinstance(node, ast.FunctionDef)
    }


def exists(test: str) -> bool:
    file, _, name = test.partition("::")
    return (ROOT / file).is_file() and name in functions_of(ROOT / file)


def test_every_sentence_is_in_the_table_once():
    """A new or changed sentence needs an entry, and a test that brings it about."""
    listed = Counter((module, sentence) for module, sentence, _ in table())
    assert {*sentences()} - {*listed} == set(), "write them into tests/messages.tsv"
    assert {*listed} - {*sentences()} == set(), "take them out of tests/messages.tsv"
    assert max(listed.values()) == 1


def test_the_tests_of_the_table_exist():
    lost = [row for row in table() if not exists(row[2])]
    assert lost == []


@pytest.mark.parametrize(
    "vague",
    [r"\btold\b", r"\btells\b", r"\bhears?\b", r"\baudited\b", r"nothing to tell", r", too\b"],
)
def test_sentences_are_plain(vague):
    assert [text for _, text in sentences() if re.search(vague, text)] == []


def test_sentences_end_as_sentences_do():
    """With a full stop, what is filled in, or a command to copy."""
    assert [
        text for _, text in sentences() if not re.search(r"([.…?]|done)$", text) and "; " in text
    ] == []


# Limits


def limits() -> list[tuple[str, str]]:
    """Return sentence and test of each row of the page of limits."""
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        for line in LIMITS.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and "`tests/" in line
    ]
    return [(row[1].strip("*"), row[2].strip("`")) for row in rows]


def test_every_limit_is_refused_as_its_page_says():
    """The sentence is one of the table with this test, or stands in the test itself."""
    rows = limits()
    assert len(rows) > 20
    listed = {(sentence, test) for _, sentence, test in table()}
    for sentence, test in rows:
        assert exists(test), test
        file, _, name = test.partition("::")
        in_test = sentence in functions_of(ROOT / file)[name]
        assert (sentence, test) in listed or in_test, (sentence, test)


# Situations that no other test brings about


def test_comet_without_a_model():
    with pytest.raises(UserError, match="COMET needs a model"):
        SCORES["comet"].counts(["a"], ["b"])


def test_a_saliency_map_of_another_shape():
    with pytest.raises(UserError, match=r"shape \(3,\), the features \(4, 2\): give one value per"):
        delete(torch.zeros(4, 2), np.zeros(3), 50)


def test_an_absent_corpus_is_not_read(tmp_path):
    entry = {"folder": "corpus", "source": "en", "expect": {"utterances": 1, "seconds": 3}}
    (utterance,) = absent_utterances(entry, tmp_path, parse_task("asr-en"))
    with pytest.raises(UserError, match="can be planned but not processed; put the corpus there"):
        utterance.read(16_000)


def test_results_without_a_verdict(tmp_path):
    with pytest.raises(UserError, match=r"verdict\.json does not exist: run the workflow step"):
        _read_json(tmp_path / "verdict.json")


def test_a_step_without_a_figure(tmp_path):
    with pytest.raises(UserError, match="is of the step 'dream', for which there is no figure"):
        draw_file(Artifact({}, {"step": "dream"}, tmp_path / "a.npz"))


def test_without_the_papers_figures(tmp_path):
    with pytest.raises(UserError, match="of the paper's figures does not exist: restore it"):
        PaperFigures(tmp_path / "paper.csv")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(tmp_path, number):
    with (
        pytest.raises(UserError, match="There is no room for"),
        replacing(tmp_path / "a.npz"),
    ):
        raise OSError(number, os.strerror(number))


def test_streaming_is_no_setting():
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    (problem,) = [
        text
        for text in config_errors({"decode": {"streaming": True}}, schema)
        if "streaming" in text
    ]
    assert "unknown key 'decode.streaming'" in problem


@pytest.mark.parametrize(
    ("entry", "task", "possible"),
    [
        (
            {"languages": ["en", "de"], "translation_targets": ["en"]},
            "st-de-fr",
            "asr-<language>, st-<language>-en (from another language), where <language> is one of ",
        ),
        ({"languages": ["en"], "translation_targets": ["en"]}, "st-en-it", "asr-en."),
        (
            {"languages": ["en"], "translation_targets": ["it"]},
            "st-en-fr",
            "asr-<language>, st-<language>-it, where <language> is one of en.",
        ),
    ],
)
def test_advice_on_tasks_is_not_refused_in_turn(entry, task, possible):
    with pytest.raises(UserError, match="cannot perform task") as raised:
        check_task("m", entry, parse_task(task))
    assert possible in str(raised.value)


def test_a_must_c_list_with_an_impossible_date(tmp_path):
    (tmp_path / "a.yaml").write_text("- {duration: 1, offset: 2026-02-30, wav: a.wav}\n")
    with pytest.raises(UserError, match=r"a\.yaml: not valid YAML \(.*\); unpack the corpus again"):
        _segments(tmp_path / "a.yaml")


def test_an_unknown_format_of_recordings():
    aiff = io.BytesIO()
    soundfile.write(aiff, np.zeros(800), 8000, format="AIFF")
    with pytest.raises(UserError, match="row 1: the recording is of the format AIFF; choose a"):
        _suffix(aiff.getvalue(), "row 1")


# Models


def test_a_gpu_that_is_not_there(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="Device 'cuda' needs a GPU, but torch finds none here"):
        resolve_device("cuda")


def test_a_family_that_reads_no_tokens_by_itself():
    with pytest.raises(UserError, match="cannot occlude preceding tokens"):
        Model.decode_without_tokens(SimpleNamespace(), *[None] * 4)


def test_whisper_refuses_what_it_was_not_trained_for():
    model = tiny_whisper()
    with pytest.raises(UserError, match="This Whisper is English-only, so it cannot do 'asr-it'"):
        model.prompt(parse_task("asr-it"))


@pytest.mark.parametrize(("excess", "text"), [(1, "1.0001"), (160, "1.01"), (16_000, "2.0")])
def test_whisper_refuses_more_than_its_context(excess, text):
    audio = np.zeros(16_000 + excess, dtype=np.float32)
    with pytest.raises(UserError, match=f"lasts {text} s, but Whisper accepts at most 1 s"):
        tiny_whisper().features(audio)


def test_keys_of_whisper_have_no_bias():
    variables = {"a/weight": np.ones((4, 2)), "a/bias": np.ones(4)}
    with pytest.raises(UserError, match="a has a key bias, which Whisper has not"):
        _copy_stacked(variables, "a", {}, ["k_proj", "v_proj"])


def test_checkpoints_that_are_no_table(tmp_path):
    torch.save([1], tmp_path / "c.pt")
    with pytest.raises(UserError, match="holds no table"):
        load_fairseq_checkpoint(tmp_path / "c.pt")


def test_compressed_checkpoints(tmp_path):
    with zipfile.ZipFile(tmp_path / "c.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/data.pkl", b"x" * 100)
    with pytest.raises(UserError, match="is compressed, as torch writes none"):
        load_fairseq_checkpoint(tmp_path / "c.pt")


def test_weights_without_their_numbers(tmp_path):
    weights = {"a": torch.zeros(2, 2).to_sparse()}
    torch.save({"model": weights, "args": {"decoder_attention_heads": 2}}, tmp_path / "c.pt")
    with pytest.raises(UserError, match="does not hold the numbers of 'a'; download it again"):
        load_fairseq_checkpoint(tmp_path / "c.pt")


def test_settings_of_another_network():
    with pytest.raises(UserError, match="='softmax', which is not implemented"):
        Conformer.from_state(random_state(40), **hyperparameters(ctc_compress_strategy="softmax"))


def test_weights_of_other_shapes():
    state = random_state(40)
    name = next(name for name in state if name.endswith("layer_norm.weight"))
    state[name] = torch.ones(3)
    with pytest.raises(UserError, match="weights do not fit together"):
        Conformer.from_state(state, **hyperparameters())


def test_settings_without_heads():
    settings = hyperparameters()
    del settings["decoder_attention_heads"]
    with pytest.raises(UserError, match="settings lack 'decoder_attention_heads'"):
        Conformer.from_state(random_state(40), **settings)


def test_no_joint_head():
    network = tiny_network()
    network.auxiliary_decoder = None
    with pytest.raises(UserError, match="This model has no joint CTC head"):
        network.joint_ctc_logits(torch.zeros(1, 2, 4), torch.ones(1, 2), torch.zeros(1, 2))


def test_a_dictionary_in_another_encoding(tmp_path):
    (tmp_path / "dict.txt").write_bytes(b"\xff 1\n")
    files = Preprocessing(tmp_path / "dict.txt", tmp_path / "spm.model", 80)
    with pytest.raises(UserError, match=r"dict\.txt cannot be read \("):
        Vocabulary.read(files, 5)


# Warnings of the page


def rows_of(**columns):
    values = {"reliability": 0.9, "n_undefined_utterances": 0} | columns
    return pd.DataFrame([values], index=pd.Index(["smh"], name="saliency"))


def run_of(n, failed=()):
    return SimpleNamespace(
        utterances=[SimpleNamespace(id=f"u{number}") for number in range(n)],
        n_failed=len(failed),
        tables={
            "failures": pd.DataFrame({"utterance": list(failed)}),
            "transcripts": pd.DataFrame({"at_limit": [False] * n}),
        },
    )


def test_a_good_run_has_no_warning():
    assert _warnings(run_of(20), rows_of()) == []


def test_low_reliability_is_shown_below_its_limit():
    (said,) = _warnings(run_of(20), rows_of(reliability=0.4996))
    assert said.startswith("Low reliability, under 0.5: SMH (0.4996). More than half of what")


def test_what_was_not_measured_is_not_called_noise():
    (said,) = _warnings(run_of(20), rows_of(reliability=np.nan))
    assert said.startswith("Reliability not defined: SMH.")
    assert "More than half" not in said


def test_undefined_correlations_are_counted():
    (said,) = _warnings(run_of(20), rows_of(n_undefined_utterances=2))
    assert said.startswith("2 of 20 utterances have no defined correlation")


def test_failures_are_counted():
    (said,) = _warnings(run_of(20, failed=["x"]), rows_of())
    assert said.startswith("Incomplete: 1 of 21 utterances failed.")


def test_a_run_of_one_utterance():
    (said,) = _warnings(run_of(1), rows_of())
    assert said.startswith("Illustrative only: 1 utterance, fewer than 20.")


def test_warnings_of_a_sweep():
    rows = pd.DataFrame(
        {
            "n_failed_utterances": [2, 0],
            "n_utterances": [19, 20],
            "rho_smh": [0.5, 0.5],
            "reliability_smh": [np.nan, 0.7],
        }
    )
    assert [said.split(".")[0].split(":")[0] for said in _sweep_warnings(rows)] == [
        "Incomplete",
        "Illustrative only",
        "In 1 of 2 runs the reliability of a saliency map is under 0",
    ]


@pytest.mark.parametrize(
    ("value", "threshold", "decimals", "text"),
    [
        (0.496, 0.5, 2, "0.496"),
        (0.4996, 0.5, 2, "0.4996"),
        (0.5, 0.5, 2, "0.50"),
        (79.96, 80, 0, "79.96"),
        (79.4, 80, 0, "79"),
        (30.04, 30, 1, "30.04"),
        (31.26, 30, 1, "31.3"),
        (30.0, 30, 1, "30.0"),
    ],
)
def test_numbers_stay_on_their_side(value, threshold, decimals, text):
    assert number_beside(value, threshold, decimals) == text


NAMES = TokenNames(
    {
        name: number
        for number, name in enumerate(
            ("a", "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>", "<|transcribe|>")
        )
    },
    frozenset(range(1, 5)),
)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lang_to_id": ["<|it|>"]}, "have no tables of ids under 'lang_to_id' and 'task_to_id'"),
        ({"is_multilingual": True}, "multilingual, but its tokenizer has no tag of a language"),
        (
            {"is_multilingual": False, "lang_to_id": {"<|transcribe|>": 4}},
            "not multilingual, but give it languages under 'lang_to_id'",
        ),
    ],
)
def test_settings_of_a_whisper_that_contradict_its_tokenizer(tmp_path, settings, words):
    with pytest.raises(UserError, match=words):
        whisper_tokens(tmp_path, NAMES, settings, {})


def test_a_tokenizer_that_is_none(tmp_path):
    (tmp_path / "tokenizer.json").write_text('{"model": {}}', encoding="utf-8")
    with pytest.raises(UserError, match="is no tokenizer"):
        read_token_names(tmp_path)


def test_a_quantised_whisper_without_its_settings(tmp_path):
    with pytest.raises(UserError, match=r"config\.json cannot be read \(there is none\)"):
        _ctranslate2_settings(tmp_path / "config.json", NAMES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_masks": 7}, "'n_masks' must be at least 8, not 7"),
        ({"n_segments": (0, 50)}, "'n_segments' must be at least 1 each"),
        ({"p": 1.0}, "'p' must be more than 0 and less than 1"),
        ({"token_p": 1.0}, "'token_p' must be at least 0 and less than 1"),
        ({"encoder": "fast"}, "'encoder' must be auto or exact, not fast"),
        ({"check": 1.5}, "'check' must be auto or more than 0 and at most 1"),
        ({"max_masks": 8}, r"'max_masks' must be at least 'n_masks' \(16\)"),
    ],
)
def test_designs_that_give_no_map(change, words):
    with pytest.raises(UserError, match=words):
        MaskDesign(**({"n_masks": 16, "n_segments": (50, 100)} | change))


def test_gradients_know_one_occluded_value():
    with pytest.raises(UserError, match="Gradients are taken towards the occluded value"):
        gradient_sums(None, None, MaskDesign(16, occluded_value="padding"), None, None)
