"""Forms of texts: what is the same text, however its characters are encoded or typed.

Named in :mod:`s2txai.datasets.text_normalisers`, so nothing here is imported that planning does
not need.
"""

import unicodedata

import regex

from s2txai.datasets.languages import short_code

# What people type or typesetters set for the same mark.
_APOSTROPHES = (
    "\u2019\u2018\u201a\u201b\u02bc\u02bb\u02bd\u02b9\u2032\u2035\u00b4\u0060\u05f3\u055a"
    "\ua78b\ua78c\u2039\u203a\u275b\u275c"
)
_QUOTES = (
    "\u201c\u201d\u201e\u201f\u00ab\u00bb\u05f4\u02ba\u02ee\u275d\u275e"
    "\u300c\u300d\u300e\u300f\u301d\u301e\u301f"
)
_HYPHENS = "\u2010\u2212\u05be\u058a"
_DOTS_WITHIN = "\u2027\u2219\u22c5"
_MARKS = str.maketrans(
    dict.fromkeys(_APOSTROPHES, "'")
    | dict.fromkeys(_QUOTES, '"')
    | dict.fromkeys(_HYPHENS, "-")
    | dict.fromkeys(_DOTS_WITHIN, "\u00b7")
    | {"\u2044": "/", "\u2215": "/", "\u301c": "~", "\u2015": "\u2014"}
)
_TWO_APOSTROPHES = regex.compile("''")
# Unicode's compatibility forms make a space with a mark on it of accents that stand by themselves.
_ACCENT_ALONE = regex.compile("[ ][\u0301\u0313\u0314]")
_VOICING_ALONE = regex.compile("[ ]([\u3099\u309a])")

# French quotation marks stand off from what they enclose, Danish and German ones point inwards and
# do not: there a space lies on their other side.
_OPENING_SPACE = regex.compile(r"(?<!\S)«\s+|«[\u00a0\u2009\u202f]")
_CLOSING_SPACE = regex.compile(r"\s+»(?!\w)|[\u00a0\u2009\u202f]»")

# Digits that would join those before them, and make another number: 10² is not 102.
_RAISED = regex.compile(r"(?<=\d)(?=[\u00b2\u00b3\u00b9\u2070\u2074-\u2079])(?<![²³¹⁰⁴-⁹])")
_FRACTION = regex.compile(r"(?<=\d)(?=[\u00bc-\u00be\u2150-\u215f\u2189])")

# What nobody sees: soft hyphens, spaces without width, signs of direction, variants of a glyph, the
# stroke that stretches Arabic words.
_UNSEEN = regex.compile(
    r"[\u00ad\u034f\u061c\u0640\u17b4\u17b5\u180b-\u180d\u180f\u200b\u200e\u200f\u202a-\u202e"
    r"\u2060-\u2064\u2066-\u206f\ufeff\ufe00-\ufe0f\U000e0100-\U000e01ef]"
)
# Joiners count where they change a shape: without width between letters of Arabic script that would
# join, beside the sign of Indic scripts that takes a vowel off, in pictures.
_VOWELLESS = "[\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca]"
_REPEATED_JOINER = regex.compile("(?<=[\u200c\u200d])[\u200c\u200d]+")
_IDLE_JOINER = regex.compile(
    rf"(?<!{_VOWELLESS})\u200d(?!{_VOWELLESS}|\p{{ExtPict}})|"
    rf"(?<!{_VOWELLESS})(?<!\p{{jt=D}}\p{{Mn}}*)\u200c(?!{_VOWELLESS})|\u200c(?![\p{{L}}\p{{M}}])|"
    rf"(?<!{_VOWELLESS})\u200c(?!{_VOWELLESS}|[\p{{jt=D}}\p{{jt=R}}])"
)

# Two spellings in code points of what looks alike, which Unicode's forms leave apart: letters that
# older keyboards and fonts made of others, and vowels of Thai and Lao that these forms take apart.
_LETTERS = (
    ("\u0e40\u0e40", "\u0e41"),
    ("\u0ec0\u0ec0", "\u0ec1"),
    ("\u05f0", "\u05d5\u05d5"),
    ("\u05f1", "\u05d5\u05d9"),
    ("\u05f2", "\u05d9\u05d9"),
    ("\u09a4\u09cd\u200d", "\u09ce"),
    *(
        (f"{letter}\u0d4d\u200d", alone)
        for letter, alone in zip(
            "\u0d23\u0d28\u0d30\u0d31\u0d32\u0d33\u0d15",
            "\u0d7a\u0d7b\u0d7c\u0d7c\u0d7d\u0d7e\u0d7f",
            strict=True,
        )
    ),
)
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

# What parts of a word an apostrophe, a Hebrew sign of abbreviations, a point of Catalan or any sign
# between digits keep apart.
_SIGN_WITHIN = regex.compile(
    r"(?<=\p{L}\p{M}*)'(?=\p{L})|(?<=\p{Hebrew}\p{M}*)\"(?=\p{Hebrew})|(?<=l)\u00b7(?=l)|"
    r"(?<=\p{N})[^\p{L}\p{M}\p{N}](?=\p{N})"
)


def same_forms(text: str) -> str:
    """Return text in which equal characters are equal, whatever their form.

    Unicode's compatibility forms, typographic apostrophes and quotation marks, and characters that
    nobody sees. Letters, case, punctuation and the words between spaces stay as they are.
    """
    text = _OPENING_SPACE.sub("«", text)
    text = _CLOSING_SPACE.sub("»", text)
    text = _FRACTION.sub(" ", _RAISED.sub("^", text))
    text = _UNSEEN.sub("", unicodedata.normalize("NFKC", _UNSEEN.sub("", text)))
    text = _VOICING_ALONE.sub("\\1", _ACCENT_ALONE.sub("'", text)).translate(_MARKS)
    text = unicodedata.normalize("NFC", _TWO_APOSTROPHES.sub('"', text))
    for spelling, letter in _LETTERS:
        text = text.replace(spelling, letter)
    text = _LAO_AM.sub("\\1\u0eb3", _THAI_AM.sub("\\1\u0e33", text))
    return str(_IDLE_JOINER.sub("", _REPEATED_JOINER.sub("", text)))


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

    With the signs within it that make it another word or number: ``we're`` is not ``were``, ``1.5``
    is not ``15``.

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
    if folded or short_code(language) == "en":
        text = without_diacritics(text)
    text = lowered(text, language)
    signs = {match.start() for match in _SIGN_WITHIN.finditer(text)}
    return "".join(
        "_" if character.isspace() else character
        for place, character in enumerate(text)
        if unicodedata.category(character)[0] in "LMN"
        or character in "\u200c\u200d"
        or place in signs
    )


def graphemes(text: str) -> list[str]:
    """Return the extended grapheme clusters of a text (Unicode, UAX #29), without white space."""
    return list(regex.findall(r"\X", "".join(text.split())))
