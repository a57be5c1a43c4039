"""The network of the paper's models: Conformer encoder, Transformer decoder, CTC heads."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from reprlib import repr as short
from typing import Any, Self

import torch
from torch import nn

from s2txai.errors import UserError
from s2txai.models.conformer.decoder import Decoder, DecoderLayer, Read
from s2txai.models.conformer.encoder import (
    ConformerEncoder,
    ConformerLayer,
    EncoderOutput,
    Subsampling,
    step_mask,
)
from s2txai.models.occlusion import KeysAndValues, occluded_attention
from s2txai.models.shared_attention import shared_attention

# What a checkpoint holds besides weights: versions, and tables that are computed here.
_NO_WEIGHTS = ("decoder.version", "_float_tensor", "positional_encoding.pe", "num_batches_tracked")

_LONGEST_REASON = 300  # characters; a whole state may be missing

# Hyperparameters that have one value in every model of the study; others are not implemented.
_FIXED: Mapping[str, Any] = {
    "activation_fn": "relu",
    "adaptive_input": False,
    "conformer_half_step_residual": True,
    "conv_expansion_factor": 2,
    "decoder_learned_pos": False,
    "decoder_normalize_before": True,
    "distance_penalty": False,
    "no_token_positional_embeddings": False,
}


class JointCTCHead(nn.Module):
    """CTC over the target vocabulary; its input includes the embedding of the language's token."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.lang_embed_layernorm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, vocabulary)

    def forward(self, states: torch.Tensor, language: torch.Tensor) -> torch.Tensor:
        """Return logits [N, T', V] of states [N, T', D] and embeddings of the language [N, D]."""
        out: torch.Tensor = self.fc(self.lang_embed_layernorm(states + language[:, None]))
        return out


class Conformer(nn.Module):
    """Conformer encoder and Transformer decoder, as in FAMA and the study.

    Shapes: N batch, T frames, F bins, T' steps, D width, L tokens, V vocabulary.
    """

    def __init__(
        self, encoder: ConformerEncoder, decoder: Decoder, joint_ctc: JointCTCHead | None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.auxiliary_decoder = joint_ctc

    @classmethod
    def from_state(cls, state: Mapping[str, torch.Tensor], /, **hyperparameters: Any) -> Self:
        """Build the network that a checkpoint's weights belong to.

        Sizes are read off the weights. The network computes in their type, has no dropout and
        needs no gradients.

        Parameters
        ----------
        state
            Weights under the names of the checkpoints; buffers that hold no weights are ignored.
        **hyperparameters
            Those of the checkpoint. Used are ``decoder_attention_heads`` (needed) and, with their
            defaults, ``batch_unsafe_relative_shift`` (False), ``ctc_compress_strategy`` ("none", or
            "avg"), ``ctc_encoder_layer`` (0: no CTC head in the encoder), ``no_scale_embedding``
            (False) and ``share_decoder_input_output_embed`` (as the weights are). Others are
            ignored unless they ask for what is not implemented.

        Raises
        ------
        UserError
            If a weight is missing, left over or of the wrong shape, or a hyperparameter is missing
            or asks for what is not implemented.
        """
        _check(hyperparameters)
        weights = {_own_name(name): values for name, values in state.items() if _is_weight(name)}
        for name, values in weights.items():
            if "pointwise_conv1d.weight" in name and values.ndim == 3:
                weights[name] = values.squeeze(2)  # kernel 1: a linear map
        try:
            with torch.device("meta"):
                network = cls._empty(weights, hyperparameters)
            _check_names(network.state_dict().keys(), weights.keys())
            network.load_state_dict(weights, strict=True, assign=True)
            network._tie(hyperparameters)
        except KeyError as error:
            raise UserError(_missing([str(error.args[0])])) from error
        # Weights of another shape or type, and settings of another, are missed in many ways.
        except (
            RuntimeError,
            ValueError,
            TypeError,
            LookupError,
            ArithmeticError,
            AssertionError,
        ) as error:
            reason = " ".join(str(error).split())[:_LONGEST_REASON]
            raise UserError(
                f"The checkpoint's weights do not fit together ({reason}); it is not of this "
                "family."
            ) from error  # fmt: skip
        return network.eval().requires_grad_(False)

    @classmethod
    def _empty(
        cls, weights: Mapping[str, torch.Tensor], hyperparameters: Mapping[str, Any]
    ) -> Self:
        """Return the network with the shapes of ``weights``."""
        heads, head_width = weights["encoder.conformer_layers.0.attention.u_bias"].shape
        width = heads * head_width
        hidden = len(weights["encoder.conformer_layers.0.first_feed_forward.first_linear.weight"])
        depthwise = weights["encoder.conformer_layers.0.conv_module.depthwise_conv1d.weight"]
        convolutions = [
            weights[f"encoder.subsample.conv_layers.{number}.weight"]
            for number in range(_count(weights, "encoder.subsample.conv_layers"))
        ]
        ctc = weights.get("encoder.ctc_fc.weight")
        n_layers = _count(weights, "encoder.conformer_layers")
        ctc_layer = (hyperparameters.get("ctc_encoder_layer") or 0) if ctc is not None else 0
        compress = compression(hyperparameters) == "avg"
        _check_ctc(ctc_layer, n_layers, compress=compress)
        encoder = ConformerEncoder(
            Subsampling(
                n_bins=convolutions[0].shape[1],
                channels=len(convolutions[0]) if len(convolutions) > 1 else 2 * width,
                width=width,
                kernels=[weight.shape[2] for weight in convolutions],
            ),
            [ConformerLayer(width, heads, hidden, depthwise.shape[2]) for _ in range(n_layers)],
            None if ctc is None else nn.Linear(ctc.shape[1], ctc.shape[0]),
            ctc_layer=ctc_layer,
            compress=compress,
            scale_input=not hyperparameters.get("no_scale_embedding", False),
            unsafe_shift=hyperparameters.get("batch_unsafe_relative_shift", False),
        )
        vocabulary, decoder_width = weights["decoder.embed_tokens.weight"].shape
        decoder_heads = hyperparameters["decoder_attention_heads"]
        if not decoder_heads or decoder_width % decoder_heads:
            raise UserError(
                f"The checkpoint has decoder_attention_heads={short(decoder_heads)}, which do not "
                f"divide the width of its decoder ({decoder_width}); use the settings that it was "
                "trained with."
            )
        decoder = Decoder(
            [
                DecoderLayer(
                    decoder_width,
                    width,
                    decoder_heads,
                    len(weights["decoder.layers.0.fc1.weight"]),
                )
                for _ in range(_count(weights, "decoder.layers"))
            ],
            vocabulary,
            decoder_width,
            scale_embedding=not hyperparameters.get("no_scale_embedding", False),
        )
        joint = weights.get("auxiliary_decoder.fc.weight")
        return cls(encoder, decoder, None if joint is None else JointCTCHead(width, len(joint)))

    def _tie(self, hyperparameters: Mapping[str, Any]) -> None:
        """Make input and output embeddings one tensor where they are meant to be."""
        embeddings, output = self.decoder.embed_tokens, self.decoder.output_projection
        shared = hyperparameters.get("share_decoder_input_output_embed")
        if shared is None:
            shared = torch.equal(embeddings.weight, output.weight)
        if shared:
            output.weight = embeddings.weight

    def encode(
        self, features: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode a batch.

        Parameters
        ----------
        features
            [N, T, F]; what follows an utterance is ignored.
        lengths
            int64 [N], frames of each.

        Returns
        -------
        tuple
            States [N, T', D] and bool [N, T'], True where a step covers speech.

        Raises
        ------
        ValueError
            If a length is below 1 or above T.
        """
        output = self.encode_fully(features, lengths, with_ctc=False)
        return output.states, step_mask(output.lengths, output.states.shape[1])

    def encode_fully(
        self,
        features: torch.Tensor,
        lengths: torch.Tensor,
        *,
        keep_attention: bool = False,
        with_ctc: bool = True,
    ) -> EncoderOutput:
        """Return the states and what comes with them; arguments as for :meth:`encode`.

        ``keep_attention`` and ``with_ctc`` add the self-attention and the logits of the CTC head.
        """
        if int(lengths.min()) < 1 or int(lengths.max()) > features.shape[1]:
            raise ValueError(f"lengths {lengths.tolist()} do not fit {features.shape[1]} frames")
        padded = bool((lengths != features.shape[1]).any())
        output: EncoderOutput = self.encoder(
            features,
            lengths if padded else None,
            keep_attention=keep_attention,
            with_ctc=with_ctc,
        )
        return output

    def decode(
        self, states: torch.Tensor, valid: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Return logits [N, L, V] of a teacher-forced pass.

        Parameters
        ----------
        states, valid
            As :meth:`encode` returns them.
        tokens
            int64 [N, L], what the decoder reads: end of sentence first, padding last.
        """
        hidden, _ = self.decoder(tokens, self.reads(states, valid))
        return self.decoder.logits(hidden)

    def cross_attention(
        self, states: torch.Tensor, valid: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Return the weights [N, layers, H, L, T'] of :meth:`decode`."""
        return self.decode_keeping(states, valid, tokens)[1]

    def decode_keeping(
        self, states: torch.Tensor, valid: torch.Tensor, tokens: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits as :meth:`decode`, and the weights of cross-attention, by a slower way."""
        weights: list[torch.Tensor] = []
        reads = [
            partial(_keep_weights, attention.keys_and_values(states), valid, weights)
            for attention in self.decoder.cross_attentions()
        ]
        hidden, _ = self.decoder(tokens, reads)
        return self.decoder.logits(hidden), torch.stack(weights, dim=1)

    def joint_ctc_logits(
        self, states: torch.Tensor, valid: torch.Tensor, tokens: torch.Tensor
    ) -> torch.Tensor:
        """Return logits [N, T', V] of CTC over the target vocabulary; zero at padded steps.

        Parameters
        ----------
        states, valid
            As :meth:`encode` returns them.
        tokens
            int64 [N, L], what the decoder reads; the second is the token of the language.

        Raises
        ------
        UserError
            If the model has no such head, or there is no token of the language.
        """
        if self.auxiliary_decoder is None:
            raise UserError("This model has no joint CTC head: decode without 'ctc_weight'.")
        if tokens.shape[1] < 2:
            raise UserError(
                "The joint CTC head needs the token of the language: force it, or decode without "
                "'ctc_weight'."
            )
        language = self.decoder.embed_tokens(tokens[:, 1])  # (N, D)
        logits: torch.Tensor = self.auxiliary_decoder(states, language)
        return logits * valid[:, :, None]

    def reads(self, states: torch.Tensor, valid: torch.Tensor | None = None) -> list[Read]:
        """Return how each layer reads states [N, steps, D], those that are ``valid`` [N, steps]."""
        mask = None if valid is None or bool(valid.all()) else valid[:, None, None]
        return [
            partial(_read, attention.keys_and_values(states), mask)
            for attention in self.decoder.cross_attentions()
        ]

    def occluded_reads(
        self, states: torch.Tensor, occluded: torch.Tensor, occluded_value: torch.Tensor | None
    ) -> list[Read]:
        """Return how each layer reads states [1, steps, D] where some steps are occluded.

        Parameters
        ----------
        states
            Of one utterance.
        occluded
            bool [N, steps].
        occluded_value
            [D], what an occluded step becomes; None hides it.
        """
        value = None if occluded_value is None else occluded_value[None, None]  # (1, 1, D)
        reads: list[Read] = []
        for attention in self.decoder.cross_attentions():
            project = attention.keys_and_values
            reads.append(
                partial(
                    occluded_attention,
                    of_steps=project(states),
                    of_value=None if value is None else project(value),
                    occluded=occluded[:, None, None],
                    scale=attention.scale,
                )
            )
        return reads


def _read(of_steps: KeysAndValues, mask: torch.Tensor | None, query: torch.Tensor) -> torch.Tensor:
    """Return the context [N k, H, L, d] of k rows per input; keys and values have N."""
    return shared_attention(query, of_steps, mask=mask)


def _keep_weights(
    of_steps: KeysAndValues,
    valid: torch.Tensor,
    layers: list[torch.Tensor],
    query: torch.Tensor,
) -> torch.Tensor:
    keys, values = of_steps
    scores = (query * query.shape[-1] ** -0.5) @ keys.transpose(-1, -2)  # (N, H, L, steps)
    weights = torch.softmax(scores.masked_fill(~valid[:, None, None], -torch.inf), dim=-1)
    layers.append(weights)
    return weights.to(values.dtype) @ values


def _check(hyperparameters: Mapping[str, Any]) -> None:
    if "decoder_attention_heads" not in hyperparameters:
        raise UserError(
            "The checkpoint's settings lack 'decoder_attention_heads'; use the checkpoint as "
            "training wrote it."
        )
    for name in ("decoder_attention_heads", "ctc_encoder_layer", "max_target_positions"):
        value = hyperparameters.get(name)
        if value is not None and not isinstance(value, int):
            raise UserError(
                f"The checkpoint has {name}={short(value)}, which is no whole number; use the "
                "checkpoint as training wrote it."
            )
    for name, fixed in _FIXED.items():
        value = hyperparameters.get(name, fixed)
        if value != fixed:
            raise UserError(
                f"The checkpoint has {name}={short(value)}, but only {fixed!r} is implemented; "
                "it cannot be used."
            )
    strategy = compression(hyperparameters)
    if strategy not in ("none", "avg"):
        raise UserError(
            f"The checkpoint has ctc_compress_strategy={short(strategy)}, which is not "
            "implemented; it cannot be used."
        )


def compression(hyperparameters: Mapping[str, Any]) -> str:
    """Return how a network shortens what its encoder computes: ``none`` where nothing is said."""
    return hyperparameters.get("ctc_compress_strategy") or "none"


def _check_ctc(layer: int, n_layers: int, *, compress: bool) -> None:
    if not 0 <= layer <= n_layers:
        raise UserError(
            f"The checkpoint has ctc_encoder_layer={short(layer)}, but its encoder has {n_layers} "
            "layers; use the settings that it was trained with."
        )
    if compress and not layer:
        raise UserError(
            "The checkpoint has ctc_compress_strategy='avg', but no CTC head in its encoder to "
            "find the runs by; use the weights and settings that training wrote."
        )


def _check_names(expected: Collection[str], actual: Collection[str]) -> None:
    missing = [name for name in expected if name not in actual]
    if missing:
        raise UserError(_missing(missing))
    unknown = [_reference_name(name) for name in actual if name not in expected]
    if unknown:
        raise UserError(
            f"The checkpoint has a weight '{unknown[0]}'{_more(unknown)} that no network of this "
            "family has; it cannot be used."
        )


def _missing(names: Sequence[str]) -> str:
    return (
        f"The checkpoint has no weight '{_reference_name(names[0])}'{_more(names)}; it is not of "
        "this family, or not whole."
    )


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _is_weight(name: str) -> bool:
    return not name.endswith(_NO_WEIGHTS)


def _own_name(name: str) -> str:
    """Return the name of a weight here: attention and its norm are one module."""
    return name.replace(".attention.attention.", ".attention.")


def _reference_name(name: str) -> str:
    """Return the name in checkpoints of a weight that :func:`_own_name` gave."""
    if ".attention.layer_norm." in name:
        return name
    return name.replace(".attention.", ".attention.attention.")


def _count(weights: Mapping[str, torch.Tensor], prefix: str) -> int:
    return len(
        {name[len(prefix) + 1 :].split(".")[0] for name in weights if name.startswith(f"{prefix}.")}
    )
