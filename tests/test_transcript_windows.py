"""The pages' console transcripts as windows (docs/_ext/transcripts.py)."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from shells.chapters import CLIENTS, DOCS
from shells.chapters import page as page_of
from shells.player import BREAK, final_scenario, scenarios

sys.path.append(str(DOCS / "_ext"))
windows = importlib.import_module("transcripts")

WAITS = " [*] Waiting for messages. To exit press CTRL+C"


def events(*lines: str, measured: bool = False) -> list[tuple[str, bool, tuple[str, ...]]]:
    """Shell, whether it goes on, and what is new, of each event of a block."""
    steps = windows.block_steps(Path("page.rst"), "\n".join(lines), 1, measured)
    found = windows.events(tuple(steps))
    return [(each.step.shell, each.goes_on, each.fresh) for each in found]


def test_a_running_command_goes_on_with_what_is_new() -> None:
    assert events("shell1$ work", WAITS, "shell2$ send", "sent", "shell1$ work", WAITS, "got") == [
        ("shell1", False, (WAITS,)),
        ("shell2", False, ("sent",)),
        ("shell1", True, ("got",)),
    ]


@pytest.mark.parametrize("silent", [(), (WAITS,)], ids=["nothing", "waits"])
def test_it_may_have_shown_nothing_yet_or_show_nothing_more(silent: tuple[str, ...]) -> None:
    assert events("shell1$ work", *silent, "shell1$ work", *silent, "got")[1:] == [
        ("shell1", True, ("got",))
    ]
    assert events("shell1$ work", WAITS, "shell1$ work", WAITS)[1:] == [("shell1", True, ())]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["sent"], ["sent"]),
        (["name messages", "hello 1"], ["name messages", "hello 2"]),
        ([WAITS, BREAK], [WAITS, BREAK, "bye"]),
        ([WAITS, "got", "failed"], [WAITS, "got", "failed"]),
    ],
    ids=["the same", "another output", "after Ctrl-C", "after a failure"],
)
def test_a_command_that_has_ended_is_typed_again(first: list[str], second: list[str]) -> None:
    assert events("shell1$ x", *first, "shell1$ x", *second)[1:] == [
        ("shell1", False, tuple(second))
    ]


def test_another_command_between_ends_it() -> None:
    assert not any(more for _, more, _ in events("shell1$ x", "1", "shell1$ y", "shell1$ x", "1"))


def test_numbers_may_differ_in_what_is_measured() -> None:
    lines = ["shell1$ x", "5 ms", "shell1$ x", "6 ms", "7 ms"]
    assert events(*lines, measured=True)[1] == ("shell1", True, ("7 ms",))
    assert events(*lines)[1] == ("shell1", False, ("6 ms", "7 ms"))


class Reader(HTMLParser):
    """Reads what a person does: text by event, and what the elements say."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.events: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.found.append((tag, dict(attrs)))
        if tag == "li":
            self.events.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "li" in self.open:
            self.events[-1] += data

    def all(self, tag: str, kind: str = "") -> Iterator[dict[str, str | None]]:
        return (a for t, a in self.found if t == tag and kind in (a.get("class") or "").split())


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.rst"
    lines = [
        *("Title", "=====", "", ".. code-block:: console", ""),
        *("   shell3$ sed 's/<a>/b/' x", "   shell1$ work", f"   {WAITS}"),
        *("   shell3$ list", "   name    messages", "   hello   1"),
        *("   shell1$ work", f"   {WAITS}", "    [x] <got>", f"   {BREAK}", ""),
    ]
    path.write_text("\n".join(lines))
    return path


def block(page: Path) -> str:
    lines = page.read_text().splitlines()[5:]
    return "\n".join(line.removeprefix("   ") for line in lines)


def test_the_html_is_a_list_of_events_and_a_window_for_each_shell(page: Path) -> None:
    html = Reader(windows.windows(windows.in_block(page, block(page), 6), ["measured"]))
    texts = [" ".join(text.split()) for text in html.events]
    assert texts == [
        "1 shell3 $ sed 's/<a>/b/' x",
        f"2 shell1 $ work {WAITS.strip()}",
        "3 shell3 $ list name messages hello 1",
        "4 shell1 goes on [x] <got> ^C",
    ]
    (whole,) = html.all("div", "transcript")
    assert whole["class"] == "transcript shells-2 measured"
    assert whole["aria-label"] == "Transcript: shell1, shell3"
    # A window lasts as long as the transcript, an event until the next of its shell.
    assert [each["style"] for each in html.all("div", "window")] == [
        f"grid-column: {column}; grid-row: 1 / span 5" for column in (1, 2)
    ]
    assert [each["style"] for each in html.all("li", "event")] == [
        "grid-column: 2; grid-row: 2 / span 2",
        "grid-column: 1; grid-row: 3 / span 2",
        "grid-column: 2; grid-row: 4 / span 2",
        "grid-column: 1; grid-row: 5 / span 1",
    ]
    # A table is not wrapped, but scrolls, and so the keyboard has to get there.
    tables = [("table" in str(a["class"]), a.get("tabindex")) for a in html.all("pre", "screen")]
    assert tables == [(False, None), (False, None), (True, "0"), (False, None)]


def test_a_block_goes_on_with_what_its_section_began(page: Path) -> None:
    more = ["Go on.", "", ".. code-block:: console", "", "   shell2$ send", "   shell1$ work"]
    text = page.read_text().replace(f"   {BREAK}\n", "")
    page.write_text("\n".join([text, *more, f"   {WAITS}", "    [x] <got>", "    [x] Done", ""]))
    line = page.read_text().splitlines().index("   shell2$ send") + 1
    source = "\n".join(row[3:] for row in page.read_text().splitlines()[line - 1 :])
    found = windows.in_block(page, source, line)
    assert [(each.goes_on, each.fresh) for each in found] == [(False, ()), (True, (" [x] Done",))]


def test_a_recorded_run_gives_the_times_and_another_one_none(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[list[object]] = [
        [0.0, "shell3", "$ sed 's/<a>/b/' x"],
        [0.5, "shell1", "$ work"],
        [0.75, "shell1", WAITS],
        [1, "shell3", "$ list"],
        [1.25, "shell1", " [x] <got>"],  # while shell3 is busy
        [2, "shell3", "name    messages"],
        [2.5, "shell3", "hello   1"],
        [3, "shell1", BREAK],
    ]
    record = page.with_name("demo.json")
    monkeypatch.setattr(windows, "RECORD", record)
    for last, wanted in (
        (BREAK, [["0"], ["0.5", "0.75"], ["1", "2", "2.5"], ["1.25", "3"]]),
        ("", []),
    ):
        rows[-1][2] = last
        record.write_text(json.dumps({"plays": {"page/Title/pika": rows}}))
        windows.on_page.cache_clear()
        found = windows.in_block(page, block(page), 6)
        at = [a["data-at"] for _, a in Reader(windows.windows(found)).found if "data-at" in a]
        assert at == [each for event in wanted for each in event]


def test_every_transcript_can_be_read_back_from_its_events() -> None:
    """On all pages: what was shown before and what is new are the whole output."""
    for path in sorted(DOCS.glob("*.rst")):
        for client in CLIENTS:
            for scenario in scenarios(path, client):
                before: dict[str, tuple[str, ...]] = {}
                for event in windows.events(scenario.steps):
                    shell = event.step.shell
                    text = before.get(shell, ()) + event.fresh if event.goes_on else event.fresh
                    assert event.step.same(list(text)) == event.step.same(list(event.step.output))
                    before[shell] = text


@pytest.mark.parametrize("client", CLIENTS)
def test_the_recorded_demo_is_the_pages_transcript(client: str) -> None:
    """So the page plays it as it was, and the moving picture shows all of its lines."""
    scenario = final_scenario(page_of("2-work-queues"), client)
    record = json.loads(windows.RECORD.read_text())["plays"]
    rows = record[f"2-work-queues/{scenario.title}/{client}"]
    found = windows.timed(windows.events(scenario.steps), rows)
    times = [when for event in found for when in event.times]
    assert sorted(times) == [when for when, _, _ in rows]
    # A worker is at a task at least for as long as that takes, a second a dot.
    for (_, _, line), at in ((row, place) for place, row in enumerate(rows)):
        if "Received" in line:
            when, shell, _ = rows[at]
            done = next(w for w, s, text in rows[at:] if s == shell and "Done" in text)
            assert line.count(".") <= done - when + 0.1


def test_the_moving_picture_shows_the_record_and_can_stand_still() -> None:
    svg = windows.RECORD.with_suffix(".svg").read_text()
    rows = next(iter(json.loads(windows.RECORD.read_text())["plays"].values()))
    root = ElementTree.fromstring(svg)
    drawn = ["".join(node.itertext()) for node in root.iter() if "animation" in str(node.attrib)]
    assert sorted(each for each in drawn if "\n" not in each) == sorted(
        text for _, _, text in rows
    )
    assert "@media (prefers-reduced-motion: reduce)" in svg
    assert "@media (prefers-color-scheme: dark)" in svg
    assert not re.search(r"infinite|<script|https?://(?!www\.w3\.org/2000/svg)", svg)
