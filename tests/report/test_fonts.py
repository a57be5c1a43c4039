"""Labels in scripts that the report's own font does not draw."""

import logging
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager

from s2txai.report import figures, fonts
from s2txai.report.fonts import OWN, families


@pytest.fixture(autouse=True)
def _warned_of_nothing():
    fonts._warn.cache_clear()
    yield
    fonts._warn.cache_clear()


@pytest.fixture
def installed(monkeypatch):
    """Install fonts by name and characters."""

    def install(**covered):
        table = {OWN: "abcé \N{GREEK SMALL LETTER ALPHA}", **covered}
        monkeypatch.setattr(font_manager, "findfont", lambda name: name)
        monkeypatch.setattr(fonts, "_installed", lambda: {name: name for name in sorted(table)})
        monkeypatch.setattr(fonts, "_characters", lambda file: frozenset(table[file]))

    return install


def test_its_own_font_is_enough(installed):
    installed(Other="abc")
    assert families(["abc", "é α"]) == [OWN]


def test_the_fonts_that_draw_most_come_first(installed, caplog):
    installed(B="明", A="明日", C="ก", D="ก")
    assert families(["a明日", "ก"]) == [OWN, "A", "C"]
    assert not caplog.records


def test_a_script_without_a_font_is_named_once(installed, caplog):
    installed(A="明")
    with caplog.at_level(logging.WARNING, logger="s2txai"):
        assert families(["明कख", "ก"]) == [OWN, "A"]
        assert families(["ग"]) == [OWN]
    scripts = [record.args[0] for record in caplog.records]
    assert scripts == ["Devanagari", "Thai"]
    assert "fonts-noto-core" in caplog.text


@pytest.mark.parametrize("labels", [["明日は", "+館"], ["مرحبا", "עולם"], ["𐎀", "ဪ"]])
def test_a_figure_is_drawn_whatever_is_installed(labels, tmp_path):
    with warnings.catch_warnings(), matplotlib.rc_context(figures.STYLE):
        warnings.simplefilter("error")
        figure = figures.new_figure(2)
        figures.draw_rows(figure.subplots(), np.eye(2, 5), labels, step=1)
        assert figures.save_figure(figure, tmp_path / "labels").startswith(b"\x89PNG")
    assert (tmp_path / "labels.pdf").read_bytes().startswith(b"%PDF")
