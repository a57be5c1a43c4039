"""Tasks: what a model is asked to do with the speech, as named in the tree of results."""

import re
from dataclasses import dataclass
from typing import Literal

from s2txai.errors import UserError

LANGUAGE = "[a-z]{2,3}"
_TASK = re.compile(
    f"(?:asr-(?P<spoken>{LANGUAGE})|st-(?P<source>{LANGUAGE})-(?P<target>{LANGUAGE}))"
)


@dataclass(frozen=True)
class Task:
    """Transcription of a language, or translation from one language into another.

    Attributes
    ----------
    kind
        ``"asr"`` (speech recognition) or ``"st"`` (speech translation).
    source
        Language of the speech (ISO 639 code).
    target
        Language of the text; for recognition the same as ``source``.
    """

    kind: Literal["asr", "st"]
    source: str
    target: str

    @property
    def name(self) -> str:
        """The task as written in configurations and paths: ``asr-en``, ``st-it-en``."""
        return f"asr-{self.source}" if self.kind == "asr" else f"st-{self.source}-{self.target}"


def parse_task(name: str) -> Task:
    """Read a task's name.

    Parameters
    ----------
    name
        ``asr-<language>`` or ``st-<source>-<target>``, languages as ISO 639 codes.

    Raises
    ------
    UserError
        If ``name`` has another form, or translates a language into itself.
    """
    match = _TASK.fullmatch(name)
    if match is None:
        raise UserError(
            f"Task '{name}' is not of the form asr-<language> or st-<source>-<target>: "
            "write for example asr-en or st-it-en."
        )
    if match["spoken"]:
        return Task("asr", match["spoken"], match["spoken"])
    if match["source"] == match["target"]:
        raise UserError(
            f"Task '{name}' translates a language into itself: "
            f"write asr-{match['source']} for transcription."
        )
    return Task("st", match["source"], match["target"])
