"""The picture on "http-queue": the page for people, in mid-work.

A screenshot of the real page in headless Chromium, in light.
"""

from __future__ import annotations

import base64
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from apps.browser import chromium
from apps.serving import Served, book, letters
from broker import Broker
from shells.chapters import DOCS, EXAMPLES
from shells.running import Script

PICTURE = DOCS / "_static/http-queue-page.png"
WINDOW = 1000
# Enough are done, some are dead, and the worker has some in hand.
BUSY = (
    "const counts = Object.fromEntries([...document.querySelectorAll('#state > *')]"
    ".map(each => [each.querySelector('dt').innerText, +each.querySelector('dd').innerText]));"
    "return counts.done > 600 && counts.leased && document.querySelector('#dead tr')"
)


def record(_: Broker) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def start(chapter: str, client: str, name: str, *arguments: Any, **more: Any) -> Script:
            script = Script(EXAMPLES / chapter / client / name, *arguments, **more)
            return stack.enter_context(closing(script))

        api = Served(start, folder, "--max-attempts=1")
        browser = stack.enter_context(chromium(folder))
        browser.prefer(color_scheme="light")
        browser.size(WINDOW, WINDOW)
        browser.driver.get(api.url)
        api.ended("upload.py", str(book(folder / "letters.xlsx", letters(1000))))
        api.run("batch_worker.py", "--batch=5", "--simulate=0.1", "--flaky=0.05")
        browser.until(BUSY)
        shot = browser.tell("Page.captureScreenshot")
    PICTURE.write_bytes(base64.b64decode(shot["data"]))


def draw() -> None:
    """Nothing: a picture is what was recorded."""
