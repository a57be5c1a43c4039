"""Tokens that are pieces of words, where a mark stands for the space before a word."""

import re
from collections.abc import Sequence
from typing import Any

from s2txai.errors import UserError
from s2txai.models.base import Role

SPACE = "▁"  # as SentencePiece writes it
_TAG = re.compile(r"<\|.*\|>")


class WordPieces:
    """The vocabulary of a tokenizer of transformers whose pieces are those of SentencePiece.

    Parameters
    ----------
    tokenizer
        Of the checkpoint.
    eos
        End of sentence.
    """

    def __init__(self, tokenizer: Any, eos: int) -> None:
        self._tokenizer = tokenizer
        self._eos = eos
        self._ids: dict[str, int] = tokenizer.get_vocab()
        added = tokenizer.added_tokens_decoder
        self._special = {
            *tokenizer.all_special_ids,
            *(token for token, entry in added.items() if entry.special),
            # Some tokenizers hold the tags of language and task as if they were text.
            *(token for name, token in self._ids.items() if _TAG.fullmatch(name)),
        }

    def piece(self, token: int) -> str:
        """Return the token's text, leading space included; nothing for an id without a name."""
        return str(self._tokenizer.convert_ids_to_tokens(token) or "").replace(SPACE, " ")

    def role(self, token: int) -> Role:
        """Return ``text``, ``special`` or ``eos``."""
        if token == self._eos:
            return "eos"
        return "special" if token in self._special else "text"

    def text(self, tokens: Sequence[int]) -> str:
        """Return the plain text of ``tokens``, without special tokens."""
        spoken = [token for token in tokens if self.role(token) == "text"]
        return str(self._tokenizer.decode(spoken)).strip()

    def token(self, name: str) -> int:
        """Return the id of a token of the prompt.

        Raises
        ------
        UserError
            If there is none.
        """
        if name not in self._ids:
            raise UserError(
                f"The model's vocabulary has no token {name}, which the prompt of this task needs; "
                "choose another task or model."
            )
        return self._ids[name]
