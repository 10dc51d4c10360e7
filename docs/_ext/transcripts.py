"""Show console transcripts as windows, one for each shell, in the order of events.

The source is the plain block that the tests play (tests/shells/player.py says how it is
written), and the same parser reads it:

    .. code-block:: console

       shell1$ python receive.py
        [*] Waiting for messages. To exit press CTRL+C
       shell2$ python send.py
        [x] Sent 'Hello World!'
       shell1$ python receive.py
        [*] Waiting for messages. To exit press CTRL+C
        [x] Received 'Hello World!'

In HTML that is a list of three events. The third says that shell1 goes on, and shows only
what is new. transcripts.css puts the windows side by side where there is room, and
transcripts.js adds the buttons that copy and play. Other builders get the block as it is.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from shells.player import BREAK, PROMPT, Step, TranscriptError, block_steps, scenarios
from sphinx.application import Sphinx
from sphinx.directives.code import CodeBlock

CLIENTS = ("pika", "aio-pika", "")  # the tabs that a block may be in
# What every program here prints that runs until it is told to stop.
WAITING = "To exit press CTRL+C"
# A recorded run, by page, section and client (docs/figures/record_demo.py).
RECORD = Path(__file__).parents[1] / "figures" / "demo.json"
# Characters in which a window reads well; more are wrapped.
NARROW, ROOM, WIDE = 26, 40, 60
# A table, whose lines must not be wrapped.
COLUMNS = re.compile(r"\S(?: {2,}|\t)\S")


@dataclass(frozen=True)
class Event:
    """What a window shows of a step: its command, or that it goes on, and what is new."""

    step: Step
    goes_on: bool
    fresh: tuple[str, ...]
    times: tuple[float, ...] = ()  # of the command and of each line, in seconds

    @property
    def is_table(self) -> bool:
        return any(map(COLUMNS.search, self.fresh))


def goes_on(before: Step | None, step: Step) -> bool:
    """Whether a step is the transcript so far of the command that runs in its shell.

    The player sees whether it still runs; here the page has to say so: by more of the
    same output, or by the same output of a program that waits.
    """
    if not before or before.command != step.command or BREAK in before.output:
        return False
    old, new = (step.same(list(each)) for each in (before.output, step.output))
    return new[: len(old)] == old and (new != old or all(WAITING in line for line in old))


def events(steps: tuple[Step, ...]) -> list[Event]:
    """The steps of a scenario as the windows show them."""
    last: dict[str, Step] = {}
    found = []
    for step in steps:
        before = last.get(step.shell)
        more = goes_on(before, step)
        shown = len(before.output) if before and more else 0
        found.append(Event(step, more, step.output[shown:]))
        last[step.shell] = step
    return found


def timed(found: list[Event], record: list[list[Any]]) -> list[Event]:
    """The events with the times of a recorded run; without, if it was of something else.

    A record's rows are of seconds, shell, and text as it is on the screen.
    """
    rows: dict[str, list[tuple[float, str]]] = {}
    for when, shell, text in record:
        rows.setdefault(shell, []).append((when, text))
    made = []
    for event in found:
        typed = [] if event.goes_on else [f"$ {event.step.command}"]
        wanted = [*typed, *event.fresh]
        own = rows.get(event.step.shell, [])
        head, rows[event.step.shell] = own[: len(wanted)], own[len(wanted) :]
        if [text for _, text in head] != wanted:
            return found
        made.append(Event(event.step, event.goes_on, event.fresh, tuple(when for when, _ in head)))
    return made


@cache
def on_page(page: Path, _changed: int) -> dict[int, Event]:
    """By the line of its prompt: every event of a page that the tests play."""
    record = json.loads(RECORD.read_text())["plays"] if RECORD.exists() else {}
    found: dict[int, Event] = {}
    for client in CLIENTS:
        for scenario in scenarios(page, client):
            own = events(scenario.steps)
            times = record.get(f"{page.stem}/{scenario.title}/{client}", [])
            for event in timed(own, times):
                found.setdefault(event.step.line, event)
    return found


def in_block(page: Path, source: str, first_line: int) -> list[Event]:
    """The events of a block, which may go on with what ran in its section before."""
    known = on_page(page, page.stat().st_mtime_ns)
    steps = tuple(block_steps(page, source, first_line))
    if all(step.line in known and known[step.line].step.command == step.command for step in steps):
        return [known[step.line] for step in steps]
    return events(steps)  # one that nobody plays: in a tab of another name


def screen(event: Event, prompt: str) -> str:
    """What a window shows of an event, as text that can be copied."""
    times = [f' data-at="{when:g}"' for when in event.times]
    at = iter(times or [""] * (len(event.fresh) + 1))
    rows = []
    if not event.goes_on:
        command = escape(event.step.command)
        rows.append(
            f'<span class="typed"{next(at)}><span class="prompt">{prompt}</span>'
            f"<kbd>{command}</kbd></span>"
        )
    for line in event.fresh:
        kind = "key" if line == BREAK else "line"
        rows.append(f'<span class="{kind}"{next(at)}>{escape(line)}</span>')
    kind = "screen table" if event.is_table else "screen"
    # What scrolls sideways must be reached by keyboard, too.
    focus = ' tabindex="0"' if event.is_table else ""
    return f'<pre class="{kind}"{focus}>' + "\n".join(rows) + "</pre>" if rows else ""


def windows(found: list[Event], classes: list[str] | None = None) -> str:
    """The HTML of a transcript."""
    shells = sorted({event.step.shell for event in found})
    starts = {index: event.step.shell for index, event in enumerate(found, 2)}
    needs = []
    for shell in shells:
        own = [event for event in found if event.step.shell == shell]
        lines = [len(line) for event in own for line in (event.step.command, *event.fresh)]
        needs.append(max(min(max(lines) + 3, WIDE), NARROW))
    stacked = any(e.is_table and max(map(len, e.fresh)) > ROOM for e in found) and len(shells) > 2
    kinds = ["transcript", f"shells-{len(shells)}", *(["stacked"] if stacked else [])]
    columns = " ".join(f"minmax(0, {need}fr)" for need in needs)
    rows = [
        f'<div class="{" ".join([*kinds, *(classes or [])])}" role="group"'
        f' aria-label="Transcript: {", ".join(shells)}">',
        f'<div class="stage" style="--columns: {columns}">',
    ]
    for column, shell in enumerate(shells, 1):
        place = f"grid-column: {column}; grid-row: 1 / span {len(found) + 1}"
        rows.append(
            f'<div class="window" style="{place}" aria-hidden="true"><span>{shell}</span></div>'
        )
    rows.append('<ol class="events" role="list">')
    previous = ""
    for row, event in enumerate(found, 2):
        shell = event.step.shell
        later = [start for start, other in starts.items() if start > row and other == shell]
        span = (later[0] if later else len(found) + 2) - row
        place = f"grid-column: {shells.index(shell) + 1}; grid-row: {row} / span {span}"
        kind = "event same" if shell == previous else "event"
        rows.append(f'<li class="{kind}" data-shell="{shell}" style="{place}">')
        number = f'<span class="number" aria-hidden="true">{row - 1}</span>'
        rows.append(f'<p class="shell">{number if len(shells) > 1 else ""}')
        rows.append(f'<span class="name">{shell}</span>')
        if event.goes_on:
            nothing = "" if event.fresh else " and prints nothing more"
            command = escape(event.step.command, quote=True)
            rows.append(f'<span class="goes-on" title="{command}">goes on{nothing}</span>')
        rows.append("</p>")
        rows += [screen(event, "$ "), "</li>"]
        previous = shell
    return "\n".join([*rows, "</ol>", "</div>", "</div>"])


class transcript(nodes.General, nodes.Element):
    """A console block: in HTML as windows, elsewhere what is inside."""


class TranscriptBlock(CodeBlock):
    """`code-block`, whose `console` blocks with shells become windows."""

    def run(self) -> list[nodes.Node]:
        block = super().run()
        if self.arguments != ["console"] or not PROMPT.fullmatch(self.content[0].rstrip()):
            return block
        source, line = self.content.info(0)
        try:
            found = in_block(Path(str(source)), "\n".join(self.content), (line or 0) + 1)
        except TranscriptError as error:
            return [self.state.document.reporter.warning(str(error), line=self.lineno), *block]
        return [transcript("", *block, html=windows(found, self.options.get("class")))]


def visit_html(self: Any, node: transcript) -> None:
    self.body.append(node["html"])
    raise nodes.SkipNode


def visit(self: Any, node: transcript) -> None:
    """The block itself follows."""


def setup(app: Sphinx) -> dict[str, bool]:
    plain = (visit, visit)
    app.add_node(
        transcript,
        html=(visit_html, None),
        latex=plain,
        text=plain,
        man=plain,
        texinfo=plain,
    )
    app.add_directive("code-block", TranscriptBlock, override=True)
    app.add_css_file("transcripts.css")
    app.add_js_file("transcripts.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
