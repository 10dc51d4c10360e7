"""Record what the scripts do, and draw the pages' figures from the record.

    python tests/figures.py          record anew, then draw
    python tests/figures.py --draw   draw again from the committed records

A record is a JSON file in docs/figures/ that says when, where and with what it
was made; the drawing beside it shows nothing that is not in it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import broker as brokers
import matplotlib
from broker import Broker, BrokerError, say
from chapters import CLIENTS, DOCS, EXAMPLES
from conftest import connected
from running import Script

FIGURES = DOCS / "figures"
CHAPTER = "2-work-queues"
WORKERS = {"unfair": "tasks_worker_unfair.py", "fair": "tasks_worker.py"}
# Heavy and light in turn; a dot is a second.
PAIR = (("Heavy", "...."), ("Light", "."))
TASKS = [f"{name} {index}{dots}" for index in range(1, 5) for name, dots in PAIR]

# Colours that read on a white page and on a dark one.
GREY, HEAVY, LIGHT = "#7a7a7a", "#c2410c", "#0e7490"


def about(broker: Broker) -> dict[str, Any]:
    """When, where and with what a record is made."""
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "rabbitmq": broker.version,
        "clients": {name: version(name) for name in CLIENTS},
    }


def record_dispatch(broker: Broker, client: str, worker: str) -> list[dict[str, Any]]:
    """Two workers, the tasks sent in turn: who did which, from when to when.

    Times are in seconds from the first task's publication.
    """
    folder = EXAMPLES / CHAPTER / client
    with broker.vhost() as url, connected(url) as channel:
        workers: list[Script] = []
        try:
            for _ in range(2):
                workers.append(Script(folder / worker, url=url))
                workers[-1].wait_for("[*] Waiting")
            start = time.monotonic()
            for task in TASKS:
                channel.basic_publish("", "task_queue", task.encode())
            total = sum(task.count(".") for task in TASKS)
            while sum(each.stdout.count(" [x] Done") for each in workers) < len(TASKS):
                if time.monotonic() > start + 3 * total:
                    raise BrokerError(f"{worker} does not get done: {workers}")
                time.sleep(0.05)
        finally:
            for each in workers:
                each.close()
    done = []
    for number, each in enumerate(workers, 1):
        lines = zip(each.stdout, each.times, strict=True)
        for line, when in lines:
            if "Received" in line:
                _, ended = next(lines)
                task = line.split("'")[1]
                span = {"from": round(when - start, 2), "to": round(ended - start, 2)}
                done.append({"worker": number, "task": task, **span})
    return done


def record(broker: Broker) -> None:
    """All records of all chapters."""
    cases = [(name, client) for name in WORKERS for client in CLIENTS]
    say(f"Recording with RabbitMQ {broker.version}: half a minute …")
    with ThreadPoolExecutor(len(cases)) as pool:
        runs = pool.map(lambda case: record_dispatch(broker, case[1], WORKERS[case[0]]), cases)
        found = dict(zip(cases, runs, strict=True))
    for name in WORKERS:
        runs_of = {client: found[name, client] for client in CLIENTS}
        data = {"about": about(broker), "script": WORKERS[name], "runs": runs_of}
        path = FIGURES / f"{CHAPTER}-{name}.json"
        path.write_text(json.dumps(data, indent=1) + "\n")


def draw_dispatch(path: Path) -> None:
    """A timeline: a row for each worker, a bar for each task."""
    from matplotlib.figure import Figure

    data = json.loads(path.read_text())
    figure = Figure(figsize=(5.4, 3.4), layout="constrained")
    axes = figure.subplots()
    rows: list[str] = []
    for client, run in data["runs"].items():
        for worker in (1, 2):
            row = len(rows)
            rows.append(f"{client}\nworker {worker}")
            for task in (each for each in run if each["worker"] == worker):
                heavy = task["task"].startswith("Heavy")
                axes.barh(
                    row,
                    task["to"] - task["from"],
                    left=task["from"],
                    height=0.62,
                    color=HEAVY if heavy else LIGHT,
                    edgecolor="white",
                )
                axes.text(
                    (task["from"] + task["to"]) / 2,
                    row,
                    task["task"].split()[1].rstrip("."),
                    ha="center",
                    va="center",
                    color="white",
                    weight="bold",
                )
        ends = max(each["to"] for each in run)
        axes.text(ends + 0.15, len(rows) - 1.5, f"{ends:.1f} s", va="center", color=GREY)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xlim(0, 18.5)
    axes.set_xticks(range(0, 18, 2))
    axes.set_xlabel("seconds since the first task was sent", color=GREY)
    axes.tick_params(colors=GREY)
    for spine in axes.spines.values():
        spine.set_color(GREY)
    axes.spines[["top", "right"]].set_visible(False)
    for name, colour in (("heavy task, 4 s", HEAVY), ("light task, 1 s", LIGHT)):
        axes.barh([0], [0], color=colour, label=name)
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, labelcolor=GREY
    )
    made = data["about"]
    versions = ", ".join(f"{name} {number}" for name, number in made["clients"].items())
    figure.supxlabel(
        f"{data['script']}, {made['date']}\nRabbitMQ {made['rabbitmq']}, {versions}",
        fontsize=9,
        color=GREY,
    )
    save(figure, path.with_suffix(".svg"))


def save(figure: Any, path: Path) -> None:
    """Write an SVG that is the same whenever it is drawn from the same record."""
    settings: dict[Any, Any] = {"svg.hashsalt": path.stem, "svg.fonttype": "none", "font.size": 11}
    with matplotlib.rc_context(settings):
        figure.savefig(path, transparent=True, metadata={"Date": None})
    # "none" leaves text as text; let the browser choose its own sans-serif.
    text = path.read_text().replace("DejaVu Sans", "system-ui")
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def draw() -> None:
    """All figures of all chapters."""
    for path in sorted(FIGURES.glob(f"{CHAPTER}-*.json")):
        draw_dispatch(path)
        say(f"Drew {path.with_suffix('.svg').name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--draw", action="store_true", help="draw from the committed records")
    FIGURES.mkdir(exist_ok=True)
    try:
        if not parser.parse_args().draw:
            with brokers.get() as broker:
                record(broker)
        draw()
    except BrokerError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
