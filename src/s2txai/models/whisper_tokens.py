"""What a Whisper can do, as its tokenizer and its settings say; without torch."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2txai.datasets import Task
from s2txai.errors import UserError
from s2txai.models.token_names import TokenNames

START, EOS, NO_TIMESTAMPS = "<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>"
_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
# The English-only models have the tokenizer of GPT-2, tags of all languages included. Accidents of
# GPT-2's training data are words in it, and in no other.
_OF_GPT2 = ("ĠSolidGoldMagikarp", "ĠRandomRedditorWithNo", "ĠTheNitromeFan")


@dataclass(frozen=True)
class WhisperTokens:
    """The tokens by which a Whisper is asked for a task.

    Attributes
    ----------
    names
        All its tokens.
    languages
        Codes of the languages that it transcribes by a tag; empty if it is English-only.
    tasks
        ``transcribe``, ``translate``, where the settings list them; else empty.
    translation_prompt
        Names of the tokens that ask for a translation, in which ``{source}`` and ``{target}`` stand
        for the languages; empty for Whisper's own prompt, which asks for English.
    """

    names: TokenNames
    languages: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    translation_prompt: tuple[str, ...] = ()

    def prompt(self, task: Task) -> list[int]:
        """Return the tokens that ask for a task.

        Raises
        ------
        UserError
            If the model cannot do the task.
        """
        if task.kind == "st" and self.translation_prompt:
            return [self._own_token(name, task) for name in self.translation_prompt]
        check_translation(task)
        if not self.languages:
            if task.name != "asr-en":
                raise UserError(
                    f"This Whisper is English-only, so it cannot do '{task.name}'; "
                    "use 'asr-en' or a multilingual model."
                )
            return [self._token(name) for name in (START, NO_TIMESTAMPS)]
        if task.source not in self.languages:
            raise UserError(
                f"This Whisper has no token <|{task.source}|> among its languages, so it cannot do "
                f"'{task.name}'; it knows {', '.join(sorted(self.languages))}."
            )
        action = "transcribe" if task.kind == "asr" else "translate"
        if self.tasks and action not in self.tasks:
            raise UserError(
                f"The settings of this Whisper list no '{action}' under 'task_to_id', so it cannot "
                f"do '{task.name}'; they list {', '.join(sorted(self.tasks))}."
            )
        tags = (START, f"<|{task.source}|>", f"<|{action}|>", NO_TIMESTAMPS)
        return [self._token(name) for name in tags]

    @property
    def longest_prompt(self) -> int:
        """The most tokens that a prompt has."""
        return max(4, len(self.translation_prompt))

    def _own_token(self, name: str, task: Task) -> int:
        return self._token(name.replace("{source}", task.source).replace("{target}", task.target))

    def _token(self, name: str) -> int:
        token = self.names.ids.get(name)
        if token is None or token not in self.names.special:
            raise UserError(
                f"The model's tokenizer has no special token {name}, which the task needs; choose "
                "another task or model."
            )
        return token


def check_translation(task: Task) -> None:
    """Refuse translation into other languages than English by Whisper's own prompt.

    Raises
    ------
    UserError
        With the option that names another prompt.
    """
    if task.kind == "st" and task.target != "en":
        possible = f"'asr-{task.source}'"
        if task.source != "en":
            possible += f" or 'st-{task.source}-en'"
        raise UserError(
            f"Whisper translates into English only, so it cannot do '{task.name}'; use {possible}, "
            "or, for a model that was trained for it, name its prompt under "
            "'options.translation_prompt' of its entry in the table of models, or in the 'options' "
            "of load_model."
        )


def whisper_tokens(
    directory: Path,
    names: TokenNames,
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
) -> WhisperTokens:
    """Conclude what a checkpoint can do.

    Parameters
    ----------
    directory
        Of the checkpoint.
    names
        Its tokens.
    settings
        Its generation settings: ``is_multilingual``, ``lang_to_id`` and ``task_to_id`` count, where
        they are there; else its tokenizer decides.
    options
        With ``translation_prompt`` perhaps.

    Raises
    ------
    UserError
        If tokenizer, settings and options do not fit each other.
    """
    _require(directory, names, (START, EOS, NO_TIMESTAMPS))
    prompt = tuple(options.get("translation_prompt", ()))
    _check_translation_prompt(directory, names, prompt)
    languages, tasks = settings.get("lang_to_id"), settings.get("task_to_id") or {}
    if not all(isinstance(table, Mapping) for table in (languages or {}, tasks)):
        raise UserError(
            f"The settings of {directory} have no tables of ids under 'lang_to_id' and "
            "'task_to_id'; take generation_config.json from the checkpoint this one was made of."
        )
    names.check_same(directory, languages or {}, "lang_to_id")
    names.check_same(directory, {f"<|{task}|>": i for task, i in tasks.items()}, "task_to_id")
    without_times = settings.get("no_timestamps_token_id")
    if without_times is not None:
        names.check_same(directory, {NO_TIMESTAMPS: without_times}, "no_timestamps_token_id")
    multilingual = settings.get("is_multilingual")
    if multilingual is False and languages:
        raise UserError(
            f"The settings of {directory} say that the model is not multilingual, but give it "
            "languages under 'lang_to_id'; correct its generation_config.json."
        )
    if multilingual is None:
        multilingual = bool(languages) or _has_languages(names)
    if not multilingual:
        return WhisperTokens(names, translation_prompt=prompt)
    tags = languages or names.ids
    codes = frozenset(match[1] for name in tags if (match := _LANGUAGE.fullmatch(name)))
    if not codes:
        raise UserError(
            f"The settings of {directory} say that the model is multilingual, but its tokenizer "
            "has no tag of a language, such as <|en|>; save the tokenizer of the same checkpoint."
        )
    _require(directory, names, ("<|transcribe|>",))
    return WhisperTokens(names, codes, frozenset(tasks), prompt)


def _has_languages(names: TokenNames) -> bool:
    if "<|transcribe|>" not in names.ids or all(name in names.ids for name in _OF_GPT2):
        return False
    return any(_LANGUAGE.fullmatch(name) for name in names.ids)


def _require(directory: Path, names: TokenNames, needed: Sequence[str]) -> None:
    for name in needed:
        if name not in names.ids:
            raise UserError(
                f"The tokenizer of {directory} has no token {name}, which every prompt of Whisper "
                "or its end needs; save the tokenizer of the same checkpoint beside the weights."
            )


def _check_translation_prompt(directory: Path, names: TokenNames, prompt: Sequence[str]) -> None:
    if not prompt:
        return
    if prompt[0] != START:
        raise UserError(
            f"The option 'translation_prompt' must begin with {START}, not with {prompt[0]!r}."
        )
    for name in prompt:
        free = "{source}" in name or "{target}" in name
        if not free and names.ids.get(name) not in names.special:
            raise UserError(
                f"The option 'translation_prompt' names {name!r}, which is no special token of "
                f"{directory}; correct it."
            )
