"""The page and its figures, on a finished run made without a model."""

import base64
import io
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from matplotlib.figure import Figure

from s2txai.errors import UserError
from s2txai.report.comparison import comparison
from s2txai.report.designs import by_design, sensitivity_table
from s2txai.report.figures import curve_style, draw_input, head_correlations, render_png
from s2txai.report.layers import by_layer, layers_table
from s2txai.report.names import row_labels
from s2txai.report.page import ReportContext, write_report
from s2txai.report.page import _explorer as list_of_explorer
from s2txai.report.profiles import profiles
from s2txai.report.runs import RunFiles, RunResults, read_run
from s2txai.report.sweep import sentences, sweep
from s2txai.report.tables import (
    PaperFigures,
    correlation_table,
    deletion_table,
    mixing_table,
    number_text,
    sizes_table,
    timestamps_table,
)
from tests.synthetic_results import (
    HOSTILE,
    IDS,
    KEY,
    MAPS,
    POOLINGS,
    paths_in,
    write_failures,
    write_run,
    write_timestamps,
)

PAPER = Path(__file__).parents[2] / "config" / "paper_reference.csv"
CONTEXT = ReportContext(
    config={"seed": 1},
    versions={"torch": "2.11.0"},
    git_commit="0123abc",
    models={
        "whisper-tiny.en": {
            "family": "whisper",
            "description": "Tiny.",
            "licence": "MIT",
            "source": {"hub": {"repo": "openai/whisper-tiny.en", "revision": "f" * 40}},
        }
    },
    datasets={
        "librivox": {"manifest": "librivox.tsv", "description": "Read.", "licence": "none <&>"}
    },
    paper_reference=PAPER,
)


class Page(HTMLParser):
    """The tags, their attributes and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        # The program is no text of the page.
        if not self.tags or self.tags[-1][0] != "script":
            self.text += data

    def having(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def write(folder: Path, *runs: RunFiles, context: ReportContext = CONTEXT) -> None:
    write_report(runs, paths_in(folder), context)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> RunFiles:
    root = tmp_path_factory.mktemp("results") / "librivox" / "whisper-tiny.en" / "asr-en"
    audio = write_run(root)
    return RunFiles("librivox", "whisper-tiny.en", "asr-en", root, {"0000": list(IDS)}, audio)


@pytest.fixture(scope="module")
def report(files: RunFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write(folder, files)
    return folder


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page((report / "index.html").read_text(encoding="utf-8"))


def test_hostile_transcript_is_text(page: Page) -> None:
    assert HOSTILE in page.text
    assert "He might </td><img src=x onerror=alert(1)>" in page.text
    assert "none <&>" in page.text
    # The program of the page itself.
    assert page.having("script") == [{}]
    assert all("onerror" not in attributes for _, attributes in page.tags)


def test_page_tells_what_failed(tmp_path: Path) -> None:
    root = tmp_path / "librivox" / "whisper-tiny.en" / "asr-en"
    audio = write_run(root)
    write_failures(root, ("bad-1", "decode", "<b>silence</b>"), ("bad-2", "smx", "no number"))
    files = RunFiles("librivox", "whisper-tiny.en", "asr-en", root, {"0000": list(IDS)}, audio)
    write(tmp_path, files)
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert f"Incomplete: 2 of {len(IDS) + 2} utterances failed." in page.text
    assert f"{len(IDS)} (2 failed)" in page.text
    for told in ("bad-1", "<b>silence</b>", "bad-2.wav", "no number"):
        assert told in page.text
    assert "2 failed and are left out from that step on" in page.text
    (row,) = pd.read_csv(tmp_path / "sweep.csv").to_dict("records")
    assert (row["n_utterances"], row["n_failed_utterances"]) == (len(IDS), 2)


def test_page_of_a_whole_run_tells_of_no_failure(page: Page) -> None:
    assert "failed" not in page.text


def test_page_needs_nothing_else(page: Page) -> None:
    for tag, attributes in page.tags:
        for name in ("src", "href"):
            value = attributes.get(name) or "data:"
            assert value.startswith(("data:", "#")), f"<{tag} {name}={value[:40]}>"
    assert not page.having("link")
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link["href"][1:] for link in page.having("a")} <= targets


def test_every_picture_is_described_and_every_recording_embedded(page: Page) -> None:
    pictures = page.having("img")
    assert len(pictures) == 5 + len(IDS)
    assert all(len(picture["alt"] or "") > 40 for picture in pictures)
    assert len({picture["alt"] for picture in pictures}) == len(pictures)
    recordings = [audio["src"] or "" for audio in page.having("audio")]
    # fLaC, as base64
    assert all(source.startswith("data:audio/flac;base64,ZkxhQ") for source in recordings)
    assert len(recordings) == len(IDS)


def test_recordings_of_segments_are_cut(files: RunFiles, tmp_path: Path) -> None:
    audio = {
        name: replace(utterance, offset=1.0, duration=0.5)
        for name, utterance in files.audio.items()
    }
    write(tmp_path, replace(files, audio=audio))
    page = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    for name, recording in zip(IDS, page.having("audio"), strict=True):
        flac = base64.b64decode((recording["src"] or "").partition(",")[2])
        whole, rate = soundfile.read(files.audio[name].path)
        np.testing.assert_allclose(
            soundfile.read(io.BytesIO(flac))[0], whole[rate : rate + rate // 2], atol=2**-14
        )


def test_missing_numbers_give_a_reason(page: Page) -> None:
    assert not re.search(r"\bnan\b", page.text, flags=re.IGNORECASE)
    assert "noise does not average out under a maximum" in page.text


def test_summary_warns_of_few_utterances_and_low_reliability(page: Page) -> None:
    assert "Illustrative only: 2 utterances, fewer than 20" in page.text
    assert "stays undecided: fewer than 5 utterances." in page.text
    assert "stays undecided: a reliability under 0.5." in page.text
    assert "attention accounts for" not in page.text
    assert "Low reliability, under 0.5: SMX avg2d" in page.text
    assert "SMH (" not in page.text.split("Low reliability")[1].split("More than half")[0]


def test_masks_and_what_they_reached_are_told(files: RunFiles) -> None:
    table = sizes_table(read_run(files))
    row = [cell.text for cell in table.groups[0][0]]
    assert row[-4:] == ["160", "0.80", "400", "0.80"]
    assert list(table.notes.values()) == ["the target of 0.9 was not reached: raise max_masks"]


@pytest.mark.parametrize(
    ("n_both_ways", "unbiased", "note"),
    [
        (424, True, "2 % also by the exact one to correct the mean"),
        (
            32, False, "2 % also by the exact one to correct the mean, too few for a correction of "
            "each segment",
        ),
        (24, False, "too few for any check by the exact one, so the mean is not corrected"),
    ],
)  # fmt: skip
def test_masks_that_were_scored_cheaply_have_a_note(
    files: RunFiles, n_both_ways: int, unbiased: bool, note: str
) -> None:
    run = read_run(files)
    for utterance in run.utterances:
        utterance.masks["smx"] = {
            **utterance.masks["smx"], "encoder": "cheap", "check_share": 0.02,
            "n_scored_both_ways": n_both_ways, "unbiased": unbiased,
        }  # fmt: skip
    assert f"scored by a cheaper encoder, {note}" in sizes_table(run).notes.values()


def test_designs_of_the_perturbation(files: RunFiles, page: Page, tmp_path: Path) -> None:
    assert "Design of the perturbation" not in page.text
    root = tmp_path / "run"
    shutil.copytree(files.tables, root)
    rows = [
        ("main", 0.5, 0.40, 0.80, 0.447, 1.0, 1.0),
        ("p-0.1", 0.1, 0.20, 0.25, 0.400, 0.3, 0.671),
        ("p-0.9", 0.9, 0.01, 0.0, np.nan, 0.0, np.nan),
    ]
    columns = (
        "design", "p", "rho", "reliability", "rho_corrected", "rho_with_main",
        "rho_with_main_corrected",
    )  # fmt: skip
    table = pd.DataFrame(rows, columns=columns).assign(
        dataset="librivox", model="whisper-tiny.en", task="asr-en", attention="ca_mean",
        n_segments="50 100", occluded_value="bin mean", n_masks=160, signature="metric:pearson",
    )  # fmt: skip
    (root / "sensitivity").mkdir()
    table.to_csv(root / "sensitivity" / "sensitivity.csv", index=False)
    write(tmp_path, replace(files, tables=root, has_designs=True))
    shown = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert "Design of the perturbation" in shown.text
    assert "0.671" in shown.text
    assert (tmp_path / "figures" / "sensitivity.png").stat().st_size > 10_000
    found = sensitivity_table(by_design([read_run(replace(files, tables=root, has_designs=True))]),
                              [files.key])  # fmt: skip
    assert [row[0].text for row in found.groups[0]] == ["main", "p-0.1", "p-0.9"]
    assert found.groups[0][2][7].text == "–"
    assert set(found.notes.values()) == {
        "reliability under 0.5: more noise than signal",
        "the half-maps do not agree at all, so the ceiling is 0",
    }


def test_word_timestamps(files: RunFiles, page: Page, tmp_path: Path) -> None:
    assert "Word timestamps" not in page.text
    root = tmp_path / "run"
    shutil.copytree(files.tables, root)
    write_timestamps(root)
    timed = replace(files, tables=root, has_timestamps=True)
    write(tmp_path, timed)
    shown = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert "Word timestamps" in shown.text
    alt = next(
        one["alt"] for tag, one in shown.tags if tag == "img" and "word starts" in one["alt"]
    )
    assert "by hand: least 5 ms at layer 0, head 0" in alt
    assert "machine (forced alignment): least" not in alt  # no word, no head
    assert (tmp_path / "figures" / timed.key / "timestamps.pdf").is_file()
    found = timestamps_table(read_run(timed))
    assert found is not None
    assert [title.split()[2] for title in found.titles] == ["hand", "a"]
    by_hand, by_machine = ([[cell.text for cell in row] for row in group] for group in found.groups)
    assert by_hand[0] == [
        "CA, mean of all heads",
        *("5", "−5", "10", "30", "50", "70"),
        *("10", "+5", "15", "35", "55", "75"),
        *("12 of 14", "3"),
    ]
    assert by_hand[4][:3] == ["CA, layer 3 (last)", "185", "−185"]
    # Single heads are many; the best is chosen on other utterances, here on none.
    assert len(by_hand) == 1 + 4 + 1 + 1
    assert by_hand[6][1:] == ["–"] * 14
    assert by_machine[5] == ["SMH", *["–"] * 12, "0 of 14", "3"]
    assert by_machine[6][1] == "5"
    assert len(found.notes) == 2
    assert sum(n for _, n in found.over) == len(found.header) == 15


def test_what_was_run_is_stated(page: Page) -> None:
    for fact in ("0123abc", "2.11.0", "openai/whisper-tiny.en", "ab" * 32, "n_segments = 100, 200"):
        assert fact in page.text


def test_empty_looking_hypothesis_survives(files: RunFiles) -> None:
    assert read_run(files).tables["transcripts"]["hypothesis"][0] == "NA"


def test_figures_are_png_and_pdf_without_dates(files: RunFiles, report: Path) -> None:
    figures = [path for path in (report / "figures").rglob("*") if path.is_file()]
    stems = ["comparison", "layers"] + [f"librivox/whisper-tiny.en/asr-en/{name}" for name in (
        "deletion", "heads", "padding", "utterance_first", "utterance_second"
    )]  # fmt: skip
    assert {str(path.relative_to(report / "figures")) for path in figures} == {
        f"{stem}.{kind}" for stem in stems for kind in ("pdf", "png")
    }
    for path in figures:
        assert not re.search(rb"CreationDate|Matplotlib", path.read_bytes()), path.name


def test_same_results_give_the_same_bytes(
    files: RunFiles, report: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    write(tmp_path, files)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 3 + 14 + len(IDS)
    for path in written:
        other = report / path.relative_to(tmp_path)
        # The page names the files of its tables.
        expected = other.read_bytes().replace(bytes(report), bytes(tmp_path))
        assert path.read_bytes() == expected, path.name


def test_correlation_table_holds_the_headline(files: RunFiles) -> None:
    run = read_run(files)
    table = correlation_table(run, PaperFigures(PAPER))
    summary = run.headline().set_index(["saliency", "attention"])
    group = table.groups[0]
    expected = summary.loc[("smx_avg2d", "ca_mean")]
    texts = [cell.text for cell in group[0]]
    assert table.titles[0] == "SMX avg2d"
    assert texts[0] == "mean of all heads"
    assert texts[1] == number_text(expected["rho"])
    assert texts[2] == f"{expected['rho_low']:.2f} to {expected['rho_high']:.2f}"
    assert texts[5] == number_text(expected["rho"] / np.sqrt(expected["reliability"]))
    assert texts[8] == str(expected["n_rows"])
    assert texts[-1] == "0.45–0.55"
    assert group[-1][0].text == "layer 3 (last)"
    assert group[-1][0].marked
    assert not group[-2][0].marked


def test_maximum_pooling_has_no_corrected_value(files: RunFiles) -> None:
    table = correlation_table(read_run(files), PaperFigures(PAPER))
    row = table.groups[1][0]
    assert table.titles[1] == "SMX max2d"
    assert row[3].text.startswith("≈")
    assert row[5].text == row[6].text == "–"
    assert "maximum" in table.notes[row[5].note]
    assert row[-1].text == "0.45–0.55, best 0.582"


def test_paper_stands_beside_mixing_and_deletion(files: RunFiles) -> None:
    run, paper = read_run(files), PaperFigures(PAPER)
    mixing = mixing_table(run, paper).groups[0][0]
    assert [cell.text for cell in mixing[-2:]] == ["0.03–0.18", "6.6–16.7"]
    beside = {row[0].text: row[-1].text for row in deletion_table(run, paper).groups[0]}
    assert beside == {
        "CA, mean of all heads": "41.2",
        "CA, last layer": "",
        "SMX avg2d": "52.9",
        "SMX max2d": "57.04",
        "SMX, full resolution": "91.3",
        "random order": "",
    }


def test_paper_reference_labels_its_versions() -> None:
    table = pd.read_csv(PAPER)
    assert list(table) == [
        "quantity", "value_low", "value_high", "pooling", "model", "task", "table", "version",
        "note",
    ]  # fmt: skip
    assert set(table["version"]) == {"arXiv v1", "Interspeech 2026"}
    assert (table["value_low"] <= table["value_high"]).all()


def test_undefined_correlation_is_a_dash_with_its_reason(files: RunFiles, tmp_path: Path) -> None:
    run = read_run(files)
    summary = run.tables["summary"].copy()
    summary.loc[summary["saliency"] == "smh", ["rho", "rho_corrected", "r2_corrected"]] = np.nan
    run.tables["summary"] = summary  # type: ignore[index]
    table = correlation_table(run, PaperFigures(PAPER))
    cell = table.groups[-1][0][1]
    assert cell.text == "–"
    assert "no row varies in both maps" in table.notes[cell.note]


def test_translation_is_scored_by_bleu(two: Path) -> None:
    text = Page((two / "index.html").read_text(encoding="utf-8")).text
    assert "BLEU (0–100)" in text
    assert "The sooner a curve falls" in text
    assert "1 utterance, fewer than 20" in text


@pytest.fixture(scope="module")
def two(files: RunFiles, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the report of a noisy translation, and of recognition."""
    folder = tmp_path_factory.mktemp("two")
    key = ("prompts", "whisper-tiny.en", "st-it-en")
    root = folder.joinpath("results", *key)
    audio = write_run(root, ids=IDS[:1], scores=("bleu",), key=key, noise=3.0)
    translation = RunFiles(*key, root, {"0000": IDS[:1]}, audio)
    both = {"prompts": CONTEXT.datasets["librivox"], **CONTEXT.datasets}
    write(folder, translation, files, context=replace(CONTEXT, datasets=both))
    return folder


def test_sweep_has_a_row_a_run_in_their_order(two: Path) -> None:
    table = pd.read_csv(two / "sweep.csv")
    assert list(table["task"]) == ["st-it-en", "asr-en"]
    assert list(table["metric"]) == ["bleu", "wer"]
    assert list(table["deletion_metric"]) == ["bleu", "wer_max"]
    assert list(table["n_utterances"]) == [1, 2]
    ceiling = np.sqrt(table["reliability_smh"])
    np.testing.assert_allclose(table["rho_corrected_smh"], table["rho_smh"] / ceiling)
    np.testing.assert_allclose(table["delta_avg2d"], table["rho_smh"] - table["rho_smx_avg2d"])
    assert table["rho_corrected_smx_max2d"].isna().all()
    assert table["reliability_smx_avg2d"][0] < 0.1 < table["reliability_smx_avg2d"][1]
    # As the synthetic areas are set, 7 from map to map.
    assert list(table["auc_random"] - table["auc_ca_mean"]) == [35, 35]
    assert (table.filter(like="signature_").map(len) > 5).all(axis=None)


def test_log_says_how_reliable_the_numbers_are(two: Path) -> None:
    table = pd.read_csv(two / "sweep.csv")
    noisy, good = sentences(table, "smx_avg2d")
    assert noisy.startswith("prompts/whisper-tiny.en/st-it-en: BLEU 112.5; rho with SMX avg2d ")
    assert f"(reliability {table['reliability_smx_avg2d'][0]:.2f}, low: add masks)" in noisy
    assert f"SMH {table['rho_smh'][1]:.2f}, corrected {table['rho_corrected_smh'][1]:.2f}" in good
    assert f"(reliability {table['reliability_smh'][1]:.2f})" in good


@pytest.mark.parametrize("table", ["sweep", "layers"])
def test_columns_of_all_runs_are_documented(two: Path, table: str) -> None:
    text = (PAPER.parents[1] / "docs" / "results.md").read_text(encoding="utf-8")
    section = text.split(f"### `report/{table}.csv`")[1].split("\n### ")[0]
    lines = re.findall(r"^\| (`.*?) \|", section, re.M)
    documented = {
        name.replace("<pooling>", pooling).replace("<map>", deleted)
        for line in lines
        for name in re.findall("`(.*?)`", line)
        for pooling in POOLINGS
        for deleted in MAPS
    }
    assert documented == set(pd.read_csv(two / f"{table}.csv"))


def test_layers_have_a_row_each_and_one_for_all_heads(two: Path) -> None:
    table = pd.read_csv(two / "layers.csv")
    assert list(table["task"]) == ["st-it-en"] * 5 + ["asr-en"] * 5
    assert list(table["attention"]) == ["ca_mean", *["ca_layer"] * 4] * 2
    assert list(table["layer"].dropna()) == [0, 1, 2, 3] * 2
    all_heads = table[table["attention"] == "ca_mean"].reset_index(drop=True)
    sweep = pd.read_csv(two / "sweep.csv")
    # The area of one map depends on less than those of all.
    shared = [name for name in sweep if name in table and name != "signature_deletion"]
    assert set(shared) > {"rho_corrected_smh", "delta_avg2d", "deletion_metric", "signature_smx"}
    pd.testing.assert_frame_equal(all_heads[shared], sweep[shared])


def test_rows_of_layers_are_those_of_the_run(files: RunFiles, report: Path) -> None:
    rows = pd.read_csv(report / "layers.csv").set_index("layer")
    chosen = (
        "attention == 'ca_layer' and layer == 2 and metric == 'pearson' and normalise == 'token'"
    )
    summary = pd.read_csv(files.tables / "correlate/summary.csv").query(chosen)
    for saliency, found in summary.set_index("saliency").iterrows():
        for name in ("rho", "reliability", "ceiling", "rho_corrected"):
            np.testing.assert_equal(rows.loc[2, f"{name}_{saliency}"], found[name])
    mixing = pd.read_csv(files.tables / "correlate/mixing.csv").query(chosen)
    for pooling, found in mixing.set_index("pooling").iterrows():
        for name in ("delta", "delta_corrected"):
            np.testing.assert_equal(rows.loc[2, f"{name}_{pooling}"], found[name])
    assert len(summary) == 1 + len(mixing) == 1 + len(POOLINGS)


def test_area_is_given_for_the_attention_that_was_deleted_by(two: Path) -> None:
    table = pd.read_csv(two / "layers.csv").groupby("task")
    # As the synthetic areas are set: the second map is the last layer.
    for task, noise in (("asr-en", 1.0), ("st-it-en", 3.0)):
        rows = table.get_group(task)
        first = 38.0 + 2 * noise
        np.testing.assert_equal(list(rows["auc"]), [first, *[np.nan] * 3, first + 7])
        assert list(rows["signature_deletion"].isna()) == [False, True, True, True, False]


@pytest.fixture(scope="module")
def further(tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    """Return a run whose cells were deleted in the order of the layers 0 and 2, too."""
    root = tmp_path_factory.mktemp("further").joinpath(*KEY)
    write_run(root, ids=IDS[:1], maps=("ca_mean", "ca_last", "ca_layer_0", "ca_layer_2", *MAPS[2:]))
    return read_run(RunFiles(*KEY, root, {"0000": IDS[:1]}, {}))


def test_areas_of_the_listed_layers_are_among_the_layers_alone(further: RunResults) -> None:
    # 7 from map to map; the last layer is the second map.
    np.testing.assert_equal(list(by_layer([further])["auc"]), [40.0, 54.0, np.nan, 61.0, 47.0])
    assert not [name for name in sweep([further]) if "layer" in name]


def test_listed_layers_have_names_and_lines_of_their_own(further: RunResults) -> None:
    names = [row[0].text for row in deletion_table(further, PaperFigures(PAPER)).groups[0]]
    assert names[2:4] == ["CA, layer 0", "CA, layer 2"]
    assert curve_style("ca_layer_0") != curve_style("ca_layer_2")


@pytest.fixture(scope="module")
def depths(files: RunFiles, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Return the layers of a model with 4, and of one with 12."""
    key = ("librivox", "deep", "asr-en")
    root = tmp_path_factory.mktemp("depths").joinpath(*key)
    write_run(root, ids=IDS[:1], key=key, noise=0.3, n_layers=12)
    deep = RunFiles(*key, root, {"0000": IDS[:1]}, {})
    return by_layer([read_run(files), read_run(deep)])


def test_layers_table_holds_models_of_different_depth(depths: pd.DataFrame) -> None:
    table = layers_table(depths, ["short", "deep"], "smx_avg2d", PaperFigures(PAPER), "layers.csv")
    assert table.header == ["run", "all heads", *map(str, range(12))]
    assert table.titles == [
        "ρ corrected with SMX avg2d",
        "ρ corrected with SMH",
        "Δ corrected, SMH minus SMX avg2d",
        "area under the deletion curve, clipped WER (%): a higher area means a more faithful map",
    ]
    assert [[row[0].link for row in group] for group in table.groups] == [["short", "deep", ""]] * 4
    assert [group[-1][1].text for group in table.groups] == [
        "0.45–0.55", "52–75\u202f%", "0.03–0.18", "41.2",
    ]  # fmt: skip
    short, deep, _ = table.groups[0]
    expected = depths["rho_corrected_smx_avg2d"].map(number_text)
    assert [cell.text for cell in short[1:]] == [*expected[:5], *["–"] * 8]
    assert [cell.text for cell in deep[1:]] == list(expected[5:])
    assert {table.notes[cell.note] for cell in short[6:]} == {"the model has fewer decoder layers"}
    assert [row.index(next(cell for cell in row if cell.marked)) for row in (short, deep)] == [
        5,
        13,
    ]
    # Only the noisy maps are warned of.
    assert "more noise than signal" in table.notes[short[0].note]
    assert not deep[0].note
    areas = table.groups[3][0]
    assert [cell.text for cell in areas[1:6]] == ["40.0", "–", "–", "–", "47.0"]
    assert "last layer" in table.notes[areas[2].note]


def test_layers_table_of_a_maximum_shows_raw_values(depths: pd.DataFrame) -> None:
    table = layers_table(depths, ["short", "deep"], "smx_max2d", PaperFigures(PAPER), "layers.csv")
    assert table.titles[0] == "ρ with SMX max2d"
    assert table.titles[2] == "Δ, SMH minus SMX max2d"
    assert table.groups[0][1][13].text == number_text(depths["rho_smx_max2d"].iloc[-1])
    assert table.groups[2][1][13].text == number_text(depths["delta_max2d"].iloc[-1], "+.3f")


def test_layers_table_has_the_papers_area_for_word_errors_only(two: Path) -> None:
    table = pd.read_csv(two / "layers.csv")
    shown = layers_table(table, ["a", "b"], "smx_avg2d", PaperFigures(PAPER), "layers.csv")
    assert "BLEU (0–100): a lower area" in shown.titles[3]
    assert [row[0].link for row in shown.groups[3]] == ["a"]
    assert [row[0].link for row in shown.groups[4]] == ["b", ""]


def test_profiles_of_different_depth_begin_and_end_together(depths: pd.DataFrame) -> None:
    figure = profiles(depths, "smx_avg2d", PaperFigures(PAPER))
    columns = [
        *("rho_smx_avg2d", "rho_smh", "delta_avg2d"),
        *("rho_corrected_smx_avg2d", "rho_corrected_smh", "delta_corrected_avg2d"),
    ]
    panels = [*figure.axes[:3], *figure.axes[4:7]]
    for panel, column in zip(panels, columns, strict=True):
        drawn = [line for line in panel.lines if line.get_marker() != "None"]
        short, mean_of_short, deep, _ = drawn
        np.testing.assert_allclose(short.get_xdata(), [0, 1 / 3, 2 / 3, 1])
        np.testing.assert_array_equal(short.get_ydata(), depths[column][1:5])
        np.testing.assert_array_equal(mean_of_short.get_ydata(), depths[column][:1])
        assert len(deep.get_ydata()) == 12
        assert [deep.get_xdata()[end] for end in (0, -1)] == [0, 1]
        assert short.get_color() != deep.get_color()
    # Only the ends of areas are known: of the last layer, and of all heads.
    drawn = [line for line in figure.axes[3].lines if line.get_marker() != "None"]
    np.testing.assert_array_equal(drawn[0].get_xdata(), [1])
    np.testing.assert_array_equal(drawn[0].get_ydata(), depths["auc"][4:5])
    labels = [label.get_text().strip() for label in figure.axes[-1].get_xticklabels()]
    assert labels == ["first", "middle", "last", "all\nheads"]


def test_profiles_of_one_depth_number_its_layers(depths: pd.DataFrame) -> None:
    def labels(n_layers: int) -> list[str]:
        one = depths[depths["model"] == "deep"].iloc[: 1 + n_layers]
        figure = profiles(one, "smx_avg2d", PaperFigures(PAPER))
        render_png(figure)
        return [label.get_text().strip() for label in figure.axes[-1].get_xticklabels()][:-1]

    assert sorted(labels(12), key=int) == [str(layer) for layer in range(12)]
    assert labels(1) == ["0"]


def test_runs_of_the_profiles_can_be_told_apart(depths: pd.DataFrame) -> None:
    one = depths[depths["model"] == "deep"]
    runs = [
        one.assign(model=f"model {model}", task=task)
        for model in range(9)
        for task in ("asr-en", "asr-it", "st-it-en")
    ]
    figure = profiles(pd.concat(runs), "smx_avg2d", PaperFigures(PAPER))
    styles = {
        (line.get_color(), line.get_markerfacecolor(), line.get_marker())
        for line in figure.axes[0].lines
        if len(line.get_xdata()) == 12
    }
    assert len(styles) == 27


def test_profiles_survive_undefined_values(depths: pd.DataFrame) -> None:
    table = depths.copy()
    table[[name for name in table if name.startswith(("rho", "delta", "auc"))]] = np.nan
    figure = profiles(table, "smx_avg2d", PaperFigures(PAPER))
    render_png(figure)
    told = [panel.texts[0].get_text() for panel in figure.axes]
    assert told == ["not defined"] * 7 + ["no such run"]


def test_page_of_several_runs_begins_with_their_comparison(two: Path) -> None:
    page = Page((two / "index.html").read_text(encoding="utf-8"))
    first = page.having("img")[0]["alt"] or ""
    assert first.startswith("Correlation, context mixing and areas of deletion of 2 runs")
    assert "2 of 2 runs have fewer than 20 utterances" in page.text
    assert "clipped WER (%): a higher area means a more faithful map" in page.text
    assert "BLEU (0–100): a lower area means a more faithful map" in page.text
    assert (page.having("img")[1]["alt"] or "").startswith(
        "Correlation with SMX avg2d and with SMH"
    )
    assert (two / "layers.csv").as_posix() in page.text
    links = [link["href"] for link in page.having("a")]
    assert "#prompts/whisper-tiny.en/st-it-en" in links
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))


def test_paper_has_no_areas_for_bleu(two: Path) -> None:
    key = ("prompts", "whisper-tiny.en", "st-it-en")
    root = two.joinpath("results", *key)
    run = read_run(RunFiles(*key, root, {"0000": IDS[:1]}, {}))
    assert deletion_table(run, PaperFigures(PAPER)).header[-1] == "area of BLEU (0–100)"


def test_character_errors_stand_by_themselves(
    files: RunFiles, tmp_path: Path, depths: pd.DataFrame
) -> None:
    key = ("prompts", "whisper-tiny.en", "asr-ja")
    root = tmp_path.joinpath("results", *key)
    audio = write_run(root, ids=IDS[:1], scores=("cer", "cer_max"), key=key)
    characters = RunFiles(*key, root, {"0000": IDS[:1]}, audio)
    both = {"prompts": CONTEXT.datasets["librivox"], **CONTEXT.datasets}
    write(tmp_path, characters, files, context=replace(CONTEXT, datasets=both))
    table = pd.read_csv(tmp_path / "sweep.csv")
    assert list(table["deletion_metric"]) == ["cer_max", "wer_max"]
    text = Page((tmp_path / "index.html").read_text(encoding="utf-8")).text
    assert "clipped CER (%): a higher area means a more faithful map" in text
    # The paper's areas are of word errors.
    assert "paper" not in deletion_table(read_run(characters), PaperFigures(PAPER)).header[-1]
    assert "paper" in deletion_table(read_run(files), PaperFigures(PAPER)).header[-1]
    runs = [depths, depths.assign(task="asr-ja", deletion_metric="cer_max")]
    figure = profiles(pd.concat(runs), "smx_avg2d", PaperFigures(PAPER))
    titles = [panel.get_title(loc="left") for panel in figure.axes if panel.get_visible()]
    assert [title for title in titles if title.startswith("Deletion")] == [
        "Deletion, clipped WER", "Deletion, clipped CER", "Deletion, BLEU",
    ]  # fmt: skip


def test_only_many_utterances_have_a_filter(files: RunFiles) -> None:
    run = read_run(files)
    many = replace(run, utterances=[run.utterances[0]] * 11)
    assert not list_of_explorer(replace(run, utterances=many.utterances[:10]))["has_filter"]
    assert list_of_explorer(many)["has_filter"]


def test_no_two_runs_share_a_name(files: RunFiles) -> None:
    first = replace(files, dataset="a_b", model="c")
    assert first.key != replace(files, dataset="a", model="b_c").key


def test_comparison_survives_undefined_values(two: Path) -> None:
    table = pd.read_csv(two / "sweep.csv")
    table.loc[0, [name for name in table if name.startswith(("rho", "delta_", "ceiling"))]] = np.nan
    render_png(comparison(table, "smx_avg2d", PaperFigures(PAPER)))


def test_heads_figure_survives_undefined_values() -> None:
    heads = {"smh": np.full((2, 20), np.nan)}
    render_png(head_correlations(heads, {"smh": np.full(2, np.nan)}, {"smh": float("nan")}))


def test_missing_table_is_a_sentence(files: RunFiles, tmp_path: Path) -> None:
    lost = RunFiles("d", "m", "asr-en", tmp_path, files.shards, files.audio)
    with pytest.raises(UserError, match=r"transcripts\.csv does not exist"):
        read_run(lost)


def test_row_labels_mark_continued_words_and_escape_controls() -> None:
    assert row_labels(["", "図", "", "x"], ["text"] * 4, [0, 0, 1, 1]) == [
        "[part of 図]", "+図", "[part of x]", "+x",
    ]  # fmt: skip
    labels = row_labels(
        [" am", "iable", "\x1b[2J", " ", "<|endoftext|>"],
        ["text", "text", "text", "text", "eos"],
        [0, 0, 1, 2, -1],
    )
    assert labels == ["am", "+iable", "\\x1b[2J", "[blank]", "[end]"]


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [(-0.0004, ".3f", "0.000"), (-0.5, ".2f", "−0.50"), (12345.0, ",.0f", "12\u202f345")],
)
def test_number_text(value: float, form: str, text: str) -> None:
    assert number_text(value, form) == text


@pytest.mark.parametrize(("time_only", "title"), [(True, "Waveform"), (False, "Spectrogram")])
def test_the_input_is_called_what_it_is(time_only, title):
    axes = Figure().subplots()
    draw_input(axes, np.zeros((5, 3), np.float32), 0.004, time_only=time_only)
    assert axes.get_title().startswith(title)


@pytest.mark.parametrize("n_cut", [0, 1, 2])
def test_hypotheses_at_the_token_limit_are_counted_and_shown(tmp_path: Path, n_cut: int) -> None:
    root = tmp_path / "results" / "librivox" / "whisper-tiny.en" / "asr-en"
    audio = write_run(root)
    file = root / "decode" / "transcripts.csv"
    table = pd.read_csv(file, keep_default_na=False)
    table.insert(6, "at_limit", [number < n_cut for number in range(len(table))])
    table.to_csv(file, index=False)
    run = RunFiles("librivox", "whisper-tiny.en", "asr-en", root, {"0000": list(IDS)}, audio)
    write(tmp_path, run)
    text = Page((tmp_path / "index.html").read_text(encoding="utf-8")).text
    assert text.count("cut off") == n_cut
    assert (f"Cut off: {n_cut} of 2 hypotheses reach" in text) is (n_cut > 0)


@pytest.mark.parametrize("family", ["whisper", "canary", "moonshine"])
def test_experimental_families_are_said_to_be(files: RunFiles, tmp_path: Path, family: str) -> None:
    models = {name: {**entry, "family": family} for name, entry in CONTEXT.models.items()}
    write(tmp_path, files, context=replace(CONTEXT, models=models))
    text = Page((tmp_path / "index.html").read_text(encoding="utf-8")).text
    assert (f"{family} (experimental: tested with random" in text) is (family != "whisper")
