"""Tokens, the pieces of text they are, and the words that pieces make up.

A token may be a part of a character: byte-level vocabularies have such tokens, and those of
SentencePiece fall back on bytes. So tokens are decoded together, never one by one.
"""

import codecs
import re
from collections.abc import Iterator, Sequence
from typing import Any

import regex

from s2txai.datasets.languages import SCRIPTS_WITHOUT_SPACES
from s2txai.errors import UserError
from s2txai.models.base import Role, TokenTable

SPACE = "▁"  # as SentencePiece writes it
_TAG = re.compile(r"<\|.*\|>")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # of SentencePiece, for what it has no piece of

# What belongs to scripts that leave spaces out: their letters, and marks that several of them use.
_WITHOUT_SPACES = regex.compile(
    "[{}\u3000-\u303f\u3099-\u309c\u30a0\u30fb\u30fc\uff01-\uffef]".format(
        "".join(rf"\p{{Script={script}}}" for script in SCRIPTS_WITHOUT_SPACES)
    )
)


def token_table(pieces: Sequence[str | bytes], roles: Sequence[Role]) -> TokenTable:
    """Describe tokens, decoded together.

    A word begins at a leading white space; in scripts that leave spaces out at every token that
    begins with a whole character, as Whisper's own code splits them, so that each can be timed. A
    token that only begins or goes on with a character has an empty piece and belongs to the word of
    the token that completes it: the pieces of a word, put together, are its text.

    Parameters
    ----------
    pieces
        What each token adds to the text, leading space included: bytes where it is not of whole
        characters.
    roles
        Of the tokens.
    """
    texts: list[str] = []
    words: list[int] = []
    word, so_far = -1, ""
    for run in _complete(pieces, roles):
        if roles[len(texts)] == "text":
            text = "".join(run)
            if word < 0 or _begins_word(text, so_far):
                word, so_far = word + 1, ""
            so_far += text
            words += [word] * len(run)
        else:
            words += [-1] * len(run)
        texts += run
    return TokenTable(texts, list(roles), words)


def _complete(pieces: Sequence[str | bytes], roles: Sequence[Role]) -> Iterator[list[str]]:
    """Yield the texts of tokens that cannot be parted: most alone, those of one character together.

    Bytes that never become a character are replaced, as a decoder does.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    run: list[str] = []
    for piece, role in zip(pieces, roles, strict=True):
        data = piece if isinstance(piece, bytes) else piece.encode("utf-8")
        if role != "text":
            if run:
                yield [*run[:-1], run[-1] + decoder.decode(b"", final=True)]
            yield [data.decode("utf-8", "replace")]
            run = []
            continue
        run.append(decoder.decode(data))
        pending, _ = decoder.getstate()
        if not pending:
            yield run
            run = []
    if run:
        yield [*run[:-1], run[-1] + decoder.decode(b"", final=True)]


def _begins_word(text: str, so_far: str) -> bool:
    """Return whether a text begins the next word after what a word holds so far."""
    if text[:1].isspace():
        return True
    # A space by itself belongs to what it stands before.
    return bool(so_far.strip()) and any(
        _WITHOUT_SPACES.match(character) for character in (text[:1], so_far[-1])
    )


def sentencepiece_text(symbol: str) -> str | bytes:
    """Return the text of a piece of SentencePiece, leading space included; a byte by itself."""
    byte = _BYTE.fullmatch(symbol)
    return bytes([int(byte[1], 16)]) if byte else symbol.replace(SPACE, " ")


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

    def piece(self, token: int) -> str | bytes:
        """Return the token's text, leading space included; nothing for an id without a name."""
        return sentencepiece_text(str(self._tokenizer.convert_ids_to_tokens(token) or ""))

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
