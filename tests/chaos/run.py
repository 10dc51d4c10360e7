"""Run publishers and workers of both clients while things are broken under them.

What happens goes into a journal (see checker.py). Nothing here decides what is right.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from broker import BrokerError, OwnedBroker
from chaos.broken import broken
from chaos.plan import Fault
from shells.chapters import CLIENTS, EXAMPLES, reader_environment

SCRIPTS = EXAMPLES / "cluster"
# Tasks that a publisher is given before it has confirmed the ones before.
AHEAD = 3
# Seconds without any progress after which a run is given up.
STUCK = 150.0
# The queue that is worked on by one worker at a time, and how its tasks' names begin.
ORDERED = "bookings.ordered"


class Site(Protocol):
    """What is broken: a cluster, or one broker."""

    nodes: list[OwnedBroker]

    @property
    def urls(self) -> list[str]: ...

    def act(self, number: int, act: str) -> None: ...


class OneBroker:
    """A single broker as a site; at a virtual host of its own, if it is one that others use."""

    def __init__(self, broker: OwnedBroker, url: str = "") -> None:
        self.nodes = [broker]
        self._url = url or broker.url

    @property
    def urls(self) -> list[str]:
        return [self._url]

    def act(self, number: int, act: str) -> None:
        getattr(self.nodes[number - 1], act)()


class Journal:
    """Events, in memory and in a file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()
        self._begun = time.monotonic()
        self.counts: Counter[str] = Counter()

    def note(self, event: str, **more: Any) -> None:
        at = round(time.monotonic() - self._begun, 3)
        with self._lock:
            self.counts[event] += 1
            self._file.write(json.dumps({"at": at, "event": event, **more}) + "\n")

    def close(self) -> None:
        self._file.close()


class Process:
    """A script that is started again whenever it ends, until it is no longer wanted."""

    def __init__(self, run: Run, name: str, client: str, script: str, queue: str) -> None:
        self.run, self.name, self.client, self.queue = run, name, client, queue
        self.script = run.scripts / client / script
        self.wanted = True
        self.lock = threading.Lock()
        self.process: subprocess.Popen[str] | None = None
        self.last: deque[str] = deque(maxlen=20)  # what it printed last
        self.threads = [threading.Thread(target=self.drive, daemon=True)]

    def start(self) -> subprocess.Popen[str]:
        environment = reader_environment(self.run.site.urls[0])
        environment |= {
            "AMQP_URLS": ",".join(self.run.site.urls),
            "QUEUE": self.queue,
            "DATABASE": str(self.run.database),
            "WORK": f"{self.run.work:.4f}",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(self.script)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,  # Ctrl-C is for us
        )
        self.readers = [
            threading.Thread(target=self._read, args=each, daemon=True)
            for each in ((self.process.stdout, self.heard), (self.process.stderr, self.complained))
        ]
        for reader in self.readers:
            reader.start()
        return self.process

    def _read(self, stream: Any, heard: Callable[[str], None]) -> None:
        for line in stream:
            self.last.append(line.rstrip("\n"))
            heard(line.rstrip("\n"))
        stream.close()

    def heard(self, line: str) -> None:
        raise NotImplementedError

    def complained(self, line: str) -> None:
        if "Trying again" in line:
            self.run.journal.note("trying", who=self.name)

    def drive(self) -> None:
        """Keep it running."""
        while self.wanted:
            process = self.start()
            self.feed(process)
            status = process.wait()
            for reader in self.readers:
                reader.join(20)
            with suppress(OSError):  # what it did not read goes with it
                assert process.stdin
                process.stdin.close()
            if self.wanted:
                said = {} if status == -signal.SIGKILL else {"said": [*self.last]}
                self.run.journal.note("ended", who=self.name, status=status, **said)
                if status != -signal.SIGKILL:
                    time.sleep(1)  # as a supervisor would

    def feed(self, process: subprocess.Popen[str]) -> None:
        """What it is given while it runs."""

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, AttributeError):
            assert self.process
            os.kill(self.process.pid, number)

    def finish(self) -> None:
        self.wanted = False
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGKILL)
        for thread in self.threads:
            thread.join(30)


class Worker(Process):
    def heard(self, line: str) -> None:
        if found := re.fullmatch(r" \[x\] Booked: (\S+) has \d+( \(redelivered\))?", line):
            self.run.progress()
            self.run.journal.note("booked", task=found[1], by=self.name)
        elif found := re.fullmatch(r" \[x\] Booked before: '(\S+)'( \(redelivered\))?", line):
            more = {"by": self.name, "redelivered": bool(found[2])}
            self.run.journal.note("again", task=found[1], **more)


class Publisher(Process):
    """`tasks` are to be sent; `pending` are given to the process, and not yet confirmed."""

    tasks: deque[str]

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.tasks, self.pending = deque(), deque[str]()
        self.passed = threading.Event()  # something was confirmed

    def heard(self, line: str) -> None:
        if not (found := re.fullmatch(r" \[x\] Confirmed '(\S+)'", line)):
            return
        self.run.journal.note("confirmed", task=found[1], by=self.name)
        with self.lock:
            while self.pending and self.pending.popleft() != found[1]:
                pass  # passed over: it takes them in order
        self.run.sent()
        self.passed.set()

    @property
    def through(self) -> bool:
        return not self.tasks and not self.pending

    def feed(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin
        with suppress(OSError):  # it was killed meanwhile
            while self.wanted and process.poll() is None:
                self.passed.clear()
                if self.tasks and len(self.pending) < AHEAD and self.run.may_send():
                    task = self.tasks.popleft()
                    with self.lock:
                        self.pending.append(task)
                    self.run.journal.note("given", task=task, to=self.name)
                    process.stdin.write(f"{task} {task} 1\n")
                    time.sleep(self.run.interval)
                else:
                    self.passed.wait(0.05)
        process.wait()
        for reader in self.readers:
            reader.join(20)
        with self.lock:  # the next process gets them first
            self.tasks.extendleft(reversed(self.pending))
            self.pending.clear()


class Run:
    """One run, from the first task to the last effect."""

    def __init__(
        self,
        site: Site,
        plan: list[Fault],
        tasks: int,
        journal: Path,
        crew: int = 1,
        without: list[str] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.site, self.plan, self.count, self.say = site, plan, tasks, say
        self.folder = Path(tempfile.mkdtemp(prefix="rabbitmq-by-example-chaos-", dir=memory()))
        self.scripts = self.folder / "scripts"
        for script in SCRIPTS.glob("*/*.py"):
            copy = self.scripts / script.parent.name / script.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            text = broken(script, without or [])
            # The work takes its time: what is broken hits a worker that has one in hand.
            work = r"\1time.sleep(float(os.environ['WORK']))\n\g<0>"
            copy.write_text(re.sub(r"( +)\(\(now,\),\) =", work, text))
        self.database = self.folder / "accounts.sqlite3"
        with sqlite3.connect(self.database) as database:
            database.execute("PRAGMA journal_mode = WAL")
        database.close()
        self.journal = Journal(journal)
        self.vhost = re.sub(".*/", "", site.urls[0]).replace("%2F", "/") or "/"
        self._lock = threading.Lock()
        self._sent = 0
        self._moved = time.monotonic()
        self.running: set[int] = {fault.number for fault in plan}
        lanes = {False: 0.0, True: 0.0}
        for fault in plan:
            lanes[fault.of_clients] += fault.planned
        numbers = range(1, crew + 1)
        self.workers = [
            *(
                self.of(Worker, f"worker-{n}-{client}", client)
                for n in numbers
                for client in CLIENTS
            ),
            *(self.of(Worker, f"successor-{client}", client, ORDERED) for client in CLIENTS),
        ]
        self.publishers = [
            *(
                self.of(Publisher, f"p{n}{client[0]}", client)
                for n in numbers
                for client in CLIENTS
            ),
            *(self.of(Publisher, f"o{client[0]}", client, ORDERED) for client in CLIENTS),
        ]
        for number in range(tasks):
            publisher = self.publishers[number % len(self.publishers)]
            publisher.tasks.append(f"{publisher.name}-{number:07}")
        for publisher in self.publishers:
            if publisher.queue == ORDERED:
                self.journal.note("ordered", prefix=publisher.name)
        # So that tasks are sent until the last fault is over.
        self.interval = 0.8 * max(lanes.values()) * len(self.publishers) / tasks
        self.work = min(0.05, 0.5 * max(lanes.values()) / tasks)

    def of(self, kind: type[Any], name: str, client: str, queue: str = "bookings") -> Any:
        return kind(self, name, client, f"{kind.__name__.lower()}.py", queue)

    @property
    def counts(self) -> Counter[str]:
        """How many events of each kind there were."""
        return self.journal.counts

    # --- How far it is ---------------------------------------------------------

    def progress(self) -> None:
        self._moved = time.monotonic()

    def sent(self) -> None:
        with self._lock:
            self._sent += 1
        self.progress()

    def may_send(self) -> bool:
        """Not so far ahead that nothing is under way when the next things break."""
        coming = min(self.running, default=None)
        return coming is None or self._sent < self.plan[coming - 1].due + self.count / 20 + 50

    def until(self, condition: Callable[[], bool], patience: float = STUCK) -> bool:
        while not condition():
            if time.monotonic() - self._moved > patience:
                return False
            time.sleep(0.05)
        return True

    # --- What is broken -----------------------------------------------------------

    def lane(self, faults: list[Fault]) -> None:
        for fault in faults:
            if not self.until(lambda due=fault.due: self._sent >= due):
                self.say("stuck: no task was sent or done for long")
                break
            self.say(f"{fault.number:4} of {len(self.plan)}  {fault.kind}, {fault.seconds} s")
            try:
                self.commit(fault)
            except (BrokerError, OSError) as error:
                self.say(f"  {fault.kind}: {str(error)[:300]}")
            self.journal.note("over", number=fault.number)
            self.running.discard(fault.number)
        for fault in faults:
            self.running.discard(fault.number)

    def commit(self, fault: Fault) -> None:
        whose, how = fault.kind.split(" ", 1)
        if whose in ("worker", "publisher"):
            some = self.workers if whose == "worker" else self.publishers
            victim = some[fault.target % len(some)]
            self.note(fault, victim.name)
            victim.signal(signal.SIGSTOP)
            time.sleep(fault.seconds)
            victim.signal(signal.SIGKILL if how == "killed" else signal.SIGCONT)
            return
        self.note(fault, "node")
        number = fault.target % len(self.site.nodes) + 1
        other = (number + fault.target // 10 % 2) % len(self.site.nodes) + 1
        node = self.site.nodes[number - 1]
        if fault.kind == "connections closed":
            node.ctl("close_all_connections", "--vhost", self.vhost, "chaos")
        elif fault.kind == "queue full":
            full = json.dumps({"max-length": 0, "overflow": "reject-publish"})
            node.ctl(
                "set_policy", "-p", self.vhost, "full", "^bookings", full, "--apply-to", "queues"
            )
            time.sleep(fault.seconds)
            node.ctl("clear_policy", "-p", self.vhost, "full")
        elif how == "alarm":
            command, low, back = ALARMS[fault.kind]
            node.ctl(command, low)
            time.sleep(fault.seconds)
            node.ctl(command, back)
        else:
            begin, end = ACTS[fault.kind]
            numbers = [number, other] if fault.kind == "majority lost" else [number]
            for each in numbers:
                self.site.act(each, begin)
            time.sleep(fault.seconds)
            threads = [threading.Thread(target=self.site.act, args=(n, end)) for n in numbers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    def note(self, fault: Fault, who: str) -> None:
        self.journal.note("fault", number=fault.number, kind=fault.kind, who=who)

    # --- The whole -----------------------------------------------------------------

    def waiting(self) -> int:
        """How many tasks are in the queues, done or not."""
        try:
            listed = self.site.nodes[0].ctl(
                "list_queues", "-q", "--no-table-headers", "-p", self.vhost, "name", "messages"
            )
            counts = [line.split("\t") for line in listed.splitlines() if "\t" in line]
            return sum(int(count) for name, count in counts if name.startswith("bookings"))
        except (BrokerError, ValueError, subprocess.TimeoutExpired):
            return -1

    def __call__(self) -> None:
        try:
            declare = [sys.executable, str(self.scripts / "pika/declare.py")]
            environment = {**os.environ, "AMQP_URLS": ",".join(self.site.urls)}
            subprocess.run(declare, env=environment, check=True, capture_output=True)
            for process in (*self.workers, *self.publishers):
                process.threads[0].start()
            lanes = [
                threading.Thread(
                    target=self.lane, args=([f for f in self.plan if f.of_clients == lane],)
                )
                for lane in (False, True)
            ]
            # A queue younger than a second or so may not survive its only node's end.
            self.until(lambda: self._sent >= min(100, self.count // 20))
            time.sleep(3)
            for lane in lanes:
                lane.start()
            for lane in lanes:
                lane.join()
            self.until(lambda: all(each.through for each in self.publishers))
            self.progress()
            self.until(lambda: self.waiting() == 0, 100)
        finally:
            for process in (*self.publishers, *self.workers):
                process.finish()
            with sqlite3.connect(self.database) as database:
                rows = "SELECT name, balance FROM account ORDER BY rowid"
                with suppress(sqlite3.Error):  # none was started
                    for task, times in database.execute(rows).fetchall():
                        self.journal.note("effect", task=task, times=times)
            database.close()
            self.journal.close()
            shutil.rmtree(self.folder, ignore_errors=True)


ACTS = {
    "node killed": ("kill", "start"),
    "node restarted": ("stop", "start"),
    "node paused": ("pause", "resume"),
    "node cut off": ("cut", "heal"),
    "majority lost": ("kill", "start"),
}
ALARMS = {
    "memory alarm": ("set_vm_memory_high_watermark", "0.0000001", "0.6"),
    "disk alarm": ("set_disk_free_limit", "999999999999999", "50MB"),
}


def memory() -> str | None:
    """A folder in memory, where there is one: SIGKILL takes nothing from it."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def fresh_seed() -> int:
    return random.SystemRandom().randrange(1, 1_000_000)
