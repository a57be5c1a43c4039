"""Fonts of figures: installed ones for the scripts that the report's own font does not draw."""

import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache

from matplotlib import font_manager

from s2txai.log import logger

OWN = "DejaVu Sans"  # comes with Matplotlib

# Draws a box for every character there is, so it covers none.
_BOXES = "Last Resort"

# Debian's packages by the first word of a character's name in Unicode.
_PACKAGES = {
    **dict.fromkeys(("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"), "fonts-noto-cjk"),
    "EMOJI": "fonts-noto-color-emoji",
}
_OTHER_PACKAGE = "fonts-noto-core"


def families(texts: Iterable[str]) -> list[str]:
    """Return the families of fonts that draw texts, the report's own first.

    A script that no installed font draws is named in a warning, once for each process.
    """
    missing = {character for text in texts for character in text if not character.isspace()}
    missing -= _characters(font_manager.findfont(OWN))
    names = [OWN]
    while missing:
        # Of equals the first by name, so that the same machine draws the same figure.
        files = _installed()
        drawn = {name: missing & _characters(file) for name, file in files.items()}
        best = max(drawn, key=lambda name: len(drawn[name]))
        if not drawn[best]:
            break
        names.append(best)
        missing -= drawn[best]
    for character in sorted(missing):
        _warn(unicodedata.name(character, "UNNAMED").split()[0])
    return names


@contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Leave out what Matplotlib says of each character without a glyph: :func:`families` did."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


@cache
def _installed() -> dict[str, str]:
    """Return the files of upright families by name, those included that Matplotlib has not met."""
    listed = {font.fname for font in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - listed):
        with suppress(Exception):  # a font that Matplotlib cannot read raises many kinds
            font_manager.fontManager.addfont(path)
    upright = {
        font.name: font.fname
        for font in font_manager.fontManager.ttflist
        if font.style == "normal" and font.weight in (400, "normal", "regular")
    }
    return {name: upright[name] for name in sorted(upright) if not name.startswith(_BOXES)}


@cache
def _characters(file: str) -> frozenset[str]:
    """Return the characters that a font draws at any size; none where it cannot be read."""
    try:
        font = font_manager.get_font(file)
    except (RuntimeError, OSError):
        return frozenset()
    # Coloured emoji are pictures of one size, which Matplotlib refuses.
    return frozenset(map(chr, font.get_charmap()) if font.scalable else ())


@cache
def _warn(script: str) -> None:
    logger.warning(
        "No installed font draws the script %s, so figures show boxes in its place: install one, "
        "for example Debian's %s, and draw them again.",
        script if script == "CJK" else script.capitalize(),
        _PACKAGES.get(script, _OTHER_PACKAGE),
    )
