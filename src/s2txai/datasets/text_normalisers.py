"""Text normalisations, which make references and hypotheses comparable.

Named in configurations, so nothing here is imported that planning does not need.
"""

from collections.abc import Callable
from types import MappingProxyType

import regex

from s2txai.datasets.languages import short_code
from s2txai.datasets.text_forms import lowered
from s2txai.registry import Registry

TextNormaliser = Callable[[str], str]

# Within words of these languages an apostrophe is a letter, in Hebrew script a quotation mark the
# sign of abbreviations: by the modifier letter that takes its place, and so stays.
_APOSTROPHE, _GERSHAYIM = ("'", "\u02bc"), ('"', "\u02ee")
_LETTERS = MappingProxyType(
    {
        **dict.fromkeys(("uk", "be", "br", "uz", "haw"), (_APOSTROPHE,)),
        **dict.fromkeys(("he", "yi"), (_APOSTROPHE, _GERSHAYIM)),
    }
)

# From a language to the function that makes its texts comparable.
TEXT_NORMALISERS: Registry[Callable[[str], TextNormaliser]] = Registry("text normalisation")


@TEXT_NORMALISERS.register("none")
def untouched(language: str) -> TextNormaliser:
    """Compare cased, punctuated words split on spaces, as the paper does."""
    return str.strip


@TEXT_NORMALISERS.register("whisper")
def whisper_normaliser(language: str) -> TextNormaliser:
    """Return Whisper's normaliser (Radford et al. 2022, appendix C).

    Its basic form, for all languages but English, here keeps the marks of letters, which spell
    vowels in many scripts, and signs within words that are letters of the language.
    """
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    language = short_code(language)
    if language == "en":
        english: TextNormaliser = EnglishTextNormalizer()
        return lambda text: english(text).strip()
    basic: TextNormaliser = BasicTextNormalizer(preserve_marks=True)

    def normalise(text: str) -> str:
        text = lowered(text, language)
        for sign, letter in _LETTERS.get(language, ()):
            text = regex.sub(rf"(?<=\p{{L}}\p{{M}}*){sign}(?=\p{{L}})", letter, text)
        return basic(text).strip()

    return normalise
