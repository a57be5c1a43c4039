"""What encoder-decoder models of the transformers library have in common.

A family adds what is its own: how audio becomes input, how a task becomes a prompt. Loading is in
:mod:`s2txai.models.transformers_loading`.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import torch
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPastAndCrossAttentions

from s2txai.models.base import Facts, Role, TokenTable
from s2txai.models.network_model import NetworkModel, inference
from s2txai.models.occlusion import KeysAndValues, occluded_attention, split_heads, value_norms
from s2txai.models.pieces import token_table
from s2txai.models.shared_attention import shared_attention

_Forward = Callable[..., tuple[torch.Tensor, None]]

_GENERATION_LOGGER = logging.getLogger("transformers.generation.utils")


class Vocabulary(Protocol):
    """What tokens stand for."""

    def piece(self, token: int) -> str | bytes:
        """Return the token's text, leading space included; bytes where it is part of characters."""

    def role(self, token: int) -> Role:
        """Return ``text``, ``special`` or ``eos``."""

    def text(self, tokens: Sequence[int]) -> str:
        """Return the plain text of ``tokens``, without special tokens."""


@dataclass
class _EncoderOutput(BaseModelOutput):  # type: ignore[misc]  # transformers is not followed
    """What ``generate`` is given; some decoders ask it for a mask."""

    attention_mask: torch.Tensor | None = None


class TransformersModel(NetworkModel):
    """A speech-to-text model of the transformers library.

    Parameters
    ----------
    network
        In evaluation mode, on its device, in float32.
    vocabulary
        Describes its tokens.
    facts
        What stays the same for every utterance.
    suppress_tokens, begin_suppress_tokens
        Tokens that beam search never predicts, or never first.
    penalties
        Of beam search: those of :data:`s2txai.models.generation_settings.PENALTIES` that the
        checkpoint sets.
    precision
        Of the forward passes.
    """

    # Names of modules that families call differently.
    _cross_attention = "encoder_attn"  # of a decoder layer
    _decoder_norm = "layer_norm"

    def __init__(
        self,
        network: PreTrainedModel,
        vocabulary: Vocabulary,
        facts: Facts,
        *,
        suppress_tokens: Sequence[int],
        begin_suppress_tokens: Sequence[int],
        precision: torch.dtype,
        penalties: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        super().__init__(facts, network.device, precision)
        self._network = network
        self._encoder = network.get_encoder()
        self._decoder = network.get_decoder()
        self._vocabulary = vocabulary
        self._suppress = list(suppress_tokens)
        self._begin_suppress = list(begin_suppress_tokens)
        self._penalties = dict(penalties)
        self._eos: int = network.config.eos_token_id
        # `generate` takes from here what its call leaves open, without a word.
        network.generation_config = GenerationConfig()

    def compile(self) -> None:
        """Compile the encoder, where most of the time of a mask goes."""
        self._encoder.compile()

    def _inputs(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        """Return what the encoder takes for features [N, T, F]."""
        raise NotImplementedError

    def _seen(self, states: torch.Tensor) -> torch.Tensor:
        """Return what cross-attention projects: the states, unless a family changes their width."""
        return states

    def _encoder_states(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        states: torch.Tensor = self._encoder(
            self._inputs(features, padding_value)
        ).last_hidden_state
        return states

    def _decoder_states(
        self, states: torch.Tensor, inputs: torch.Tensor, visible: torch.Tensor | None
    ) -> torch.Tensor:
        with nullcontext() if visible is None else self._zeroed_embeddings(visible):
            hidden: torch.Tensor = self._decoded(states, inputs).last_hidden_state
        return hidden

    def _project(self, hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._projection(hidden)
        return logits

    @property
    def _projection(self) -> torch.nn.Module:
        projection: torch.nn.Module = self._network.get_output_embeddings()
        return projection

    def _decoded(
        self, states: torch.Tensor, inputs: torch.Tensor, **options: bool
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        return self._decoder(
            input_ids=inputs.expand(len(states), -1),
            encoder_hidden_states=states,
            use_cache=False,
            **options,
        )

    def _occluded_decoder_states(
        self,
        states: torch.Tensor,
        occluded: torch.Tensor,
        inputs: torch.Tensor,
        occluded_value: torch.Tensor | None,
    ) -> torch.Tensor:
        with self._occluded_cross_attention(states, occluded, occluded_value):
            return self._decoder_states(states.expand(len(occluded), -1, -1), inputs, None)

    @contextmanager
    def _occluded_cross_attention(
        self,
        states: torch.Tensor,
        occluded: torch.Tensor,
        occluded_value: torch.Tensor | None,
    ) -> Iterator[None]:
        """Make every cross-attention see ``states`` [1, steps, D], occluded by ``occluded``.

        Keys and values of the steps, and those of the occluded value, are projected once, not again
        for each of the N rows of ``occluded`` [N, steps].
        """
        seen = self._seen(states)
        value = None if occluded_value is None else self._seen(occluded_value[None, None])

        def forward(attention: Any) -> _Forward:
            return partial(
                _attend_occluded,
                attention,
                keys_and_values(attention, seen),
                None if value is None else keys_and_values(attention, value),
                occluded[:, None, None],
            )

        with self._replaced_cross_attention(forward):
            yield

    @contextmanager
    def _shared_cross_attention(self, states: torch.Tensor) -> Iterator[torch.Tensor]:
        """Make every cross-attention see ``states`` [N, steps, D], projected once.

        The library would expand the states to a row per hypothesis, project each row, and reorder
        the copies of keys and values at every step of the search. What it is given instead has one
        step [N, 1, D], which only says how many inputs there are.
        """
        seen = self._seen(states)

        def forward(attention: Any) -> _Forward:
            return partial(_attend_shared, attention, keys_and_values(attention, seen))

        with self._replaced_cross_attention(forward):
            yield states[:, :1]

    @contextmanager
    def _replaced_cross_attention(self, forward: Callable[[Any], _Forward]) -> Iterator[None]:
        """Give every cross-attention another ``forward``, made from the module."""
        attentions = self._cross_attentions()
        # All are made before one is replaced: memory may run out on the way.
        forwards = [forward(attention) for attention in attentions]
        for attention, replacement in zip(attentions, forwards, strict=True):
            attention.forward = replacement
        try:
            yield
        finally:
            for attention in attentions:
                del attention.forward  # uncovers the class's own

    def _cross_attentions(self) -> list[Any]:
        return [getattr(layer, self._cross_attention) for layer in self._decoder.layers]

    @contextmanager
    def _zeroed_embeddings(self, visible: torch.Tensor) -> Iterator[None]:
        """Set the embeddings of tokens to zero where ``visible`` [N, length] is False."""

        def hide(_module: torch.nn.Module, _inputs: object, embedded: torch.Tensor) -> torch.Tensor:
            return embedded * visible[:, :, None]

        hook = self._decoder.embed_tokens.register_forward_hook(hide)
        try:
            yield
        finally:
            hook.remove()

    @inference
    def generate(
        self,
        states: torch.Tensor,
        prompt: Sequence[int],
        *,
        beam: int,
        max_new_tokens: int,
        forced: Sequence[int] = (),
    ) -> list[list[int]]:
        """Decode each state by beam search, with what is honoured of the checkpoint's settings."""
        config = GenerationConfig(
            num_beams=beam,
            do_sample=False,
            max_new_tokens=min(max_new_tokens, self.facts.max_new_tokens) - len(forced),
            suppress_tokens=self._suppress or None,
            begin_suppress_tokens=self._begin_suppress or None,
            decoder_start_token_id=prompt[0],
            eos_token_id=self._eos,
            pad_token_id=self._eos,
            **self._penalties,
        )
        with (
            self._autocast(),
            _padding_warning_silenced(),
            self._shared_cross_attention(states) if beam > 1 else nullcontext(states) as given,
        ):
            # The plain beam search: what some families put over `generate` adds heuristics to it.
            sequences = GenerationMixin.generate(
                self._network,
                generation_config=config,
                encoder_outputs=_EncoderOutput(last_hidden_state=given),
                decoder_input_ids=torch.tensor(
                    [[*prompt, *forced]] * len(states), device=self.device
                ),
            )
        return [self._strip(row) for row in sequences[:, len(prompt) :].tolist()]

    def _strip(self, tokens: list[int]) -> list[int]:
        """Drop the padding after the first end of sentence."""
        return tokens[: tokens.index(self._eos) + 1] if self._eos in tokens else tokens

    def _attention(
        self, states: torch.Tensor, inputs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with self._eager(), self._autocast():
            output = self._decoded(states, inputs, output_attentions=True)
        weights = torch.stack([layer[0].float() for layer in output.cross_attentions])
        seen = self._seen(states)
        norms = [_value_norms(attention, seen) for attention in self._cross_attentions()]
        return weights, torch.stack(norms)

    def _encoder_attention(
        self, features: torch.Tensor, padding_value: float
    ) -> Sequence[torch.Tensor]:
        with self._eager():
            inputs = self._inputs(features, padding_value)
            output = self._encoder(inputs, output_attentions=True)
        attention: Sequence[torch.Tensor] = output.attentions
        return attention

    def layers(self) -> list[torch.nn.Module]:
        """Return the decoder's norm and layers, its embeddings, then the same of the encoder."""
        decoder = self._decoder
        # A projection that is the embedding of the tokens goes with the embeddings.
        embeddings = {id(weights) for weights in decoder.embed_tokens.parameters()}
        own = [
            weights for weights in self._projection.parameters() if id(weights) not in embeddings
        ]
        norm = getattr(decoder, self._decoder_norm)
        top = torch.nn.ParameterList([*norm.parameters(), *own])
        return [
            *_parts(decoder, top, decoder.layers),
            *_parts(self._encoder, *self._encoder_parts()),
        ]

    def _encoder_parts(self) -> tuple[torch.nn.Module, Sequence[torch.nn.Module]]:
        """Return what comes after the encoder's layers, and the layers from input to output."""
        return self._encoder.layer_norm, self._encoder.layers

    def token_table(self, tokens: Sequence[int]) -> TokenTable:
        """Describe each token, see :func:`s2txai.models.pieces.token_table`."""
        pieces = [self._vocabulary.piece(token) for token in tokens]
        return token_table(pieces, [self._vocabulary.role(token) for token in tokens])

    def text(self, tokens: Sequence[int]) -> str:
        """Return the hypothesis as text."""
        return self._vocabulary.text(tokens)

    @contextmanager
    def _eager(self) -> Iterator[None]:
        """Switch to the attention that returns its weights; the fused kernels return none."""
        fast = self._network.config._attn_implementation
        self._network.set_attn_implementation("eager")
        try:
            yield
        finally:
            self._network.set_attn_implementation(fast)


def _parts(
    stack: torch.nn.Module, top: torch.nn.Module, layers: Sequence[torch.nn.Module]
) -> list[torch.nn.Module]:
    """Return a stack from its output to its input: top, layers, and all that is in neither."""
    named = [top, *reversed(layers)]
    taken = {id(weights) for part in named for weights in part.parameters()}
    rest = [weights for weights in stack.parameters() if id(weights) not in taken]
    # Some stacks have nothing after their layers.
    return [part for part in (*named, torch.nn.ParameterList(rest)) if list(part.parameters())]


def _attend_occluded(
    attention: Any,
    of_steps: KeysAndValues,
    of_value: KeysAndValues | None,
    occluded: torch.Tensor,
    hidden_states: torch.Tensor,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend from [N, I, D] to steps [1, H, steps, d], occluded by [N, 1, 1, steps]."""
    query = split_heads(attention.q_proj(hidden_states), of_steps[0].shape[1])  # (N, H, I, d)
    context = occluded_attention(query, of_steps, of_value, occluded, attention.scaling)
    return _output_projection(attention)(context.transpose(1, 2).flatten(2)), None


def _attend_shared(
    attention: Any, of_inputs: KeysAndValues, hidden_states: torch.Tensor, **_: object
) -> tuple[torch.Tensor, None]:
    """Attend from [N k, I, D], k rows per input, to steps [N, H, steps, d]."""
    query = split_heads(attention.q_proj(hidden_states), of_inputs[0].shape[1])  # (N k, H, I, d)
    context = shared_attention(query, of_inputs, scale=attention.scaling)
    return _output_projection(attention)(context.transpose(1, 2).flatten(2)), None


def _output_projection(attention: Any) -> Any:
    return attention.out_proj if hasattr(attention, "out_proj") else attention.o_proj


def keys_and_values(attention: Any, states: torch.Tensor) -> KeysAndValues:
    """Return keys and values [N, H, steps, d] of states [N, steps, D]."""
    keys = _for_each_head(attention, attention.k_proj(states))
    return keys, _for_each_head(attention, attention.v_proj(states))


def _for_each_head(attention: Any, projected: torch.Tensor) -> torch.Tensor:
    """Return [N, H, steps, d], repeated where several heads of the query share one."""
    separate = split_heads(projected, projected.shape[-1] // attention.head_dim)
    heads = attention.q_proj.out_features // attention.head_dim
    return separate.repeat_interleave(heads // separate.shape[1], dim=1)


def _value_norms(attention: Any, states: torch.Tensor) -> torch.Tensor:
    """Return [H, steps] of states [1, steps, D]."""
    values = _for_each_head(attention, attention.v_proj(states))
    return value_norms(values, _output_projection(attention).weight)


@contextmanager
def _padding_warning_silenced() -> Iterator[None]:
    """Silence a warning about padded prompts; ours never are: all rows of a batch share one."""
    _GENERATION_LOGGER.addFilter(_is_no_padding_warning)
    try:
        yield
    finally:
        _GENERATION_LOGGER.removeFilter(_is_no_padding_warning)


def _is_no_padding_warning(record: logging.LogRecord) -> bool:
    return "attention mask is not set" not in record.getMessage()
