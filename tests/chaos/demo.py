"""Watch a cluster lose a node, half a minute: `make cluster-demo`.

Publishers and workers of both clients, and the nodes. The node that leads their queue is
killed without a warning, and comes back. At the end: what was confirmed, and what is done.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from contextlib import nullcontext, suppress
from pathlib import Path

from broker import BrokerError
from broker.cluster import Cluster
from chaos.checker import Verdict, check
from chaos.run import Run, Worker
from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.panel import Panel

TASKS, SECONDS = 2_000, 26
KILLED, BACK = 8, 17  # seconds after the first task
WIDE = 100


class Demo:
    """The state of things, asked for now and then, and told."""

    def __init__(self, cluster: Cluster, run: Run, console: Console) -> None:
        self.cluster, self.run, self.console = cluster, run, console
        self.leader, self.waiting = "", 0
        self.over = threading.Event()
        self.live = (
            Live(console=console) if console.is_terminal and console.width >= WIDE else None
        )

    def ask(self) -> None:
        """Who leads, and how many tasks wait, as a node says that is up."""
        for number, node in enumerate(self.cluster.nodes, 1):
            if number not in self.cluster.down:
                with suppress(BrokerError, KeyError, TypeError):
                    queue = node.call_api("GET", "queues/%2F/bookings")
                    self.leader = queue["leader"].partition("@")[0]
                    self.waiting = queue["messages"]
                    return

    def nodes(self) -> list[str]:
        states = []
        for number in range(1, len(self.cluster.nodes) + 1):
            name = f"node{number}"
            state = "leads" if name == self.leader else "follows"
            states.append(f"{name} {'is down' if number in self.cluster.down else state}")
        return states

    def show(self, second: int) -> None:
        counts = self.run.counts
        told = f"waiting {self.waiting}, confirmed {counts['confirmed']}, done {counts['booked']}"
        told += f", came again {counts['again']}"
        if not self.live:
            self.console.print(f"{second:3} s  {', '.join(self.nodes())}; {told}", soft_wrap=True)
            return
        panels = [Panel("\n".join(self.nodes()), title="nodes", height=6, width=22)]
        for process in (*self.run.publishers[:2], *self.run.workers[:2]):
            heading = "worker" if isinstance(process, Worker) else "publisher"
            text = "\n".join(line.strip()[:24] for line in list(process.last)[-4:])
            panels.append(Panel(text, title=f"{heading}, {process.client}", height=6, width=28))
        self.live.update(Columns([*panels, Panel(f"{second} s: {told}", title="tasks")]))

    def break_it(self) -> None:
        while not self.run.counts["confirmed"] and not self.over.wait(0.1):
            pass
        self.over.wait(KILLED)
        number = next(
            (n for n in range(1, len(self.cluster.nodes) + 1) if f"node{n}" == self.leader), 1
        )
        self.tell(f"node{number}, the leader, is killed")
        self.cluster.act(number, "kill")
        self.over.wait(BACK - KILLED)
        self.tell(f"node{number} is started again")
        self.cluster.act(number, "start")
        self.ask()

    def tell(self, text: str) -> None:
        (self.live.console if self.live else self.console).print(f"--- {text}")

    def ask_often(self) -> None:
        while not self.over.wait(0.5):
            self.ask()

    def __call__(self) -> None:
        threads = [
            threading.Thread(target=target, daemon=True) for target in (self.run, self.break_it)
        ]
        asking = threading.Thread(target=self.ask_often, daemon=True)
        for thread in (*threads, asking):
            thread.start()
        begun = time.monotonic()
        with self.live or nullcontext():
            while any(thread.is_alive() for thread in threads):
                self.show(round(time.monotonic() - begun))
                threads[0].join(1)
                if not threads[0].is_alive():
                    threads[1].join(1)
        self.over.set()
        asking.join(30)


def play(cluster: Cluster, console: Console, tasks: int, seconds: float) -> Verdict:
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal"
        run = Run(cluster, [], tasks, journal)
        run.interval = seconds * len(run.publishers) / tasks
        Demo(cluster, run, console)()
        with journal.open() as lines:
            verdict = check(lines)
    again = sum(verdict.explained.values())
    console.print(
        f"{verdict.confirmed:,} confirmed, {verdict.done:,} done: {len(verdict.lost)} lost, "
        f"{len(verdict.doubled)} done twice. {again} came again, and were recognised.",
        soft_wrap=True,
    )
    return verdict


def main() -> None:
    console = Console(highlight=False)
    try:
        console.print("Three nodes start …")
        with Cluster() as cluster:
            console.print(f"RabbitMQ {cluster.version} is up: {cluster.nodes[0].title}.")
            verdict = play(cluster, console, TASKS, SECONDS)
        console.print("Next: make cluster, and docs/cluster.rst; or make chaos.")
        sys.exit(1 if verdict.wrong else 0)
    except BrokerError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        console.print("\nInterrupted; nothing that the demo started is left.")
        sys.exit(130)


if __name__ == "__main__":
    main()
