"""The Conformer: its CTC head, precision and batches; its checkpoints; behind the interface."""

import argparse
import os
import re
from collections import defaultdict
from itertools import product

import numpy as np
import pytest
import torch
import yaml

from s2txai.datasets import parse_task
from s2txai.datasets.audio import read_audio
from s2txai.errors import UserError
from s2txai.models.conformer import Conformer, SearchSettings, load_fairseq_checkpoint, search
from s2txai.models.conformer.ctc import PrefixScorer
from s2txai.models.conformer.features import filterbank, normalise
from s2txai.models.decoding import decode
from s2txai.models.loading import load_model
from tests.tiny_conformer import (
    BINS,
    hyperparameters,
    random_state,
    save_conformer,
    tiny_network,
)
from tests.weights import ROOT

PAD, EOS = 1, 2


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("conformer")
    save_conformer(path)
    return path


@pytest.fixture(scope="module")
def model(directory):
    return load_model(directory, "conformer", device="cpu")


@pytest.fixture(scope="module")
def states(model):
    audio = read_audio(
        ROOT / "resources/speech/librivox/sense_and_sensibility_01_austen_64kb-0880.wav", 16_000
    )
    frames = model.features(audio).values
    return model.encode(torch.from_numpy(frames)[None], 0.0)


def inputs(dtype=torch.float64):
    """Return features of three lengths, zero after them, and what the decoder reads."""
    generator = torch.Generator().manual_seed(1)
    lengths = torch.tensor([61, 43, 50])
    features = torch.randn(3, 61, BINS, generator=generator, dtype=torch.float64).to(dtype)
    tokens = torch.randint(4, 40, (3, 5), generator=generator)
    tokens[:, 0] = EOS
    tokens[1, 4] = PAD
    for row, length in enumerate(lengths.tolist()):
        features[row, length:] = 0
    return features, lengths, tokens


@torch.inference_mode()
def test_batch_equals_single():
    network = tiny_network()
    features, lengths, tokens = inputs()
    states, valid = network.encode(features, lengths)
    logits = network.decode(states, valid, tokens)
    for row, length in enumerate(lengths.tolist()):
        one, all_valid = network.encode(features[row : row + 1, :length], lengths[row : row + 1])
        steps = one.shape[1]
        assert valid[row].sum() == steps == -(-length // 4)
        torch.testing.assert_close(states[row, :steps], one[0], atol=1e-12, rtol=0)
        n_tokens = int((tokens[row] != PAD).sum())
        alone = network.decode(one, all_valid, tokens[row : row + 1, :n_tokens])
        torch.testing.assert_close(logits[row, :n_tokens], alone[0], atol=1e-12, rtol=0)


@torch.inference_mode()
def test_unsafe_shift_depends_on_the_batch_but_for_the_longest():
    features, lengths, _ = inputs()
    safe, _ = tiny_network().encode(features, lengths)
    unsafe, _ = tiny_network(batch_unsafe_relative_shift=True).encode(features, lengths)
    torch.testing.assert_close(safe[0], unsafe[0], atol=1e-12, rtol=0)
    assert (safe[1, :11] - unsafe[1, :11]).abs().max() > 1e-3


@torch.inference_mode()
def test_what_lies_behind_an_utterance_is_ignored():
    network = tiny_network()
    features, lengths, _ = inputs()
    states, valid = network.encode(features, lengths)
    for row, length in enumerate(lengths.tolist()):
        features[row, length:] = torch.nan
    other, _ = network.encode(features, lengths)
    torch.testing.assert_close(other[valid], states[valid], atol=0, rtol=0)


@pytest.mark.parametrize("length", [0, 62])
def test_lengths_are_those_of_the_features(length):
    with pytest.raises(ValueError, match="do not fit 61 frames"):
        tiny_network().encode(inputs()[0], torch.tensor([61, length, 50]))


def test_joint_search_needs_the_language():
    network = tiny_network()
    states, valid = network.encode(*inputs()[:2])
    with pytest.raises(UserError, match="needs the token of the language"):
        search(network, states, valid, SearchSettings(beam=2, last_step=3, ctc_weight=0.3))


@pytest.mark.parametrize("weight", [0.0, 0.3])
@torch.inference_mode()
def test_searches_side_by_side_are_those_of_single_utterances(weight):
    """Utterances of different lengths: neither attention nor CTC sees the padding."""
    network = tiny_network()
    features, lengths, _ = inputs()
    settings = SearchSettings(beam=3, last_step=8, forced=[5], no_repeat_ngram=2, ctc_weight=weight)
    together = search(network, *network.encode(features, lengths), settings)
    for row, length in enumerate(lengths.tolist()):
        one = features[row : row + 1, :length]
        (alone,) = search(network, *network.encode(one, lengths[row : row + 1]), settings)
        assert [found.tokens for found in alone] == [found.tokens for found in together[row]]
        for found, expected in zip(together[row], alone, strict=True):
            assert found.score == pytest.approx(expected.score, abs=1e-10)


@torch.inference_mode()
def test_scores_of_joint_decoding_by_their_formula():
    """Of every hypothesis: attention's log-probability and a share of what CTC gains, from step 1.

    CTC's part is summed over all paths.
    """
    network = tiny_network(n_symbols=8)
    features = inputs()[0][1:2, :14]
    states, valid = network.encode(features, torch.tensor([14]))  # 4 steps
    weight, tag = 0.7, 5
    settings = SearchSettings(beam=3, last_step=4, forced=[tag], ctc_weight=weight)
    (found,) = search(network, states, valid, settings)
    assert len({tuple(one.tokens) for one in found}) == 3
    ctc = torch.log_softmax(
        network.joint_ctc_logits(states, valid, torch.tensor([[EOS, tag]])), dim=2
    )[0]
    for hypothesis in found:
        read = torch.tensor([[EOS, *hypothesis.tokens[:-1]]])
        scores = torch.log_softmax(network.decode(states, valid, read), dim=2)[0]
        before = 0.0
        for step, token in enumerate(hypothesis.tokens):
            said = hypothesis.tokens[1 : step + 1]
            expected = float(scores[step, token])
            if step:
                whole = token == EOS
                now = prefix_log_probability(ctc, said[:-1] if whole else said, whole=whole)
                expected += weight * (now - before)
                before = now
            assert hypothesis.token_scores[step] == pytest.approx(expected, abs=1e-9)
        mean = np.mean(hypothesis.token_scores)
        assert hypothesis.score == pytest.approx(mean, abs=1e-9)


@torch.inference_mode()
def test_joint_ctc_head_by_its_formula():
    network = tiny_network()
    features, lengths, tokens = inputs()
    states, valid = network.encode(features, lengths)
    found = network.joint_ctc_logits(states, valid, tokens)
    state = {name: values.double() for name, values in random_state(40).items()}
    for row, step in product(range(3), range(states.shape[1])):
        x = states[row, step] + state["decoder.embed_tokens.weight"][tokens[row, 1]]
        x = (x - x.mean()) / torch.sqrt(x.var(correction=0) + 1e-5)
        x = (
            x * state["auxiliary_decoder.lang_embed_layernorm.weight"]
            + state["auxiliary_decoder.lang_embed_layernorm.bias"]
        )
        expected = state["auxiliary_decoder.fc.weight"] @ x + state["auxiliary_decoder.fc.bias"]
        expected = expected * valid[row, step]
        torch.testing.assert_close(found[row, step], expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.inference_mode()
def test_autocast(dtype):
    network = tiny_network(dtype=torch.float32)
    features, lengths, tokens = inputs(torch.float32)
    states, valid = network.encode(features, lengths)
    logits = network.decode(states, valid, tokens)
    with torch.autocast("cpu", dtype):
        low, _ = network.encode(features, lengths)
        low_logits = network.decode(low, valid, tokens)
        ctc = network.joint_ctc_logits(low, valid, tokens)
    assert low_logits.dtype == dtype
    assert ctc.isfinite().all()
    error = (low_logits.float() - logits).abs().max() / logits.abs().max()
    assert error < {torch.float16: 0.02, torch.bfloat16: 0.1}[dtype]


@torch.inference_mode()
def test_the_encoder_compiles_as_one_graph():
    features, _, _ = inputs(torch.float32)
    encoder = tiny_network(dtype=torch.float32).encoder
    expected = encoder(features).states
    encoder.compile(backend="aot_eager", fullgraph=True)
    for n in (1, len(features)):
        torch.testing.assert_close(encoder(features[:n]).states, expected[:n], atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_whole_network_in_half_precision():
    features, lengths, tokens = inputs(torch.bfloat16)
    network = tiny_network(dtype=torch.bfloat16)
    states, valid = network.encode(features, lengths)
    assert network.decode(states, valid, tokens).isfinite().all()


def prefix_log_probability(log_probs, prefix, *, whole):
    """Sum over all paths: log-probability that the transcript begins with, or is, ``prefix``."""
    n_steps, n_symbols = log_probs.shape
    blank, total = n_symbols - 1, -np.inf
    for path in product(range(n_symbols), repeat=n_steps):
        said = [
            symbol
            for step, symbol in enumerate(path)
            if symbol != blank and (step == 0 or symbol != path[step - 1])
        ]
        if (said == prefix) if whole else (said[: len(prefix)] == prefix):
            score = sum(float(log_probs[step, symbol]) for step, symbol in enumerate(path))
            total = np.logaddexp(total, score)
    return total


def test_ctc_prefix_scores_sum_over_all_paths():
    # Symbols 0 to 3, of which 2 ends a sentence and is never spoken; 4 is the blank.
    log_probs = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    log_probs[:, EOS] = -40.0
    log_probs = torch.log_softmax(log_probs, dim=1)
    scorer = PrefixScorer(log_probs)
    prefixes, said = scorer.empty(1), []
    for token in (3, 3, 0):
        scores = scorer.continuations(prefixes)[0]
        for other in (0, 1, 3):
            expected = prefix_log_probability(log_probs, [*said, other], whole=False)
            assert float(scores[other]) == pytest.approx(expected, abs=1e-9)
        ended = prefix_log_probability(log_probs, said, whole=True)
        assert float(scores[EOS]) == pytest.approx(ended, abs=1e-9)
        assert scores[4] == -torch.inf
        prefixes = scorer.extend(
            prefixes, torch.tensor([0]), torch.tensor([token]), scores[token][None]
        )
        said.append(token)


def test_features_do_not_depend_on_level(model):
    rng = np.random.default_rng(0)
    audio = rng.normal(size=16_000).astype(np.float32) * 0.05
    one, louder = model.features(audio).values, model.features(2 * audio).values
    assert one.shape == (98, BINS)
    np.testing.assert_allclose(one.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(one.std(axis=0), 1, atol=1e-4)
    np.testing.assert_allclose(one, louder, atol=2e-3)


def test_silent_bins_stay_finite():
    silent = np.zeros(4000, dtype=np.float32)
    frames = normalise(filterbank(silent, BINS))
    assert np.abs(frames).max() == 0


# Behind the interface


@pytest.mark.parametrize(("task", "tag"), [("asr-en", "<lang:en>"), ("st-en-it", "<lang:it>")])
def test_the_tag_of_the_target_begins_every_hypothesis(model, states, task, tag):
    task = parse_task(task)
    forced = model.forced(task)
    (tokens,) = model.generate(states, model.prompt(task), beam=3, max_new_tokens=8, forced=forced)
    table = model.token_table(tokens)
    assert table.pieces[0] == tag
    assert table.roles[0] == "special"
    assert table.word_index[0] == -1
    assert len(tokens) <= 8
    assert tokens[-1] == EOS
    assert tag not in model.text(tokens)


def test_unknown_language_is_refused(model):
    with pytest.raises(UserError, match=r"no <lang:de>, only <lang:en>, <lang:it>"):
        model.forced(parse_task("asr-de"))


def test_pieces_make_up_the_text(model):
    numbers = {
        piece: number for number in range(4, 60) for piece in model.token_table([number]).pieces
    }
    words = [numbers[piece] for piece in (" the", " ", "f", "a", " man")]
    assert model.text([*words, EOS]) == "the fa man"
    table = model.token_table([*words, EOS])
    assert table.word_index == [0, 1, 1, 1, 2, -1]
    assert table.roles == ["text"] * 5 + ["eos"]


def best_by_trying(model, states, forced, n_symbols, weight):
    """Return the best greedy continuation of the tag by attention and CTC, scored apart."""
    tokens = list(forced)
    for _ in range(4):
        logits = model.decode(states, [EOS], [*tokens, 0])[0, -1]
        scores = torch.log_softmax(logits, dim=0)
        if weight:
            network = model._network
            valid = torch.ones(states.shape[:2], dtype=torch.bool)
            ctc = network.joint_ctc_logits(states, valid, torch.tensor([[EOS, *forced]]))[0]
            scorer = PrefixScorer(torch.log_softmax(ctc, dim=1))
            prefixes = scorer.empty(1)
            for token in tokens[1:]:
                found = scorer.continuations(prefixes)[0]
                prefixes = scorer.extend(
                    prefixes, torch.tensor([0]), torch.tensor([token]), found[token][None]
                )
            scores = scores + weight * (scorer.continuations(prefixes)[0] - prefixes.score)
        scores[PAD] = -torch.inf
        tokens.append(int(scores.argmax()))
        if tokens[-1] == EOS:
            break
    return tokens


def test_forced_tokens_are_rows_with_a_role_of_their_own(model):
    audio = np.random.default_rng(0).normal(size=8000).astype(np.float32) * 0.1
    decoded = decode(model, audio, parse_task("asr-en"), beam=1)
    assert decoded["tokens"][0] == model.forced(parse_task("asr-en"))[0]
    assert decoded["roles"][0] == "forced"
    assert "forced" not in decoded["roles"][1:]
    assert len(decoded["roles"]) == len(decoded["log_probs"])


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_greedy_search_follows_attention_and_ctc(directory, states, weight):
    options = {"ctc_weight": weight} if weight else {}
    model = load_model(directory, "conformer", device="cpu", options=options)
    forced = model.forced(parse_task("asr-en"))
    with torch.inference_mode():
        expected = best_by_trying(model, states, forced, 63, weight)
    (tokens,) = model.generate(states, [EOS], beam=1, max_new_tokens=5, forced=forced)
    assert tokens[: len(expected)][:4] == expected[:4]


@pytest.mark.parametrize("weight", [0.0, 0.4])
@pytest.mark.parametrize("beam", [1, 4])
def test_utterances_side_by_side_do_not_see_each_other(directory, states, beam, weight):
    model = load_model(directory, "conformer", device="cpu", options={"ctc_weight": weight})
    forced = model.forced(parse_task("asr-en"))
    generator = torch.Generator().manual_seed(0)
    several = states + torch.randn(5, *states.shape[1:], generator=generator)

    def decode(some):
        return model.generate(some, [EOS], beam=beam, max_new_tokens=10, forced=forced)

    together = decode(several)
    assert together == [decode(one[None])[0] for one in several]
    assert len({tuple(tokens) for tokens in together}) > 1


def test_joint_decoding_needs_the_head(tmp_path):
    save_conformer(tmp_path)
    content = torch.load(tmp_path / "checkpoint.pt", weights_only=False)
    for name in [name for name in content["model"] if name.startswith("auxiliary_decoder")]:
        del content["model"][name]
    torch.save(content, tmp_path / "checkpoint.pt")
    with pytest.raises(UserError, match="no CTC head over its target"):
        load_model(tmp_path, "conformer", device="cpu", options={"ctc_weight": 0.2})


def test_the_head_of_the_encoder_runs_only_where_its_logits_are_used():
    network = tiny_network()
    features, lengths = inputs()[:2]
    calls = []
    network.encoder.ctc_fc.register_forward_hook(lambda *_: calls.append(1))
    states, valid = network.encode(features, lengths)
    network.decode(states, valid, torch.tensor([[EOS, 5]] * len(features)))
    assert network.encode_fully(features, lengths, with_ctc=False).ctc_logits is None
    assert not calls
    output = network.encode_fully(features, lengths)
    assert len(calls) == 1
    assert output.ctc_logits.shape[:2] == states.shape[:2]
    torch.testing.assert_close(output.states, states, atol=0, rtol=0)


def test_masks_of_the_input_do_not_pay_for_the_head_of_the_encoder(model):
    features = torch.randn(2, 40, model._n_bins)
    head, calls = model._network.encoder.ctc_fc, []
    hook = head.register_forward_hook(lambda *_: calls.append(1))
    model.encode(features, 0.0)
    model.encoder_attention(features[:1], 0.0)
    hook.remove()
    assert not calls


def test_the_example_of_the_documentation_runs(directory):
    page = (ROOT / "docs" / "models.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.S)
    names = {}
    exec(block.replace("/models/fama-small", str(directory)), names)
    n_steps = names["states"].shape[1]
    assert names["attention"].shape == (2, 2, 2, 4, n_steps)
    assert names["joint"].shape == (2, n_steps, 64)
    assert names["output"].ctc_logits.shape == (2, n_steps, 20)
    assert [len(hypotheses) for hypotheses in names["hypotheses"]] == [5, 5]


# Checkpoints


def save(path, **content):
    torch.save(content, path)
    return path


def test_newer_settings(tmp_path):
    state = random_state(40)
    cfg = {"model": argparse.Namespace(**hyperparameters()), "task": {"data": "/x"}}
    history = [{"loss": np.float64(1.5), "better": np.bool_(True)}, defaultdict(dict)]
    new = load_fairseq_checkpoint(
        save(tmp_path / "new.pt", model=state, args=None, cfg=cfg, extra_state=history)
    )
    old = load_fairseq_checkpoint(
        save(tmp_path / "old.pt", model=state, args=argparse.Namespace(**hyperparameters()))
    )
    plain = load_fairseq_checkpoint(
        save(tmp_path / "plain.pt", model=state, cfg={"model": hyperparameters()})
    )
    # Settings that are not in the place of either time.
    flat = load_fairseq_checkpoint(save(tmp_path / "flat.pt", model=state, cfg=hyperparameters()))
    both = load_fairseq_checkpoint(
        save(tmp_path / "both.pt", model=state, cfg={"task": {}}, args=hyperparameters())
    )
    for network in (old, plain, flat, both):
        for (name, one), (_, other) in zip(
            new.state_dict().items(), network.state_dict().items(), strict=True
        ):
            assert torch.equal(one, other), name


def test_shared_embeddings_are_one_tensor(tmp_path):
    state = random_state(40)
    state["decoder.output_projection.weight"] = state["decoder.embed_tokens.weight"]
    settings = hyperparameters(share_decoder_input_output_embed=True)
    network = load_fairseq_checkpoint(save(tmp_path / "c.pt", model=state, args=settings))
    assert network.decoder.output_projection.weight is network.decoder.embed_tokens.weight


def test_positions_do_not_depend_on_the_batch_whatever_training_did(tmp_path):
    path = save(
        tmp_path / "c.pt", model=random_state(40), args=argparse.Namespace(**hyperparameters())
    )
    features, lengths, _ = inputs(torch.float32)
    with torch.inference_mode():
        safe, _ = load_fairseq_checkpoint(path).encode(features, lengths)
        unsafe, _ = load_fairseq_checkpoint(path, batch_unsafe_relative_shift=True).encode(
            features, lengths
        )
        alone, _ = load_fairseq_checkpoint(path).encode(features[1:2, :43], lengths[1:2])
    torch.testing.assert_close(safe[1, :11], alone[0], atol=1e-5, rtol=0)
    assert (unsafe[1, :11] - alone[0]).abs().max() > 1e-3


def test_half_precision_is_stored_only(tmp_path):
    state = {name: values.half() for name, values in random_state(40).items()}
    path = save(tmp_path / "c.pt", model=state, args=hyperparameters())
    assert load_fairseq_checkpoint(path).decoder.embed_tokens.weight.dtype == torch.float32


class Opens:
    """A pickle of this runs a command when it is read carelessly."""

    def __reduce__(self):
        return os.system, ("touch /tmp/opened-by-a-checkpoint",)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"model": random_state(40), "args": Opens()}, r"holds posix\.system, .* could run code"),
        ({"args": hyperparameters()}, "no weights under 'model'"),
        ({"model": {"a": 1}, "args": hyperparameters()}, "no weights under 'model'"),
        ({"model": random_state(40)}, "no settings of the model"),
        ({"model": {"encoder.x": torch.zeros(2)}, "args": hyperparameters()}, "has no weight"),
        (
            {"model": random_state(40), "args": hyperparameters(activation_fn="gelu")},
            "activation_fn='gelu', but only 'relu'",
        ),
        (
            {"model": random_state(40) | {"encoder.x": torch.full((2,), torch.inf)}},
            "numbers under 'encoder.x' that are not finite",
        ),
        ({"model": random_state(40), "args": {}}, "no settings of the model"),
        ({"model": random_state(40), "args": {"x": np.float16(1)}}, "holds numpy.*Float16DType"),
    ],
)  # fmt: skip
def test_other_checkpoints_are_refused(tmp_path, content, words):
    path = save(tmp_path / "c.pt", **content)
    with pytest.raises(UserError, match=words) as caught:
        load_fairseq_checkpoint(path)
    assert "c.pt" in str(caught.value)
    assert not os.path.exists("/tmp/opened-by-a-checkpoint")  # noqa: PTH110


@pytest.mark.parametrize(
    ("change", "settings", "words"),
    [
        (
            lambda s: s.pop("encoder.conformer_layers.1.attention.attention.query_proj.bias"),
            {},
            r"no weight 'encoder\.conformer_layers\.1\.attention\.attention\.query_proj\.bias';",
        ),
        (
            lambda s: [s.pop("decoder.layer_norm.weight"), s.pop("decoder.layer_norm.bias")],
            {},
            r"no weight 'decoder\.layer_norm\.weight' \(and 1 more\)",
        ),
        (
            lambda s: s.pop("encoder.conformer_layers.0.attention.attention.u_bias"),
            {},
            r"no weight 'encoder\.conformer_layers\.0\.attention\.attention\.u_bias'",
        ),
        (
            lambda s: s.update({"encoder.adapter.weight": torch.zeros(2)}),
            {},
            r"a weight 'encoder\.adapter\.weight' that no network of this family has",
        ),
        (lambda _: None, {"decoder_attention_heads": 5}, "do not divide the width"),
        (lambda _: None, {"decoder_attention_heads": "2"}, "='2', which is no whole number"),
        (lambda _: None, {"ctc_encoder_layer": 3}, "its encoder has 2 layers"),
        (
            lambda s: [s.pop(f"encoder.ctc_fc.{part}") for part in ("weight", "bias")],
            {"ctc_compress_strategy": "avg"},
            "no CTC head in its encoder",
        ),
    ],
)
def test_weights_and_settings_that_do_not_belong_together_are_refused(change, settings, words):
    state = random_state(40)
    change(state)
    with pytest.raises(UserError, match=words):
        Conformer.from_state(state, **hyperparameters(**settings))


def test_damaged_checkpoints_are_refused(tmp_path):
    path = save(tmp_path / "c.pt", model=random_state(40), args=hyperparameters())
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="no checkpoint that torch"):
        load_fairseq_checkpoint(path)
    with pytest.raises(UserError, match="No checkpoint"):
        load_fairseq_checkpoint(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: (d / "spm.model").unlink(), "sentencepiece_model"),
        (lambda d: (d / "dict.txt").unlink(), "vocab_filename"),
        (lambda d: (d / "dict.txt").write_text("a 1\n"), "gives 5 symbols"),
        (lambda d: (d / "spm.model").write_bytes(b"x"), "no sentencepiece model"),
        (lambda d: (d / "config.yaml").write_text("x: 1\n"), "must be sentencepiece"),
        (lambda d: (d / "other.yaml").write_text("x: 1\n"), "exactly one YAML file"),
        (lambda d: (d / "checkpoint.pt").unlink(), "exactly one checkpoint"),
    ],
)
def test_incomplete_folders_are_refused(tmp_path, change, words):
    save_conformer(tmp_path)
    change(tmp_path)
    with pytest.raises(UserError, match=words):
        load_model(tmp_path, "conformer", device="cpu")


def test_merged_steps_are_refused(tmp_path):
    save_conformer(tmp_path, settings={"ctc_compress_strategy": "avg"})
    with pytest.raises(UserError, match="no longer have a time"):
        load_model(tmp_path, "conformer", device="cpu")


def test_a_dictionary_without_tags_forces_nothing(tmp_path):
    save_conformer(tmp_path, tags=())
    assert load_model(tmp_path, "conformer", device="cpu").forced(parse_task("asr-de")) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"transforms": {"*": ["global_cmvn"]}}, "'transforms' asks for"),
        ({"transforms": {"_eval": ["utterance_cmvn", "specaugment"]}}, "'transforms' asks for"),
        ({"use_audio_input": True}, "'use_audio_input' asks for waveforms"),
        ({"transforms": {"*": ["utterance_cmvn"], "_train": ["specaugment"]}}, None),
    ],
)
def test_features_of_another_kind_are_refused(tmp_path, changes, words):
    save_conformer(tmp_path)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | changes))
    if words is None:
        load_model(tmp_path, "conformer", device="cpu")
        return
    with pytest.raises(UserError, match=words):
        load_model(tmp_path, "conformer", device="cpu")


@pytest.mark.parametrize("symbol", ["▁fremd", "zzz", "▁other▁one"])
def test_a_dictionary_of_another_sentencepiece_model_is_refused(tmp_path, symbol):
    save_conformer(tmp_path)
    lines = (tmp_path / "dict.txt").read_text().splitlines()
    (tmp_path / "dict.txt").write_text("\n".join([f"{symbol} 1", *lines[1:]]) + "\n")
    with pytest.raises(UserError, match=f"has the symbol '{symbol}', which is no piece"):
        load_model(tmp_path, "conformer", device="cpu")
