"""The explorer in headless Chromium, on a finished run made without a model."""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from s2txai.report import page as report
from s2txai.report.page import ReportContext, write_report
from s2txai.report.runs import RunFiles
from tests import synthetic_results
from tests.synthetic_results import (
    HOSTILE,
    IDS,
    KEY,
    H,
    L,
    add_gradient,
    paths_in,
    write_run,
    write_timestamps,
)  # fmt: skip

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="no Chromium; on Debian: apt-get install chromium chromium-driver",
    ),
]

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--force-prefers-reduced-motion",  # clicks wait for no scrolling
    "--window-size=1200,1600",
)  # fmt: skip
PAPER = Path(__file__).parents[2] / "config" / "paper_reference.csv"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of a report of one run, its second transcript hostile."""
    return write_page(tmp_path_factory.mktemp("report"))


def write_page(folder: Path) -> str:
    root = folder.joinpath("results", *KEY)
    audio = write_run(root)
    add_gradient(root)
    write_timestamps(root)
    weights = {"name": "a-package-of-weights", "version": "0.1.0", "sha256": "ab" * 32}
    model = dict.fromkeys(("family", "description", "licence"), "")
    context = ReportContext(
        config={},
        versions={},
        git_commit="",
        models={KEY[1]: model | {"source": {"python_packages": [weights]}}},
        datasets={KEY[0]: {"description": "", "licence": ""}},
        paper_reference=PAPER,
    )
    run = RunFiles(*KEY, root, {"0000": list(IDS)}, audio, has_timestamps=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "N_UNFILTERED", 1)  # figures of more than ten take too long
        write_report([run], paths_in(folder), context)
    return folder.joinpath("index.html").as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: webdriver.Chrome, page: str) -> Iterator[webdriver.Chrome]:
    """Return the browser with the hostile utterance open; afterwards the console is clean."""
    browser.get_log("browser")
    browser.get(page)
    entry(browser, IDS[1]).click()
    WebDriverWait(browser, 20).until(lambda it: it.find_elements(By.CSS_SELECTOR, ".token"))
    yield browser
    assert browser.get_log("browser") == []


def entry(browser: webdriver.Chrome, name: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, f"button[data-id='{name}']")


def tokens(browser: webdriver.Chrome) -> list[WebElement]:
    return browser.find_elements(By.CSS_SELECTOR, ".token")


def pixels(browser: webdriver.Chrome, canvas: str) -> str:
    script = "return document.querySelector(arguments[0]).toDataURL()"
    return browser.execute_script(script, f"canvas.{canvas}")


def selected(browser: webdriver.Chrome) -> list[int]:
    found = [token.get_attribute("aria-selected") == "true" for token in tokens(browser)]
    return [number for number, chosen in enumerate(found) if chosen]


def wait(browser: webdriver.Chrome, condition: str) -> None:
    WebDriverWait(browser, 20).until(lambda it: it.execute_script(f"return {condition}"))


def choose(browser: webdriver.Chrome, label: str, text: str) -> None:
    path = f"//div[@class='controls']/label[span='{label}']/select"
    Select(browser.find_element(By.XPATH, path)).select_by_visible_text(text)


def test_clicking_a_token_changes_both_pictures(opened: webdriver.Chrome) -> None:
    before = {name: pixels(opened, name) for name in ("map", "lines")}
    tokens(opened)[5].click()
    assert selected(opened) == [5]
    assert all(pixels(opened, name) != seen for name, seen in before.items())


def test_every_map_layer_and_head_has_its_picture(opened: webdriver.Chrome) -> None:
    maps = ("CA", "SMX avg2d", "SMX max2d", "SMH", "GRAD", "SMX, full resolution", "none")
    seen = set()
    for name in maps:
        choose(opened, "Overlay", name)
        seen.add(pixels(opened, "map"))
    choose(opened, "Overlay", "CA")
    for layer, head in (("0", "mean"), ("3", "mean"), ("3", "4"), ("mean of all", "4")):
        choose(opened, "Layer of CA", layer)
        choose(opened, "Head of CA", head)
        seen.add(pixels(opened, "map"))
    assert len(seen) == len(maps) + 4


def test_legend_tells_how_each_map_agrees_with_attention(opened: webdriver.Chrome) -> None:
    tokens(opened)[4].click()
    legend = [one.text for one in opened.find_elements(By.CSS_SELECTOR, ".legend li")]
    assert [text.split(" (")[0] for text in legend] == ["CA", "SMX avg2d", "SMH", "GRAD"]
    # GRAD is what was planted, the others have noise.
    rho = [float(re.findall(r"with CA (\S+)\)", text)[0]) for text in legend[1:]]
    assert rho[2] > max(rho[:2]) > 0.5


def cells(browser: webdriver.Chrome) -> dict[tuple[str, str], WebElement]:
    """Return the map of layers by heads."""
    found = browser.find_elements(By.CSS_SELECTOR, ".heads td[data-head]")
    return {(one.get_attribute("data-layer"), one.get_attribute("data-head")): one for one in found}


def test_heads_of_a_token_are_compared_and_chosen(opened: webdriver.Chrome) -> None:
    tokens(opened)[4].click()
    found = cells(opened)
    layers, heads = [*map(str, range(L)), "mean"], [*map(str, range(H)), "mean"]
    assert list(found) == [(layer, head) for layer in layers for head in heads]
    agreement = {place: float(cell.text.replace("−", "-")) for place, cell in found.items()}
    # Attention of the first layer is noise; that of the last follows the saliency.
    assert all(abs(agreement["0", head]) < 0.35 for head in heads)
    assert all(agreement[str(L - 1), head] > 0.7 for head in heads)
    found["3", "4"].click()
    chosen = [place for place, cell in cells(opened).items() if "chosen" in classes(cell)]
    assert chosen == [("3", "4")]
    assert "(CA, layer 3, head 4)" in status(opened)
    clicked = pixels(opened, "map")
    choose(opened, "Layer of CA", "0")
    assert pixels(opened, "map") != clicked
    choose(opened, "Layer of CA", "3")
    assert pixels(opened, "map") == clicked


def classes(element: WebElement) -> list[str]:
    return str(element.get_attribute("class")).split()


def test_heads_are_compared_with_the_chosen_saliency(opened: webdriver.Chrome) -> None:
    caption = ".heads caption"
    assert " with SMH for " in opened.find_element(By.CSS_SELECTOR, caption).text
    before = {place: cell.text for place, cell in cells(opened).items()}
    choose(opened, "Overlay", "SMX max2d")
    assert " with SMX max2d for " in opened.find_element(By.CSS_SELECTOR, caption).text
    assert {place: cell.text for place, cell in cells(opened).items()} != before


def test_the_region_of_a_token_lies_where_it_was_planted(opened: webdriver.Chrome) -> None:
    tokens(opened)[4].click()
    # Encoder step 8 + 4 (148 / 11), of 20 ms.
    start, end = map(float, re.findall(r"(\d\.\d\d)", status(opened))[:2])
    assert start < 0.02 * (8 + 4 * 148 / 11) < end
    assert end - start < 0.4


def status(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.CSS_SELECTOR, ".status").text


def test_keys_move_and_play(opened: webdriver.Chrome) -> None:
    tokens(opened)[0].click()
    for key, where in ((Keys.ARROW_RIGHT, 1), (Keys.END, 11), (Keys.ARROW_LEFT, 10)):
        opened.switch_to.active_element.send_keys(key)
        assert selected(opened) == [where]
        assert opened.switch_to.active_element == tokens(opened)[where]
    opened.switch_to.active_element.send_keys(Keys.ENTER)
    audio = "document.querySelector('.panel audio')"
    wait(opened, f"{audio}.currentTime > 2 && {audio}.played.length > 0")
    wait(opened, f"{audio}.paused")
    # It stops behind the region, before the end.
    end = float(re.findall(r"(\d\.\d\d)", status(opened))[1])
    assert opened.execute_script(f"return {audio}.currentTime") < end + 0.25


def test_recording_has_a_source_and_a_duration(opened: webdriver.Chrome) -> None:
    wait(opened, "document.querySelector('.panel audio').duration > 0")
    audio = opened.find_element(By.CSS_SELECTOR, ".panel audio")
    assert audio.get_attribute("src").startswith("data:audio/flac")
    assert abs(opened.execute_script("return arguments[0].duration", audio) - 3.3) < 0.01


def test_hostile_transcript_is_text(opened: webdriver.Chrome) -> None:
    panel = opened.find_element(By.CSS_SELECTOR, ".panel")
    assert HOSTILE in panel.text
    assert not panel.find_elements(By.CSS_SELECTOR, "script, img, b")
    assert tokens(opened)[10].text == "<b>&"


def test_nothing_comes_from_the_network_and_only_what_is_opened_is_loaded(
    browser: webdriver.Chrome, page: str
) -> None:
    browser.get_log("performance")
    browser.get(page)
    entry(browser, IDS[0]).click()
    WebDriverWait(browser, 20).until(lambda it: tokens(it))
    messages = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    addresses = {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    assert not {address for address in addresses if not address.startswith(("file:", "data:"))}
    assert [Path(one).name for one in sorted(addresses) if one.endswith(".js")] == [f"{IDS[0]}.js"]


def test_filter_leaves_what_fits(opened: webdriver.Chrome) -> None:
    field = opened.find_element(By.CSS_SELECTOR, ".filter input")
    field.send_keys("SECO")
    assert [entry(opened, name).is_displayed() for name in IDS] == [False, True]
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(Keys.DELETE)
    assert all(entry(opened, name).is_displayed() for name in IDS)


def test_lost_data_are_a_sentence(browser: webdriver.Chrome, page: str) -> None:
    browser.get(page)
    browser.execute_script("document.querySelector('[data-source]').dataset.source = 'lost.js'")
    entry(browser, IDS[0]).click()
    panel = browser.find_element(By.CSS_SELECTOR, ".panel")
    WebDriverWait(browser, 20).until(lambda it: "lost.js cannot be read" in panel.text)


TEXTS = (
    ".token", ".token[aria-selected=true]", ".status", ".controls span", ".play",
    ".heads th", ".heads td.chosen",
)  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_contrast(opened: webdriver.Chrome, scheme: str) -> None:
    light = pixels(opened, "map")
    feature = {"name": "prefers-color-scheme", "value": scheme}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    try:
        if scheme == "dark":
            WebDriverWait(opened, 5).until(lambda it: pixels(it, "map") != light)
        for name in TEXTS:
            assert contrast(opened, name) >= 4.5, name
    finally:
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def contrast(browser: webdriver.Chrome, selector: str) -> float:
    """Return the contrast of a text with what lies behind it, as WCAG 2 defines it."""
    colours = browser.execute_script(
        """
        let it = document.querySelector(arguments[0]);
        const ink = getComputedStyle(it).color;
        while (getComputedStyle(it).backgroundColor === "rgba(0, 0, 0, 0)") it = it.parentElement;
        const canvas = document.createElement("canvas");
        const context = canvas.getContext("2d", { willReadFrequently: true });
        return [ink, getComputedStyle(it).backgroundColor].map((colour) => {
          context.fillStyle = colour;  // mixed colours are told as shares of red, green and blue
          context.fillRect(0, 0, 1, 1);
          return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
        });
        """,
        selector,
    )
    low, high = sorted(luminance(colour) for colour in colours)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: Sequence[int]) -> float:
    shares = [value / 255 for value in colour]
    linear = [
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_tokens_of_a_right_to_left_text_run_to_the_left(
    browser: webdriver.Chrome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = synthetic_results.decode_arrays
    text = {"text": np.array("הילד אכל תפוח ירוק")}
    monkeypatch.setattr(synthetic_results, "decode_arrays", lambda rng: decoded(rng) | text)
    browser.get(write_page(tmp_path))
    entry(browser, IDS[1]).click()
    WebDriverWait(browser, 20).until(lambda it: it.find_elements(By.CSS_SELECTOR, ".token"))
    first, second = (token.rect["x"] for token in tokens(browser)[:2])
    assert second < first
    tokens(browser)[0].click()
    browser.switch_to.active_element.send_keys(Keys.ARROW_LEFT)
    assert selected(browser) == [1]


def test_the_focus_can_be_seen(opened: webdriver.Chrome) -> None:
    tokens(opened)[0].click()
    opened.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    for key, name in (
        (Keys.TAB, "select"),
        (Keys.TAB, "select"),
        (Keys.TAB, "select"),
        (Keys.TAB, "button"),
    ):
        assert opened.execute_script(f"return {outline}") == "solid"
        opened.switch_to.active_element.send_keys(key)
        assert opened.switch_to.active_element.tag_name == name


def test_the_policy_lets_nothing_out(browser: webdriver.Chrome, page: str) -> None:
    """No address is asked for anything, and no script runs that the page did not bring."""
    browser.get(page)
    blocked = browser.execute_async_script(
        """
        const done = arguments[0], found = [];
        document.addEventListener("securitypolicyviolation",
          (event) => found.push(event.effectiveDirective));
        document.body.insertAdjacentHTML("beforeend",
          "<img src=https://example.invalid/a.png onerror=window.ran=1>");
        fetch("https://example.invalid/").catch(() => {});
        setTimeout(() => done([found.sort(), window.ran === undefined]), 500);
        """
    )
    assert blocked == [["connect-src", "img-src", "script-src-attr"], True]
    browser.get_log("browser")  # what was blocked is told there


def test_tables_and_figures_fit_a_narrow_window(opened: webdriver.Chrome) -> None:
    """What is wider scrolls by itself; the page does not."""
    size = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert opened.execute_script("return document.documentElement.scrollWidth") <= 400
        scrolled = opened.execute_script(
            """
            const wide = (box) => box.querySelector(".data")
              && box.scrollWidth > box.clientWidth + 50;
            const box = [...document.querySelectorAll(".scroll")].find(wide);
            box.scrollLeft = 50;
            const name = box.querySelector("tbody th:not(.title)");
            return name.getBoundingClientRect().left - box.getBoundingClientRect().left;
            """
        )
        assert scrolled == 0  # names of rows stay
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_narrow_window_does_not_overflow(opened: webdriver.Chrome) -> None:
    size = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        panel = "document.querySelector('.explorer').scrollWidth"
        assert opened.execute_script(f"return {panel}") <= 400
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
