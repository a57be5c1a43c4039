"""Whisper (Radford et al. 2022), from CTranslate2 files or a transformers directory.

The 30 s context is kept as it was trained: cropping it to the utterance changes the transcript of
about half of short clips.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
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
from s2txai.models.base import CheapPass, Facts, Features, Role
from s2txai.models.ctranslate2 import dequantise, read_variables
from s2txai.models.network_model import inference, visible_inputs
from s2txai.models.occlusion import KeysAndValues
from s2txai.models.options import NO_OPTIONS
from s2txai.models.predicted_padding import (
    LearntOnce,
    PaddingObserver,
    PredictedPadding,
    active_counts,
    attend_predicted,
    encode_reached,
    reached_steps,
)
from s2txai.models.token_names import TokenNames, read_table
from s2txai.models.transformers_base import TransformersModel, keys_and_values
from s2txai.models.transformers_loading import (
    check_settings,
    extractor_settings,
    generation_settings,
    load_network,
    load_part,
    not_finite,
    refuse_extraction,
    searched,
)
from s2txai.models.weight_files import refuse_adapters
from s2txai.models.whisper_tokens import EOS, START, WhisperTokens, whisper_tokens
from s2txai.wording import number_beside

SAMPLING_RATE = 16_000  # Hz
HOP = 160  # samples between two frames
HALF_WINDOW = 200  # samples; windows of 400 are centred on their frame
_REPLACEMENT = "\ufffd"  # what bytes that are no character decode to
# Byte-level vocabularies write each byte as a character.
_BYTES: dict[str, int] = {character: byte for byte, character in bytes_to_unicode().items()}
_LONGEST_REASON = 300  # characters; a whole state may be missing
_CTRANSLATE2_SETTINGS = ("suppress_ids", "suppress_ids_begin", "alignment_heads", "lang_ids")
# What CTranslate2 says of the network itself, as it is in every Whisper; None for any value.
_STRUCTURE: Mapping[str, int | None] = MappingProxyType(
    {
        "decoder/activation": 3,  # GELU
        "decoder/alibi": 0,
        "decoder/alibi_use_positive_positions": None,  # of that, which is off
        "decoder/scale_alibi": None,
        "decoder/pre_norm": 1,
        "decoder/scale_embeddings": 0,
        "decoder/start_from_zero_embedding": 0,
        "decoder/alignment_heads": None,
        "decoder/alignment_layer": None,
    }
)
# What preprocessor_config.json may say: only what the network was made for.
_EXTRACTION: Mapping[str, Any] = MappingProxyType(
    {
        "sampling_rate": SAMPLING_RATE,
        "hop_length": HOP,
        "n_fft": 2 * HALF_WINDOW,
        "padding_value": 0.0,
        "dither": 0.0,
    }
)


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
        ``trust_remote_code``, of a transformers directory; ``translation_prompt``.

    Raises
    ------
    UserError
        If a file is missing, a weight is missing, left over or of the wrong shape, or tokenizer,
        network and settings do not fit each other.
    """
    refuse_adapters(directory)
    tokenizer = _tokenizer(directory)
    names = names_of(tokenizer)
    if (directory / "model.bin").exists():
        network, settings = _from_ctranslate2(directory, names)
    else:
        network = load_network(WhisperForConditionalGeneration, directory, options)
        settings = generation_settings(directory, network)
    config = network.config
    positions = config.max_source_positions
    # Tokenizers may leave out the times: one each 0.02 s, which is a step, and the end.
    names.check_rows(directory, config.vocab_size, unnamed=positions + 1)
    tokens = whisper_tokens(directory, names, settings, options)
    names.check_same(directory, {EOS: config.eos_token_id}, "eos_token_id")
    names.check_same(directory, {START: config.decoder_start_token_id}, "decoder_start_token_id")
    check_settings(directory, names, config, settings)
    _check_extraction(directory, config)
    return WhisperModel(
        network.to(device).eval().requires_grad_(False),
        tokenizer,
        tokens=tokens,
        precision=precision,
        **searched(directory, config, settings),
    )


def names_of(tokenizer: Tokenizer) -> TokenNames:
    """Return the tokens of a tokenizer."""
    added = tokenizer.get_added_tokens_decoder()
    marked = {token for token, entry in added.items() if entry.special}
    return TokenNames.of(tokenizer.get_vocab(with_added_tokens=True), marked)


def _check_extraction(directory: Path, config: WhisperConfig) -> None:
    """Refuse settings of features other than those that the network was made for."""
    expected = {**_EXTRACTION, "feature_size": config.num_mel_bins}
    # What an extractor derives from these, or writes for others, changes no feature.
    derived = ("chunk_length", "n_samples", "nb_max_frames", "mel_filters")
    settings = extractor_settings(directory)
    for name, value in settings.items():
        if name in expected and value != expected[name]:
            raise UserError(
                f"{directory}: the settings of the features say that '{name}' is "
                f"{str(value)[:60]}, but this Whisper has {expected[name]}; take "
                "preprocessor_config.json from the checkpoint this one was made of."
            )
        if name not in expected and name not in derived:
            refuse_extraction(directory, name, value)
    seconds = settings.get("chunk_length")
    context = config.max_source_positions * 2 * HOP / SAMPLING_RATE
    # Whole seconds are all that the setting can say.
    if seconds is not None and not 0 <= context - seconds < 1:
        raise UserError(
            f"{directory}: the settings of the features say that 'chunk_length' is "
            f"{str(seconds)[:60]} s, but this Whisper receives {context:g} s; take "
            "preprocessor_config.json from the checkpoint this one was made of."
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
    directory: Path, names: TokenNames
) -> tuple[WhisperForConditionalGeneration, dict[str, Any]]:
    """Return the network of ``model.bin``, and the settings beside it by transformers' names."""
    file = directory / "model.bin"
    variables = read_variables(file)
    try:
        network = _network(variables)
    # A variable that is missing or of another shape is missed in many ways.
    except (RuntimeError, LookupError, ValueError, TypeError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        raise UserError(
            f"{file} does not hold the weights of a Whisper ({reason}); use the file of a whole "
            "one, as CTranslate2's converter writes it."
        ) from error
    eos = names.ids.get(EOS)
    network.config.eos_token_id = network.config.bos_token_id = eos
    network.config.pad_token_id = eos
    network.config.decoder_start_token_id = names.ids.get(START, 0)
    _check_vocabulary_file(directory, names)
    return network, {
        **read_table(directory / "generation_config.json"),
        **_ctranslate2_settings(directory / "config.json", names),
    }


def _ctranslate2_settings(file: Path, names: TokenNames) -> dict[str, Any]:
    """Return the settings of CTranslate2 that are honoured, and refuse those it does not know."""
    if not file.exists():
        raise UserError(f"{file} cannot be read (there is none); fetch the model again.")
    settings = read_table(file)
    for name in settings:
        if name not in _CTRANSLATE2_SETTINGS:
            raise UserError(
                f"{file}: '{name}' is no setting of a Whisper of CTranslate2; use the config.json "
                "that its converter wrote beside model.bin."
            )
    languages = settings.get("lang_ids") or []
    if not isinstance(languages, list) or not set(names.ids.values()).issuperset(languages):
        raise UserError(
            f"{file}: 'lang_ids' lists what is no token of the tokenizer; save tokenizer and "
            "network of one checkpoint together."
        )
    return {
        "suppress_tokens": settings.get("suppress_ids"),
        "begin_suppress_tokens": settings.get("suppress_ids_begin"),
    }


def _check_vocabulary_file(directory: Path, names: TokenNames) -> None:
    """Compare the tokenizer with the list of tokens that CTranslate2 may leave beside a model."""
    file = directory / "vocabulary.json"
    if not file.exists():
        return
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
        ids = {name: number for number, name in enumerate(listed)}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({error}); fetch the model again.") from error
    other = [name for name, token in names.ids.items() if ids.get(name) != token]
    if other:
        raise UserError(
            f"{file} and the tokenizer beside it number {len(other)} tokens differently, "
            f"{other[0]!r} for one; take both from the same checkpoint."
        )


class _Variables(dict[str, np.ndarray]):
    """Variables that remember which of them were read."""

    def __init__(self, variables: Mapping[str, np.ndarray]) -> None:
        super().__init__(variables)
        self.unread = set(variables)

    def __getitem__(self, name: str) -> np.ndarray:
        self.unread.discard(name)
        return super().__getitem__(name)


def _network(stored: Mapping[str, np.ndarray]) -> WhisperForConditionalGeneration:
    """Build the network of CTranslate2's variables; its token ids are those of no tokenizer."""
    variables = _Variables(dequantise(stored))
    n_mels = variables["encoder/conv1/weight"].shape[1]
    vocabulary, width = variables["decoder/embeddings/weight"].shape
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
        decoder_start_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    with torch.device("meta"):
        network = WhisperForConditionalGeneration(config)
    state = {
        name: torch.from_numpy(values.astype(np.float32))
        for name, values in transformers_state(variables).items()
    }
    _check_structure(variables)
    network.load_state_dict(state, strict=True, assign=True)
    network.tie_weights()
    name = not_finite(network)
    if name is not None:
        raise ValueError(f"'{name}' is not finite")
    return network


def _check_structure(variables: _Variables) -> None:
    """Refuse a network that is built unlike Whisper, or has variables that were not read."""
    for name, expected in _STRUCTURE.items():
        if name in variables:
            value = variables[name]
            if expected is not None and (value.size != 1 or int(value.ravel()[0]) != expected):
                raise ValueError(f"{name} is {value.ravel()[:1]}, but {expected} in a Whisper")
    projection = "decoder/projection/weight"
    if projection in variables:
        embeddings = variables["decoder/embeddings/weight"]
        if not np.array_equal(variables[projection], embeddings):
            raise ValueError("the decoder's projection is not its embeddings")
    if variables.unread:
        raise ValueError(f"left over: {', '.join(sorted(variables.unread)[:3])}")


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
        names = names_of(tokenizer)
        self._silent = names.special
        self._named = frozenset(names.ids.values())

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
        """Return the role; tags and times are special, also times that the tokenizer leaves out."""
        if token == self._eos:
            return "eos"
        return "special" if token in self._silent or token not in self._named else "text"

    def text(self, tokens: Sequence[int]) -> str:
        """Return the hypothesis as text."""
        spoken = [token for token in tokens if self.role(token) == "text"]
        return str(self._tokenizer.decode(spoken)).strip()


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
        tokens: WhisperTokens | None = None,
        penalties: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        config = network.config
        # Without settings the tokenizer says what the model can do.
        self._tokens = tokens or whisper_tokens(Path(), names_of(tokenizer), {}, NO_OPTIONS)
        super().__init__(
            network,
            WhisperVocabulary(tokenizer, config.eos_token_id),
            Facts(
                sampling_rate=SAMPLING_RATE,
                frame_shift=HOP / SAMPLING_RATE,
                subsampling=2,
                max_new_tokens=config.max_target_positions - self._tokens.longest_prompt,
            ),
            suppress_tokens=suppress_tokens,
            begin_suppress_tokens=begin_suppress_tokens,
            penalties=penalties,
            precision=precision,
        )
        self._tokenizer = tokenizer
        self._context = config.max_source_positions * 2  # input frames
        self._extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
        # The library counts the context in whole seconds.
        self._extractor.n_samples = self._context * HOP
        self._extractor.nb_max_frames = self._context
        self._encode_reached: Callable[..., torch.Tensor] = encode_reached

    def prompt(self, task: Task) -> list[int]:
        """Return ``<|startoftranscript|>``, the language and task (multilingual), no timestamps.

        Raises
        ------
        UserError
            If the model cannot do the task.
        """
        return self._tokens.prompt(task)

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

    @inference
    def cheap_passes(self, perturbed: torch.Tensor, padding_value: float) -> list[CheapPass]:
        """Return passes that predict most of the padding, learnt from ``perturbed`` [P, T, F].

        Empty where the speech fills more than about two thirds of the context.
        """
        n_frames, n_steps = perturbed.shape[1], self._context // self.facts.subsampling
        counts = active_counts(n_frames, n_steps)
        if not counts:
            return []
        n_reached = reached_steps(n_frames)
        observer = PaddingObserver(self._encoder, n_reached)
        with self._autocast():
            for features in perturbed:  # one at a time: no result depends on how many fit
                observer.observe(self._inputs(features[None], padding_value))

        return [
            CheapPass(
                partial(
                    self._cheap_logits, LearntOnce(partial(self._learn, observer, n)), padding_value
                ),
                f"{n_reached + n} of {n_steps} encoder steps",
            )
            for n in counts
        ]

    def _learn(self, observer: PaddingObserver, n_active: int) -> PredictedPadding:
        """Return the padding of which ``n_active`` steps are computed."""
        with self._autocast():
            return observer.padding(n_active, self._seen_by_layers)

    def _seen_by_layers(self, states: torch.Tensor) -> Iterator[KeysAndValues]:
        """Yield keys and values of each layer's cross-attention for states [P, n, D]."""
        return (keys_and_values(attention, states) for attention in self._cross_attentions())

    @inference
    def _cheap_logits(
        self,
        learn: Callable[[], PredictedPadding],
        padding_value: float,
        features: torch.Tensor,
        prompt: Sequence[int],
        tokens: Sequence[int],
        occluded_tokens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return logits [N, I, V] of features [N, T, F], most of the padding predicted."""
        padding = learn()
        # The pilot's single inputs are too few to compile for: torch compiles once more for N = 1.
        encode = encode_reached if len(features) == 1 else self._encode_reached
        with self._autocast():
            states = encode(self._encoder, padding, features, padding_value)
        visible = None if occluded_tokens is None else visible_inputs(occluded_tokens, prompt)
        predictions = iter(padding.decoder)  # of each layer

        def forward(attention: Any) -> Any:
            prediction = next(predictions)
            return partial(
                attend_predicted, attention, prediction, padding.n_reached, keys_and_values
            )

        with self._replaced_cross_attention(forward):
            return self._decode(states.float(), prompt, tokens, visible)

    def compile(self) -> None:
        """Compile the encoder, also where most of the padding is predicted."""
        super().compile()
        # The number of steps is another one for each utterance.
        self._encode_reached = torch.compile(encode_reached, dynamic=True)

    def _inputs(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        """Return features [N, F, context] of [N, T, F]."""
        missing = self._context - features.shape[1]
        return torch.nn.functional.pad(
            features.transpose(1, 2), (0, missing), value=padding_value
        )  # fmt: skip
