"""The registry of formats: how a corpus is read, and which keys its entry has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from s2txai.datasets.manifest import Utterance
from s2txai.registry import Registry

# From an entry of the table of datasets, and the folder that its paths are relative to.
Reader: TypeAlias = Callable[[Mapping[str, Any], Path], list[Utterance]]


@dataclass(frozen=True)
class Format:
    """One format in which speech is distributed.

    Attributes
    ----------
    read
        Reads a corpus.
    keys
        JSON schema of each key that an entry has beside those of every corpus (``format``,
        ``description``, ``fold_diacritics``, ``licence``).
    optional
        Keys among them that may be left out.
    needs
        From an optional key to the keys that must be given with it.
    """

    read: Reader
    keys: Mapping[str, Mapping[str, Any]]
    optional: tuple[str, ...] = ()
    needs: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def required(self) -> list[str]:
        """Keys that must be given."""
        return [key for key in self.keys if key not in self.optional]


FORMATS: Registry[Format] = Registry("format of datasets")

_LANGUAGE = {"type": "string", "pattern": "^[a-z]{2,3}$"}

FOLDER: Mapping[str, Any] = {
    "description": "where the corpus is unpacked, absolute or relative to the project's root",
    "type": "string",
    "minLength": 1,
}
SPLIT: Mapping[str, Any] = {
    "description": "part of the corpus, as its files name it",
    "type": "string",
    "pattern": "^[A-Za-z0-9._-]+$",
}
LANGUAGE_OF_SPEECH: Mapping[str, Any] = {
    "description": "of the speech, where the folder has no utt2lang",
    **_LANGUAGE,
}

# Of a corpus with a folder for each direction of translation.
DIRECTION: Mapping[str, Mapping[str, Any]] = {
    "folder": FOLDER,
    "source": {
        "description": "language of the speech, a code of two or three lower-case letters",
        **_LANGUAGE,
    },
    "target": {
        "description": "language of the translation, a code of two or three lower-case letters",
        **_LANGUAGE,
    },
    "split": SPLIT,
}
# Of a corpus that may be planned with while it is not here; its entry has a ``source``.
ABSENT: Mapping[str, Mapping[str, Any]] = {
    "download": {
        "description": "one sentence on how to get the corpus, printed while its folder is missing",
        "type": "string",
        "minLength": 1,
    },
    "expect": {
        "description": "what to plan with while the folder is missing",
        "type": "object",
        "additionalProperties": False,
        "required": ["utterances", "seconds"],
        "properties": {
            "utterances": {
                "description": "how many there are",
                "type": "integer",
                "minimum": 1,
            },
            "seconds": {
                "description": "how long they last on average",
                "type": "number",
                "exclusiveMinimum": 0,
            },
        },
    },
}
EXPECTATION_NEEDS: Mapping[str, list[str]] = {"expect": ["download"]}
