"""Whisper (Radford et al. 2022), from CTranslate2 files or a transformers directory.

The 30 s context is kept as it was trained: cropping it to the utterance changes the transcript of
about half of short clips.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import (
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from s2txai.datasets import Task
from s2txai.errors import UserError, UtteranceError
from s2txai.models.base import Facts, Features, Role
from s2txai.models.ctranslate2 import read_variables
from s2txai.models.options import NO_OPTIONS
from s2txai.models.transformers_base import TransformersModel
from s2txai.models.transformers_loading import load_network, load_part
from s2txai.wording import number_beside

SAMPLING_RATE = 16_000  # Hz
HOP = 160  # samples between two frames
HALF_WINDOW = 200  # samples; windows of 400 are centred on their frame
# Vocabularies from this size on hold the language tags of the multilingual models.
MULTILINGUAL_VOCABULARY = 51_865
_REPLACEMENT = "\ufffd"  # what bytes that are no character decode to
# Byte-level vocabularies write each byte as a character.
_BYTES: dict[str, int] = {character: byte for byte, character in bytes_to_unicode().items()}
_LONGEST_REASON = 300  # characters; a whole state may be missing


def load_whisper(
    directory: Path,
    *,
    device: torch.device,
    precision: torch.dtype,
    options: Mapping[str, Any] = NO_OPTIONS,
) -> "WhisperModel":
    """Load a Whisper of any size.

    Parameters
    ----------
    directory
        Holds either ``model.bin`` with ``config.json`` (CTranslate2) or what ``save_pretrained``
        writes; and ``tokenizer.json``, or ``vocab.json`` with ``merges.txt``.
    device, precision
        Where and in which type to compute.
    options
        ``trust_remote_code``, of a transformers directory.

    Raises
    ------
    UserError
        If a file is missing or a weight is missing, left over or of the wrong shape.
    """
    tokenizer = _tokenizer(directory)
    if (directory / "model.bin").exists():
        network, suppress, begin_suppress = _from_ctranslate2(directory)
    else:
        network = load_network(WhisperForConditionalGeneration, directory, options)
        suppress = network.generation_config.suppress_tokens or []
        begin_suppress = network.generation_config.begin_suppress_tokens or []
    return WhisperModel(
        network.to(device).eval().requires_grad_(False),
        tokenizer,
        suppress_tokens=suppress,
        begin_suppress_tokens=begin_suppress,
        precision=precision,
    )


def _tokenizer(directory: Path) -> Tokenizer:
    file = directory / "tokenizer.json"
    if file.exists():
        try:
            return Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing narrower
            reason = " ".join(str(error).split())[:_LONGEST_REASON]
            raise UserError(f"{file} is no tokenizer ({reason}); copy it again.") from error
    # So older versions of transformers saved it, and many fine-tuned models have it.
    if (directory / "vocab.json").exists() and (directory / "merges.txt").exists():
        tokenizer: Tokenizer = load_part(WhisperTokenizer, directory).backend_tokenizer
        return tokenizer
    raise UserError(
        f"{directory} has no tokenizer.json, and no vocab.json with merges.txt; save the tokenizer "
        "beside the weights (WhisperTokenizer.save_pretrained)."
    )


def _from_ctranslate2(
    directory: Path,
) -> tuple[WhisperForConditionalGeneration, list[int], list[int]]:
    file = directory / "model.bin"
    variables = read_variables(file)
    try:
        network = _network(variables)
    # A variable that is missing or of another shape is missed in many ways.
    except (RuntimeError, LookupError, ValueError, TypeError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise UserError(
            f"{file} does not hold the weights of a Whisper ({reason}); check the model's entry in "
            "config/models.yaml."
        ) from error
    return network, *_suppressed(directory / "config.json")


def _suppressed(file: Path) -> tuple[list[int], list[int]]:
    """Return the tokens that are never predicted, and those that are not the first."""
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        return settings.get("suppress_ids", []), settings.get("suppress_ids_begin", [])
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        raise UserError(f"{file} cannot be read ({error}); fetch the model again.") from error


def _network(variables: Mapping[str, np.ndarray]) -> WhisperForConditionalGeneration:
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
    network.load_state_dict(state, strict=True, assign=True)
    network.tie_weights()
    return network


def _special_ids(vocabulary: int) -> dict[str, int]:
    # The text vocabulary of the English-only models is one entry shorter than the multilingual.
    eos = 50_257 if vocabulary >= MULTILINGUAL_VOCABULARY else 50_256
    return {"eos": eos, "start": eos + 1}


def _count_layers(variables: Mapping[str, np.ndarray], part: str) -> int:
    pattern = re.compile(rf"{part}/layer_(\d+)/")
    numbers = {int(match[1]) for name in variables if (match := pattern.match(name))}
    # A name can be of any layer, and every layer would be built.
    if numbers != set(range(len(numbers))):
        raise ValueError(f"the layers of the {part} are not numbered from 0 on")
    return len(numbers)


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


class WhisperVocabulary:
    """Whisper's tokens.

    Parameters
    ----------
    tokenizer
        Of the checkpoint.
    eos
        End of sentence.
    """

    def __init__(self, tokenizer: Tokenizer, eos: int) -> None:
        self._tokenizer = tokenizer
        self._eos = eos

    def piece(self, token: int) -> str | bytes:
        """Return the token's text, leading space included; bytes where it is part of characters."""
        text = str(self._tokenizer.decode([token], skip_special_tokens=False))
        if _REPLACEMENT not in text:
            return text
        name = str(self._tokenizer.id_to_token(token))
        if not _BYTES.keys() >= set(name):
            return name  # an added token is text itself
        return bytes(_BYTES[character] for character in name)

    def role(self, token: int) -> Role:
        """Return the role; every token from end of sentence on is special: tags, timestamps."""
        if token < self._eos:
            return "text"
        return "eos" if token == self._eos else "special"

    def text(self, tokens: Sequence[int]) -> str:
        """Return the hypothesis as text."""
        text_tokens = [token for token in tokens if token < self._eos]
        return str(self._tokenizer.decode(text_tokens)).strip()


class WhisperModel(TransformersModel):
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
        config = network.config
        super().__init__(
            network,
            WhisperVocabulary(tokenizer, config.eos_token_id),
            Facts(
                sampling_rate=SAMPLING_RATE,
                frame_shift=HOP / SAMPLING_RATE,
                subsampling=2,
                # The longest prompt has four tokens.
                max_new_tokens=config.max_target_positions - 4,
            ),
            suppress_tokens=suppress_tokens,
            begin_suppress_tokens=begin_suppress_tokens,
            precision=precision,
        )
        self._tokenizer = tokenizer
        self._multilingual = config.vocab_size >= MULTILINGUAL_VOCABULARY
        self._context = config.max_source_positions * 2  # input frames
        self._extractor = WhisperFeatureExtractor(
            feature_size=config.num_mel_bins, chunk_length=self._context * HOP // SAMPLING_RATE
        )

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
                    f"Whisper translates into English only, so it cannot do '{task.name}'; use a "
                    f"model that translates into '{task.target}'."
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
            raise UserError(
                f"The model's vocabulary has no token {name}, which the prompt of this task needs; "
                "choose another task or model."
            )
        return int(token)

    def features(self, audio: np.ndarray) -> Features:
        """Return the log-mel frames whose window touches the audio.

        Raises
        ------
        UtteranceError
            If the audio is longer than the context (30 s).
        """
        seconds, longest = (n / SAMPLING_RATE for n in (len(audio), self._context * HOP))
        if seconds > longest:
            raise UtteranceError(
                f"The audio lasts {number_beside(seconds, longest, 1)} s, but Whisper accepts at "
                f"most {longest:g} s; cut it into shorter utterances."
            )
        frames = self._extractor(audio, sampling_rate=SAMPLING_RATE, return_tensors="np")
        full = frames.input_features[0].T  # (context, F)
        n_frames = min(self._context, -(-(len(audio) + HALF_WINDOW) // HOP))
        # Past the audio every cell holds the floor of the log-mel, one value for all bins.
        padding = float(full[-1, 0]) if n_frames < self._context else 0.0
        return Features(np.ascontiguousarray(full[:n_frames]), padding)

    def _inputs(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        """Return features [N, F, context] of [N, T, F]."""
        missing = self._context - features.shape[1]
        return torch.nn.functional.pad(
            features.transpose(1, 2), (0, missing), value=padding_value
        )  # fmt: skip
