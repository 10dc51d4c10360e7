"""Two figures: memory with a bound and without, and what a retry storm does."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
from broker import Broker, say
from plotting import BLUE, FIGURES, GREY, RED, SMALL, WIDTH, about, made_with, save
from shells.chapters import EXAMPLES, reader_environment

CHAPTER = "backpressure"
FOLDER = EXAMPLES / CHAPTER
BUFFERS = {"unbounded_buffer.py": "asyncio.Queue()", "bounded_buffer.py": "maxsize=10"}
COUNT = 2000
MEMORY, STORM = FIGURES / f"{CHAPTER}.json", FIGURES / f"{CHAPTER}-retries.json"
# By policy: what the figure calls it.
SHOWN = {
    "at once": "retries at once",
    "backoff, jitter": "backoff and jitter",
    "and a budget": "… and a retry budget",
    "and a bounded queue": "… and a bounded queue",
}


def memory(script: Path, count: int) -> list[tuple[float, float]]:
    """The memory (MiB) that a script has while it runs, and when (seconds)."""
    command = [sys.executable, "-B", str(script), str(count)]
    run = subprocess.Popen(
        command, env=reader_environment("amqp://unused/"), stdout=subprocess.DEVNULL
    )
    process, started = psutil.Process(run.pid), time.monotonic()
    found: list[tuple[float, float]] = []
    while run.poll() is None:
        now, used = time.monotonic() - started, process.memory_info().rss / 2**20
        if used:  # none is left when it has just ended
            found.append((round(now, 2), round(used, 1)))
        time.sleep(0.02)
    assert run.returncode == 0
    return found


def storm() -> ModuleType:
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("retry_storm", FOLDER / "retry_storm.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def simulated() -> dict[str, dict[str, Any]]:
    module = storm()
    runs = {name: module.simulate(*policy) for name, policy in module.POLICIES.items()}
    return {name: {"load": load, "goodput": good} for name, (load, good) in runs.items()}


def record(broker: Broker) -> None:
    """The buffers measured from outside; the simulation, which is the same each time."""
    runs: dict[str, list[tuple[float, float]]] = {}
    for script in BUFFERS:
        runs[script] = memory(FOLDER / script, COUNT)
        say(f"  {script}: {max(used for _, used in runs[script])} MiB")
    what = f"{COUNT:,} items of 100 kB"
    MEMORY.write_text(json.dumps({"about": about(None), "script": what, "runs": runs}) + "\n")
    data = {"about": about(None), "script": "retry_storm.py", "runs": simulated()}
    STORM.write_text(json.dumps(data) + "\n")


def plain(axes: Any) -> None:
    axes.tick_params(colors=GREY)
    for spine in axes.spines.values():
        spine.set_color(GREY)
    axes.spines[["top", "right"]].set_visible(False)


def draw() -> None:
    draw_memory()
    draw_storm()


def draw_memory() -> None:
    from matplotlib.figure import Figure

    data = json.loads(MEMORY.read_text())
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.subplots()
    for (script, name), colour in zip(BUFFERS.items(), (RED, BLUE), strict=True):
        run = data["runs"][script]
        axes.plot(*zip(*run, strict=True), color=colour, linewidth=2, label=name)
        when, most = max(run, key=lambda each: each[1])
        axes.annotate(
            f"{most:.0f} MiB",
            (when, most),
            (6, 6),
            textcoords="offset points",
            color=colour,
        )
    axes.set_ylim(0, 1.15 * max(used for _, used in data["runs"]["unbounded_buffer.py"]))
    axes.set_xlim(0)
    axes.set_xlabel("seconds", color=GREY)
    axes.set_ylabel("MiB of memory", color=GREY)
    plain(axes)
    axes.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, labelcolor=GREY
    )
    figure.supxlabel(f"{data['script']}\n{made_with(data['about'])}", fontsize=SMALL, color=GREY)
    save(figure, MEMORY.with_suffix(".svg"))


def draw_storm() -> None:
    """One plot for each policy: what arrives, and what of it is answered in time."""
    from matplotlib.figure import Figure

    data = json.loads(STORM.read_text())
    figure = Figure(figsize=(WIDTH, 6.2), layout="constrained")
    every = figure.subplots(len(SHOWN), sharex=True)
    for axes, (policy, name) in zip(every, SHOWN.items(), strict=True):
        run = data["runs"][policy]
        axes.plot(run["load"], color=RED, linewidth=1.5, label="attempts that arrive")
        axes.plot(run["goodput"], color=BLUE, linewidth=1.5, label="answered in time")
        axes.axhline(100, color=GREY, linewidth=1, linestyle=":")
        axes.set_title(name, color=GREY, fontsize=11, loc="left")
        axes.set_xlim(0, 60)
        axes.set_ylim(0)
        plain(axes)
    every[0].legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.15), ncols=2, frameon=False, labelcolor=GREY
    )
    every[-1].set_xlabel("simulated seconds", color=GREY)
    figure.supylabel("a second", color=GREY, fontsize=11)
    figure.supxlabel(
        f"A simulation: {data['script']}. Dotted: what the service can do\n"
        f"{made_with(data['about'])}",
        fontsize=SMALL,
        color=GREY,
    )
    save(figure, STORM.with_suffix(".svg"))
