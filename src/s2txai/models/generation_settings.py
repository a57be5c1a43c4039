"""Which settings of decoding a checkpoint may bring: a closed list.

``generation_config.json`` of a checkpoint (or ``config.json``, where older ones keep the same
settings) can hold anything. What is listed here as honoured is passed on to beam search, what is
listed as compared must fit the tokenizer, what is listed as overridden cannot act, since the
library never receives it; anything else is refused.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from s2txai.errors import UserError

SUPPRESSED = ("suppress_tokens", "begin_suppress_tokens")
PENALTIES = (
    "repetition_penalty",
    "no_repeat_ngram_size",
    "length_penalty",
    "early_stopping",
    "bad_words_ids",
)
HONOURED = (*SUPPRESSED, *PENALTIES)
# Must agree with the tokenizer, or list the languages and tasks of the checkpoint.
COMPARED = (
    "eos_token_id",
    "bos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "is_multilingual",
    "lang_to_id",
    "task_to_id",
    "no_timestamps_token_id",
    "text_decoder_lang_to_code_id",
)
# By what stands for them: the configuration of the study, the prompt of the task, the program.
OVERRIDDEN: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "the beam of the study": (
            "num_beams",
            "do_sample",
            "temperature",
            "top_k",
            "top_p",
            "min_p",
            "typical_p",
            "epsilon_cutoff",
            "eta_cutoff",
            "num_return_sequences",
        ),
        "the positions of the decoder": (
            "max_length",
            "max_new_tokens",
            "min_length",
            "min_new_tokens",
            "max_time",
        ),
        "the prompt of the task": (
            "forced_decoder_ids",
            "language",
            "task",
            "return_timestamps",
            "max_initial_timestamp_index",
            "prev_sot_token_id",
        ),
        "the program": (
            "use_cache",
            "cache_implementation",
            "cache_config",
            "return_dict_in_generate",
            "output_attentions",
            "output_hidden_states",
            "output_scores",
            "output_logits",
            "alignment_heads",
            "median_filter_width",
            "transformers_version",
            "_from_model_config",
            "disable_compile",
            "compile_config",
        ),
        "nothing, since they concern speech that a model generates": (
            "t2u_lang_code_to_id",
            "vocoder_lang_code_to_id",
            "vocoder_spkr_id",
            "char_to_id",
            "id_to_text",
        ),
    }
)
# Values that change nothing, of settings that would be refused.
_NEUTRAL: Mapping[str, float] = MappingProxyType(
    {"encoder_repetition_penalty": 1, "guidance_scale": 1, "num_beam_groups": 1}
)
_IGNORED = frozenset(name for names in OVERRIDDEN.values() for name in names)


def search_settings(
    settings: Mapping[str, Any], *, n_tokens: int, eos: int, where: str
) -> dict[str, Any]:
    """Return what is honoured of a checkpoint's settings.

    Parameters
    ----------
    settings
        All that the checkpoint says, by name; None for what it does not.
    n_tokens
        Of the vocabulary.
    eos
        End of sentence.
    where
        What to name in errors.

    Returns
    -------
    dict
        Those of :data:`HONOURED` that are set.

    Raises
    ------
    UserError
        If a setting is in no list, has a value that beam search cannot use, or suppresses what is
        no token or would end a hypothesis.
    """
    for name, value in settings.items():
        if name not in HONOURED and name not in COMPARED and name not in _IGNORED:
            _refuse(name, value, where)
    honoured = {name: settings[name] for name in HONOURED if settings.get(name) is not None}
    for name in SUPPRESSED:
        tokens = honoured.get(name, [])
        if not isinstance(tokens, Sequence) or not all(
            _is_token(token, n_tokens) for token in tokens
        ):
            raise UserError(
                f"{where}: '{name}' does not list numbers of tokens from 0 to {n_tokens - 1}; "
                "take it from the checkpoint this one was made of."
            )
    if not honoured.get("bad_words_ids", True):
        del honoured["bad_words_ids"]  # none
    for name, (allowed, valid) in _VALUES.items():
        value = honoured.get(name)
        if value is not None and not valid(value, n_tokens):
            raise UserError(
                f"{where}: '{name}' is {str(value)[:60]!r}, but must be {allowed}; take it from "
                "the checkpoint this one was made of."
            )
    if eos in honoured.get("suppress_tokens", []):
        raise UserError(
            f"{where}: 'suppress_tokens' holds the end of sentence ({eos}), so that no hypothesis "
            "could end; remove it there."
        )
    return honoured


def missing_suppression(settings: Mapping[str, Any]) -> list[str]:
    """Return which lists of suppressed tokens a checkpoint does not have."""
    return [name for name in SUPPRESSED if settings.get(name) is None]


def _is_token(token: Any, n_tokens: int) -> bool:
    return isinstance(token, int) and not isinstance(token, bool) and 0 <= token < n_tokens


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are_words(value: Any, n_tokens: int) -> bool:
    return isinstance(value, list) and all(
        isinstance(word, list) and word and all(_is_token(token, n_tokens) for token in word)
        for word in value
    )


# What beam search can use, for people, and whether a value is that.
_VALUES: Mapping[str, tuple[str, Callable[[Any, int], bool]]] = MappingProxyType(
    {
        "repetition_penalty": (
            "a number above 0",
            lambda value, _: _is_number(value) and value > 0,
        ),
        "length_penalty": ("a number", lambda value, _: _is_number(value)),
        "no_repeat_ngram_size": (
            "a whole number from 0 on",
            lambda value, _: _is_number(value) and value >= 0 and value == int(value),
        ),
        "bad_words_ids": ("lists of numbers of tokens", _are_words),
    }
)


def _refuse(name: str, value: Any, where: str) -> None:
    if not value or value == _NEUTRAL.get(name):
        return
    raise UserError(
        f"{where}: '{name}' is {str(value)[:60]!r}, a setting that this program does not apply; "
        "remove it, if the model's transcripts are to be those without it."
    )
