"""A Conformer with random weights, saved as a fairseq checkpoint, for tests without weights."""

import argparse
from pathlib import Path

import sentencepiece
import torch
import yaml

from s2txai.models.conformer import Conformer

WIDTH, HEADS, HIDDEN, KERNEL, BINS, CHANNELS = 16, 2, 32, 7, 80, 24
LAYERS, DECODER_LAYERS = 2, 2
TAGS = ("<lang:en>", "<lang:it>")
WORDS = (
    "the family of dashwood had long been settled in sussex their estate was large and their "
    "residence was at norland park in the centre of their property where for many generations they "
    "had lived in so respectable a manner as to engage the general good opinion of their "
    "surrounding acquaintance"
)


def hyperparameters(**changes):
    return {
        "decoder_attention_heads": HEADS,
        "max_target_positions": 12,
        "ctc_encoder_layer": 1,
        "ctc_compress_strategy": "none",
        "batch_unsafe_relative_shift": True,
        "share_decoder_input_output_embed": False,
    } | changes


def random_state(
    n_symbols, *, seed=0, width=WIDTH, heads=HEADS, hidden=HIDDEN, kernel=KERNEL,
    channels=CHANNELS, layers=LAYERS, decoder_layers=DECODER_LAYERS, n_source=20, spread=0.4,
):  # fmt: skip
    """Return weights under the checkpoints' names; norms are ones and zeros, nearly."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def draw(name, *shape, scale=None, mean=0.0):
        scale = scale if scale is not None else spread / shape[-1] ** 0.5 * 2
        state[name] = mean + scale * torch.randn(*shape, generator=generator)

    def linear(name, n_out, n_in, *, bias=True):
        draw(f"{name}.weight", n_out, n_in)
        if bias:
            draw(f"{name}.bias", n_out, scale=0.1)

    def norm(name, size=width):
        draw(f"{name}.weight", size, scale=0.1, mean=1.0)
        draw(f"{name}.bias", size, scale=0.1)

    for number, (n_in, n_out) in enumerate([(BINS, channels), (channels // 2, 2 * width)]):
        name = f"encoder.subsample.conv_layers.{number}"
        draw(f"{name}.weight", n_out, n_in, 5, scale=(5 * n_in) ** -0.5)
        draw(f"{name}.bias", n_out, scale=0.1)
    for number in range(layers):
        name = f"encoder.conformer_layers.{number}"
        for half in ("first_feed_forward", "second_feed_forward"):
            norm(f"{name}.{half}.layernorm")
            linear(f"{name}.{half}.first_linear", hidden, width)
            linear(f"{name}.{half}.second_linear", width, hidden)
        norm(f"{name}.attention.layer_norm")
        state[f"{name}.attention.positional_encoding.pe"] = torch.zeros(1, 4, width)
        for part in ("query_proj", "key_proj", "value_proj", "out_proj"):
            linear(f"{name}.attention.attention.{part}", width, width)
        linear(f"{name}.attention.attention.pos_proj", width, width, bias=False)
        for part in ("u_bias", "v_bias"):
            draw(f"{name}.attention.attention.{part}", heads, width // heads)
        conv = f"{name}.conv_module"
        norm(f"{conv}.layernorm")
        draw(f"{conv}.first_pointwise_conv1d.weight", 2 * width, width, 1, scale=width**-0.5)
        draw(f"{conv}.first_pointwise_conv1d.bias", 2 * width, scale=0.1)
        draw(f"{conv}.depthwise_conv1d.weight", width, 1, kernel, scale=kernel**-0.5)
        norm(f"{conv}.batchnorm")
        draw(f"{conv}.batchnorm.running_mean", width, scale=0.1)
        state[f"{conv}.batchnorm.running_var"] = 0.5 + torch.rand(width, generator=generator)
        state[f"{conv}.batchnorm.num_batches_tracked"] = torch.tensor(7)
        draw(f"{conv}.second_pointwise_conv1d.weight", width, width, 1, scale=width**-0.5)
        draw(f"{conv}.second_pointwise_conv1d.bias", width, scale=0.1)
        norm(f"{name}.layernorm")
    linear("encoder.ctc_fc", n_source, width)
    state["decoder.version"] = torch.tensor([3.0])
    state["decoder.embed_positions._float_tensor"] = torch.zeros(1)
    draw("decoder.embed_tokens.weight", n_symbols, width, scale=0.5 / width**0.5)
    # Not the embeddings: every token would predict itself.
    draw("decoder.output_projection.weight", n_symbols, width, scale=2 / width**0.5)
    for number in range(decoder_layers):
        name = f"decoder.layers.{number}"
        for attention in ("self_attn", "encoder_attn"):
            for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
                linear(f"{name}.{attention}.{part}", width, width)
            norm(f"{name}.{attention}_layer_norm")
        linear(f"{name}.fc1", hidden, width)
        linear(f"{name}.fc2", width, hidden)
        norm(f"{name}.final_layer_norm")
    norm("decoder.layer_norm")
    linear("auxiliary_decoder.fc", n_symbols, width)
    norm("auxiliary_decoder.lang_embed_layernorm")
    return state


def save_sentencepiece(directory: Path, size: int = 60) -> list[str]:
    """Train a tokenizer on a sentence; return its pieces without the specials."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([WORDS] * 4),
        model_prefix=str(directory / "spm"),
        vocab_size=size,
        minloglevel=2,
    )
    (directory / "spm.vocab").unlink()
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(directory / "spm.model"))
    return [pieces.id_to_piece(number) for number in range(3, size)]


def save_conformer(directory: Path, *, tags=TAGS, n_fillers=0, settings=None, **sizes) -> None:
    """Write checkpoint, settings of the data, dictionary and tokenizer.

    ``settings`` are hyperparameters, ``sizes`` those of :func:`random_state`; ``n_fillers`` symbols
    make the vocabulary larger than the tokenizer's.
    """
    directory.mkdir(parents=True, exist_ok=True)
    fillers = [f"\u2581w{number}" for number in range(n_fillers)]
    symbols = [*save_sentencepiece(directory), *fillers, *tags]
    (directory / "dict.txt").write_text("".join(f"{symbol} 1\n" for symbol in symbols))
    (directory / "config.yaml").write_text(
        yaml.safe_dump(
            {
                "bpe_tokenizer": {
                    "bpe": "sentencepiece",
                    "sentencepiece_model": "/where/it/was/trained/spm.model",
                },
                "input_channels": 1,
                "input_feat_per_channel": BINS,
                "prepend_tgt_lang_tag": True,
                "vocab_filename": "dict.txt",
            }
        )
    )
    # Four specials before, the blank after.
    state = random_state(len(symbols) + 5, **sizes)
    args = argparse.Namespace(**hyperparameters(**(settings or {})))
    torch.save({"model": state, "args": args, "cfg": None}, directory / "checkpoint.pt")


def tiny_network(n_symbols=40, dtype=torch.float64, **changes) -> Conformer:
    state = random_state(n_symbols)
    state = {
        name: values.to(dtype) if values.is_floating_point() else values
        for name, values in state.items()
    }
    return Conformer.from_state(
        state, **hyperparameters(**{"batch_unsafe_relative_shift": False} | changes)
    )
