"""What encoder-decoder models of the transformers library have in common.

A family adds what is its own: how audio becomes input, how a task becomes a prompt.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from reprlib import repr as short
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPastAndCrossAttentions
from transformers.utils import GENERATION_CONFIG_NAME

from s2txai.errors import UserError
from s2txai.models.base import CrossAttention, Facts, Model, Role, TokenTable, pad_steps
from s2txai.models.memory import to_device
from s2txai.models.occlusion import KeysAndValues, occluded_attention, split_heads, value_norms
from s2txai.study.fetch_model import read_options

# It warns of padding among prompts, of which there is none: all rows of a batch have the same one.
logging.getLogger("transformers.generation.utils").addFilter(
    lambda record: "attention mask is not set" not in record.getMessage()
)

# `generate` takes from the checkpoint what it is not told: these would clash with what it is.
_TOLD_HERE = ("max_length", "max_new_tokens", "num_return_sequences", "return_dict_in_generate")


class Vocabulary(Protocol):
    """What tokens stand for."""

    def piece(self, token: int) -> str:
        """Return the token's text, leading space included."""

    def role(self, token: int) -> Role:
        """Return ``text``, ``special`` or ``eos``."""

    def text(self, tokens: Sequence[int]) -> str:
        """Return the plain text of ``tokens``, without special tokens."""


@dataclass
class _EncoderOutput(BaseModelOutput):  # type: ignore[misc]  # transformers is not followed
    """What ``generate`` is given; some decoders ask it for a mask."""

    attention_mask: torch.Tensor | None = None


class TransformersModel(Model):
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
    ) -> None:
        self._network = network
        self._encoder = network.get_encoder()
        self._decoder = network.get_decoder()
        self._vocabulary = vocabulary
        self._suppress = list(suppress_tokens)
        self._begin_suppress = list(begin_suppress_tokens)
        self._precision = precision
        self._eos: int = network.config.eos_token_id
        self.device = network.device
        self.facts = facts

    def compile(self) -> None:
        """Compile the encoder, where most of the time of a mask goes."""
        self._encoder.compile()

    def _inputs(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        """Return what the encoder takes for features [N, T, F]."""
        raise NotImplementedError

    def _seen(self, states: torch.Tensor) -> torch.Tensor:
        """Return what cross-attention projects: the states, unless a family changes their width."""
        return states

    @torch.inference_mode()
    def encode(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        """Encode features [N, T, F] into states [N, steps, D]."""
        return self._encode(features, padding_value)

    def _encode(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        with self._autocast():
            output = self._encoder(self._inputs(features, padding_value))
        states: torch.Tensor = output.last_hidden_state
        return states.float()

    @torch.inference_mode()
    def decode(
        self, states: torch.Tensor, prompt: Sequence[int], tokens: Sequence[int]
    ) -> torch.Tensor:
        """Return float32 logits [N, I, V]."""
        return self._decode(states, prompt, tokens)

    def _decode(
        self, states: torch.Tensor, prompt: Sequence[int], tokens: Sequence[int]
    ) -> torch.Tensor:
        with self._autocast():
            hidden = self._decoded(states, prompt, tokens).last_hidden_state
            # Only the rows that predict a token: the vocabulary makes this the largest product.
            logits: torch.Tensor = self._projection(hidden[:, len(prompt) - 1 :])
        return logits.float()

    @property
    def _projection(self) -> torch.nn.Module:
        projection: torch.nn.Module = self._network.get_output_embeddings()
        return projection

    def _decoded(
        self, states: torch.Tensor, prompt: Sequence[int], tokens: Sequence[int], **options: bool
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        # The last token is predicted, never fed.
        inputs = to_device(torch.tensor([*prompt, *tokens[:-1]]), self.device)
        return self._decoder(
            input_ids=inputs.expand(len(states), -1),
            encoder_hidden_states=states,
            use_cache=False,
            **options,
        )

    def differentiable_logits(
        self,
        features: torch.Tensor,
        padding_value: float,
        prompt: Sequence[int],
        tokens: Sequence[int],
    ) -> torch.Tensor:
        """Return float32 logits [N, I, V] with a graph that leads back to features [N, T, F]."""
        return self._decode(self._encode(features, padding_value), prompt, tokens)

    @torch.inference_mode()
    def decode_occluded(
        self,
        states: torch.Tensor,
        occluded: torch.Tensor,
        prompt: Sequence[int],
        tokens: Sequence[int],
        filling: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return logits [N, I, V]; keys and values of the steps are computed once for all N."""
        hidden = pad_steps(occluded, states.shape[1])  # (N, steps)
        with self._autocast(), self._occluded_cross_attention(states, hidden, filling):
            return self.decode(states.expand(len(occluded), -1, -1), prompt, tokens)

    @contextmanager
    def _occluded_cross_attention(
        self, states: torch.Tensor, occluded: torch.Tensor, filling: torch.Tensor | None
    ) -> Iterator[None]:
        """Make every cross-attention see ``states`` [1, steps, D], occluded by ``occluded``.

        Keys and values of the steps, and those of the filling, are projected once, not again for
        each of the N rows of ``occluded`` [N, steps].
        """
        seen = self._seen(states)
        replacement = None if filling is None else self._seen(filling[None, None])
        attentions = self._cross_attentions()
        for attention in attentions:
            attention.forward = partial(
                _attend_occluded,
                attention,
                _keys_and_values(attention, seen),
                None if replacement is None else _keys_and_values(attention, replacement),
                occluded[:, None, None],
            )
        try:
            yield
        finally:
            for attention in attentions:
                del attention.forward  # the class's own is found again

    def _cross_attentions(self) -> list[Any]:
        return [getattr(layer, self._cross_attention) for layer in self._decoder.layers]

    @torch.inference_mode()
    def decode_without_tokens(
        self,
        states: torch.Tensor,
        occluded: torch.Tensor,
        prompt: Sequence[int],
        tokens: Sequence[int],
    ) -> torch.Tensor:
        """Return float32 logits [N, I, V] with embeddings of preceding tokens set to zero."""
        # Only the last token of the prompt is the direct predecessor of a row.
        visible = torch.nn.functional.pad(~occluded, (len(prompt) - 1, 0), value=True)

        def hide(_module: torch.nn.Module, _inputs: object, embedded: torch.Tensor) -> torch.Tensor:
            return embedded * visible[:, :, None]

        hook = self._decoder.embed_tokens.register_forward_hook(hide)
        try:
            return self._decode(states, prompt, tokens)
        finally:
            hook.remove()

    @torch.inference_mode()
    def generate(
        self,
        states: torch.Tensor,
        prompt: Sequence[int],
        *,
        beam: int,
        max_new_tokens: int,
        forced: Sequence[int] = (),
    ) -> list[list[int]]:
        """Decode each state by beam search, with the suppressed tokens of the checkpoint."""
        config = GenerationConfig(
            num_beams=beam,
            do_sample=False,
            max_new_tokens=min(max_new_tokens, self.facts.max_new_tokens) - len(forced),
            suppress_tokens=self._suppress or None,
            begin_suppress_tokens=self._begin_suppress or None,
            decoder_start_token_id=prompt[0],
            eos_token_id=self._eos,
            pad_token_id=self._eos,
        )
        with self._autocast():
            # The plain beam search: what some families put over `generate` adds heuristics to it.
            sequences = GenerationMixin.generate(
                self._network,
                generation_config=config,
                encoder_outputs=_EncoderOutput(last_hidden_state=states),
                decoder_input_ids=torch.tensor(
                    [[*prompt, *forced]] * len(states), device=self.device
                ),
            )
        return [self._strip(row) for row in sequences[:, len(prompt) :].tolist()]

    def _strip(self, tokens: list[int]) -> list[int]:
        """Drop the padding after the first end of sentence."""
        return tokens[: tokens.index(self._eos) + 1] if self._eos in tokens else tokens

    @torch.inference_mode()
    def cross_attention(
        self, states: torch.Tensor, prompt: Sequence[int], tokens: Sequence[int]
    ) -> CrossAttention:
        """Return attention [L, H, I, steps] of one utterance; ``states`` is [1, steps, D]."""
        with self._eager(), self._autocast():
            output = self._decoded(states, prompt, tokens, output_attentions=True)
        weights = torch.stack([layer[0].float() for layer in output.cross_attentions])
        weights = weights[:, :, len(prompt) - 1 :]  # (L, H, I, steps)
        seen = self._seen(states)
        norms = torch.stack(
            [_value_norms(attention, seen) for attention in self._cross_attentions()]
        )  # (L, H, steps)
        value_norm = weights * norms[:, :, None]
        return CrossAttention(weights.cpu().numpy(), value_norm.cpu().numpy())

    @torch.inference_mode()
    def encoder_attention(self, features: torch.Tensor, padding_value: float) -> np.ndarray:
        """Return self-attention [layers, steps, steps], mean over heads, of one [1, T, F]."""
        with self._eager(), self._autocast():
            output = self._encoder(self._inputs(features, padding_value), output_attentions=True)
        means = [layer[0].float().mean(dim=0) for layer in output.attentions]
        return torch.stack(means).cpu().numpy()

    def layers(self) -> list[torch.nn.Module]:
        """Return the decoder's norm and layers, its embeddings, then the same of the encoder."""
        decoder = self._decoder
        # A projection that is the embedding of the tokens goes with the embeddings.
        embeddings = {id(weights) for weights in decoder.embed_tokens.parameters()}
        own = [one for one in self._projection.parameters() if id(one) not in embeddings]
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
        """Describe each token; a word starts at a leading space."""
        pieces = [self._vocabulary.piece(token) for token in tokens]
        roles = [self._vocabulary.role(token) for token in tokens]
        word, word_index = -1, []
        for piece, role in zip(pieces, roles, strict=True):
            if role == "text" and (word < 0 or piece.startswith(" ")):
                word += 1
            word_index.append(word if role == "text" else -1)
        return TokenTable(pieces, roles, word_index)

    def text(self, tokens: Sequence[int]) -> str:
        """Return the hypothesis as text."""
        return self._vocabulary.text(tokens)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, self._precision, enabled=self._precision != torch.float32
        )

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
    of_filling: KeysAndValues | None,
    occluded: torch.Tensor,
    hidden_states: torch.Tensor,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend from [N, I, D] to steps [1, H, steps, d], occluded by [N, 1, 1, steps]."""
    query = split_heads(attention.q_proj(hidden_states), of_steps[0].shape[1])  # (N, H, I, d)
    context = occluded_attention(query, of_steps, of_filling, occluded, attention.scaling)
    return _output_projection(attention)(context.transpose(1, 2).flatten(2)), None


def _output_projection(attention: Any) -> Any:
    return attention.out_proj if hasattr(attention, "out_proj") else attention.o_proj


def _keys_and_values(attention: Any, states: torch.Tensor) -> KeysAndValues:
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


def load_network(network_class: Any, directory: Path) -> Any:
    """Load what ``save_pretrained`` wrote, in float32.

    Code that lies beside the weights is run only if the model's options say so; the network is then
    of the class that its settings name, which must be used as ``network_class`` is.

    Raises
    ------
    UserError
        If the weights cannot be read, one of them is missing or of the wrong shape, or the folder
        asks for pickles, or for code that is fetched.
    """
    _refuse_requests(directory)
    trusted = bool(read_options(directory).get("trust_remote_code", False))
    network_class = AutoModelForSpeechSeq2Seq if trusted else network_class
    try:
        if (directory / GENERATION_CONFIG_NAME).is_file():
            # One that cannot be read is else passed over, and with it what is never predicted.
            GenerationConfig.from_pretrained(directory, local_files_only=True)
        network, told = network_class.from_pretrained(
            directory,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=trusted,
            use_safetensors=True,
        )
    # ImportError: weights that were packed by a library which is not here.
    except (
        OSError, RuntimeError, ValueError, TypeError, ImportError, SafetensorError
    ) as error:  # fmt: skip
        raise UserError(
            f"{directory} does not hold the weights of a {network_class.__name__} "
            f"({_first_line(error)}); check the model's entry in config/models.yaml."
        ) from error
    if told["missing_keys"]:
        raise UserError(
            f"{directory} lacks weights of a {network_class.__name__} "
            f"({', '.join(sorted(told['missing_keys'])[:3])}); check the model's entry in "
            "config/models.yaml."
        )
    for name in _TOLD_HERE:
        setattr(network.generation_config, name, None)
    return network.eval().requires_grad_(False)


# Those that come with transformers and torch. Others are packages, or code that is fetched.
_ATTENTION = ("eager", "sdpa")
_INDEX = "model.safetensors.index.json"


def _refuse_requests(directory: Path) -> None:
    """Refuse settings by which a folder would have the library run more than the model.

    An implementation of attention may be the name of a repository, whose code the library would
    fetch and run without asking; an index may name pickles, and files outside the folder.
    """
    for keys, value in _leaves(_json(directory / "config.json")):
        # A part of the model may have its own, as may a table under this key for all parts.
        asks = any(key.endswith("attn_implementation") for key in keys)
        if asks and value not in (None, *_ATTENTION):
            raise UserError(
                f"{directory / 'config.json'}: '{'.'.join(keys)[:100]}' is {short(value)}, code "
                f"from elsewhere; remove the line, or choose one of: {', '.join(_ATTENTION)}."
            )
    named = _json(directory / _INDEX).get("weight_map", {})
    for name in named.values() if isinstance(named, Mapping) else ():
        plain = isinstance(name, str) and Path(name).name == name
        if not plain or not name.endswith(".safetensors"):
            raise UserError(
                f"{directory / _INDEX} names {short(name)}, which is no *.safetensors of this "
                "folder; save the model again with its 'save_pretrained'."
            )


def _json(file: Path) -> dict[str, Any]:
    """Return the table in a file; an empty one if there is none, which others complain about."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _leaves(table: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the values of a table and of the tables in it, with the keys that lead to them."""
    left: list[tuple[tuple[str, ...], Any]] = [((), table)]
    while left:
        keys, value = left.pop()
        if isinstance(value, Mapping):
            left += [((*keys, key), inner) for key, inner in value.items()]
        else:
            yield keys, value


def suppressed_tokens(network: Any) -> dict[str, list[int]]:
    """Return what a checkpoint never predicts, as arguments of :class:`TransformersModel`.

    Padding stands for what follows a finished hypothesis, so none may hold it.
    """
    config, generation = network.config, network.generation_config
    padding = {config.pad_token_id} - {None, config.eos_token_id}
    return {
        "suppress_tokens": sorted(padding.union(generation.suppress_tokens or [])),
        "begin_suppress_tokens": generation.begin_suppress_tokens or [],
    }


def load_part(part_class: Any, directory: Path) -> Any:
    """Load a tokenizer or a feature extractor that lies beside the weights, without its code.

    Raises
    ------
    UserError
        If it is not there.
    """
    try:
        # Said expressly, or the library asks whether to run it where there is a terminal.
        return part_class.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"{directory} holds nothing that {part_class.__name__} can read "
            f"({_first_line(error)}); save it beside the weights with its 'save_pretrained'."
        ) from error


def load_tokenizer(directory: Path) -> Any:
    """Load the tokenizer of the class that the checkpoint names.

    Raises
    ------
    UserError
        If there is none: some classes would make up an empty vocabulary, or convert other files
        with packages that are not here.
    """
    if not (directory / "tokenizer.json").exists():
        raise UserError(
            f"{directory} has no tokenizer.json; load the tokenizer with transformers and save it "
            "beside the weights with its 'save_pretrained'."
        )
    return load_part(AutoTokenizer, directory)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
