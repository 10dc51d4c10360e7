"""What each model of handling messages does a second, and in how much memory.

Every measurement is a script as the reader runs it, in a process of its own; the
models in turn, round after round.
"""

from __future__ import annotations

import csv
import json
import signal
import statistics
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pika
from broker import Broker, say
from conftest import poll, ready
from plotting import BLUE, FIGURES, GREY, RED, SMALL, WIDTH, about, made_with, save
from shells.chapters import EXAMPLES, reader_environment

CHAPTER = "handling-models"
RECORD = FIGURES / f"{CHAPTER}.json"
QUORUM = {"x-queue-type": "quorum"}
MODELS = (
    "one_at_a_time",
    "thread_pool",
    "process_pool",
    "asyncio_tasks",
    "asyncio_to_thread",
    "asyncio_with_pika",
)
MODEL_ROUNDS, POOL_ROUNDS = 3, 5
# What is measured: the job, how many workers, how many jobs.
IO, CPU = "sleep 0.1", "count 1000000"
KINDS = {IO: (10, 300), CPU: (2, 100)}
POOLS = ("thread_pool", "asyncio_with_pika", "asyncio_tasks")
SIZES, TASKS, EACH = (32, 128, 256), 2_000, 0.1
# Notes in the script's own process when it prints what, instead of printing it: a
# reader of its output would compete with it for the cores, and see things late.
NOTE_TIMES = """
import builtins, json, os, time
noted, real = {"Received": [], "Done": []}, print
count = int(os.environ["COUNT"])
def note(text, **more):
    found = noted.get(text[5:].split(" ", 1)[0])
    if found is None:
        return real(text, **more)
    found.append(time.monotonic())
    if found is noted["Done"] and len(found) == count:
        with open(os.environ["NOTED"] + ".new", "w") as file:
            json.dump(noted, file)
        os.rename(file.name, os.environ["NOTED"])
builtins.print = note
"""


def publish(url: str, *jobs: str | bytes) -> None:
    """Send jobs, and see that the queue has them. Faster than a confirm for each."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare("jobs", durable=True, arguments=QUORUM)
        for job in jobs:
            channel.basic_publish("", "jobs", job if isinstance(job, bytes) else job.encode())
        poll(lambda: ready(channel, "jobs"), len(jobs))


def family(process: int) -> set[int]:
    """The processes that a process has started, and those that they have."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # gone meanwhile
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(stat.parent.name)] = int(parent)
    found = {process}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process}


def peak_mib(process: int) -> float:
    """The most that a process and those it has started have been resident with."""
    total = 0
    for each in {process} | family(process):
        with suppress(OSError):
            status = Path(f"/proc/{each}/status").read_text()
            total += int(status.partition("VmHWM:")[2].split()[0])
    return round(total / 1024, 1)


def run(broker: Broker, model: str, workers: int, job: str, count: int) -> dict[str, Any]:
    """One script from the first delivery to the last job done."""
    script = EXAMPLES / CHAPTER / f"{model}.py"
    arguments = [] if model == "one_at_a_time" else [str(workers)]
    with broker.vhost() as url, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(NOTE_TIMES)
        noted = folder / "noted.json"
        more = {"PYTHONPATH": name, "NOTED": str(noted), "COUNT": str(count)}
        publish(url, *(f"{job} #{number}" for number in range(count)))
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, str(script), *arguments],
                env=reader_environment(url) | more,
                stdout=output,
            )
        poll(noted.exists, True, 120)
        peak = peak_mib(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
        times = json.loads(noted.read_text())
    first, done = times["Received"][0], times["Done"]
    return {
        "seconds": round(done[-1] - first, 4),
        # Without the start, in which a pool brings its processes up.
        "a second": round((count - 2 * workers) / (done[-1] - done[2 * workers - 1]), 2),
        "peak MiB": peak,
    }


def record(broker: Broker) -> None:
    models: dict[str, Any] = {each: {kind: [] for kind in KINDS} for each in MODELS}
    pools: dict[str, Any] = {each: {str(size): [] for size in SIZES} for each in POOLS}
    for number in range(1, MODEL_ROUNDS + 1):
        for kind, (workers, count) in KINDS.items():
            for model in MODELS:
                jobs = 50 if (model, kind) == ("one_at_a_time", IO) else count
                models[model][kind].append(run(broker, model, workers, kind, jobs))
        say(f"  models: round {number} of {MODEL_ROUNDS}")
    for number in range(1, POOL_ROUNDS + 1):
        for size in SIZES:
            for pool in POOLS:
                took = run(broker, pool, size, f"sleep {EACH}", TASKS)["seconds"]
                pools[pool][str(size)].append(round(TASKS * EACH / size / took, 3))
        say(f"  pools: round {number} of {POOL_ROUNDS}")
    data = {
        "about": about(broker),
        "workers": {kind: workers for kind, (workers, _) in KINDS.items()},
        "models": models,
        "efficiency": pools,
    }
    RECORD.write_text(json.dumps(data, indent=1) + "\n")


def shown(values: list[float], digits: int = 0) -> str:
    """The median, and the extremes."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def efficiency_rows(data: dict[str, Any]) -> list[list[str]]:
    """The page's table: a number of workers a row."""
    pools = data["efficiency"]
    return [[str(size), *(shown(pools[pool][str(size)], 2) for pool in POOLS)] for size in SIZES]


def draw() -> None:
    from matplotlib.figure import Figure

    data = json.loads(RECORD.read_text())
    with (FIGURES / f"{CHAPTER}-efficiency.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(efficiency_rows(data))
    figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
    titles = {IO: "waits 100 ms", CPU: "computes"}
    for axes, (kind, title) in zip(figure.subplots(2), titles.items(), strict=True):
        for place, model in enumerate(MODELS):
            rates = [each["a second"] for each in data["models"][model][kind]]
            middle = statistics.median(rates)
            colour = RED if model == "process_pool" else BLUE
            axes.barh(place, middle, color=colour, height=0.6)
            axes.plot([min(rates), max(rates)], [place, place], color=GREY, linewidth=2)
            axes.annotate(
                f"{middle:,.0f}", (max(middle, *rates), place), (4, 0),
                textcoords="offset points", va="center", color=GREY,
            )  # fmt: skip
        workers = data["workers"][kind]
        axes.set_title(f"The work {title}, {workers} workers", fontsize=11, color=GREY)
        axes.set_yticks(range(len(MODELS)), MODELS)
        axes.margins(x=0.2)
        axes.set_xlabel("jobs a second", color=GREY)
        axes.tick_params(colors=GREY)
        for spine in axes.spines.values():
            spine.set_color(GREY)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in figure.axes:
        axes.invert_yaxis()
    machine = f"{data['about']['machine']}, Python {data['about']['python']}"
    figure.supxlabel(f"{made_with(data['about'])}\n{machine}", fontsize=SMALL, color=GREY)
    save(figure, RECORD.with_suffix(".svg"))
