"""serve.py as a process with a database of its own, and files to send to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import xlsxwriter
from apps.http_queue import CHAPTER
from broker import free_ports
from conftest import Starter
from shells.running import Script

HEADINGS = ("recipient", "text", "copies")
NO_BROKER = "amqp://unused/"


def book(
    path: Path, rows: list[Any], headings: Any = HEADINGS, first: int = 0, notes: Any = ()
) -> Path:
    with xlsxwriter.Workbook(str(path), {"default_date_format": "yyyy-mm-dd"}) as workbook:
        sheet = workbook.add_worksheet()
        for number, row in enumerate([headings, *rows], first):
            sheet.write_row(number, 0, row)
        if notes:
            other = workbook.add_worksheet("notes")
            for number, row in enumerate(notes):
                other.write_row(number, 0, row)
    return path


def letters(count: int) -> list[Any]:
    return [(f"reader{n}@example.com", f"Letter {n}", 1) for n in range(1, count + 1)]


def text(path: Path) -> Path:
    path.write_text("recipient,text\nann,hello\n")
    return path


class Served:
    """serve.py with a database of its own, and the commands against it."""

    def __init__(
        self, start: Starter, folder: Path, *options: str, chapter: str = CHAPTER
    ) -> None:
        (port,) = free_ports(1)
        self._start, self._chapter = start, chapter
        self.url = f"http://127.0.0.1:{port}/"
        self.options = (f"--port={port}", f"--database=sqlite://{folder}/q.sqlite3", *options)
        self.server = self.run("serve.py", *self.options)
        # It imports much, which takes its time where many do so at once.
        self.server.wait_for("A queue in ", seconds=90)

    def run(self, name: str, *arguments: str) -> Script:
        environment = {"HTTP_QUEUE_URL": self.url}
        return self._start(self._chapter, "", name, *arguments, url=NO_BROKER, **environment)

    def ended(self, name: str, *arguments: str) -> Script:
        script = self.run(name, *arguments)
        assert script.wait(90) == 0, script
        return script
