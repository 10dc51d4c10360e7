"""The promises of docs/http-queue.rst: the page for people, in a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apps.serving import Served, book
from conftest import Starter


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for option in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        f"--user-data-dir={tmp_path}/chromium",
    ):
        options.add_argument(option)
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    service = webdriver.ChromeService(program("chromedriver", "chromium.chromedriver"))
    with webdriver.Chrome(options, service) as driver:
        yield driver


def program(*names: str) -> str:
    import shutil

    found = next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.fail(f"There is no {names[0]}: sudo apt-get install chromium chromium-driver")
    return found


@pytest.mark.long
def test_the_page_is_live_uploads_and_requeues(
    start: Starter, tmp_path: Path, browser: Any
) -> None:
    from selenium.common.exceptions import StaleElementReferenceException
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
    good = book(tmp_path / "good.xlsx", rows)
    bad = book(tmp_path / "<i>bad.xlsx", [("ann", "Hello", "two")])
    browser.find_element("id", "files").send_keys(f"{good}\n{bad}")
    browser.find_element("css selector", "#upload button").click()
    until(lambda: "good.xlsx: 2 rows" in shown("#results"))
    assert "bad.xlsx: row 2: copies: Input should be a valid integer" in shown("#results")
    until(lambda: shown("[data-state=ready]") == "2")

    api.ended("worker.py", "--flaky=1", "--until-empty", "--token=secret")
    until(lambda: shown("[data-state=dead]") == "2")
    until(lambda: "<b>ann</b>: Hello" in shown("#dead"))  # as text
    until(lambda: "simulated failure" in shown("#dead"))
    browser.find_element("css selector", "#dead button").click()
    until(lambda: shown("[data-state=ready]") == "1")
    browser.find_element("id", "all").click()
    until(lambda: shown("[data-state=ready]") == "2")
    until(lambda: browser.find_element("id", "none").is_displayed())
    api.server.close()
    until(lambda: "Not live" in shown("#live"))
