"""The memory that a job takes, by its number of tasks, with and without a bound."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from broker import Broker, say
from conftest import altered
from plotting import BLUE, FIGURES, GREY, RED, SMALL, WIDTH, about, made_with, save
from shells.chapters import EXAMPLES, reader_environment

CHAPTER = "producer-consumer"
SCRIPT = "job_controller.py"
FOLDER = EXAMPLES / CHAPTER
COUNTS = (10_000, 100_000, 1_000_000)
BOUNDED, UNBOUNDED = "a queue of at most 100", "a queue without a limit"

# getrusage() would count the memory of the process that started this one, too; and
# rich, with which the demonstration shows its progress, has more than all the rest.
MEASURE = """
import asyncio, importlib, json, pathlib, sys
script, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
sys.path[:0] = [str(script.parent), sys.argv[3]]
controller = {"job_taskgroup": "TaskGroupController"}.get(script.stem, "JobController")
from job_controller import WorkTask
batch = (WorkTask(number, asyncio.sleep, (0,)) for number in range(count))
nothing = lambda *_: None
job = getattr(importlib.import_module(script.stem), controller)(batch, nothing, nothing)
result = job.run()
assert result.done == count
with open("/proc/self/status") as status:
    (kib,) = (line.split()[1] for line in status if line.startswith("VmHWM"))
print(json.dumps([int(kib), round(result.elapsed_secs, 4)]))
"""


def peak_memory(script: Path, count: int) -> dict[str, Any]:
    """Run so many tasks that do nothing; the most memory it took, and the time."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", MEASURE, str(script), str(count), str(FOLDER)],
        env=reader_environment("amqp://unused/"),
        capture_output=True,
        text=True,
        check=True,
    )
    kib, secs = json.loads(done.stdout.splitlines()[-1])
    return {"tasks": count, "peak_mib": round(kib / 1024, 1), "secs": secs}


def record(broker: Broker) -> None:
    """Jobs of different lengths, with the queue's limit and without."""
    with tempfile.TemporaryDirectory() as folder:
        limit = "WORK_QUEUE_MAX_SIZE = 100"
        copy = altered(CHAPTER, "", SCRIPT, limit, "WORK_QUEUE_MAX_SIZE = 0", Path(folder))
        scripts = {BOUNDED: FOLDER / SCRIPT, UNBOUNDED: copy}
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in scripts}
        for name, script in scripts.items():
            for count in COUNTS:
                runs[name].append(peak_memory(script, count))
                say(f"  {name}: {runs[name][-1]}")
    data = {"about": about(None), "script": SCRIPT, "runs": runs}
    (FIGURES / f"{CHAPTER}.json").write_text(json.dumps(data, indent=1) + "\n")


def draw() -> None:
    """Peak memory over the number of tasks, both on scales of powers of ten."""
    from matplotlib.figure import Figure

    path = FIGURES / f"{CHAPTER}.json"
    data = json.loads(path.read_text())
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    counts = [each["tasks"] for each in data["runs"][BOUNDED]]
    for (name, run), colour in zip(data["runs"].items(), (BLUE, RED), strict=True):
        peaks = [each["peak_mib"] for each in run]
        axes.plot(counts, peaks, "o-", color=colour, linewidth=2, label=name)
        for count, peak in zip(counts, peaks, strict=True):
            if (name, count) != (UNBOUNDED, counts[0]):  # as good as the other's
                offset = (-6, 5) if name == UNBOUNDED else (0, -15)
                axes.annotate(
                    f"{peak:.0f} MiB",
                    (count, peak),
                    offset,
                    textcoords="offset points",
                    ha="right" if name == UNBOUNDED else "center",
                    color=colour,
                )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(5_000, 2_000_000)
    axes.set_ylim(10, 1_500)
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.set_yticks([10, 100, 1000], ["10 MiB", "100 MiB", "1,000 MiB"])
    axes.minorticks_off()
    axes.set_xlabel("tasks in the job", color=GREY)
    axes.tick_params(colors=GREY)
    for spine in axes.spines.values():
        spine.set_color(GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, labelcolor=GREY
    )
    figure.supxlabel(
        f"Peak memory of {data['script']}\n{made_with(data['about'])}", fontsize=SMALL, color=GREY
    )
    save(figure, path.with_suffix(".svg"))
