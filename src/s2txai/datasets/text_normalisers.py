"""Text normalisations, which make references and hypotheses comparable.

Named in configurations, so nothing here is imported that planning does not need.
"""

from collections.abc import Callable

from s2txai.registry import Registry

TextNormaliser = Callable[[str], str]

# From a language to the function that makes its texts comparable.
TEXT_NORMALISERS: Registry[Callable[[str], TextNormaliser]] = Registry("text normalisation")


@TEXT_NORMALISERS.register("none")
def untouched(language: str) -> TextNormaliser:
    """Compare cased, punctuated words split on spaces, as the paper does."""
    return str.strip


@TEXT_NORMALISERS.register("whisper")
def whisper_normaliser(language: str) -> TextNormaliser:
    """Return Whisper's normaliser (Radford et al. 2022, appendix C)."""
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    normaliser: TextNormaliser = (
        EnglishTextNormalizer() if language == "en" else BasicTextNormalizer()
    )
    return lambda text: normaliser(text).strip()
