"""What a checkpoint can do, from its small files: checked while planning, without torch.

A function of a family's :attr:`~s2txai.models.families.Family.abilities` receives the folder of a
checkpoint, None where its files are not there yet, the task and the options of the model's entry,
and raises :class:`~s2txai.errors.UserError` for what the checkpoint cannot do. What the files do
not say is left to the loader.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2txai.datasets import Task
from s2txai.datasets.files import read_yaml
from s2txai.errors import UserError
from s2txai.models.families import FAMILIES
from s2txai.models.seamless_languages import LANGUAGES
from s2txai.models.token_names import read_table, read_token_names
from s2txai.models.weight_files import refuse_adapters
from s2txai.models.whisper_tokens import check_translation, whisper_tokens
from s2txai.registry import load_object


def check_abilities(
    family: str, directory: Path | None, task: Task, options: Mapping[str, Any]
) -> None:
    """Refuse a task that a checkpoint cannot do, as far as its files say.

    Parameters
    ----------
    family
        A name of :data:`s2txai.models.families.FAMILIES`.
    directory
        Of the checkpoint; None where it is not there yet.
    task
        What it shall do.
    options
        Of its entry in the table of models.

    Raises
    ------
    UserError
        If it cannot, or the folder holds an adapter.
    """
    if directory is not None:
        refuse_adapters(directory)
    check = FAMILIES[family].abilities
    if check is not None:
        load_object(check)(directory, task, options)


def whisper(directory: Path | None, task: Task, options: Mapping[str, Any]) -> None:
    """Check the languages and tasks that tokenizer and settings know."""
    if task.kind == "st" and not options.get("translation_prompt"):
        check_translation(task)
    names = None if directory is None else read_token_names(directory)
    if directory is not None and names is not None:
        settings = read_table(directory / "generation_config.json")
        whisper_tokens(directory, names, settings, options).prompt(task)


def transcription_only(directory: Path | None, task: Task, options: Mapping[str, Any]) -> None:
    """Refuse translation."""
    if task.kind != "asr":
        raise UserError(
            f"This family of models only transcribes, so it cannot do '{task.name}'; "
            f"use 'asr-{task.source}' or a model that translates."
        )


def cohere_asr(directory: Path | None, task: Task, options: Mapping[str, Any]) -> None:
    """Refuse translation, and languages without a tag."""
    transcription_only(directory, task, options)
    canary(directory, task, options)


def canary(directory: Path | None, task: Task, options: Mapping[str, Any]) -> None:
    """Refuse languages without a tag."""
    names = None if directory is None else read_token_names(directory)
    for language in (task.source, task.target):
        if names is not None and f"<|{language}|>" not in names.ids:
            raise UserError(
                f"The tokenizer of {directory} has no token <|{language}|>, so the model cannot do "
                f"'{task.name}'; choose another language."
            )


def speech_to_text(directory: Path | None, task: Task, options: Mapping[str, Any]) -> None:
    """Refuse what a multilingual checkpoint has no tag for; others do not say what they do."""
    names = None if directory is None else read_token_names(directory)
    _check_tags(directory, list(names.ids) if names else [], task, writes=("st",))


def conformer(directory: Path | None, task: Task, options: Mapping[str, Any]) -> None:
    """Refuse languages without a tag in the dictionary, where it has tags."""
    files = [] if directory is None else sorted(directory.glob("*.yaml"))
    if directory is None or len(files) != 1:
        return
    # Named by its place on the machine of the training, as the loader takes it.
    named = Path(str(read_yaml(files[0]).get("vocab_filename", "dict.txt"))).name
    try:
        lines = (directory / named).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return  # the loader says what is wrong
    symbols = [line.rsplit(" ", 1)[0] for line in lines]
    _check_tags(directory, symbols, task, writes=("asr", "st"))


def seamless_m4t_v2(directory: Path | None, task: Task, options: Mapping[str, Any]) -> None:
    """Refuse languages that the settings do not list."""
    settings = {} if directory is None else read_table(directory / "generation_config.json")
    targets = settings.get("text_decoder_lang_to_code_id")
    if isinstance(targets, Mapping) and LANGUAGES.get(task.target, task.target) not in targets:
        raise UserError(
            f"The settings of {directory} list no '{task.target}', so the model cannot do "
            f"'{task.name}'; it writes {', '.join(sorted(targets))}."
        )


def _check_tags(
    directory: Path | None, symbols: list[str], task: Task, *, writes: tuple[str, ...]
) -> None:
    tags = [name for name in symbols if name.startswith("<lang:") and name.endswith(">")]
    if tags and (task.kind not in writes or f"<lang:{task.target}>" not in tags):
        kinds = "writes" if "asr" in writes else "only translates, into"
        raise UserError(
            f"The model in {directory} {kinds} {', '.join(sorted(tag[6:-1] for tag in tags))}, so "
            f"it cannot do '{task.name}'; choose a task that writes one of these."
        )
