"""Whisper (Radford et al. 2022), from CTranslate2 files or a transformers directory.

The 30 s context is kept as it was trained: cropping it to the utterance changes the transcript of
about half of short clips.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import (
    GenerationConfig,
    GenerationMixin,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPastAndCrossAttentions
from transformers.models.whisper.modeling_whisper import WhisperAttention

from s2txai.datasets import Task
from s2txai.errors import UserError
from s2txai.models.base import (
    CrossAttention,
    Facts,
    Features,
    Model,
    Role,
    TokenTable,
    pad_steps,
)
from s2txai.models.ctranslate2 import read_variables
from s2txai.models.occlusion import KeysAndValues, occluded_attention, split_heads, value_norms

SAMPLING_RATE = 16_000  # Hz
HOP = 160  # samples between two frames
HALF_WINDOW = 200  # samples; windows of 400 are centred on their frame
# Vocabularies from this size on hold the language tags of the multilingual models.
MULTILINGUAL_VOCABULARY = 51_865


def load_whisper(
    directory: Path, *, device: torch.device, precision: torch.dtype
) -> "WhisperModel":
    """Load a Whisper of any size.

    Parameters
    ----------
    directory
        Holds ``tokenizer.json`` and either ``model.bin`` with ``config.json`` (CTranslate2) or
        what ``save_pretrained`` writes.
    device, precision
        Where and in which type to compute.

    Raises
    ------
    UserError
        If a file is missing or a weight is missing, left over or of the wrong shape.
    """
    tokenizer_file = directory / "tokenizer.json"
    if not tokenizer_file.exists():
        raise UserError(
            f"{directory} has no tokenizer.json; save the tokenizer beside the weights "
            "(WhisperTokenizerFast.save_pretrained)."
        )
    if (directory / "model.bin").exists():
        network, suppress, begin_suppress = _from_ctranslate2(directory)
    else:
        network = WhisperForConditionalGeneration.from_pretrained(
            directory, dtype=torch.float32, local_files_only=True
        )
        suppress = network.generation_config.suppress_tokens or []
        begin_suppress = network.generation_config.begin_suppress_tokens or []
    return WhisperModel(
        network.to(device).eval().requires_grad_(False),
        Tokenizer.from_file(str(tokenizer_file)),
        suppress_tokens=suppress,
        begin_suppress_tokens=begin_suppress,
        precision=precision,
    )


def _from_ctranslate2(
    directory: Path,
) -> tuple[WhisperForConditionalGeneration, list[int], list[int]]:
    variables = read_variables(directory / "model.bin")
    settings = json.loads((directory / "config.json").read_text())
    n_mels = variables["encoder/conv1/weight"].shape[1]
    vocabulary, width = variables["decoder/embeddings/weight"].shape
    tokens = _special_ids(vocabulary)
    config = WhisperConfig(
        vocab_size=vocabulary,
        num_mel_bins=n_mels,
        d_model=width,
        encoder_layers=_count_layers(variables, "encoder"),
        decoder_layers=_count_layers(variables, "decoder"),
        encoder_attention_heads=int(variables["encoder/num_heads"]),
        decoder_attention_heads=int(variables["decoder/num_heads"]),
        encoder_ffn_dim=variables["encoder/layer_0/ffn/linear_0/weight"].shape[0],
        decoder_ffn_dim=variables["decoder/layer_0/ffn/linear_0/weight"].shape[0],
        max_source_positions=variables["encoder/position_encodings/encodings"].shape[0],
        max_target_positions=variables["decoder/position_encodings/encodings"].shape[0],
        decoder_start_token_id=tokens["start"],
        bos_token_id=tokens["eos"],
        eos_token_id=tokens["eos"],
        pad_token_id=tokens["eos"],
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    with torch.device("meta"):
        network = WhisperForConditionalGeneration(config)
    state = {
        name: torch.from_numpy(values.astype(np.float32))
        for name, values in transformers_state(variables).items()
    }
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        raise UserError(
            f"{directory / 'model.bin'} does not hold the weights of a Whisper ({error}); "
            "check the model's entry in config/models.yaml."
        ) from error
    network.tie_weights()
    return network, settings.get("suppress_ids", []), settings.get("suppress_ids_begin", [])


def _special_ids(vocabulary: int) -> dict[str, int]:
    # The text vocabulary of the English-only models is one entry shorter than the multilingual.
    eos = 50_257 if vocabulary >= MULTILINGUAL_VOCABULARY else 50_256
    return {"eos": eos, "start": eos + 1}


def _count_layers(variables: Mapping[str, np.ndarray], part: str) -> int:
    pattern = re.compile(rf"{part}/layer_(\d+)/")
    return 1 + max(int(match[1]) for name in variables if (match := pattern.match(name)))


def transformers_state(variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename CTranslate2's Whisper variables to transformers' parameters.

    Raises
    ------
    UserError
        If a key projection has a bias, which Whisper does not.
    """
    state = {
        "model.encoder.embed_positions.weight": variables["encoder/position_encodings/encodings"],
        "model.decoder.embed_positions.weight": variables["decoder/position_encodings/encodings"],
        "model.decoder.embed_tokens.weight": variables["decoder/embeddings/weight"],
        "proj_out.weight": variables["decoder/embeddings/weight"],
    }
    for conv in ("conv1", "conv2"):
        for kind in ("weight", "bias"):
            state[f"model.encoder.{conv}.{kind}"] = variables[f"encoder/{conv}/{kind}"]
    for part in ("encoder", "decoder"):
        _copy_norm(variables, f"{part}/layer_norm", state, f"model.{part}.layer_norm")
        for layer in range(_count_layers(variables, part)):
            source, target = f"{part}/layer_{layer}", f"model.{part}.layers.{layer}"
            _copy_self_attention(variables, f"{source}/self_attention", state, target)
            if part == "decoder":
                _copy_cross_attention(variables, f"{source}/attention", state, target)
            _copy_norm(variables, f"{source}/ffn/layer_norm", state, f"{target}.final_layer_norm")
            for index, name in enumerate(("fc1", "fc2")):
                _copy_linear(variables, f"{source}/ffn/linear_{index}", state, f"{target}.{name}")
    return state


State = dict[str, np.ndarray]


def _copy_norm(variables: Mapping[str, np.ndarray], source: str, state: State, target: str) -> None:
    state[f"{target}.weight"] = variables[f"{source}/gamma"]
    state[f"{target}.bias"] = variables[f"{source}/beta"]


def _copy_linear(
    variables: Mapping[str, np.ndarray], source: str, state: State, target: str
) -> None:
    state[f"{target}.weight"] = variables[f"{source}/weight"]
    state[f"{target}.bias"] = variables[f"{source}/bias"]


def _copy_stacked(
    variables: Mapping[str, np.ndarray], source: str, state: State, targets: Sequence[str]
) -> None:
    """Split a stacked projection into ``targets``; a key projection has no bias."""
    weights = np.split(variables[f"{source}/weight"], len(targets))
    biases = np.split(variables[f"{source}/bias"], len(targets))
    for target, weight, bias in zip(targets, weights, biases, strict=True):
        state[f"{target}.weight"] = weight
        if not target.endswith("k_proj"):
            state[f"{target}.bias"] = bias
        elif np.any(bias):
            raise UserError(f"{source} has a key bias, which Whisper has not; wrong model file?")


def _copy_self_attention(
    variables: Mapping[str, np.ndarray], source: str, state: State, target: str
) -> None:
    _copy_norm(variables, f"{source}/layer_norm", state, f"{target}.self_attn_layer_norm")
    projections = [f"{target}.self_attn.{name}_proj" for name in "qkv"]
    _copy_stacked(variables, f"{source}/linear_0", state, projections)
    _copy_linear(variables, f"{source}/linear_1", state, f"{target}.self_attn.out_proj")


def _copy_cross_attention(
    variables: Mapping[str, np.ndarray], source: str, state: State, target: str
) -> None:
    _copy_norm(variables, f"{source}/layer_norm", state, f"{target}.encoder_attn_layer_norm")
    _copy_linear(variables, f"{source}/linear_0", state, f"{target}.encoder_attn.q_proj")
    projections = [f"{target}.encoder_attn.{name}_proj" for name in "kv"]
    _copy_stacked(variables, f"{source}/linear_1", state, projections)
    _copy_linear(variables, f"{source}/linear_2", state, f"{target}.encoder_attn.out_proj")


class WhisperModel(Model):
    """Whisper behind the interface of :class:`s2txai.models.base.Model`."""

    def __init__(
        self,
        network: WhisperForConditionalGeneration,
        tokenizer: Tokenizer,
        *,
        suppress_tokens: Sequence[int],
        begin_suppress_tokens: Sequence[int],
        precision: torch.dtype,
    ) -> None:
        self._network = network
        self._tokenizer = tokenizer
        self._suppress = list(suppress_tokens)
        self._begin_suppress = list(begin_suppress_tokens)
        self._precision = precision
        config = network.config
        self._eos: int = config.eos_token_id
        self._multilingual = config.vocab_size >= MULTILINGUAL_VOCABULARY
        self._context = config.max_source_positions * 2  # input frames
        self._extractor = WhisperFeatureExtractor(
            feature_size=config.num_mel_bins, chunk_length=self._context * HOP // SAMPLING_RATE
        )
        self.device = network.device
        self.facts = Facts(
            sampling_rate=SAMPLING_RATE,
            frame_shift=HOP / SAMPLING_RATE,
            subsampling=2,
            # The longest prompt has four tokens.
            max_new_tokens=config.max_target_positions - 4,
        )

    def compile(self) -> None:
        """Compile the encoder, where most of the time of a mask goes."""
        self._network.model.encoder.compile()

    def prompt(self, task: Task) -> list[int]:
        """Return ``<|startoftranscript|>``, the language and task (multilingual), no timestamps.

        Raises
        ------
        UserError
            If the model cannot do the task.
        """
        names = ["<|startoftranscript|>"]
        if self._multilingual:
            if task.kind == "st" and task.target != "en":
                raise UserError(
                    f"Whisper translates into English only, so it cannot do '{task.name}'; "
                    f"use a task such as 'st-{task.source}-en'."
                )
            action = "transcribe" if task.kind == "asr" else "translate"
            names += [f"<|{task.source}|>", f"<|{action}|>"]
        elif task.name != "asr-en":
            raise UserError(
                f"This Whisper is English-only, so it cannot do '{task.name}'; "
                "use 'asr-en' or a multilingual model."
            )
        return [self._token_id(name) for name in [*names, "<|notimestamps|>"]]

    def _token_id(self, name: str) -> int:
        token = self._tokenizer.token_to_id(name)
        if token is None:
            raise UserError(f"The model's vocabulary has no token {name}; choose another language.")
        return int(token)

    def features(self, audio: np.ndarray) -> Features:
        """Return the log-mel frames whose window touches the audio.

        Raises
        ------
        UserError
            If the audio is longer than the context (30 s).
        """
        if len(audio) > self._context * HOP:
            raise UserError(
                f"The audio lasts {len(audio) / SAMPLING_RATE:.1f} s, but Whisper hears at most "
                f"{self._context * HOP / SAMPLING_RATE:.0f} s; cut it into shorter utterances."
            )
        frames = self._extractor(audio, sampling_rate=SAMPLING_RATE, return_tensors="np")
        full = frames.input_features[0].T  # (context, F)
        n_frames = min(self._context, -(-(len(audio) + HALF_WINDOW) // HOP))
        # Past the audio every cell holds the floor of the log-mel, one value for all bins.
        padding = float(full[-1, 0]) if n_frames < self._context else 0.0
        return Features(np.ascontiguousarray(full[:n_frames]), padding)

    @torch.inference_mode()
    def encode(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        """Encode features [N, T, F] into states [N, 1500, D]."""
        return self._encode(features, padding_value)

    def _encode(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        with self._autocast():
            output = self._network.model.encoder(self._padded(features, padding_value))
        states: torch.Tensor = output.last_hidden_state
        return states.float()

    def _padded(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        """Return features [N, F, context] of [N, T, F]."""
        missing = self._context - features.shape[1]
        return torch.nn.functional.pad(
            features.transpose(1, 2), (0, missing), value=padding_value
        )  # fmt: skip

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
            hidden = self._decoder(states, prompt, tokens).last_hidden_state
            # Only the rows that predict a token: the vocabulary makes this the largest product.
            logits: torch.Tensor = self._network.proj_out(hidden[:, len(prompt) - 1 :])
        return logits.float()

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
        with self._autocast(), _occluded_cross_attention(self._network, states, hidden, filling):
            return self.decode(states.expand(len(occluded), -1, -1), prompt, tokens)

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
        with self._autocast():
            hidden = self._decoder(states, prompt, tokens, visible=visible).last_hidden_state
            logits: torch.Tensor = self._network.proj_out(hidden[:, len(prompt) - 1 :])
        return logits.float()

    def _decoder(
        self,
        states: torch.Tensor,
        prompt: Sequence[int],
        tokens: Sequence[int],
        visible: torch.Tensor | None = None,
        **options: bool,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        # The last token is predicted, never fed.
        inputs = torch.tensor([*prompt, *tokens[:-1]], device=self.device)
        decoder = self._network.model.decoder
        embedded = decoder.embed_tokens(inputs).expand(len(states), -1, -1)  # (N, length, D)
        if visible is not None:
            embedded = embedded * visible[:, :, None]
        return decoder(
            inputs_embeds=embedded,
            encoder_hidden_states=states,
            use_cache=False,
            **options,
        )

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
            # The plain beam search: Whisper's own `generate` adds long-form heuristics to it.
            sequences = GenerationMixin.generate(
                self._network,
                generation_config=config,
                encoder_outputs=BaseModelOutput(last_hidden_state=states),
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
        """Return attention [L, H, I, 1500] of one utterance; ``states`` is [1, 1500, D]."""
        with self._eager(), self._autocast():
            output = self._decoder(states, prompt, tokens, output_attentions=True)
        weights = torch.stack([layer[0].float() for layer in output.cross_attentions])
        weights = weights[:, :, len(prompt) - 1 :]  # (L, H, I, steps)
        norms = torch.stack(
            [
                _value_norms(layer.encoder_attn, states)
                for layer in self._network.model.decoder.layers
            ]
        )  # (L, H, steps)
        value_norm = weights * norms[:, :, None]
        return CrossAttention(weights.cpu().numpy(), value_norm.cpu().numpy())

    @torch.inference_mode()
    def encoder_attention(self, features: torch.Tensor, padding_value: float) -> np.ndarray:
        """Return self-attention [layers, H, 1500, 1500] of one utterance [1, T, F]."""
        with self._eager(), self._autocast():
            output = self._network.model.encoder(
                self._padded(features, padding_value), output_attentions=True
            )
        return np.stack([layer[0].float().cpu().numpy() for layer in output.attentions])

    def layers(self) -> list[torch.nn.Module]:
        """Return the decoder's norm and layers, its embeddings, then the same of the encoder."""
        encoder, decoder = self._network.model.encoder, self._network.model.decoder
        return [
            # The output projection is the embedding of the tokens.
            decoder.layer_norm,
            *reversed(decoder.layers),
            torch.nn.ModuleList([decoder.embed_tokens, decoder.embed_positions]),
            encoder.layer_norm,
            *reversed(encoder.layers),
            torch.nn.ModuleList([encoder.conv1, encoder.conv2, encoder.embed_positions]),
        ]

    def token_table(self, tokens: Sequence[int]) -> TokenTable:
        """Describe each token; a word starts at a leading space."""
        pieces = [self._tokenizer.decode([token], skip_special_tokens=False) for token in tokens]
        roles: list[Role] = [self._role(token) for token in tokens]
        word, word_index = -1, []
        for piece, role in zip(pieces, roles, strict=True):
            if role == "text" and (word < 0 or piece.startswith(" ")):
                word += 1
            word_index.append(word if role == "text" else -1)
        return TokenTable(pieces, roles, word_index)

    def _role(self, token: int) -> Role:
        # Every token from end of sentence on is special: tags, tasks, timestamps.
        if token < self._eos:
            return "text"
        return "eos" if token == self._eos else "special"

    def text(self, tokens: Sequence[int]) -> str:
        """Return the hypothesis as text."""
        text_tokens = [token for token in tokens if token < self._eos]
        return str(self._tokenizer.decode(text_tokens)).strip()

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


@contextmanager
def _occluded_cross_attention(
    network: WhisperForConditionalGeneration,
    states: torch.Tensor,
    occluded: torch.Tensor,
    filling: torch.Tensor | None,
) -> Iterator[None]:
    """Make every cross-attention see ``states`` [1, steps, D], occluded as ``occluded`` says.

    Keys and values of the steps, and those of the filling, are projected once, not again for each
    of the N rows of ``occluded`` [N, steps].
    """
    attentions = [layer.encoder_attn for layer in network.model.decoder.layers]
    for attention in attentions:
        attention.forward = partial(
            _attend_occluded,
            attention,
            _keys_and_values(attention, states),
            None if filling is None else _keys_and_values(attention, filling[None, None]),
            occluded[:, None, None],
        )
    try:
        yield
    finally:
        for attention in attentions:
            del attention.forward  # the class's own is found again


def _attend_occluded(
    attention: WhisperAttention,
    of_steps: KeysAndValues,
    of_filling: KeysAndValues | None,
    occluded: torch.Tensor,
    hidden_states: torch.Tensor,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend from [N, I, D] to steps [1, H, steps, d], occluded by [N, 1, 1, steps]."""
    query = split_heads(attention.q_proj(hidden_states), attention.num_heads)  # (N, H, I, d)
    context = occluded_attention(query, of_steps, of_filling, occluded, attention.scaling)
    return attention.out_proj(context.transpose(1, 2).flatten(2)), None


def _keys_and_values(attention: WhisperAttention, states: torch.Tensor) -> KeysAndValues:
    """Return keys and values [N, H, steps, d] of states [N, steps, D]."""
    heads = attention.num_heads
    return (
        split_heads(attention.k_proj(states), heads),
        split_heads(attention.v_proj(states), heads),
    )


def _value_norms(attention: WhisperAttention, states: torch.Tensor) -> torch.Tensor:
    """Return [H, steps] of states [1, steps, D]."""
    values = split_heads(attention.v_proj(states), attention.num_heads)
    return value_norms(values, attention.out_proj.weight)
