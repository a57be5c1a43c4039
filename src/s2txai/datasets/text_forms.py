"""Forms of texts: what is the same text, however its characters are encoded or typed.

Named in :mod:`s2txai.datasets.text_normalisers`, so nothing here is imported that planning does
not need.
"""

import unicodedata

import regex

# What people type or typesetters set for the same mark. Before Unicode's own forms are made equal:
# these break some of them up into a space and a mark.
_APOSTROPHES = (
    "\u2019\u2018\u201a\u201b\u02bc\u02bb\u02b9\u2032\u2035\uff07\u00b4\u0060\u05f3\u2039\u203a"
)
_QUOTES = (
    "\u201c\u201d\u201e\u201f\u2033\u2036\uff02\u00ab\u00bb\u05f4"
    "\u300c\u300d\u300e\u300f\ufe41\ufe42\ufe43\ufe44\uff62\uff63\u301d\u301e\u301f"
)
_MARKS = str.maketrans(dict.fromkeys(_APOSTROPHES, "'") | dict.fromkeys(_QUOTES, '"'))

# French quotation marks stand off from what they enclose, Danish and German ones point inwards and
# do not: there a space lies on their other side.
_OPENING_SPACE = regex.compile(r"(?<!\S)«\s+|«[\u00a0\u2009\u202f]")
_CLOSING_SPACE = regex.compile(r"\s+»(?!\w)|[\u00a0\u2009\u202f]»")

# What nobody sees: soft hyphens, spaces without width, signs of direction, variants of a glyph.
# Joiners stay: Persian and Indic spelling needs them.
_UNSEEN = regex.compile(
    r"[\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ufe00-\ufe0f"
    r"\U000e0100-\U000e01ef]"
)

# Unicode's compatibility forms take this vowel of Thai and Lao apart, which all keyboards write as
# one letter.
_THAI_AM = regex.compile("\u0e4d([\u0e48-\u0e4b]*)\u0e32")
_LAO_AM = regex.compile("\u0ecd([\u0ec8-\u0ecb]*)\u0eb2")

_TURKIC = frozenset({"tr", "tur", "az", "aze", "azj", "crh", "tt"})
_DOTS = str.maketrans({"İ": "i", "I": "ı"})

# Marks that may be left out without another word being meant by its spelling: accents of these
# scripts, vowel points of Arabic and Hebrew. All other marks are letters or vowels.
_ACCENTED = regex.compile(r"(?<=[\p{Latin}\p{Greek}]\p{Mn}*)\p{Mn}")
_CYRILLIC_ACCENT = regex.compile(
    r"(?<=[АЕИОУЫЭЮЯЄІаеиоуыэюяєі]\p{Mn}*)[\u0300\u0301]|(?<=[Ее]\p{Mn}*)\u0308"
)
_POINTS = regex.compile(r"[\u064b-\u0652\u0670\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")


def same_forms(text: str) -> str:
    """Return text in which equal characters are equal, whatever their form.

    Unicode's compatibility forms, typographic apostrophes and quotation marks, and characters that
    nobody sees. Letters, case, punctuation and the words between spaces stay as they are.
    """
    text = _OPENING_SPACE.sub("«", text)
    text = _CLOSING_SPACE.sub("»", text)
    text = _UNSEEN.sub("", text.translate(_MARKS))
    text = unicodedata.normalize("NFKC", text)
    return str(_LAO_AM.sub("\\1\u0eb3", _THAI_AM.sub("\\1\u0e33", text)))


def lowered(text: str, language: str) -> str:
    """Return text in lower case, the dots of Turkic i as the language has them."""
    if language in _TURKIC:
        text = text.translate(_DOTS)
    # Python's lower case of İ is an i with a second dot.
    return text.lower().replace("i\u0307", "i")


def without_diacritics(text: str) -> str:
    """Return text with accents and vowel points taken off its letters: ``está`` becomes ``esta``.

    Marks that spell a letter or a vowel of their own stay, as in Indic scripts, Thai, Japanese, or
    й in Cyrillic.
    """
    marked = unicodedata.normalize("NFD", text)
    for marks in (_ACCENTED, _CYRILLIC_ACCENT, _POINTS):
        marked = marks.sub("", marked)
    return unicodedata.normalize("NFC", marked)


def letters_of(word: str, language: str, *, folded: bool = False) -> str:
    """Return the letters, their marks and the digits of a word in lower case.

    Parameters
    ----------
    word
        As it is written.
    language
        Of the word.
    folded
        Whether diacritics are taken off, see :func:`without_diacritics`. Those of English words
        always are, as by Whisper's normaliser.
    """
    text = same_forms(word)
    if folded or language == "en":
        text = without_diacritics(text)
    return "".join(
        character
        for character in lowered(text, language)
        if unicodedata.category(character)[0] in "LMN" or character in "\u200c\u200d"
    )


def graphemes(text: str) -> list[str]:
    """Return the extended grapheme clusters of a text (Unicode, UAX #29), without white space."""
    return list(regex.findall(r"\X", "".join(text.split())))
