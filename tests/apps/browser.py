"""The built pages, served on this machine, and a headless Chromium to look at them."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from broker import LOOPBACK, BrokerError
from shells.chapters import DOCS


def program(*names: str) -> str:
    found = next(filter(None, map(shutil.which, names)), None)
    if not found:
        raise BrokerError(f"There is no {names[0]}: sudo apt-get install chromium chromium-driver")
    return found


def programs() -> tuple[str, str]:
    """Chromium and its driver. Raises BrokerError where one is missing."""
    return (
        program("chromium", "chromium-browser", "google-chrome"),
        program("chromedriver", "chromium.chromedriver"),
    )


def build(folder: Path) -> None:
    """Build the pages as a reader has them."""
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(DOCS), str(folder)]
    subprocess.run(command, check=True, capture_output=True)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL of a folder's files."""
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer((LOOPBACK, 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://{LOOPBACK}:{server.server_port}/"
        server.shutdown()


class Browser:
    """A Chromium whose window, theme and scripting a test chooses."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def tell(self, command: str, **more: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, more)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def size(self, width: int, height: int = 1000) -> None:
        phone = width < 500
        self.tell(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )

    def prefer(self, **features: str) -> None:
        """What the reader prefers: color_scheme="dark", reduced_motion="reduce"."""
        wanted = [
            {"name": f"prefers-{name.replace('_', '-')}", "value": value}
            for name, value in features.items()
        ]
        self.tell("Emulation.setEmulatedMedia", features=wanted)

    def until(self, script: str, *arguments: Any) -> None:
        """Wait until a script says that it is so."""
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.driver, 90, 0.1).until(lambda _: self.run(script, *arguments))


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for option in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--hide-scrollbars",
        "--no-first-run",
        f"--user-data-dir={folder}/chromium",
    ):
        options.add_argument(option)
    options.binary_location, driver_program = programs()
    service = webdriver.ChromeService(driver_program)
    with webdriver.Chrome(options, service) as driver:
        yield Browser(driver)
