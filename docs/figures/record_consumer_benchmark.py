"""The record of the consumer benchmark, and the page's tables and figures from it.

    record_consumer_benchmark.py quick    nothing is recorded
    record_consumer_benchmark.py full     docs/figures/consumer-benchmark.json
    record_consumer_benchmark.py peers    …-peers.json, with a venv of their own

`--again` begins a record anew; without, one that was interrupted goes on. The
measuring is benchmark.py's, in examples/consumer-benchmark.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import broker as brokers
from broker import Broker, BrokerError, say
from plotting import BLUE, FIGURES, GREY, RED, SMALL, WIDTH, made_with, save
from shells.chapters import EXAMPLES, ROOT, reader_environment

CHAPTER = "consumer-benchmark"
FOLDER = EXAMPLES / CHAPTER
RECORD = FIGURES / f"{CHAPTER}.json"
PEERS = FIGURES / f"{CHAPTER}-peers.json"
VENV = ROOT / ".venv-peers"
C_PEER = FOLDER / "peer_librabbitmq.bin"
DEFAULTS = {"size": 10, "window": 500, "processes": 1, "queue": "classic"}
PARTS = {"full": RECORD, "peers": PEERS}


def prepare_peers() -> None:
    """A venv with the peers, and the one in C compiled."""
    python = VENV / "bin/python"
    wanted = FOLDER / "requirements-peers.txt"
    done = VENV / "ready"
    if not done.exists() or done.stat().st_mtime < wanted.stat().st_mtime:
        say("Installing the peers into .venv-peers …")
        subprocess.check_call([sys.executable, "-m", "venv", VENV])
        quiet = ("-q", "--disable-pip-version-check")
        subprocess.check_call([python, "-m", "pip", "install", *quiet, "-r", wanted])
        done.touch()
    source = FOLDER / "peer_librabbitmq.c"
    if not Path("/usr/include/amqp.h").exists() and brokers.can_install():
        brokers.install_from_debian("librabbitmq-dev", "gcc", "libc6-dev")
    subprocess.check_call(["cc", "-O2", "-o", C_PEER, source, "-lrabbitmq"])


def measure(broker: Broker, part: str, *options: str) -> int:
    """Run benchmark.py on a virtual host of its own."""
    interpreter = VENV / "bin/python" if part == "peers" else Path(sys.executable)
    if part == "peers":
        prepare_peers()
    command = [sys.executable, str(FOLDER / "benchmark.py"), f"--plan={part}"]
    with broker.vhost() as url:
        return subprocess.call(
            [*command, f"--python={interpreter}", *options], env=reader_environment(url)
        )


def record(broker: Broker) -> None:
    for part, path in PARTS.items():
        path.unlink(missing_ok=True)
        if measure(broker, part, f"--json={path}"):
            raise BrokerError(f"the part {part} of the benchmark went wrong")


def load(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_text())
    # The record leaves out what is as always.
    data["runs"] = [DEFAULTS | run for run in data["runs"]]
    return data


def of(data: dict[str, Any], table: str, **wanted: Any) -> list[dict[str, Any]]:
    """The measurements of a table, with these options."""
    return [
        run
        for run in data["runs"]
        if run["table"] == table and all(run.get(name) == value for name, value in wanted.items())
    ]


def rates(runs: list[dict[str, Any]]) -> list[float]:
    return [run["a second"] for run in runs]


def rate(data: dict[str, Any], table: str, **wanted: Any) -> float:
    """The median of how many messages a second."""
    return median(rates(of(data, table, **wanted)))


def thousands(values: list[float]) -> str:
    """The median of some rates, and the extremes, in thousands a second."""
    middle, low, high = (value / 1000 for value in (median(values), min(values), max(values)))
    digits = 1 if middle >= 1 else 2
    if len(values) == 1:
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def distinct(runs: list[dict[str, Any]], name: str) -> list[Any]:
    """What an option was, in the order of its values; the plan's where they are names."""
    found = list(dict.fromkeys(run.get(name) for run in runs))
    # Without: first an event loop, last an ack.
    last = name == "ack_every"
    return sorted(found, key=lambda value: (value is not None, last and value == 0, value))


CONSUMERS = (
    "peer_librabbitmq", "pika_fastest", "pika_select", "pika_asyncio", "pika_callback",
    "pika_generator", "aio_pika_fastest", "aio_pika_callback", "aio_pika_iterator", "pika_threads",
    "aio_pika_tasks", "peer_amqpstorm", "peer_kombu", "peer_faststream", "peer_dramatiq",
    "peer_taskiq", "peer_celery", "produce",
)  # fmt: skip


def grid(data: dict[str, Any], table: str, across: str, scale: str = "") -> list[list[str]]:
    """A table of the page: consumers down, an option across, with its head."""
    runs = of(data, table)
    values = distinct(runs, across)
    rows = [["", *(label(across, value) for value in values)]]
    for consumer in CONSUMERS:
        cells = []
        for value in values:
            found = of(data, table, consumer=consumer, **{across: value})
            cells.append(thousands(rates(found)) if found else "")
        if any(cells):
            rows.append([shown(consumer), *cells])
    return rows


def label(option: str, value: Any) -> str:
    if option == "uvloop":
        return "uvloop" if value else "asyncio"
    if option == "ack_every":
        return {0: "no ack", 1: "each"}.get(value, f"every {value}")
    return f"{value:,}" if isinstance(value, int) else str(value)


def shown(consumer: str) -> str:
    names = {"peer_librabbitmq": "librabbitmq (C)", "produce": "produce.py"}
    if consumer in names:
        return names[consumer]
    return consumer.removeprefix("peer_") if consumer.startswith("peer_") else f"{consumer}.py"


def pool_rows(data: dict[str, Any]) -> list[list[str]]:
    """Workers down: messages a second, and the part of the ideal, for each pool."""
    pools = ("pika_threads", "aio_pika_tasks")
    rows = []
    runs = of(data, "pool: waiting") + of(data, "pool")
    for workers in distinct(runs, "workers"):
        row = [str(workers)]
        for pool in pools:
            found = [r for r in runs if (r["consumer"], r.get("workers")) == (pool, workers)]
            row += [f"{median(rates(found)):.1f}", f"{efficiency(found):.2f}"]
        rows.append(row)
    return rows


def efficiency(runs: list[dict[str, Any]]) -> float:
    """The ideal time over the median of those it took."""
    one = runs[0]
    ideal = one["messages"] * one["work"] / one["workers"]
    return ideal / median(run["seconds"] for run in runs)


def growth_rows(data: dict[str, Any]) -> list[list[str]]:
    rows = []
    for count in distinct(of(data, "growth"), "messages"):
        row = [f"{count:,}"]
        for consumer in ("pika_fastest", "aio_pika_fastest"):
            found = of(data, "growth", messages=count, consumer=consumer)
            each = median(run["seconds"] / count for run in found) * 1e6
            row += [f"{each:.0f}", f"{median(run['peak MiB'] for run in found):.0f}"]
        rows.append(row)
    return rows


def task_rows(peers: dict[str, Any]) -> list[list[str]]:
    best = max(rate(peers, "tasks", consumer=each) for each in ours(peers))
    return [
        [shown(consumer), thousands(found), f"{best / median(found):.1f}"]
        for consumer in sorted(
            distinct(of(peers, "tasks"), "consumer"),
            key=lambda it: -rate(peers, "tasks", consumer=it),
        )
        if (found := rates(of(peers, "tasks", consumer=consumer)))
    ]


def ours(peers: dict[str, Any]) -> list[str]:
    every = distinct(of(peers, "tasks"), "consumer")
    return [each for each in every if not each.startswith("peer_")]


def bars(data: dict[str, Any], peers: dict[str, Any] | None) -> dict[str, tuple[float, float]]:
    """What the project asks for: by name, what was measured and what is wanted."""
    found = {
        "pool of 32, pika": (
            efficiency(of(data, "pool", consumer="pika_threads", workers=32)), 0.95),
        "pool of 32, aio-pika": (
            efficiency(of(data, "pool", consumer="aio_pika_tasks", workers=32)), 0.95),
    }  # fmt: skip
    if peers:
        for name, table, fastest in (
            ("each", "clients, each acked", "pika_select"),
            ("100 at once", "clients, 100 acked at once", "pika_fastest"),
        ):
            limit = rate(peers, table, consumer="peer_librabbitmq")
            pika = rate(peers, table, consumer=fastest)
            aio = max(
                rate(peers, table, consumer="aio_pika_fastest", uvloop=loop)
                for loop in (None, True)
            )
            found[f"pika to librabbitmq, acked {name}"] = pika / limit, 0.5
            found[f"aio-pika to librabbitmq, acked {name}"] = aio / limit, 0.15
        best = max(rate(peers, "tasks", consumer=each) for each in ours(peers))
        light = ("peer_dramatiq", "peer_faststream", "peer_taskiq")
        found["tasks: to the fastest of three"] = (
            best / max(rate(peers, "tasks", consumer=each) for each in light), 3.0)  # fmt: skip
        found["tasks: to Celery"] = best / rate(peers, "tasks", consumer="peer_celery"), 8.0
    return found


def tables(data: dict[str, Any], peers: dict[str, Any] | None) -> dict[str, list[list[str]]]:
    """By file name: the page's tables, the first row their head."""
    found = {
        "length": grid(data, "length", "messages"),
        "lever-prefetch": grid(data, "lever: prefetch", "prefetch"),
        "acks": grid(data, "lever: acks", "ack_every"),
        "body": grid(data, "lever: body", "size"),
        "processes": grid(data, "lever: processes", "processes"),
        "window": grid(data, "lever: window", "window"),
        "queue-type": queue_rows(data),
        "pool": [
            ["Workers", "pika threads", "of ideal", "aio-pika tasks", "of ideal"],
            *pool_rows(data),
        ],
        "growth": [
            ["Messages", "pika: µs each", "MiB", "aio-pika: µs each", "MiB"],
            *growth_rows(data),
        ],
    }
    if peers:
        found |= {
            "tasks": [["", "Thousand a second", "Times slower"], *task_rows(peers)],
            "uvloop": grid(peers, "lever: uvloop", "uvloop"),
        }
    return found


def queue_rows(data: dict[str, Any]) -> list[list[str]]:
    rows = [["pika_fastest.py", "each acked", "100 at once"]]
    for kind, name in (("classic", "classic queue"), ("quorum", "quorum queue")):
        cells = [
            thousands(rates(of(data, "lever: queue type", queue=kind, ack_every=every)))
            for every in (1, 100)
        ]
        rows.append([name, *cells])
    return rows


def draw() -> None:
    if not RECORD.exists():
        say("There is no record yet: make bench")
        return
    data = load(RECORD)
    peers = load(PEERS) if PEERS.exists() else None
    for name, rows in tables(data, peers).items():
        with (FIGURES / f"{CHAPTER}-{name}.csv").open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
    draw_record(data)
    if peers:
        draw_peers(peers)


def provisional(data: dict[str, Any]) -> str:
    """A quick plan's record says so: make bench, make bench-peers replace it."""
    return "" if data["plan"] in PARTS else f" – PROVISIONAL, {data['plan']}, busy machine"


def style(axes: Any, title: str, across: str, up: str) -> None:
    axes.set_title(title, fontsize=11, color=GREY)
    axes.set_xlabel(across, color=GREY)
    axes.set_ylabel(up, color=GREY)
    axes.tick_params(colors=GREY, which="both")
    for spine in axes.spines.values():
        spine.set_color(GREY)
    axes.spines[["top", "right"]].set_visible(False)


def curve(axes: Any, points: dict[float, list[float]], colour: str, mark: str, name: str) -> None:
    across = sorted(points)
    axes.plot(across, [median(points[x]) for x in across], mark, color=colour, label=name)
    for x in across:
        axes.plot([x, x], [min(points[x]), max(points[x])], color=colour, linewidth=1)


def draw_record(data: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 13.6), layout="constrained")
    top, right, left, bottom = figure.subplots(4)
    styles = {
        "pika_callback": (BLUE, "o-"), "pika_asyncio": (BLUE, "^--"),
        "pika_select": (BLUE, "s:"), "pika_fastest": (BLUE, "s:"),
        "aio_pika_callback": (RED, "o-"),
        "aio_pika_iterator": (RED, "^--"), "aio_pika_fastest": (RED, "s:"),
        "pika_threads": (BLUE, "o-"), "aio_pika_tasks": (RED, "^--"),
    }  # fmt: skip
    for axes, table, across in (
        (top, "prefetch", "prefetch"),
        (right, "length", "messages"),
        (bottom, "lever: acks", "ack_every"),
    ):
        for consumer in distinct(of(data, table), "consumer"):
            if consumer not in styles:
                continue
            wanted = partial(of, data, table, consumer=consumer)
            points = {
                value: [r / 1000 for r in rates(wanted(**{across: value}))]
                for value in distinct(of(data, table), across)
                if value != 0
            }  # fmt: skip
            curve(axes, points, *styles[consumer], consumer)
        # Room for the legend, a line for each consumer.
        room = 1.15 + 0.15 * len(axes.get_legend_handles_labels()[1])
        axes.set_ylim(0, room * max(rates(of(data, table))) / 1000)
    for axes, table, across in (
        (right, "length", "messages"),
        (bottom, "lever: acks", "ack_every"),
    ):
        values = [value for value in distinct(of(data, table), across) if value]
        axes.set_xscale("log")
        axes.set_xticks(values, [f"{value:,}" for value in values])
        axes.set_xticks([], minor=True)
    for pool in ("pika_threads", "aio_pika_tasks"):
        runs = of(data, "pool: waiting", consumer=pool) + of(data, "pool", consumer=pool)
        points = {
            workers: [run["a second"] for run in runs if run["workers"] == workers]
            for workers in distinct(runs, "workers")
        }
        curve(left, points, *styles[pool], pool)
    left.plot([1, 32], [10, 320], color=GREY, linewidth=1, label="ideal")
    style(top, "2,000 messages", "prefetch", "thousand a second")
    style(right, "Prefetch 500", "messages", "thousand a second")
    style(left, "Work of 100 ms", "workers", "messages a second")
    style(
        bottom,
        f"{of(data, 'lever: acks')[0]['messages']:,} messages",
        "acked at once",
        "thousand a second",
    )
    for axes in figure.axes:
        axes.legend(fontsize=SMALL, labelcolor=GREY, frameon=False, loc="upper left")
    about = data["about"]
    machine = f"{about['machine']}, Python {about['python']}{provisional(data)}"
    figure.supxlabel(f"{made_with(about)}\n{machine}", fontsize=SMALL, color=GREY)
    save(figure, RECORD.with_suffix(".svg"))


def draw_peers(peers: dict[str, Any]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 8.4), layout="constrained")
    kinds = {
        "clients, each acked": "Each acked",
        "clients, 100 acked at once": "100 acked at once",
        "tasks": "A task that does nothing",
    }
    counts = [len({(r["consumer"], r.get("uvloop")) for r in of(peers, kind)}) for kind in kinds]
    for axes, (table, title) in zip(
        figure.subplots(3, 1, height_ratios=counts), kinds.items(), strict=True
    ):
        every = {(run["consumer"], run.get("uvloop")) for run in of(peers, table)}
        named = {
            shown(name) + (" (uvloop)" if fast else ""): (
                rates(of(peers, table, consumer=name, uvloop=fast)), name)
            for name, fast in every
        }  # fmt: skip
        order = sorted(named, key=lambda it: median(named[it][0]))
        for place, name in enumerate(order):
            values, consumer = named[name]
            middle = median(values)
            colour = GREY if consumer.startswith("peer_") else RED if "aio" in name else BLUE
            axes.barh(place, middle / 1000, color=colour, height=0.6, alpha=0.7)
            axes.plot([min(values) / 1000, max(values) / 1000], [place] * 2, color=GREY)
            axes.annotate(
                f"{middle / 1000:.1f}", (max(values) / 1000, place), (4, 0),
                textcoords="offset points", va="center", color=GREY, fontsize=SMALL,
            )  # fmt: skip
        axes.set_yticks(range(len(order)), order, fontsize=SMALL)
        style(axes, title, "thousand a second" if table == "tasks" else "", "")
        axes.margins(x=0.1)
    about = peers["about"]
    clients = {name: about["clients"][name] for name in about["clients"]}
    words = [f"{name} {number}" for name, number in clients.items()]
    thirds = [words[place : place + 3] for place in range(0, len(words), 3)]
    versions = ",\n".join(map(", ".join, thirds))
    figure.supxlabel(
        f"{about['date']}, RabbitMQ {about['rabbitmq']},\n{about['machine']}, "
        f"Python {about['python']}{provisional(peers)}\n{versions}",
        fontsize=SMALL,
        color=GREY,
    )
    save(figure, PEERS.with_suffix(".svg"))


def main() -> int:
    """For make bench: measure a part, and say how it stands."""
    part = sys.argv[1] if len(sys.argv) > 1 else "quick"
    with brokers.get() as broker:
        say(f"RabbitMQ {broker.version}, {broker.title}")
        if part not in PARTS:
            return measure(broker, part)
        path = PARTS[part]
        if "--again" in sys.argv:
            path.unlink(missing_ok=True)
        os.environ.setdefault("PYTHONUNBUFFERED", "1")
        status = measure(broker, part, f"--json={path}", "--resume")
    if not status:
        draw()
        if RECORD.exists():
            for name, (got, wanted) in bars(
                load(RECORD), load(PEERS) if PEERS.exists() else None
            ).items():
                say(f"{name}: {got:.2f}, wanted {wanted}")
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (BrokerError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
