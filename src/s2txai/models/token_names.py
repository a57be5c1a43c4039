"""The names of a checkpoint's tokens, read from its files without loading a model or torch."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from s2txai.errors import UserError

TAG = re.compile(r"<\|[^|]*\|>")  # of a language, a task, a time: never text
_SPACES = " ▁Ġ"  # as tokenizers write them
_ANGLED = re.compile(r"<[^ ]*>")


@dataclass(frozen=True)
class TokenNames:
    """Which tokens a tokenizer has.

    Attributes
    ----------
    ids
        From the name of a token to its id.
    special
        Ids of tokens that are no text: those that the tokenizer marks as special, and tags, which
        some tokenizers hold as if they were text.
    """

    ids: Mapping[str, int]
    special: frozenset[int]

    @classmethod
    def of(cls, ids: Mapping[str, int], marked: "set[int] | frozenset[int]") -> "TokenNames":
        """Add the tags to the tokens that are ``marked`` as special."""
        tags = {token for name, token in ids.items() if TAG.fullmatch(name)}
        return cls(ids, frozenset(marked | tags))

    def check_rows(self, directory: Path, rows: int, *, unnamed: int = 0) -> None:
        """Refuse a tokenizer that is not that of a network.

        Parameters
        ----------
        directory
            Of the checkpoint.
        rows
            Tokens that the network knows.
        unnamed
            How many of the last ones a tokenizer may leave out, all or none.

        Raises
        ------
        UserError
            If the tokens are not as many as the rows, or not numbered without a gap.
        """
        n_names, numbers = len(self.ids), set(self.ids.values())
        gapless = numbers == set(range(n_names))
        if gapless and rows in (n_names, n_names + unnamed):
            return
        held = f"{n_names} tokens" if gapless else f"{len(numbers)} ids with gaps or repetitions"
        if gapless and rows > n_names:
            raise UserError(
                f"The tokenizer of {directory} has {held}, but its network knows {rows}; save the "
                "tokenizer that the network was trained with beside it, or, if the last "
                f"{rows - n_names} are padding, cut them off with "
                "'resize_token_embeddings(len(tokenizer))', set 'config.vocab_size' alike and save "
                "the network again."
            )
        raise UserError(
            f"The tokenizer of {directory} has {held}, but its network knows {rows}; save the "
            "tokenizer that the network was trained with beside it."
        )

    def check_silent(self, directory: Path, settings: Mapping[str, Any]) -> None:
        """Refuse ids in the settings of a checkpoint that are no special tokens.

        Parameters
        ----------
        directory
            Of the checkpoint.
        settings
            From the name of a setting to an id, or None where it is not set.

        Raises
        ------
        UserError
            If an id is no token, or one that is text.
        """
        names = {token: name for name, token in self.ids.items()}
        for setting, token in settings.items():
            if token is None or token in self.special:
                continue
            if isinstance(token, int) and not isinstance(token, bool):
                name = names.get(token)
                if name is not None and (not name.strip(_SPACES) or _ANGLED.fullmatch(name)):
                    continue
                what = "no token" if name is None else f"the text {name!r}"
            else:
                what = "no number"
            raise UserError(
                f"The settings of {directory} say that '{setting}' is {str(token)[:40]}, which is "
                f"{what} in its tokenizer; save tokenizer and network of one checkpoint together."
            )

    def check_same(self, directory: Path, expected: Mapping[str, Any], setting: str) -> None:
        """Refuse a table of token ids that numbers a token in another way.

        Parameters
        ----------
        directory
            Of the checkpoint.
        expected
            From the name of a token to the id that the settings give it.
        setting
            Where they do.

        Raises
        ------
        UserError
            If the tokenizer lacks such a token, or numbers it differently.
        """
        for name, token in expected.items():
            if self.ids.get(name) != token:
                actual = f"is {self.ids[name]}" if name in self.ids else "is unknown"
                raise UserError(
                    f"The settings of {directory} say under '{setting}' that the token {name} is "
                    f"{str(token)[:40]}, but in its tokenizer it {actual}; save tokenizer and "
                    "network of one checkpoint together."
                )


def read_table(file: Path) -> dict[str, Any]:
    """Return the table in a JSON file; an empty one where there is none.

    Raises
    ------
    UserError
        If the file is there and holds no table.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file} cannot be read ({reason}); fetch the model again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} cannot be read (it holds no table); fetch the model again.")
    return content


def read_token_names(directory: Path) -> TokenNames | None:
    """Return the tokens of a checkpoint of transformers; None where its files do not name them.

    Of ``tokenizer.json``, or of ``vocab.json`` with ``added_tokens.json``.

    Raises
    ------
    UserError
        If a file cannot be read.
    """
    table = read_table(directory / "tokenizer.json")
    if table:
        return _of_tokenizer_json(directory / "tokenizer.json", table)
    ids = read_table(directory / "vocab.json")
    if not ids:
        return None
    added = read_table(directory / "added_tokens.json")
    return TokenNames.of({**ids, **added}, set())


def _of_tokenizer_json(file: Path, table: Mapping[str, Any]) -> TokenNames:
    try:
        vocabulary = table["model"]["vocab"]
        if isinstance(vocabulary, list):  # pieces with their scores, in the order of their ids
            vocabulary = {piece: number for number, (piece, _) in enumerate(vocabulary)}
        added = table.get("added_tokens") or []
        ids = {**vocabulary, **{entry["content"]: entry["id"] for entry in added}}
        return TokenNames.of(ids, {entry["id"] for entry in added if entry["special"]})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{file} is no tokenizer ({error!r}); copy it again.") from error
