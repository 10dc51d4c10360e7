"""Play a chapter's final transcript live, the shells side by side (`make demo`).

    python -m shells.demo             that of chapter 2
    python -m shells.demo 6-rpc       that of another (`make demo CHAPTER=6-rpc`)

It is the page's own transcript, run by the player that tests it, first with
pika and then with aio-pika, against a throwaway broker.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from urllib.parse import unquote

import broker as brokers
from broker import Broker, BrokerError
from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from shells.chapters import CLIENTS, EXAMPLES, numbered, page, reader_environment
from shells.player import (
    Player,
    Scenario,
    Shell,
    TranscriptError,
    final_scenario,
    write_rabbitmqctl,
)

DEFAULT = "2-work-queues"
# Three shells side by side need this many columns and rows.
WIDE, HIGH = 114, 18


class Screen:
    """Shows shells side by side, as they change; in a pipe, line by line."""

    def __init__(self, console: Console, shells: list[str]) -> None:
        self.console = console
        self.lines: dict[str, list[Text]] = {name: [] for name in shells}
        beside = console.is_terminal and console.width >= WIDE and console.height >= HIGH
        self.live = Live(console=console, refresh_per_second=8) if beside else None

    def show(self, shell: Shell, line: str, typed: bool) -> None:
        if shell.name not in self.lines or not line:  # bash's own, after a Ctrl-C
            return
        text = Text(f"$ {line}", style="bold") if typed else Text(line)
        self.lines[shell.name].append(text)
        if self.live:
            self.live.update(self.panels())
        else:
            self.console.print(Text(f"{shell.name} | ", style="dim") + text, soft_wrap=True)

    def panels(self) -> Columns:
        """Panels of one height, which has room for what wraps; else for the last of it."""
        width = self.console.width // len(self.lines)
        inside = self.console.options.update_width(width - 4)
        rows = {
            name: self.console.render_lines(Text("\n").join(lines), inside, pad=False)
            for name, lines in self.lines.items()
        }
        height = min(max(map(len, rows.values())), self.console.height - 3)
        return Columns(
            [
                Panel(
                    Text("\n").join(
                        Text.assemble(*((part.text, part.style or "") for part in row))
                        for row in shown[-height:]
                    ),
                    title=name,
                    width=width,
                    height=height + 2,
                )
                for name, shown in rows.items()
            ],
            padding=0,
        )


def who_did_what(player: Player) -> Table:
    """The tasks of each worker, from what it has printed."""
    tasks: defaultdict[str, list[str]] = defaultdict(list)
    for shell in player.shells.values():
        for line in shell.texts:
            if line.startswith(" [x] Received "):
                tasks[shell.name].append(line.split("'")[1])
    table = Table("worker", "did", "seconds of work", show_edge=False)
    for name, done in sorted(tasks.items()):
        work = sum(task.count(".") for task in done)
        table.add_row(name, ", ".join(task.rstrip(".") for task in done), str(work))
    return table


def play(scenario: Scenario, broker: Broker, console: Console) -> None:
    with broker.vhost() as url, tempfile.TemporaryDirectory() as folder:
        write_rabbitmqctl(Path(folder), broker.rabbitmqctl, unquote(url.rpartition("/")[2]))
        environment = reader_environment(url, Path(folder))
        screen = Screen(console, scenario.shells)
        chapter = scenario.page.stem
        directory = EXAMPLES / chapter / scenario.client
        console.print()
        console.rule(f"{chapter} with {scenario.client}", align="left")
        with Player(directory, environment, screen.show) as player:
            if screen.live:
                with screen.live:
                    player.play(scenario)
            else:
                player.play(scenario)
            if chapter == DEFAULT:
                console.print()
                console.print(who_did_what(player))


def named(word: str) -> str:
    """The chapter that a word begins, such as its number; else the word, to be refused."""
    return next((each for each in numbered() if each.startswith(f"{word}-")), word)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("chapter", nargs="?", type=named, choices=numbered(), default=DEFAULT)
    chapter: str = parser.parse_args().chapter
    console = Console(highlight=False)
    try:
        with brokers.get() as broker:
            console.print(f"RabbitMQ {broker.version} is up: {broker.title}.")
            for client in CLIENTS:
                play(final_scenario(page(chapter), client), broker, console)
        console.print("\nNext: make docs, and open docs/_build/html/index.html to do it yourself.")
    except (BrokerError, TranscriptError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        console.print("\nInterrupted; nothing that the demo started is left.")
        sys.exit(130)


if __name__ == "__main__":
    main()
