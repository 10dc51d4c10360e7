"""Measure http-queue: on SQLite, on PostgreSQL and on RabbitMQ, in the same run.

With HTTP_QUEUE_QUICK set it is a draft: a tenth of the messages.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apps.postgres import Postgres
from broker import Broker, say
from plotting import BLUE, FIGURES, GREY, RED, SMALL, WHITE, WIDTH, about, save
from shells.chapters import EXAMPLES, reader_environment

CHAPTER = "http-queue"
RECORD = FIGURES / f"{CHAPTER}.json"
# By CSV file: the rows of one table on the page.
TABLES = {name: FIGURES / f"{CHAPTER}-{name}.csv" for name in ("simulated", "measured", "killed")}
PLACES = ("SQLite", "PostgreSQL", "RabbitMQ", "procrastinate")
SCRIPT = EXAMPLES / CHAPTER / "benchmark.py"
QUICK = bool(os.environ.get("HTTP_QUEUE_QUICK"))
SHARE = 10 if QUICK else 1
WORKERS = (1, 4, 16)
TIMES = 1 if QUICK else 3  # of which the median counts


def measure(what: str, *options: object) -> dict[str, Any]:
    """Run benchmark.py; what it prints."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), what, *map(str, options)],
        env=reader_environment("amqp://unused/"),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    say(f"  {what} {told}")
    return told


def median(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    return sorted((run() for _ in range(TIMES)), key=lambda each: each["per_second"])[TIMES // 2]


def from_empty(what: str, queue: Callable[[], Any], *options: object) -> dict[str, Any]:
    """Measure from an empty queue."""

    def run() -> dict[str, Any]:
        with queue() as option:
            return measure(what, option, *options)

    return median(run)


def rate(queue: Callable[[], Any], *options: object) -> dict[str, Any]:
    """Creates, claims and completes."""
    told = from_empty("rate", queue, *options)
    return told | {"creates_per_second": told["creates"]["per_second"]}


@contextmanager
def places(server: Postgres, broker: Broker) -> Iterator[dict[str, Callable[[], Any]]]:
    """By name: a context that gives the option for an empty queue."""

    @contextmanager
    def sqlite() -> Iterator[str]:
        with tempfile.TemporaryDirectory() as folder:
            yield f"--database=sqlite://{folder}/queue.sqlite3"

    @contextmanager
    def postgres() -> Iterator[str]:
        with server.database() as url:
            yield f"--database={url}"

    @contextmanager
    def rabbitmq() -> Iterator[str]:
        with broker.vhost() as url:
            yield f"--queue={url}"

    yield {"SQLite": sqlite, "PostgreSQL": postgres, "RabbitMQ": rabbitmq}


async def procrastinate_rate(url: str, workers: int, messages: int) -> dict[str, Any]:
    """Another queue in PostgreSQL, whose workers need no HTTP."""
    from procrastinate import App, PsycopgConnector

    app = App(connector=PsycopgConnector(conninfo=url.replace("postgres://", "postgresql://", 1)))
    done = 0

    @app.task(queue="letters")
    async def letter(number: int) -> None:
        nonlocal done
        done += 1

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for first in range(0, messages, 1000):
            numbers = range(first, min(messages, first + 1000))
            jobs: list[Any] = [{"number": number} for number in numbers]
            await letter.batch_defer_async(*jobs)
        started = time.monotonic()
        await app.run_worker_async(concurrency=workers, wait=False, listen_notify=False)
        seconds = time.monotonic() - started
    assert done == messages
    return {"workers": workers, "messages": done, "per_second": round(done / seconds)}


def record(broker: Broker) -> None:
    data: dict[str, Any] = {"about": about(broker), "draft": QUICK}
    with Postgres(fsync=True) as server, places(server, broker) as queues:
        data["about"]["postgresql"] = server.version
        data["rate"] = {name: [] for name in (*queues, "procrastinate")}
        for workers in WORKERS:
            messages = (1_000 if workers == 1 else 4_000) // SHARE
            for name, queue in queues.items():
                options = (f"--workers={workers}", f"--messages={messages}")
                data["rate"][name].append(rate(queue, *options))

            def peer(workers: int = workers, messages: int = messages) -> dict[str, Any]:
                with server.database() as url:
                    told = asyncio.run(procrastinate_rate(url, workers, messages))
                say(f"  procrastinate {told}")
                return told

            data["rate"]["procrastinate"].append(median(peer))
        fifty = ("--batch=50", f"--messages={10_000 // SHARE}")
        data["fifty"] = {name: rate(queue, *fifty) for name, queue in queues.items()}
        rows_of = f"--messages={100_000 // SHARE}"
        data["upload"] = {
            name: from_empty("upload", queue, rows_of) for name, queue in queues.items()
        }
        for what, names, options in (
            ("simulated", ("SQLite", "PostgreSQL"), ()),
            ("claims", ("SQLite", "PostgreSQL"), (f"--messages={5_000 // SHARE}",)),
            (
                "chaos",
                ("SQLite", "PostgreSQL"),
                (f"--messages={20_000 // SHARE}", f"--kills={30 // SHARE}"),
            ),
        ):
            if QUICK and what == "simulated":
                names = names[:1]
            data[what] = {}
            for name in names:
                with queues[name]() as option:
                    data[what][name] = measure(what, option, *options)
    RECORD.write_text(json.dumps(data, indent=1) + "\n")


def rows(data: dict[str, Any]) -> dict[str, list[list[str]]]:
    """By table: its rows."""
    simulated, killed = data["simulated"], data["chaos"]

    def of(what: str, key: str, pattern: str = "{:,}") -> list[str]:
        found = (data[what].get(place, {}).get(key) for place in PLACES)
        return ["–" if number is None else pattern.format(number) for number in found]

    def rates(key: str, index: int) -> list[str]:
        found = (data["rate"][place][index].get(key) for place in PLACES)
        return ["–" if number is None else f"{number:,}" for number in found]

    def both(title: str, found: dict[str, Any], tell: Callable[[Any], object]) -> list[str]:
        runs = (found.get(place) for place in PLACES[:2])  # of a draft not each
        return [title, *(str(tell(each)) if each else "–" for each in runs)]

    return {
        "simulated": [
            both(title, simulated, lambda each, key=key: f"{each[key]:.2f} s")
            for title, key in (
                ("21 by insert.py", "insert_21"),
                ("21 by upload.py", "upload_21"),
                ("1,000 by upload.py", "upload_1000"),
                ("1 by worker.py", "single_1"),
                ("50 by batch_worker.py", "batch_50"),
            )
        ],
        "measured": [
            ["created, 20 clients", *rates("creates_per_second", -1)],
            *(
                [f"claimed and completed, {n} worker{'s' * (n > 1)}", *rates("per_second", index)]
                for index, n in enumerate(WORKERS)
            ),
            # A record of before has none.
            *(
                [["4 workers, 50 at a time", *of("fifty", "per_second")]]
                if "fifty" in data
                else []
            ),
            ["rows of an upload", *of("upload", "per_second")],
            ["the same rows, unchecked", *of("upload", "limit_per_second")],
        ],
        "killed": [
            both("messages", killed, lambda each: f"{each['messages']:,}"),
            both("workers killed", killed, lambda each: each["killed"].get("workers", 0)),
            both("API killed", killed, lambda each: each["killed"].get("api", 0)),
            both("completed", killed, lambda each: f"{each['state']['done']:,}"),
            both("handled twice", killed, lambda each: each["handled_again"]),
        ],
    }


def draw() -> None:
    """Claims and completes in a second, by the number of workers."""
    from matplotlib.figure import Figure

    path: Path = RECORD
    data = json.loads(path.read_text())
    for name, table in TABLES.items():
        with table.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows(data)[name])
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    axes = figure.subplots()
    colours = {
        "SQLite": BLUE,
        "PostgreSQL": RED,
        "RabbitMQ": GREY,
        "procrastinate": WHITE,
    }
    for offset, (name, runs) in enumerate(data["rate"].items()):
        places_of = [number + 0.2 * (offset - 1.5) for number in range(len(runs))]
        rates = [run["per_second"] for run in runs]
        bars = axes.bar(places_of, rates, 0.18, color=colours[name], label=name, edgecolor=GREY)
        axes.bar_label(bars, fontsize=SMALL, color=GREY, fmt="{:,.0f}", rotation=90, padding=3)
    axes.margins(y=0.2)
    axes.set_xticks(range(len(WORKERS)), [f"{n} worker{'s' * (n > 1)}" for n in WORKERS])
    axes.set_ylabel("messages in a second", color=GREY)
    axes.tick_params(colors=GREY)
    for spine in axes.spines.values():
        spine.set_color(GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        ncols=2,
        frameon=False,
        labelcolor=GREY,
        fontsize=SMALL,
        columnspacing=1,
    )
    told = data["about"]
    clients = ", ".join(f"{name} {number}" for name, number in told["clients"].items())
    figure.supxlabel(
        f"Claimed and completed, one at a time.\n{told['date']}, {told['machine']}\n"
        f"PostgreSQL {told['postgresql']}, RabbitMQ {told['rabbitmq']},\n{clients}",
        fontsize=SMALL,
        color=GREY,
    )
    save(figure, path.with_suffix(".svg"))
