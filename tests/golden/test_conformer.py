"""The Conformer against published values, in double precision and in single."""

import json

import numpy as np
import pytest
import torch

from s2txai.models.conformer import Conformer
from s2txai.models.conformer.features import filterbank, normalise
from s2txai.saliency.scores import kl_divergence
from tests.golden.test_spes import read

EXACT, SINGLE = 1e-9, 1e-4  # stated tolerances: float64, and float32 as users have it


@pytest.fixture(scope="module")
def golden():
    return read("conformer_tiny_1.npz")


def network(golden, dtype=torch.float64, **changes):
    state = {
        name.removeprefix("sd/"): torch.from_numpy(values)
        for name, values in golden.items()
        if name.startswith("sd/")
    }
    state = {
        name: values.to(dtype) if values.is_floating_point() else values
        for name, values in state.items()
    }
    settings = json.loads(str(golden["meta"]))["hyperparameters"] | changes
    return Conformer.from_state(state, **settings)


def inputs(golden, dtype=torch.float64, row=None):
    """Return features, lengths and what the decoder reads; of one utterance without padding."""
    features, lengths, tokens = (
        torch.from_numpy(golden[name])
        for name in ("src_tokens", "src_lengths", "prev_output_tokens")
    )
    if row is None:
        return features.to(dtype), lengths, tokens
    n_tokens = int((tokens[row] != 1).sum())
    return (
        features[row : row + 1, : lengths[row]].to(dtype),
        lengths[row : row + 1],
        tokens[row : row + 1, :n_tokens],
    )


def compare(found, expected, tolerance):
    np.testing.assert_allclose(found.double(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("shift", ["safe", "unsafe"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, EXACT), (torch.float32, SINGLE)]
)  # fmt: skip
def test_encoder(golden, shift, dtype, tolerance):
    model = network(golden, dtype, batch_unsafe_relative_shift=shift == "unsafe")
    features, lengths, _ = inputs(golden, dtype)
    output = model.encode_fully(features, lengths, keep_attention=True)
    compare(output.states.transpose(0, 1), golden[f"{shift}/encoder_out"], tolerance)
    # A head on states of the middle: its sums over the width double what single precision loses.
    compare(output.ctc_logits.transpose(0, 1), golden[f"{shift}/ctc_logits"], 2 * tolerance)
    np.testing.assert_array_equal(output.ctc_lengths, golden[f"{shift}/ctc_lengths"])
    for layer, weights in enumerate(output.attention):
        compare(weights, golden[f"{shift}/enc_layer{layer}_selfattn"], tolerance)
    # Without the weights attention takes another way.
    states, valid = model.encode(features, lengths)
    compare(states.transpose(0, 1), golden[f"{shift}/encoder_out"], tolerance)
    np.testing.assert_array_equal(~valid, golden[f"{shift}/encoder_padding_mask"])


@pytest.mark.parametrize("shift", ["safe", "unsafe"])
def test_layers_and_their_parts(golden, shift):
    model = network(golden, batch_unsafe_relative_shift=shift == "unsafe")
    found = {}
    encoder = model.encoder
    parts = {"subsample_out": encoder.subsample}
    parts |= {f"enc_layer{n}_out": layer for n, layer in enumerate(encoder.conformer_layers)}
    first = encoder.conformer_layers[0]
    parts |= {
        f"enc_layer0_{name}": getattr(first, name)
        for name in ("first_feed_forward", "attention", "conv_module", "second_feed_forward")
    }
    for name, part in parts.items():
        part.register_forward_hook(lambda _, __, out, name=name: found.update({name: out}))
    features, lengths, _ = inputs(golden)
    model.encode(features, lengths)
    subsampled, steps = found.pop("subsample_out")
    compare(subsampled.transpose(0, 1), golden[f"{shift}/subsample_out"], EXACT)
    np.testing.assert_array_equal(steps, golden[f"{shift}/subsample_lengths"])
    for name, out in found.items():
        out = out.transpose(0, 1) if name.endswith("_out") else out
        compare(out, golden[f"{shift}/{name}"], EXACT)


@pytest.mark.parametrize("shift", ["safe", "unsafe"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, EXACT), (torch.float32, SINGLE)]
)  # fmt: skip
def test_decoder(golden, shift, dtype, tolerance):
    model = network(golden, dtype, batch_unsafe_relative_shift=shift == "unsafe")
    features, lengths, tokens = inputs(golden, dtype)
    states, valid = model.encode(features, lengths)
    logits = model.decode(states, valid, tokens)
    compare(logits, golden[f"{shift}/dec_logits"], tolerance)
    compare(torch.log_softmax(logits, 2), golden[f"{shift}/dec_logprobs"], tolerance)
    weights = model.cross_attention(states, valid, tokens)  # (N, layers, H, L, T')
    for layer in range(2):
        expected = golden[f"{shift}/xattn_heads_layer{layer}"]  # (H, N, L, T')
        compare(weights[:, layer].transpose(0, 1), expected, tolerance)


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("shift", ["safe", "unsafe"])
def test_single_utterance(golden, shift, row):
    model = network(golden, batch_unsafe_relative_shift=shift == "unsafe")
    features, lengths, tokens = inputs(golden, row=row)
    output = model.encode_fully(features, lengths)
    prefix = f"{shift}/single{row}"
    compare(output.states.transpose(0, 1), golden[f"{prefix}/encoder_out"], EXACT)
    compare(output.ctc_logits.transpose(0, 1), golden[f"{prefix}/ctc_logits"], EXACT)
    states, valid = model.encode(features, lengths)
    compare(model.decode(states, valid, tokens), golden[f"{prefix}/dec_logits"], EXACT)


def test_compression_of_runs(golden):
    model = network(golden, ctc_compress_strategy="avg")
    features, lengths, tokens = inputs(golden)
    output = model.encode_fully(features, lengths)
    compare(output.ctc_logits.transpose(0, 1), golden["compress_avg/ctc_logits"], EXACT)
    np.testing.assert_array_equal(output.ctc_lengths, golden["compress_avg/ctc_lengths"])
    states, valid = model.encode(features, lengths)
    compare(states.transpose(0, 1), golden["compress_avg/encoder_out"], EXACT)
    np.testing.assert_array_equal(~valid, golden["compress_avg/encoder_padding_mask"])
    compare(model.decode(states, valid, tokens), golden["compress_avg/dec_logits"], EXACT)


@pytest.mark.parametrize("occlusion", ["A", "B"])
@pytest.mark.parametrize(
    ("dtype", "tolerance", "of_scores"),
    [(torch.float64, EXACT, EXACT), (torch.float32, SINGLE, 5e-4)],
)
def test_perturbed_inputs_and_tokens(golden, dtype, tolerance, of_scores, occlusion):
    """The distributions and scores of SPES, from masks of the input and of preceding tokens."""
    tiny = read("spes_e2e_tiny_1.npz")
    model = network(golden, dtype)
    features = torch.from_numpy(tiny["fbank"]).to(dtype)
    tokens = torch.from_numpy(tiny["prev_output_tokens"])[None]

    def logits(inputs, visible):
        lengths = torch.full((len(inputs),), len(features))
        states, valid = model.encode(inputs, lengths)
        reads = model.reads(states, valid)
        hidden, _ = model.decoder(tokens.expand(len(inputs), -1), reads, visible=visible)
        return model.decoder.logits(hidden)

    (original,) = logits(features[None], None)
    compare(torch.softmax(original, 1), tiny["orig_probs"], tolerance)
    masks = torch.from_numpy(tiny["masks"]).to(dtype)
    visible = torch.from_numpy(tiny[f"{occlusion}/token_masks"]).bool()
    perturbed = logits(features * masks, visible)
    expected = tiny[f"{occlusion}/perturbed_probs"]
    compare(torch.softmax(perturbed, 2), expected, tolerance)
    scores = kl_divergence(original, perturbed)
    compare(scores, tiny[f"{occlusion}/kl"], of_scores)


@pytest.mark.parametrize("name", ["", "2"])
def test_features(name):
    golden = read("fbank_case.npz")
    frames = filterbank(golden[f"waveform{name}"], 80)
    np.testing.assert_allclose(frames, golden[f"features{name}"], rtol=0, atol=1e-4)
    # The published normalisation in single precision is off by up to 2.4e-3.
    exact = golden[f"features{name}_cmvn_f64"]
    normalised = normalise(golden[f"features{name}"])
    np.testing.assert_allclose(normalised, exact, rtol=0, atol=1e-5)
    np.testing.assert_allclose(normalised, golden[f"features{name}_cmvn"], rtol=0, atol=3e-3)
