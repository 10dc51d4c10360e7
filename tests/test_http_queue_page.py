"""The promises of docs/http-queue.rst: the page for people, in a browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from apps.browser import chromium
from apps.serving import Served, book
from conftest import Starter


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    with chromium(tmp_path) as found:
        yield found.driver


@pytest.mark.long
def test_the_page_is_live_uploads_and_requeues(
    start: Starter, tmp_path: Path, browser: Any
) -> None:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.select import Select
    from selenium.webdriver.support.wait import WebDriverWait

    api = Served(start, tmp_path, "--max-attempts=1", "--token=secret")
    # The page replaces its parts every second.
    redrawn = [StaleElementReferenceException]
    wait = WebDriverWait(browser, 30, ignored_exceptions=redrawn)

    def shown(selector: str) -> str:
        return " ".join(each.text for each in browser.find_elements("css selector", selector))

    def until(condition: Callable[[], Any]) -> None:
        wait.until(lambda _: condition())

    browser.get(api.url)
    until(lambda: browser.find_element("id", "token").is_displayed())
    browser.find_element("id", "token").send_keys("secret\n")
    until(lambda: shown("[data-state=ready]") == "0")
    until(lambda: "In SQLite. Live." in shown("p"))

    rows = [("<b>ann</b>", "Hello", 1), ("bob", "Hi", 1)]
    good = book(tmp_path / "good.xlsx", rows, notes=[("a note",)])
    bad = book(tmp_path / "<i>bad.xlsx", [("ann", "Hello", "two")])
    browser.find_element("id", "files").send_keys(f"{good}\n{bad}")
    browser.find_element("css selector", "#upload button").click()
    until(lambda: "good.xlsx: 2 rows" in shown("#results"))
    assert "<i>bad.xlsx: refused, nothing of it is stored" in shown("#results .bad strong")
    assert "row 2: copies: Input should be a valid integer" in shown("#results .bad li")
    assert "The sheet 'notes' was left out." in shown("#results div:not(.bad) li")
    until(lambda: shown("[data-state=ready]") == "2")

    api.ended("worker.py", "--flaky=1", "--until-empty", "--token=secret")
    until(lambda: shown("[data-state=dead]") == "2")
    until(lambda: "<b>ann</b>: Hello" in shown("#dead"))  # as text
    until(lambda: "simulated failure" in shown("#dead"))
    Select(browser.find_element("id", "which")).select_by_visible_text("ready")
    until(lambda: shown("#count") == "None.")
    Select(browser.find_element("id", "which")).select_by_visible_text("dead")
    until(lambda: shown("#count") == "2 shown.")
    assert "good.xlsx, row 2" in shown("#messages")
    browser.find_element("id", "file").send_keys("other.xlsx\n")
    until(lambda: shown("#count") == "None.")
    # With the keyboard alone, and whoever uses it goes on where they were.
    browser.find_element("id", "all").send_keys(Keys.TAB * 2 + Keys.ENTER)
    until(lambda: shown("[data-state=ready]") == "1")
    until(lambda: shown("#told") == "1 requeued.")
    until(lambda: browser.switch_to.active_element.accessible_name == "Requeue bob: Hi")
    browser.find_element("id", "all").click()
    until(lambda: shown("[data-state=ready]") == "2")
    until(lambda: browser.find_element("id", "none").is_displayed())
    api.server.close()
    until(lambda: "Not live" in shown("#live"))


NAMELESS = """
return [...document.querySelectorAll("input, select, button, progress, svg, [role=region]")]
  .filter(each => each.checkVisibility() && !(each.labels?.length || each.textContent.trim()
    || each.getAttribute("aria-label") || each.getAttribute("aria-labelledby")))
  .map(each => each.outerHTML)
"""
# Headers that nobody can see, lists that hold something else, regions of one name.
UNSOUND = """
const labels = [...document.querySelectorAll("section, main, [role=region]")].map(each =>
  each.getAttribute("aria-label") || each.getAttribute("aria-labelledby"));
return [
  ...[...document.querySelectorAll("th")].filter(each =>
    !each.textContent.trim() || each.querySelector(".hid")),
  ...document.querySelectorAll("dl > :not(div), dl > div > :not(dt, dd)"),
].map(each => each.outerHTML).concat(labels.filter((each, n) => labels.indexOf(each) < n))
"""
# The contrast of text with what is behind it, as WCAG counts it: 4.5 or more.
CONTRAST = """
const light = text => {
  const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(each => {
    const share = each / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = element => {
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return colour;
  }
};
return [...document.querySelectorAll("p, dt, dd, th, td, a, label, h1, h2, button, li")]
  .filter(each => each.checkVisibility() && each.textContent.trim())
  .filter(each => {
    const pair = [light(getComputedStyle(each).color), light(behind(each))].sort((a, b) => a - b);
    return (pair[1] + 0.05) / (pair[0] + 0.05) < 4.5;
  })
  .map(each => each.outerHTML)
"""


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_can_be_read_by_all(
    start: Starter, tmp_path: Path, browser: Any, scheme: str
) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    api = Served(start, tmp_path, "--max-attempts=1")
    api.ended("upload.py", str(book(tmp_path / "a.xlsx", [("ann", "word" * 500, 1)] * 30)))
    api.ended("worker.py", "--flaky=1", "--count=0")
    claimed = requests.post(f"{api.url}v1/claims", json={}, timeout=30).json()
    letter = claimed["messages"][0]["id"]
    failed = {"token": claimed["token"], "reason": "no paper"}
    requests.post(f"{api.url}v1/messages/{letter}/fail", json=failed, timeout=30)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    phone = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    browser.get(api.url)
    wait = WebDriverWait(browser, 60)
    wait.until(lambda _: browser.find_elements("css selector", "#messages tr"))
    wait.until(lambda _: browser.find_elements("css selector", "#dead tr"))
    (background,) = browser.execute_script(
        "return [getComputedStyle(document.body).backgroundColor]"
    )
    assert (sum(map(int, re.findall(r"\d+", background))) < 300) == (scheme == "dark")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
    assert browser.execute_script(NAMELESS) == []
    assert browser.execute_script(UNSOUND) == []
    assert browser.execute_script(CONTRAST) == []
    # Nothing comes from elsewhere.
    names = browser.execute_script(
        "return performance.getEntriesByType('resource').map(each => each.name)"
    )
    assert names
    assert all(name.startswith((api.url, "data:")) for name in names), names
    browser.find_element("id", "next").click()
    wait.until(lambda _: browser.find_element("id", "count").text == "5 shown.")
    browser.save_screenshot(str(tmp_path / "page.png"))
