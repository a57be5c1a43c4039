"""The symbols of the paper's models, and the files beside a checkpoint that list them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

from sentencepiece import SentencePieceProcessor

from s2txai.datasets.files import is_file, read_yaml
from s2txai.errors import UserError
from s2txai.models.base import Role, TokenTable
from s2txai.models.conformer.decoder import EOS
from s2txai.models.pieces import sentencepiece_text, token_table

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")  # begin every dictionary, unwritten
BLANK = "<ctc_blank>"  # ends the dictionary of a model with a CTC head over it, unwritten
_DEFAULT_BINS = 80
_MOST_BINS = 1024


@dataclass(frozen=True)
class Preprocessing:
    """What the YAML file beside a checkpoint says.

    Attributes
    ----------
    dictionary, sentencepiece
        Files of the target's symbols and of how they make up text.
    n_bins
        Of the filterbank.
    """

    dictionary: Path
    sentencepiece: Path
    n_bins: int


def read_preprocessing(directory: Path) -> Preprocessing:
    """Read the only YAML file of a model's folder.

    Files that it names are looked for in the same folder, whatever folder they are said to be in:
    the names are those of the machine of the training.

    Raises
    ------
    UserError
        If there is not exactly one such file, it lacks an entry, or a file it names is missing.
    """
    file = the_only(directory, "*.yaml", "YAML file with the settings of the data")
    settings = read_yaml(file)
    _check_input(file, settings)
    tokenizer = settings.get("bpe_tokenizer")
    tokenizer = tokenizer if isinstance(tokenizer, Mapping) else {}
    if tokenizer.get("bpe") != "sentencepiece":
        raise UserError(
            f"{file}: 'bpe_tokenizer.bpe' must be sentencepiece, not "
            f"{short(tokenizer.get('bpe'))}; other tokenizers are not implemented."
        )
    return Preprocessing(
        _beside(file, "vocab_filename", settings.get("vocab_filename", "dict.txt")),
        _beside(
            file, "bpe_tokenizer.sentencepiece_model", tokenizer.get("sentencepiece_model", "")
        ),
        _bins(file, settings.get("input_feat_per_channel", _DEFAULT_BINS)),
    )


def _check_input(file: Path, settings: Mapping[str, Any]) -> None:
    """Refuse features other than filterbanks that are normalised by utterance."""
    transforms = settings.get("transforms")
    if isinstance(transforms, Mapping):
        # As the toolkit chooses for speech that is decoded.
        names = transforms.get("_eval", transforms.get("*"))
        if names is not None and names != ["utterance_cmvn"]:
            raise UserError(
                f"{file}: 'transforms' asks for {short(names)} in decoding, but only "
                "['utterance_cmvn'] is implemented; use a checkpoint that was trained with it."
            )
    if settings.get("use_audio_input"):
        raise UserError(
            f"{file}: 'use_audio_input' asks for waveforms, but this family receives filterbanks; "
            "use a checkpoint that was trained with those."
        )


def the_only(directory: Path, pattern: str, what: str) -> Path:
    """Return the file of a folder that a pattern fits.

    Raises
    ------
    UserError
        If none or several do.
    """
    files = sorted(directory.glob(pattern))
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        raise UserError(
            f"{directory} must hold exactly one {what} ({pattern}), but holds {names}; "
            "correct the model's folder."
        )
    return files[0]


def _bins(file: Path, value: Any) -> int:
    if not isinstance(value, int) or not 0 < value <= _MOST_BINS:
        raise UserError(
            f"{file}: 'input_feat_per_channel' must be a number from 1 to {_MOST_BINS}, not "
            f"{short(value)}; correct it."
        )
    return value


def _beside(file: Path, key: str, value: Any) -> Path:
    named = file.parent / Path(value if isinstance(value, str) else "").name
    if not value or not is_file(named):
        raise UserError(
            f"{file}: '{key}' is {short(value)}, but {file.parent} holds no such file; copy it "
            "beside the checkpoint."
        )
    return named


class Vocabulary:
    """Symbols by their number.

    Parameters
    ----------
    symbols
        All of them, specials first.
    sentencepiece
        Puts pieces together.
    """

    def __init__(self, symbols: Sequence[str], sentencepiece: SentencePieceProcessor) -> None:
        self._symbols = list(symbols)
        self._numbers = {symbol: number for number, symbol in enumerate(symbols)}
        self._sentencepiece = sentencepiece

    @classmethod
    def read(cls, files: Preprocessing, size: int) -> "Vocabulary":
        """Read dictionary and sentencepiece model.

        Parameters
        ----------
        files
            Where they are.
        size
            Symbols that the network knows: those of the dictionary, or one more, the blank.

        Raises
        ------
        UserError
            If a file cannot be read or the number of symbols is another.
        """
        try:
            lines = files.dictionary.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{files.dictionary} cannot be read ({error}).") from error
        # A symbol, a space, how often it occurred.
        symbols = [*SPECIAL, *(line.rsplit(" ", 1)[0] for line in lines if line.strip())]
        if len(symbols) == size - 1:
            symbols.append(BLANK)
        if len(symbols) != size:
            raise UserError(
                f"{files.dictionary} gives {len(symbols)} symbols, but the network knows {size}; "
                "use the dictionary of the target that the checkpoint was trained with."
            )
        try:
            sentencepiece = SentencePieceProcessor(model_file=str(files.sentencepiece))
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"{files.sentencepiece} is no sentencepiece model ({error}); copy it again."
            ) from error
        _check_pieces(files, symbols, sentencepiece)
        return cls(symbols, sentencepiece)

    def language_tag(self, language: str) -> int | None:
        """Return the number of the tag of a language; None where there are no tags at all.

        Raises
        ------
        UserError
            If there are tags, but none of this language.
        """
        tags = [symbol for symbol in self._symbols if _is_tag(symbol)]
        tag = f"<lang:{language}>"
        if tags and tag not in tags:
            raise UserError(
                f"The model's dictionary has no {tag}, only {', '.join(tags)}; choose a task that "
                "writes one of these languages."
            )
        return self._numbers.get(tag)

    @property
    def has_language_tags(self) -> bool:
        """Whether hypotheses begin with the tag of their language."""
        return any(_is_tag(symbol) for symbol in self._symbols)

    def table(self, tokens: Sequence[int]) -> TokenTable:
        """Describe each token, see :func:`s2txai.models.pieces.token_table`."""
        pieces = [sentencepiece_text(self._symbols[token]) for token in tokens]
        return token_table(pieces, [self._role(token) for token in tokens])

    def text(self, tokens: Sequence[int]) -> str:
        """Return plain text."""
        pieces = [self._symbols[token] for token in tokens if self._role(token) == "text"]
        return str(self._sentencepiece.decode(pieces)).strip()

    def _role(self, token: int) -> Role:
        if token == EOS:
            return "eos"
        symbol = self._symbols[token]
        # An unknown word is a word.
        if symbol != "<unk>" and (token < len(SPECIAL) or symbol == BLANK or _is_tag(symbol)):
            return "special"
        return "text"


def _check_pieces(
    files: Preprocessing, symbols: Sequence[str], sentencepiece: SentencePieceProcessor
) -> None:
    """Refuse a dictionary whose words are not pieces of the sentencepiece model."""
    unknown = sentencepiece.unk_id()
    for symbol in symbols[len(SPECIAL) :]:
        # Tags, the blank, and what the toolkit fills a dictionary up with are no pieces.
        is_piece = not (_is_tag(symbol) or symbol == BLANK or symbol.startswith("madeupword"))
        if is_piece and sentencepiece.piece_to_id(symbol) == unknown:
            raise UserError(
                f"{files.dictionary} has the symbol {short(symbol)}, which is no piece of "
                f"{files.sentencepiece}; use the two files that the checkpoint was trained with."
            )


def _is_tag(symbol: str) -> bool:
    return symbol.startswith("<lang:") and symbol.endswith(">")
