"""Break a broker, or a cluster of three, under publishers and workers: `make chaos`.

SEED=     repeats the plan of another run
TASKS=    how many (20,000), FAULTS= (50), NODES= 3 or 1, CREW= publishers of a client (2)
KINDS=    only these faults: "node killed,worker killed"
WITHOUT=  take promises out of the scripts first: "acks early", "no confirms,automatic acks"
JOURNAL=  where to write what happened (chaos.jsonl)
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from statistics import median

from broker import BrokerError, say
from broker.cluster import Cluster
from chaos.broken import BROKEN
from chaos.checker import Verdict, check
from chaos.plan import CLIENTS, THREE_NODES, plan
from chaos.run import Run, fresh_seed


def number(name: str, default: int) -> int:
    text = os.environ.get(name) or str(default)
    if not text.isdecimal() or not int(text):
        sys.exit(f"{name}={text} is not a number of them: make chaos {name}={default}")
    return int(text)


def words(name: str, known: list[str]) -> list[str]:
    found = [word.strip() for word in (os.environ.get(name) or "").split(",") if word.strip()]
    for word in found:
        if word not in known:
            sys.exit(f"{name}={word}: it is none of {', '.join(known)}")
    return found


def report(verdict: Verdict) -> list[str]:
    lines = [
        f"{verdict.confirmed:,} tasks confirmed, {verdict.done:,} done.",
        f"{len(verdict.lost)} lost, {len(verdict.doubled)} took effect twice, "
        f"{len(verdict.reordered)} out of order.",
        f"{sum(verdict.explained.values()):,} came again, {len(verdict.unexplained)} of them "
        "for no cause that we know:",
    ]
    lines += [f"  {count:6,}  {cause}" for cause, count in verdict.explained.most_common()]
    if verdict.waits:
        lines += [
            "The longest wait for a confirm, and then to be done, in the median of each kind:"
        ]
    for kind, each in sorted(verdict.waits.items()):
        sent, done = (median(times) for times in zip(*each, strict=True))
        lines += [f"  {sent:6.1f} s {done:6.1f} s  {kind} ({len(each)} times)"]
    for name, tasks in verdict.wrong.items():
        lines += [f"WRONG: {len(tasks)} {name}: {', '.join(tasks[:8])}"]
    return lines


def main() -> None:
    seed = number("SEED", fresh_seed())
    tasks, faults = number("TASKS", 20_000), number("FAULTS", 50)
    nodes, crew = number("NODES", 3), number("CREW", 2)
    if nodes not in (1, 3):
        sys.exit(f"NODES={nodes}: 1 or 3")
    kinds = words("KINDS", [*CLIENTS, *THREE_NODES])
    without = words("WITHOUT", list(BROKEN))
    journal = Path(os.environ.get("JOURNAL") or "chaos.jsonl")
    begun = time.monotonic()
    with Cluster(size=nodes) as cluster:
        say(f"RabbitMQ {cluster.version}, {nodes} of {cluster.nodes[0].title}. SEED={seed}")
        Run(cluster, plan(seed, tasks, faults, nodes, kinds), tasks, journal, crew, without, say)()
    with journal.open() as lines:
        verdict = check(lines)
    print("\n".join(report(verdict)))
    print(f"SEED={seed}, {(time.monotonic() - begun) / 60:.1f} minutes, journal: {journal}")
    sys.exit(1 if verdict.wrong else 0)


if __name__ == "__main__":
    try:
        main()
    except BrokerError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Interrupted; nothing is left.")
