"""The built pages in a browser: transcripts that play, and pages that all can read."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from apps.browser import Browser, build, chromium, served
from shells.chapters import DOCS, page
from shells.player import scenarios

# Built once, and so in one process.
pytestmark = [pytest.mark.xdist_group("pages"), pytest.mark.long]
PHONE, DESKTOP = 390, 1280
SHOWN = "return getComputedStyle(arguments[0]).visibility === 'visible'"


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rabbitmq-by-example-pages-") as made:
        build(Path(made) / "html")
        yield Path(made) / "html"


@pytest.fixture(scope="session")
def site(folder: Path) -> Iterator[str]:
    with served(folder) as url:
        yield url


@pytest.fixture(scope="session")
def chrome(folder: Path) -> Iterator[Browser]:
    with chromium(folder.parent) as found:
        yield found


@pytest.fixture
def browser(chrome: Browser) -> Browser:
    """As it comes: a desktop in light, where things move."""
    chrome.size(DESKTOP)
    chrome.prefer(color_scheme="light", reduced_motion="no-preference")
    chrome.tell("Emulation.setScriptExecutionDisabled", value=False)
    return chrome


# --- Transcripts --------------------------------------------------------------


def boxes(browser: Browser, transcript: str) -> list[list[float]]:
    """Left, top and right of every event, in order."""
    return browser.run(
        "return [...document.querySelectorAll(`${arguments[0]} .event`)].map(e => {"
        " const r = e.getBoundingClientRect(); return [r.left, r.top, r.right]})",
        transcript,
    )


def test_windows_are_side_by_side_where_there_is_room(browser: Browser, site: str) -> None:
    browser.driver.get(f"{site}2-work-queues.html")
    three = browser.run(
        "const t = [...document.querySelectorAll('.transcript.shells-3')][0]; t.id = 'three';"
        "return [...t.querySelectorAll('.event')].map(e => e.dataset.shell)"
    )
    wide = boxes(browser, "#three")
    assert len({left for left, _, _ in wide}) == len(set(three)) == 3
    # An event is never above one that was before it.
    assert [top for _, top, _ in wide] == sorted(top for _, top, _ in wide)
    browser.size(PHONE)
    narrow = boxes(browser, "#three")
    assert len({left for left, _, _ in narrow}) == 1
    assert all(one[1] < other[1] for one, other in pairwise(narrow))
    assert max(right for _, _, right in narrow) <= PHONE


def test_a_button_copies_each_command(browser: Browser, site: str) -> None:
    browser.tell(
        "Browser.grantPermissions",
        permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
        origin=site.rstrip("/"),
    )
    browser.driver.get(f"{site}1-hello-world.html")
    (scenario, *_) = scenarios(page("1-hello-world"), "pika")
    buttons = browser.driver.find_elements("css selector", ".transcript .copy")
    for step, button in zip(scenario.steps[:2], buttons, strict=False):
        assert button.accessible_name == f"Copy: {step.command}"
        browser.run("arguments[0].focus()", button)
        button.send_keys("\n")  # by keyboard
        browser.until(
            "return arguments[0].closest('.transcript').querySelector('[role=status]')"
            ".textContent === 'Copied'",
            button,
        )
        copied = browser.driver.execute_async_script(
            "navigator.clipboard.readText().then(arguments[0])"
        )
        assert copied == step.command


def test_a_button_plays_them_in_the_order_of_events(browser: Browser, site: str) -> None:
    browser.driver.get(f"{site}2-work-queues.html")
    (first,) = browser.driver.find_elements("css selector", "#preparation .transcript")
    button = first.find_element("css selector", ".play")
    status = first.find_element("css selector", "[role=status]")
    rows = first.find_elements("css selector", ".typed, .line")

    def shown() -> list[bool]:
        return [browser.run(SHOWN, row) for row in rows]

    stage = first.find_element("css selector", ".stage")
    text = stage.text
    assert all(shown())
    # What was seen, whenever that changed: rows by their place in the list of events.
    browser.run(
        "const t = arguments[0]; window.seen = []; new MutationObserver(() => {"
        " const now = [...t.querySelectorAll('.typed, .line')].map("
        "  r => !r.classList.contains('ahead')).join();"
        " if (seen.at(-1) !== now) seen.push(now)"
        "}).observe(t, {subtree: true, attributes: true, childList: true})",
        first,
    )
    button.send_keys("\n")
    browser.until("return arguments[0].dataset.state === 'playing'", first)
    assert button.text == "■ Stop"
    browser.until("return arguments[0].dataset.state === 'played'", first)
    grown = [[mark == "true" for mark in each.split(",")] for each in browser.run("return seen")]
    assert grown[:-1] == [
        [place < count for place in range(len(rows))] for count in range(len(rows))
    ]
    assert grown[-1] == shown() == [True] * len(rows)
    assert (button.text, status.get_attribute("textContent")) == ("▶ Play", "Played to the end")
    assert stage.text == text


def test_what_is_stopped_shows_all_of_it(browser: Browser, site: str) -> None:
    browser.prefer(reduced_motion="reduce")
    browser.driver.get(f"{site}2-work-queues.html")
    first = browser.driver.find_element("css selector", ".transcript.shells-3")
    button = first.find_element("css selector", ".play")
    commands = [each.text for each in first.find_elements("css selector", "kbd")]
    button.send_keys("\n")
    browser.until("return arguments[0].querySelectorAll('.typed:not(.ahead)').length == 2", first)
    button.send_keys("\n")
    browser.until("return arguments[0].dataset.state === 'stopped'", first)
    assert not first.find_elements("css selector", ".ahead")
    assert [each.text for each in first.find_elements("css selector", "kbd")] == commands


def test_without_scripts_there_is_all_of_it_and_no_button(browser: Browser, site: str) -> None:
    browser.tell("Emulation.setScriptExecutionDisabled", value=True)
    browser.driver.get(f"{site}1-hello-world.html")
    first = browser.driver.find_element("css selector", ".transcript")
    assert not first.find_elements("css selector", "button")
    (scenario, *_) = scenarios(page("1-hello-world"), "pika")
    text = first.text
    for line in (f"$ {scenario.steps[0].command}", *scenario.steps[0].output):
        assert line.strip() in text


def test_a_page_asks_nobody_else(browser: Browser, site: str) -> None:
    browser.driver.get(f"{site}2-work-queues.html")
    asked = browser.run("return performance.getEntriesByType('resource').map(e => e.name)")
    assert len(asked) > 5
    assert all(each.startswith((site, "data:")) for each in asked), asked


# --- What every page keeps ----------------------------------------------------

# Letters of figures, and how they stand out from what is behind them: a shape, else the page.
LETTERS = """
const [svg, width, dark] = arguments;
document.body.innerHTML = '<div></div>';
const box = document.body.firstChild;
box.style.width = `${width}px`;
box.innerHTML = svg.slice(svg.indexOf('<svg'));
const root = box.querySelector('svg');
root.style.cssText += '; width: 100%; height: auto';
const numbers = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
const luminance = (colour) => {
  const [r, g, b] = colour.map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (one, other) => {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
};
const shapes = [...root.querySelectorAll('rect, path, circle, polygon, use')]
  .filter((each) => !each.closest('defs, clipPath') && each.tagName !== 'use');
for (const each of [root, ...root.querySelectorAll('*')]) {
  each.style.pointerEvents = shapes.includes(each) ? 'fill' : 'none';
  each.style.animation = 'none';
}
return [...root.querySelectorAll('text')].filter((each) => each.textContent.trim()).map((each) => {
  each.scrollIntoView({block: 'center', behavior: 'instant'});
  const place = each.getBoundingClientRect();
  const behind = document.elementsFromPoint(place.x + place.width / 2, place.y + place.height / 2)
    .filter((shape) => shapes.includes(shape)).map((shape) => getComputedStyle(shape))
    .find((s) => s.fill !== 'none' && s.fillOpacity * s.opacity > 0.5);
  const ground = behind ? numbers(behind.fill) : dark ? [19, 20, 22] : [255, 255, 255];
  const style = getComputedStyle(each);
  const matrix = each.getScreenCTM();
  return {
    text: each.textContent.trim(),
    pixels: parseFloat(style.fontSize) * Math.hypot(matrix.a, matrix.b),
    contrast: contrast(numbers(style.fill), ground),
  };
});
"""
DRAWINGS = sorted([*DOCS.glob("_static/*.svg"), *DOCS.glob("figures/*.svg")])
# What a figure is wide on a phone; a test holds it against the pages.
FIGURE = 358


def html_pages(folder: Path) -> list[str]:
    """Of every page of ours; those that Sphinx makes are its own."""
    return [path.with_suffix(".html").name for path in sorted(DOCS.glob("*.rst"))]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_letters_of_figures_can_be_read_on_a_phone(browser: Browser, theme: str) -> None:
    browser.size(PHONE)
    browser.prefer(color_scheme=theme)
    found = {}
    for path in DRAWINGS:
        browser.driver.get("data:text/html,<!doctype html><title>Drawing</title>")
        letters = browser.run(LETTERS, path.read_text(), FIGURE, theme == "dark")
        assert letters, path
        found[path.name] = [
            (each["text"], round(each["pixels"], 1), round(each["contrast"], 1))
            for each in letters
            if each["pixels"] < 11 or each["contrast"] < 4.5
        ]
    assert {name: bad for name, bad in found.items() if bad} == {}


def test_nothing_scrolls_sideways_on_a_phone(browser: Browser, site: str, folder: Path) -> None:
    browser.size(PHONE)
    wide, cut, figures = {}, {}, {}
    for name in html_pages(folder):
        browser.driver.get(f"{site}{name}")
        if browser.run("return document.documentElement.scrollWidth") > PHONE:
            wide[name] = browser.run(
                "return [...document.querySelectorAll('article *')].filter(e =>"
                " e.getBoundingClientRect().right > innerWidth"
                " && !e.closest('pre, .table-wrapper, [style*=overflow]'))"
                ".map(e => e.outerHTML.slice(0, 90)).slice(0, 5)"
            )
        cut[name] = browser.run(
            "return [...document.querySelectorAll('.screen:not(.table) > span')].filter(e =>"
            " e.getBoundingClientRect().right > e.closest('.event').getBoundingClientRect().right)"
            ".map(e => e.textContent)"
        )
        figures[name] = browser.run(
            "return [...document.querySelectorAll('article figure img, article > section > img')]"
            ".map(e => e.width)"
        )
    assert wide == {}
    # A window is a container: what sticks out of it does not scroll, but is not seen.
    assert {name: rows for name, rows in cut.items() if rows} == {}
    assert min(width for each in figures.values() for width in each) >= FIGURE - 1


def test_no_page_is_higher_than_one_scrolls(browser: Browser, site: str, folder: Path) -> None:
    """But for the one that is searched for a message."""
    heights = {}
    for name in set(html_pages(folder)) - {"errors.html"}:
        browser.driver.get(f"{site}{name}")
        heights[name] = browser.run("return document.documentElement.scrollHeight")
    assert {name: height for name, height in heights.items() if height > 12_000} == {}


def test_every_picture_has_its_text_and_every_link_its_end(folder: Path) -> None:
    names, pictures, links = {}, [], []
    for page_of in html_pages(folder):
        reader = Links(folder / page_of)
        names[page_of] = reader.names
        pictures += [(page_of, each) for each in reader.pictures]
        links += [(page_of, each) for each in reader.links]
    assert len(pictures) > 20
    assert [each for each in pictures if len(each[1].get("alt") or "") < 15] == []
    broken = []
    for page_of, link in links:
        target, _, name = unquote(link).partition("#")
        if re.match(r"[a-z]+:", target):
            continue  # elsewhere
        if not (folder / (target or page_of)).exists() or (
            name and (target or page_of) in names and name not in names[target or page_of]
        ):
            broken.append((page_of, link))
    assert len(links) > 500
    assert broken == []


class Links(HTMLParser):
    """A page's pictures, links, and names to link to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.pictures: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.names.add(found.get("id") or "")
        if tag == "img":
            self.pictures.append(found)
        if tag == "a" and found.get("href"):
            self.links.append(str(found["href"]))


@pytest.fixture(scope="session")
def axe(folder: Path) -> str:
    """axe-core, an accessibility checker; where there is Node.js to get it with."""
    if not (npm := shutil.which("npm")):
        pytest.skip("axe-core comes by npm, which is not here")
    command = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(folder.parent)]
    done = subprocess.run([*command, "axe-core@4.11"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"npm did not get axe-core: {done.stderr[-200:]}")
    return (folder.parent / "node_modules/axe-core/axe.min.js").read_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(
    "name", ["index", "1-hello-world", "2-work-queues", "7-publisher-confirms", "http-queue"]
)
def test_axe_finds_no_fault(browser: Browser, site: str, axe: str, name: str, theme: str) -> None:
    browser.prefer(color_scheme=theme, reduced_motion="reduce")
    for width in (PHONE, DESKTOP):
        browser.size(width)
        browser.driver.get(f"{site}{name}.html")
        browser.run(axe)
        browser.driver.set_script_timeout(120)
        faults = browser.driver.execute_async_script(
            "const done = arguments[0]; axe.run({resultTypes: ['violations'], runOnly:"
            " ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
            ".then(r => done(r.violations.map(v => [v.id, v.nodes.length,"
            " v.nodes[0].html.slice(0, 160), v.nodes[0].failureSummary])))"
        )
        assert faults == [], width
