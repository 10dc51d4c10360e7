"""Chapter 7's figure: how many messages a second are confirmed, in each way."""

from __future__ import annotations

import json
import re
from statistics import median

from broker import Broker, BrokerError
from plotting import BLUE, FIGURES, GREY, RED, SMALL, WIDTH, about, made_with, save
from shells.chapters import CLIENTS, EXAMPLES
from shells.running import Script

CHAPTER = "7-publisher-confirms"
# By script: what the figure calls it.
WAYS = {
    "publish_individually.py": "one by one",
    "publish_in_batches.py": "in batches of 100",
    "publish_asynchronously.py": "asynchronously, 100 unconfirmed",
}
COUNT, REPEATS = 2000, 7
RECORD = FIGURES / f"{CHAPTER}.json"


def speed(client: str, script: str, url: str) -> int:
    """Messages a second, by the time that the script itself says."""
    run = Script(EXAMPLES / CHAPTER / client / script, str(COUNT), url=url)
    try:
        status = run.wait(300)
        found = re.search(rf"Confirmed {COUNT} of {COUNT} in (\d+\.\d+) s", str(run))
        if status or not found:
            raise BrokerError(f"It did not work: {run}")
        return round(COUNT / float(found[1]))
    finally:
        run.close()


def record(broker: Broker) -> None:
    """All six scripts in turn, again and again, each time on a queue of its own."""
    runs: dict[str, dict[str, list[int]]] = {
        client: {script: [] for script in WAYS} for client in CLIENTS
    }
    for _ in range(REPEATS):
        for script in WAYS:
            for client in CLIENTS:
                with broker.vhost() as url:
                    runs[client][script].append(speed(client, script, url))
    what = f"{COUNT:,} messages, {REPEATS} times each"
    data = {"about": about(broker), "script": what, "runs": runs}
    RECORD.write_text(json.dumps(data, indent=1) + "\n")


def draw() -> None:
    """A bar for each way and client, with a line from the slowest to the fastest."""
    from matplotlib.figure import Figure

    data = json.loads(RECORD.read_text())
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axes = figure.subplots()
    rows: list[str] = []
    for client, run in data["runs"].items():
        for (script, way), colour in zip(WAYS.items(), (RED, BLUE, BLUE), strict=True):
            row, speeds = len(rows) + (client == CLIENTS[1]) * 0.5, run[script]
            rows.append(f"{way}")
            axes.barh(row, median(speeds), height=0.62, color=colour)
            axes.plot([min(speeds), max(speeds)], [row, row], color=GREY, linewidth=2)
            axes.text(max(speeds) + 150, row, f"{median(speeds):,.0f}", va="center", color=GREY)
    axes.set_yticks([0, 1, 2, 3.5, 4.5, 5.5], [way.replace(", ", ",\n") for way in rows])
    for row, client in zip((-0.62, 2.88), CLIENTS, strict=True):
        axes.text(0, row, client, color=GREY, weight="bold", va="center")
    axes.set_ylim(6, -1)
    fastest = max(max(each) for run in data["runs"].values() for each in run.values())
    axes.set_xlim(0, fastest * 1.2)
    axes.set_xlabel("confirmed messages a second", color=GREY)
    axes.tick_params(colors=GREY)
    for spine in axes.spines.values():
        spine.set_color(GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    figure.supxlabel(f"{data['script']}\n{made_with(data['about'])}", fontsize=SMALL, color=GREY)
    save(figure, RECORD.with_suffix(".svg"))
