"""The command ``s2txai show``."""

from pathlib import Path

import numpy as np
import pytest

from s2txai.cli import main
from tests.synthetic_results import write_run

PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("results")
    write_run(root, ids=("first",))
    return root


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("decode", "' himself'"),
        ("attention", "4 x 6 x 12 x 166  layer, head, token, step"),
        ("smx", "reliability 0.99"),
        ("smh", "masks       400"),
        ("aggregate", "smx_avg2d_halves"),
    ],
)
def test_show_prints_and_draws(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], step: str, said: str
) -> None:
    figure = tmp_path / "figure.png"
    assert main(["show", str(_file(results, step)), "--output", str(figure)]) == 0
    printed = capsys.readouterr().out
    assert f"step        {step}" in printed
    assert said in printed
    assert figure.read_bytes().startswith(PNG)


def test_figure_lies_beside_the_file_by_default(results: Path) -> None:
    main(["show", str(_file(results, "smh"))])
    assert _file(results, "smh").with_suffix(".png").read_bytes().startswith(PNG)


def test_deletion_is_a_table_whose_control_characters_are_spelled_out(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(_file(results, "deletion"))]) == 0
    printed = capsys.readouterr().out
    assert "smx_full" in printed
    assert "\\x1b[31mred" in printed
    assert "\x1b" not in printed
    assert not _file(results, "deletion").with_suffix(".png").exists()


def test_foreign_files_are_refused_in_one_sentence(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = _file(results, "smh").read_bytes()
    files = {"text.npz": b"hello", "cut.npz": whole[: len(whole) // 2], "missing.npz": None}
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name, content in files.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
    for name in (*files, "other.npz"):
        assert main(["show", str(tmp_path / name)]) == 1
        captured = capsys.readouterr()
        assert name in captured.err
        assert captured.err.count("\n") == 1
        assert "delete" not in captured.err
        assert not captured.out


@pytest.mark.parametrize(("name", "said"), [("no/x.png", "cannot be written"), ("x.pdf", ".png")])
def test_impossible_output_is_refused(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    output = str(tmp_path / name)
    assert main(["show", str(_file(results, "decode")), "--output", output]) == 1
    assert said in capsys.readouterr().err


def _file(results: Path, step: str) -> Path:
    return results / step / "0000" / "first.npz"


def test_an_estimate_is_made_where_the_project_lies(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["estimate"]) == 1
    assert "holds no Snakefile; start" in capsys.readouterr().err
