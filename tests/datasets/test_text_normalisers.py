"""What is done to texts before they are compared."""

import pytest

from s2txai.datasets.text_normalisers import TEXT_NORMALISERS
from s2txai.errors import UserError


@pytest.mark.parametrize(
    ("language", "text", "normalised"),
    [
        (
            "en",
            " Mr. Dashwood didn't pay $20, [laughs] colour! ",
            "mister dashwood did not pay $20 color",
        ),
        ("it", " È un'ottima idea! ", "è un ottima idea"),
        ("es", "¿Qué (ruido) tal?", "qué tal"),
        ("en", "?!", ""),
    ],
)
def test_whisper_normalisation(language, text, normalised):
    assert TEXT_NORMALISERS["whisper"](language)(text) == normalised


def test_no_normalisation_keeps_case_and_punctuation():
    assert TEXT_NORMALISERS["none"]("en")(" Yes, Sir! ") == "Yes, Sir!"


def test_an_unknown_name_is_refused():
    with pytest.raises(
        UserError, match="Unknown text normalisation 'wisper'; did you mean 'whisper'"
    ):
        TEXT_NORMALISERS["wisper"]
