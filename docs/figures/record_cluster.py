"""What the runs of `make chaos` find: in whole scripts, in broken ones, and at what rate.

Half an hour: each broken script for 5,000 tasks on one node, and the whole ones under
node after node that is killed, frozen and cut off, on three.
"""

from __future__ import annotations

import csv
import json
import tempfile
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pika
from broker import Broker, say
from broker.cluster import Cluster
from chaos.broken import BROKEN
from chaos.checker import Verdict, check
from chaos.plan import Fault, plan
from chaos.run import Run
from conftest import connected
from plotting import BLUE, FIGURES, GREY, RED, SMALL, WIDTH, about, made_with, save

RECORD = FIGURES / "cluster.json"
SEED = 16
WHOLE = "nothing"
# What is taken out: all that a naive script leaves out, too.
TAKEN_OUT = {
    WHOLE: [],
    "the ack after the work": ["automatic acks"],
    "the ack after the work (acks first)": ["acks early"],
    "the transaction around work and note": ["inbox without transaction"],
    "the note of what is done": ["no inbox"],
    "confirms": ["no confirms"],
    "attention to a nack": ["ignores nacks"],
    "the unconfirmed, after a loss": ["forgets the unconfirmed"],
    "all of it: no confirms, no late acks, no note": ["no confirms", "automatic acks", "no inbox"],
}
PARTED = ("node killed", "node paused", "node cut off")


def one_run(
    cluster: Cluster, faults: list[Fault], tasks: int, crew: int, without: list[str]
) -> tuple[Verdict, list[dict[str, Any]]]:
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        Run(cluster, faults, tasks, journal, crew, without, say)()
        lines = journal.read_text().splitlines()
    cluster.repair()
    for queue in cluster.node(1).call_api("GET", "queues/%2F"):
        cluster.node(1).call_api("DELETE", f"queues/%2F/{queue['name']}")
    return check(lines), [json.loads(line) for line in lines]


def losses() -> dict[str, Any]:
    found: dict[str, Any] = {}
    tasks, faults = 5_000, 24
    with Cluster(size=1) as cluster:
        for name, without in TAKEN_OUT.items():
            drawn = plan(SEED, tasks, faults, 1, longest=3)
            verdict, _ = one_run(cluster, drawn, tasks, 1, without)
            counts = {
                "confirmed": verdict.confirmed,
                "lost": len(verdict.lost),
                "twice": len(verdict.doubled),
                "unsent": len(verdict.unsent),
                "again": sum(verdict.explained.values()),
                "unexplained": len(verdict.unexplained),
                "reordered": len(verdict.reordered),
            }
            found[name] = {"without": without, "tasks": tasks, "faults": faults, **counts}
            say(f"  {name}: {counts}")
    return found


def parted() -> tuple[dict[str, Any], Broker]:
    """Thirty faults of nodes: rates a second, when what was broken, and who waited how long."""
    tasks, faults = 9_000, 30
    with Cluster() as cluster:
        drawn = plan(SEED, tasks, faults, 3, PARTED)
        verdict, events = one_run(cluster, drawn, tasks, 2, [])
        node = cluster.node(1)
        used = Broker(node.title, node.url, node.version)
    over = {event["number"]: event["at"] for event in events if event["event"] == "over"}
    rates: dict[str, Any] = {}
    for kind in ("confirmed", "booked"):
        seconds = Counter(int(event["at"]) for event in events if event["event"] == kind)
        rates[kind] = [seconds[second] for second in range(int(verdict.seconds) + 1)]
    spans = [
        [event["kind"], event["at"], over[event["number"]]]
        for event in events
        if event["event"] == "fault"
    ]
    found = {
        "tasks": tasks,
        "wrong": {name: len(each) for name, each in verdict.wrong.items()},
        "explained": dict(verdict.explained),
        "waits": verdict.waits,
        "rates": rates,
        "faults": spans,
    }
    return found, used


QUEUES: dict[str, dict[str, Any]] = {
    "classic, on one node": {"x-queue-type": "classic"},
    "quorum, one copy": {"x-queue-type": "quorum", "x-quorum-initial-group-size": 1},
    "quorum, three copies": {"x-queue-type": "quorum", "x-quorum-initial-group-size": 3},
}
MESSAGES, BODY, ROUNDS = 1_000, 1_000, 5


def costs() -> dict[str, dict[str, list[float]]]:
    """Messages a second and milliseconds of CPU a message, of all nodes; by kind of queue."""
    found: dict[str, Any] = {
        name: {"published": [], "publish_ms": [], "consumed": [], "consume_ms": []}
        for name in QUEUES
    }
    with Cluster() as cluster:

        def busy() -> float:
            """Milliseconds of CPU that the nodes have used so far."""
            asked = [
                x.ctl("eval", "element(1, erlang:statistics(runtime)).") for x in cluster.nodes
            ]
            return sum(map(float, asked))

        for _ in range(ROUNDS):
            for name, arguments in QUEUES.items():
                with connected(cluster.urls[0]) as channel:
                    channel.queue_declare("costs", durable=True, arguments=arguments)
                    before, begun = busy(), time.monotonic()
                    kept = pika.BasicProperties(delivery_mode=2)
                    for _ in range(MESSAGES):
                        channel.basic_publish("", "costs", b"x" * BODY, kept, mandatory=True)
                    spent = time.monotonic() - begun
                    middle = busy()
                    found[name]["published"].append(round(MESSAGES / spent))
                    found[name]["publish_ms"].append(round((middle - before) / MESSAGES, 3))
                    channel.basic_qos(prefetch_count=100)
                    begun = time.monotonic()
                    for number, (method, _, _) in enumerate(channel.consume("costs"), 1):
                        assert method
                        channel.basic_ack(method.delivery_tag or 0)
                        if number == MESSAGES:
                            break
                    spent = time.monotonic() - begun
                    found[name]["consumed"].append(round(MESSAGES / spent))
                    found[name]["consume_ms"].append(round((busy() - middle) / MESSAGES, 3))
                    channel.cancel()
                    channel.queue_delete("costs")
            say(f"  {found}")
    return found


def record_costs() -> None:
    data = json.loads(RECORD.read_text())
    data["costs"] = costs()
    RECORD.write_text(json.dumps(data, indent=1) + "\n")


def record_run() -> None:
    data = json.loads(RECORD.read_text())
    data["run"], used = parted()
    data["about"] = about(used)
    say(f"  {data['run']['wrong'] or 'nothing wrong'}, {data['run']['explained']}")
    RECORD.write_text(json.dumps(data, indent=1) + "\n")


def record_large(nodes: int, seed: int, journal: Path) -> None:
    """Keep what was found by `make chaos NODES= SEED= JOURNAL=`, which may take an hour."""
    lines = journal.read_text().splitlines()
    verdict = check(lines)
    counts = {
        "confirmed": verdict.confirmed,
        "faults": sum(json.loads(line)["event"] == "fault" for line in lines),
        "lost": len(verdict.lost),
        "twice": len(verdict.doubled),
        "again": sum(verdict.explained.values()),
        "unexplained": len(verdict.unexplained),
        "reordered": len(verdict.reordered),
        "minutes": round(verdict.seconds / 60),
    }
    data = json.loads(RECORD.read_text())
    data.setdefault("large", {})[f"{nodes}, {seed}"] = counts
    say(f"  {counts}")
    RECORD.write_text(json.dumps(data, indent=1) + "\n")


def record(_: Broker) -> None:
    data = json.loads(RECORD.read_text()) | {"seed": SEED, "losses": losses()}
    assert set(BROKEN) <= {name for each in TAKEN_OUT.values() for name in each}
    RECORD.write_text(json.dumps(data, indent=1) + "\n")
    record_run()
    record_costs()


def table(name: str, rows: list[list[Any]]) -> None:
    with (FIGURES / name).open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def cost_tables(costs: dict[str, dict[str, list[float]]]) -> None:
    """What each kind of queue costs, and what that makes of a rate, on paper."""
    middle = {name: {k: median(v) for k, v in each.items()} for name, each in costs.items()}
    table(
        "cluster-costs.csv",
        [
            ["Queue", "Published a second", "CPU each", "Consumed a second", "CPU each"],
            *(
                [
                    name,
                    f"{x['published']:,.0f}",
                    f"{x['publish_ms']:.2f} ms",
                    f"{x['consumed']:,.0f}",
                    f"{x['consume_ms']:.2f} ms",
                ]
                for name, x in middle.items()
            ),
        ],
    )
    quorum = middle["quorum, three copies"]
    each = quorum["publish_ms"] + quorum["consume_ms"]
    table(
        "cluster-sizing.csv",
        [
            ["Messages a second", "Cores, all nodes", "Written by each node"],
            *(
                [f"{rate:,}", f"{rate * each / 1000:,.1f}", f"{rate * BODY / 1e6:,.0f} MB/s"]
                for rate in (1_000, 100_000)
            ),
        ],
    )


def draw() -> None:
    """The rates of the run on three nodes, with what was broken; and the page's two tables."""
    from matplotlib.figure import Figure

    data = json.loads(RECORD.read_text())
    run = data["run"]
    table(
        "cluster-losses.csv",
        [
            ["Taken out", "Confirmed", "Lost", "Done twice", "Never sent"],
            *(
                [name, f"{x['confirmed']:,}", x["lost"], x["twice"], x["unsent"]]
                for name, x in data["losses"].items()
            ),
        ],
    )
    table(
        "cluster-large.csv",
        [
            ["Nodes, seed", "Confirmed", "Faults", "Lost", "Done twice", "Came again", "Minutes"],
            *(
                [
                    *(name, f"{x['confirmed']:,}", x["faults"], x["lost"], x["twice"]),
                    *(x["again"], x["minutes"]),
                ]
                for name, x in sorted(data["large"].items())
            ),
        ],
    )
    waits = [
        (kind, [median(each) for each in zip(*run["waits"][kind], strict=True)]) for kind in PARTED
    ]
    table(
        "cluster-waits.csv",
        [
            ["What happens", "Times", "To be confirmed", "From then on to be done"],
            *(
                [f"A {kind}", len(run["waits"][kind]), f"{sent:.1f} s", f"{done:.1f} s"]
                for kind, (sent, done) in waits
            ),
        ],
    )
    cost_tables(data["costs"])
    figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
    axes = figure.subplots()
    colours = dict(zip(PARTED, (RED, BLUE, "#a16207"), strict=True))
    shown = set()
    for kind, begun, ended in run["faults"]:
        label = None if kind in shown else f"a {kind}"
        axes.axvspan(begun, ended, color=colours[kind], alpha=0.25, linewidth=0, label=label)
        shown.add(kind)
    width = 5  # seconds
    counts = run["rates"]["booked"]
    edges = [*range(0, len(counts) + 1, width)]
    rates = [sum(counts[a:b]) / width for a, b in pairwise(edges)]
    axes.step(edges[:-1], rates, where="post", color=GREY, linewidth=1.5)
    axes.set_ylim(0)
    axes.set_xlim(0, edges[-1])
    axes.set_xlabel("seconds", color=GREY)
    axes.set_ylabel("tasks done a second", color=GREY)
    axes.tick_params(colors=GREY)
    for spine in axes.spines.values():
        spine.set_color(GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        loc="lower center",
        bbox_to_anchor=(0.5, 1),
        ncols=3,
        frameon=False,
        labelcolor=GREY,
        fontsize=SMALL,
        columnspacing=0.8,
        handlelength=1.2,
    )
    wrong = sum(run["wrong"].values())
    figure.supxlabel(
        f"{run['tasks']:,} tasks, {len(run['faults'])} faults, three nodes:\n"
        f"{wrong} lost or done twice\n{made_with(data['about'])}",
        fontsize=SMALL,
        color=GREY,
    )
    save(figure, RECORD.with_suffix(".svg"))
