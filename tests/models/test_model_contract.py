"""What the package relies on, for every family: one small model with random weights each."""

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from s2txai.datasets import parse_task
from s2txai.errors import UserError
from s2txai.models.base import n_steps
from s2txai.models.conformer.network import Conformer
from s2txai.models.loading import load_model
from s2txai.models.transformers_base import TransformersModel
from tests.tiny_models import TINY

TASK = parse_task("asr-en")
SECONDS = 0.6
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


@pytest.fixture(scope="module", params=TINY)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def directory(family, tmp_path_factory):
    folder = tmp_path_factory.mktemp(family)
    TINY[family](folder)
    return folder


@pytest.fixture(scope="module")
def model(family, directory):
    return load_model(directory, family, device="cpu", precision="float32")


@pytest.fixture(scope="module")
def case(model):
    """Return two inputs of one length, their states and a hypothesis."""
    audio = noise(SECONDS)
    features = model.features(audio)
    first = torch.from_numpy(features.values)
    other = first + 0.3 * torch.randn(first.shape, generator=torch.Generator().manual_seed(0))
    inputs = torch.stack([first, other])
    states = model.encode(inputs, features.padding_value)
    prompt = model.prompt(TASK)
    words = spoken(model)
    tokens = [*(words[number] for number in (1, 4, 2, 7, 1)), end_of(model)]
    steps = n_steps(len(first), model.facts.subsampling)
    return SimpleNamespace(
        audio=audio, inputs=inputs, padding_value=features.padding_value, states=states,
        prompt=prompt, tokens=tokens, hypothesis=(prompt, tokens), steps=steps,
    )  # fmt: skip


def noise(seconds, seed=0):
    """Return noise whose loudness changes, as that of speech."""
    rng = np.random.default_rng(seed)
    samples = rng.normal(size=round(16_000 * seconds))
    return (samples * (0.05 + 0.1 * np.sin(np.arange(len(samples)) / 900) ** 2)).astype(np.float32)


def spoken(model):
    """Return the tokens that a hypothesis consists of."""
    table = model.token_table(range(vocabulary_of(model)))
    return [
        token
        for token, (piece, role) in enumerate(zip(table.pieces, table.roles, strict=True))
        if role == "text" and piece.startswith(" ") and piece.strip() and token not in never(model)
    ]


def vocabulary_of(model):
    if hasattr(model._network, "config"):
        return model._network.config.vocab_size
    return model._network.decoder.embed_tokens.num_embeddings


def end_of(model):
    return model.token_table(range(vocabulary_of(model))).roles.index("eos")


def never(model):
    """Return the tokens that are never predicted; the Conformer's padding is its second."""
    return getattr(model, "_suppress", [1])


def cross_attentions(model):
    if hasattr(model, "_cross_attentions"):
        return model._cross_attentions()
    return model._network.decoder.cross_attentions()


def random_mask(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.5


def test_features_are_frames_of_the_audio(model, case):
    n_frames, n_bins = case.inputs.shape[1:]
    assert case.inputs.dtype == torch.float32
    assert n_frames * model.facts.frame_shift == pytest.approx(SECONDS, abs=0.05)
    assert n_bins > 1
    assert model.facts.sampling_rate == 16_000


@pytest.mark.parametrize("seconds", [0.3, 0.41, 0.455, 0.48, 0.5])
def test_the_first_steps_cover_the_frames(model, family, seconds):
    """Only a context of fixed length, and the adapter of SeamlessM4T, give more steps."""
    features = model.features(noise(seconds))
    states = model.encode(torch.from_numpy(features.values)[None], features.padding_value)
    assert states.dtype == torch.float32
    covered = n_steps(len(features.values), model.facts.subsampling)
    more = {"whisper": states.shape[1] - covered, "seamless-m4t-v2": len(features.values) % 16 == 0}
    assert states.shape[1] == covered + more.get(family, 0)


def test_one_row_of_logits_for_each_token(model, case):
    logits = model.decode(case.states, *case.hypothesis)
    assert logits.dtype == torch.float32
    assert logits.shape == (2, len(case.tokens), vocabulary_of(model))
    assert logits.std() > 0.3


def test_teacher_forcing_is_stepwise_decoding(model, case):
    """Row i sees the tokens before i, and no later one."""
    whole = model.decode(case.states, *case.hypothesis)
    changed = list(case.tokens)
    for row in range(len(case.tokens)):
        part = model.decode(case.states, case.prompt, case.tokens[: row + 1])
        torch.testing.assert_close(whole[:, : row + 1], part, **CLOSE)
        changed[row] = spoken(model)[0]
        seen = model.decode(
            case.states, case.prompt, [*changed[: row + 1], *case.tokens[row + 1 :]]
        )
        torch.testing.assert_close(whole[:, : row + 1], seen[:, : row + 1], **CLOSE)
        if row + 1 < len(case.tokens):
            assert (whole[:, row + 1] - seen[:, row + 1]).abs().max() > 1e-2
        changed[row] = case.tokens[row]


def test_greedy_tokens_are_the_best_of_the_teacher_forced_rows(model, case):
    """Generation, which caches keys and values, agrees with teacher forcing."""
    generated = model.generate(case.states, case.prompt, beam=1, max_new_tokens=6)
    for states, tokens in zip(case.states, generated, strict=True):
        logits = model.decode(states[None], case.prompt, tokens)[0].clone()
        logits[:, never(model)] = -torch.inf
        logits[0, getattr(model, "_begin_suppress", [end_of(model)])] = -torch.inf
        # The Conformer is made to end with its last token.
        assert logits.argmax(dim=1).tolist()[:5] == tokens[:5]


def test_hypotheses_of_a_batch_are_those_of_single_utterances(model, case):
    together = model.generate(case.states, case.prompt, beam=3, max_new_tokens=5)
    alone = [
        model.generate(one[None], case.prompt, beam=3, max_new_tokens=5)[0] for one in case.states
    ]
    assert together == alone


@pytest.mark.parametrize("beam", [2, 5])
def test_hypotheses_that_share_keys_are_those_of_copies(model, case, beam, monkeypatch):
    """The library's own search, and the Conformer's, with the states of an input once a row."""
    search = {"beam": beam, "max_new_tokens": 6}
    shared = model.generate(case.states, case.prompt, **search)
    use_copies(monkeypatch, beam)
    assert model.generate(case.states, case.prompt, **search) == shared


def use_copies(monkeypatch, beam):
    """Let every hypothesis have keys and values of its own."""
    monkeypatch.setattr(TransformersModel, "_shared_cross_attention", lambda _, x: nullcontext(x))
    reads = Conformer.reads
    monkeypatch.setattr(
        Conformer, "reads",
        lambda network, *states: reads(network, *(x.repeat_interleave(beam, 0) for x in states)),
    )  # fmt: skip


@pytest.mark.parametrize("beam", [1, 3])
def test_a_search_projects_each_input_once(model, case, beam):
    """Not each hypothesis, nor at each step; afterwards all is as before."""
    attentions = cross_attentions(model)
    n_projected = []
    hooks = [
        attention.k_proj.register_forward_pre_hook(
            lambda _, inputs: n_projected.append(len(*inputs))
        )
        for attention in attentions
    ]
    model.generate(case.states, case.prompt, beam=beam, max_new_tokens=4)
    for hook in hooks:
        hook.remove()
    assert n_projected == [len(case.states)] * len(attentions)
    assert not any("forward" in vars(attention) for attention in attentions)


def test_a_search_that_fails_leaves_attention_as_it_was(model, case):
    with pytest.raises(IndexError):
        model.generate(case.states, [10**6], beam=3, max_new_tokens=4, forced=[10**6])
    assert not any("forward" in vars(attention) for attention in cross_attentions(model))


def test_forced_tokens_begin_the_hypothesis(model, case):
    forced = case.tokens[1:3]
    (tokens,) = model.generate(
        case.states[:1], case.prompt, beam=2, max_new_tokens=5, forced=forced
    )
    assert tokens[:2] == forced
    assert len(tokens) <= 5


def test_tokens_are_described(model, case):
    table = model.token_table(case.tokens)
    assert len(table.pieces) == len(table.roles) == len(table.word_index) == len(case.tokens)
    end = end_of(model)
    assert [role == "eos" for role in table.roles] == [token == end for token in case.tokens]
    spoken = [
        piece for piece, role in zip(table.pieces, table.roles, strict=True) if role == "text"
    ]
    assert spoken
    assert all(piece.startswith(" ") for piece in spoken)
    words = " ".join(piece.strip() for piece in spoken)
    assert " ".join(model.text(case.tokens).split()) == words


def test_tokens_of_the_prompt_are_special(model, case):
    roles = model.token_table(case.prompt).roles
    text = [piece for piece, role in zip(model.token_table(case.prompt).pieces, roles, strict=True)
            if role == "text"]  # fmt: skip
    assert "".join(text).strip() == ""


def test_batch_equals_single(model, case):
    together = model.decode(case.states, *case.hypothesis)
    for row, one in enumerate(case.inputs):
        states = model.encode(one[None], case.padding_value)
        torch.testing.assert_close(states[0], case.states[row], **CLOSE)
        alone = model.decode(states, *case.hypothesis)
        torch.testing.assert_close(alone[0], together[row], **CLOSE)
    assert (together[0] - together[1]).abs().max() > 1e-2


def test_fast_and_eager_attention_give_the_same_logits(model, case, family):
    if family == "conformer":
        # It keeps weights by another way, without a switch.
        network = model._network
        tokens = torch.tensor([[*case.prompt, *case.tokens[:-1]]]).expand(2, -1)
        valid = torch.ones(case.states.shape[:2], dtype=torch.bool)
        kept = network.encoder(case.inputs, keep_attention=True).states
        torch.testing.assert_close(case.states, kept, **CLOSE)
        fast = model.decode(case.states, *case.hypothesis)
        eager = network.decode_keeping(case.states, valid, tokens)[0]
        torch.testing.assert_close(fast, eager, **CLOSE)
        return

    def attentions():
        return [
            module.config._attn_implementation
            for module in model._network.modules()
            if hasattr(module, "config")
        ]

    before = attentions()
    fast = model.decode(case.states, *case.hypothesis)
    with model._eager():
        assert set(attentions()) == {"eager"}
        eager_states = model.encode(case.inputs, case.padding_value)
        eager = model.decode(case.states, *case.hypothesis)
    torch.testing.assert_close(fast, eager, **CLOSE)
    torch.testing.assert_close(case.states, eager_states, **CLOSE)
    assert attentions() == before


def test_cross_attention_sums_to_one_over_all_steps(model, case):
    found = model.cross_attention(case.states[:1], *case.hypothesis)
    assert found.weights.dtype == found.value_norm.dtype == np.float32
    assert found.weights.shape == found.value_norm.shape
    assert found.weights.shape[2:] == (len(case.tokens), case.states.shape[1])
    np.testing.assert_allclose(found.weights.sum(-1), 1, atol=1e-5)
    # Where steps are not attended to alike, a shift by one row would be seen.
    assert found.weights.std(axis=2).max() > 1e-3


def test_value_norms_match_what_the_layers_compute(model, case):
    """With a single step in sight, what the heads hand to the projection is its value vector."""
    found = model.cross_attention(case.states[:1], *case.hypothesis)
    shares = found.value_norm / found.weights
    for step in (0, case.steps - 1):
        for layer, attention in enumerate(cross_attentions(model)):
            projection = getattr(attention, "out_proj", None) or attention.o_proj
            handed = []
            hook = projection.register_forward_pre_hook(
                lambda _, inputs, handed=handed: handed.append(inputs[0])
            )
            model.decode(case.states[:1, step : step + 1], *case.hypothesis)
            hook.remove()
            heads = handed[0][0, 0].unflatten(0, (shares.shape[1], -1))  # (H, d)
            columns = projection.weight.unflatten(1, heads.shape)  # (D, H, d)
            norms = torch.einsum("ohd,hd->ho", columns, heads).norm(dim=1)
            np.testing.assert_allclose(shares[layer, :, 0, step], norms, rtol=1e-3)


def test_encoder_attention_sums_to_one_or_is_refused(model, case, family):
    if family == "seamless-m4t-v2":
        with pytest.raises(UserError, match="another rate"):
            model.encoder_attention(case.inputs[:1], case.padding_value)
        return
    found = model.encoder_attention(case.inputs[:1], case.padding_value)
    steps = case.states.shape[1]
    assert found.dtype == np.float32
    assert found.shape[1:] == (steps, steps)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("filling", ["zero", "mean"])
def test_occluded_steps_become_the_filling(model, case, filling):
    states = case.states[:1]
    vector = states[0].mean(dim=0) if filling == "mean" else torch.zeros(states.shape[2])
    occluded = random_mask(3, case.steps)
    hidden = torch.nn.functional.pad(occluded, (0, states.shape[1] - case.steps))[:, :, None]
    expected = model.decode(torch.where(hidden, vector, states), *case.hypothesis)
    found = model.decode_occluded(states, occluded, *case.hypothesis, vector)
    torch.testing.assert_close(found, expected, **CLOSE)
    assert (found[0] - found[1]).abs().max() > 1e-2
    # Nothing stays behind in the model.
    assert not any("forward" in vars(module) for module in model._network.modules())


def test_hidden_steps_could_as_well_not_be_there(model, case):
    states = case.states[:1]
    occluded = random_mask(3, case.steps)
    found = model.decode_occluded(states, occluded, *case.hypothesis, None)
    for row, hidden in enumerate(occluded):
        padding = states.shape[1] - case.steps
        kept = torch.nn.functional.pad(~hidden, (0, padding), value=True)
        expected = model.decode(states[:, kept], *case.hypothesis)
        torch.testing.assert_close(found[row], expected[0], **CLOSE)


def test_with_all_tokens_visible_nothing_changes(model, case):
    occluded = torch.zeros(2, len(case.tokens), dtype=torch.bool)
    plain = model.decode(case.states, *case.hypothesis)
    found = model.decode_without_tokens(case.states, occluded, *case.hypothesis)
    torch.testing.assert_close(found, plain, rtol=0, atol=0)


def test_an_occluded_token_is_not_seen(model, case):
    occluded = torch.zeros(2, len(case.tokens), dtype=torch.bool)
    occluded[:, 2] = True  # the one that row 2 reads: token 1
    other = list(case.tokens)
    other[1] = spoken(model)[0]
    found = model.decode_without_tokens(case.states, occluded, *case.hypothesis)
    torch.testing.assert_close(
        found, model.decode_without_tokens(case.states, occluded, case.prompt, other), **CLOSE
    )
    plain = model.decode(case.states, *case.hypothesis)
    torch.testing.assert_close(found[:, :2], plain[:, :2], **CLOSE)
    assert (found[:, 2] - plain[:, 2]).abs().max() > 1e-3


def test_differentiable_logits_are_those_of_encoding_and_decoding(model, case):
    plain = model.decode(case.states, *case.hypothesis)
    inputs = case.inputs.clone().requires_grad_()
    found = model.differentiable_logits(inputs, case.padding_value, *case.hypothesis)
    torch.testing.assert_close(found.detach(), plain, **CLOSE)
    assert not any(weights.requires_grad for weights in model._network.parameters())


def test_differences_agree_with_the_gradient(model, case):
    generator = torch.Generator().manual_seed(2)
    inputs = case.inputs[:1].clone().requires_grad_()
    rest = (case.padding_value, *case.hypothesis)
    logits = model.differentiable_logits(inputs, *rest)
    weights = torch.randn(logits.shape, generator=generator)
    slope = torch.autograd.grad((logits * weights).sum(), inputs)[0]
    # Along the gradient, where rounding matters least, so far that the sum changes by 0.04.
    along = slope / slope.norm()
    step = 0.02 / slope.norm()
    with torch.no_grad():
        ahead, behind = (
            (model.differentiable_logits(inputs + sign * step * along, *rest) * weights).sum()
            for sign in (1, -1)
        )
    torch.testing.assert_close((ahead - behind) / (2 * step), slope.norm(), rtol=0.03, atol=0)


def test_layers_hold_every_weight_once(model):
    parts = [id(weights) for layer in model.layers() for weights in layer.parameters()]
    assert len(parts) == len(set(parts))
    assert set(parts) == {id(weights) for weights in model._network.parameters()}
    assert all(list(layer.parameters()) for layer in model.layers())


def test_layers_begin_at_the_output(model, case, family, directory):
    """Weights of the first half leave the states as they are, those of the second change them."""
    other = load_model(directory, family, device="cpu", precision="float32")
    layers = other.layers()
    n_decoder = 1 + len(cross_attentions(other)) + 1
    for layer in layers[:n_decoder]:
        for weights in layer.parameters():
            weights.data += 0.3 * torch.randn_like(weights)
    states = other.encode(case.inputs, case.padding_value)
    torch.testing.assert_close(states, case.states, rtol=0, atol=0)
    assert (other.decode(states, *case.hypothesis) - model.decode(states, *case.hypothesis)).std()
    for weights in layers[n_decoder].parameters():
        weights.data += 0.3 * torch.randn_like(weights)
    assert (other.encode(case.inputs, case.padding_value) - case.states).abs().max() > 1e-3


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_stays_close(model, case, family, directory, precision):
    rough = load_model(directory, family, device="cpu", precision=precision)
    states = rough.encode(case.inputs, case.padding_value)
    logits = rough.decode(states, *case.hypothesis)
    exact = model.decode(case.states, *case.hypothesis)
    assert states.dtype == logits.dtype == torch.float32
    assert 0 < (logits - exact).abs().mean() < 0.5 * exact.std()
    found = rough.cross_attention(states[:1], *case.hypothesis)
    np.testing.assert_allclose(found.weights.sum(-1), 1, atol=0.02)
    occluded = random_mask(2, case.steps)
    filling = states[0].mean(dim=0)
    assert rough.decode_occluded(states[:1], occluded, *case.hypothesis, filling).isfinite().all()
    assert rough.decode_occluded(states[:1], occluded, *case.hypothesis, None).isfinite().all()
    assert rough.generate(states, case.prompt, beam=2, max_new_tokens=3)


def library_inputs(model, family, audio):
    """Return what the library makes of an utterance by itself, padding and masks included."""
    if family == "moonshine":
        # As the utterance with silence after it, see the family's module.
        features = model.features(audio)
        audio = model._inputs(torch.from_numpy(features.values)[None], 0.0)[0].numpy()
    return model._extractor(audio, sampling_rate=16_000, return_tensors="pt")


# Samples for an even number of frames; of an odd number SeamlessM4T loses half a pair.
# The Conformer is of no library; it has golden values.
@pytest.mark.parametrize("family", [name for name in TINY if name != "conformer"], indirect=True)
@pytest.mark.parametrize("n_samples", [8_000, 8_960, 9_200, 9_359])
def test_logits_are_those_of_the_library_with_its_own_padding(model, family, n_samples):
    """Neither what the library pads nor what it masks changes what is left here."""
    audio = noise(1)[:n_samples]
    features = model.features(audio)
    prompt, tokens = model.prompt(TASK), spoken(model)[:5]
    states = model.encode(torch.from_numpy(features.values)[None], features.padding_value)
    found = model.decode(states, prompt, tokens)
    inputs = {
        name: values
        for name, values in library_inputs(model, family, audio).items()
        if name in ("input_features", "input_values", "attention_mask")
    }
    with torch.inference_mode():
        output = model._network(
            **inputs, decoder_input_ids=torch.tensor([[*prompt, *tokens[:-1]]]), use_cache=False
        )
    torch.testing.assert_close(found, output.logits[:, len(prompt) - 1 :], **CLOSE)
