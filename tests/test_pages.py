"""The built pages in a browser: transcripts that play, and pages that all can read."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from apps.browser import Browser, build, chromium, served
from shells.chapters import page
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
