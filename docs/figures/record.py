"""Record what the scripts do, and draw the pages' figures from the record.

    record.py                  record anew, then draw
    record.py 2-work-queues    only the figures of that chapter, or another: set-up, demo
    record.py --draw           draw again from the committed records

A record is a JSON file in this folder that says when, where and with what it
was made; the drawing beside it shows nothing that is not in it. A chapter's
module record_<chapter>.py has `record(broker)` and `draw()`. So have record_demo.py,
the moving picture of README, record_http_queue_page.py, and record_sequences.py, which only draws.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import broker as brokers
from apps import browser
from broker import BrokerError, say
from plotting import FIGURES
from shells.chapters import chapters, companions


def modules() -> dict[str, str]:
    """By chapter: the module that makes its figures."""
    here = Path(__file__).parent
    every = (*chapters(), *companions(), "http-queue-page", "set-up", "demo", "sequences")
    found = {chapter: f"record_{chapter.replace('-', '_')}" for chapter in every}
    return {chapter: name for chapter, name in found.items() if (here / f"{name}.py").exists()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("chapter", nargs="*", help="of which chapters; else of all")
    parser.add_argument("--draw", action="store_true", help="draw from the committed records")
    given = parser.parse_args()
    if unknown := set(given.chapter) - set(modules()):
        parser.error(f"no figures for {', '.join(unknown)}; there are {', '.join(modules())}")
    FIGURES.mkdir(exist_ok=True)
    chosen = {
        each: importlib.import_module(modules()[each]) for each in given.chapter or modules()
    }
    try:
        if not given.draw:
            if any("chromium" in dir(module) for module in chosen.values()):
                browser.programs()  # else one would learn that it is missing after an hour
            with brokers.get() as broker:
                for chapter, module in chosen.items():
                    say(f"Recording {chapter} with RabbitMQ {broker.version} …")
                    module.record(broker)
        for chapter, module in chosen.items():
            module.draw()
            say(f"Drew the figures of {chapter}")
    except BrokerError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
