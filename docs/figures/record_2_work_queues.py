"""Chapter 2's figures: who does which task when, without prefetch and with."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from broker import Broker, BrokerError
from conftest import connected
from plotting import BLUE, FIGURES, GREY, RED, SMALL, WHITE, WIDTH, about, made_with, save
from shells.chapters import CLIENTS, EXAMPLES
from shells.running import Script

CHAPTER = "2-work-queues"
WORKERS = {"unfair": "tasks_worker_unfair.py", "fair": "tasks_worker.py"}
# Heavy and light in turn; a dot is a second.
PAIR = (("Heavy", "...."), ("Light", "."))
TASKS = [f"{name} {index}{dots}" for index in range(1, 5) for name, dots in PAIR]


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
    """Who does what, with both workers, in both clients."""
    cases = [(name, client) for name in WORKERS for client in CLIENTS]
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
    figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
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
                    color=RED if heavy else BLUE,
                    edgecolor=WHITE,
                )
                axes.text(
                    (task["from"] + task["to"]) / 2,
                    row,
                    task["task"].split()[1].rstrip("."),
                    ha="center",
                    va="center",
                    color=WHITE,
                    weight="bold",
                )
        ends = max(each["to"] for each in run)
        axes.text(ends + 0.15, len(rows) - 1.5, f"{ends:.1f} s", va="center", color=GREY)
    axes.set_yticks(range(len(rows)), rows)
    axes.invert_yaxis()
    axes.set_xlim(0, 18.5)
    axes.set_xticks(range(0, 18, 4))
    axes.set_xlabel("seconds since the first task was sent", color=GREY)
    axes.tick_params(colors=GREY)
    for spine in axes.spines.values():
        spine.set_color(GREY)
    axes.spines[["top", "right"]].set_visible(False)
    for name, colour in (("heavy task, 4 s", RED), ("light task, 1 s", BLUE)):
        axes.barh([0], [0], color=colour, label=name)
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, labelcolor=GREY
    )
    figure.supxlabel(
        f"{data['script']}\n{made_with(data['about'])}",
        fontsize=SMALL,
        color=GREY,
    )
    save(figure, path.with_suffix(".svg"))


def draw() -> None:
    for name in WORKERS:
        draw_dispatch(FIGURES / f"{CHAPTER}-{name}.json")
