"""The picture on "Set up once": a queue of chapter 2 in RabbitMQ's management UI.

A screenshot of the real page in headless Chromium, in light. It is as narrow as a phone,
so that its letters can be read on one, and so without the page's header, which would
cover the rest.
"""

from __future__ import annotations

import base64
import json
import tempfile
import time
from pathlib import Path

from apps.browser import Browser, chromium
from broker import Broker, BrokerError
from plotting import FIGURES, about
from shells.chapters import EXAMPLES
from shells.running import Script

NAME = "set-up"
QUEUE = "task_queue"
TASKS = ("First message.", "Second message..", "Third message...")
# Of the window and of what is cut out, in pixels of the page; each is two of the picture.
WINDOW, LEFT, WIDTH, SHARP = 440, 7, 386, 2
# What stands beside the page's charts: the queue's messages, by their state, and rates.
BESIDE = (
    "Object.fromEntries([...document.querySelectorAll('#main .legend tr')]"
    ".filter(row => row.cells.length > 1)"
    ".map(row => [...row.cells].slice(0, 2).map(cell => cell.innerText.trim())))"
)
STATES = ("Ready", "Unacked", "Total")
# No time below the chart is cut.
WHOLE = (
    "return [...document.querySelector('#main .chart').querySelectorAll('*')].every(each =>"
    " each.children.length || !each.textContent"
    " || each.getBoundingClientRect().right < arguments[0])"
)


def send(broker: Broker) -> None:
    for task in TASKS:
        script = Script(EXAMPLES / "2-work-queues/pika/new_task.py", task, url=broker.url)
        try:
            if script.wait():
                raise BrokerError(f"new_task.py: {script}")
        finally:
            script.close()


def look(browser: Browser, broker: Broker) -> dict[str, str]:
    """Log in, open the queue's page, and wait until it shows the messages."""
    browser.driver.get(f"{broker.api}/")
    browser.until("return !!document.querySelector('input[name=username]')")
    for field in ("username", "password"):
        browser.driver.find_element("css selector", f"input[name={field}]").send_keys("guest")
    browser.driver.find_element("css selector", "input[type=submit]").click()
    browser.until("return !!document.querySelector('#tabs')")
    browser.driver.get(f"{broker.api}/#/queues/%2F/{QUEUE}")
    browser.until(f"return {BESIDE}.Total === '{len(TASKS)}'")
    time.sleep(20)  # of which the chart shows the history
    browser.until(WHOLE, LEFT + WIDTH)
    browser.run("document.querySelector('#header').style.display = 'none'")
    found = browser.run(f"return {BESIDE}")
    return {state: found[state] for state in STATES}


def record(broker: Broker) -> None:
    if not broker.can_restart:
        raise BrokerError("The picture of a queue needs a broker of its own: unset AMQP_URL")
    send(broker)
    with tempfile.TemporaryDirectory() as folder, chromium(Path(folder)) as browser:
        browser.prefer(color_scheme="light")
        browser.tell(
            "Emulation.setDeviceMetricsOverride",
            width=WINDOW,
            height=1000,
            deviceScaleFactor=SHARP,
            mobile=False,
        )
        counts = look(browser, broker)
        top, bottom = browser.run(
            "const cells = [...document.querySelectorAll('#main .legend th')];"
            "const last = cells.find(cell => cell.innerText.trim() === arguments[0]);"
            "return [document.querySelector('#main h1').getBoundingClientRect().top,"
            " last.closest('table').getBoundingClientRect().bottom + 8]",
            STATES[-1],
        )
        clip = {"x": LEFT, "y": top, "width": WIDTH, "height": bottom - top}
        shot = browser.tell("Page.captureScreenshot", clip={**clip, "scale": 1})
    broker.call_api("DELETE", f"queues/%2F/{QUEUE}")
    (FIGURES / f"{NAME}.png").write_bytes(base64.b64decode(shot["data"]))
    data = {"about": about(broker), "queue": QUEUE, "counts": counts}
    (FIGURES / f"{NAME}.json").write_text(json.dumps(data, indent=1) + "\n")


def draw() -> None:
    """Nothing: a picture is what was recorded."""
