"""The promises of docs/handling-models.rst, each with a test that can break it."""

from __future__ import annotations

import ast
import csv
import json
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import broker as brokers
import pika
import pytest
from broker import Broker
from chapters import EXAMPLES
from conftest import Starter, assert_one_line, connected, poll, ready
from figures_handling_models import (
    CPU,
    IO,
    JOBS,
    MODELS,
    QUORUM,
    RECORD,
    efficiency_rows,
    family,
    publish,
    rows,
)
from pika.adapters.blocking_connection import BlockingChannel
from plotting import FIGURES
from running import Script
from wiretap import Wiretap, frames

CHAPTER = "handling-models"
FOLDER = EXAMPLES / CHAPTER
SINGLE, THREADS, PROCESSES = "one_at_a_time.py", "thread_pool.py", "process_pool.py"
TASKS, BLOCKING, ADAPTER = "asyncio_tasks.py", "asyncio_to_thread.py", "asyncio_with_pika.py"
CONCURRENT = (THREADS, PROCESSES, TASKS, BLOCKING, ADAPTER)
FIXED = (SINGLE, *CONCURRENT)
NAIVE = ("thread_per_message_naive.py", "asyncio_naive.py")
# More lines than a reader takes in at a glance, and why: these finish what is
# in hand, set aside what fails, and say so when the broker ends them.
LONG = {*FIXED, *NAIVE, "send_jobs.py"}
DELIVER, ACK, REJECT = (60, 60), (60, 80), (60, 90)

Run = Callable[..., Script]
every = partial(pytest.mark.parametrize, "name")


@pytest.fixture
def run(start: Starter) -> Run:
    return partial(start, CHAPTER, "")


def worker(run: Run, name: str, workers: int = 0, **more: str) -> Script:
    """A worker that is ready for jobs."""
    given = [str(workers)] if workers and name in CONCURRENT else []
    return run(name, *given, **more).wait_for(" [*] Waiting for messages. To exit press CTRL+C")


def numbered(count: int, job: str) -> list[str]:
    return [f"{job} #{number}" for number in range(1, count + 1)]


def said(word: str, *scripts: Script) -> list[str]:
    """The jobs of which the scripts say it. Threads may run two lines into one."""
    parts = [part for each in scripts for part in "\n".join(each.stdout).split(f" [x] {word} '")]
    return [part.partition("'")[0] for part in parts if "#" in part.partition("'")[0]]


received, done = partial(said, "Received"), partial(said, "Done")


def left(channel: BlockingChannel) -> int:
    """How many jobs the queue has once it has no consumer any more."""
    found = partial(channel.queue_declare, "jobs", passive=True)
    poll(lambda: found().method.consumer_count, 0)
    return ready(channel, "jobs")


class Watch(Wiretap):
    """Counts what is delivered to a worker and not yet settled by it."""

    def __init__(self, url: str) -> None:
        super().__init__(url, holding=False)
        self.unacked = self.most = 0

    def _upstream(self) -> None:
        with suppress(OSError):
            for frame, method in frames(self._client):
                if method in (ACK, REJECT):
                    assert not struct.unpack(">QB", frame[11:20])[1], "multiple"
                    with self._change:
                        self.unacked -= 1
                self._broker.sendall(frame)
        self.cut()

    def _downstream(self) -> None:
        with suppress(OSError):
            for frame, method in frames(self._broker):
                if method == DELIVER:
                    with self._change:
                        self.unacked += 1
                        self.most = max(self.most, self.unacked)
                self._client.sendall(frame)
        self.cut()


@pytest.fixture
def watch(url: str) -> Iterator[Watch]:
    found = Watch(url)
    with found:
        yield found


# --- A worker is killed in mid-work ------------------------------------------


@every(NAIVE)
def test_a_naive_worker_loses_500_of_500(
    run: Run, url: str, channel: BlockingChannel, name: str
) -> None:
    """All have been acked, and none has been done."""
    publish(url, *numbered(500, "sleep 30"))
    naive = worker(run, name)
    poll(lambda: len(received(naive)), 500)
    threads = len([*Path(f"/proc/{naive.process.pid}/task").iterdir()])
    naive.signal(signal.SIGKILL)
    lost = 500 - len(done(naive)) - left(channel)
    assert 499 <= lost <= 500  # the last ack may still have been on its way
    if name == NAIVE[0]:
        assert threads == 501


@every(FIXED)
def test_a_killed_worker_loses_none_of_500(
    run: Run, url: str, channel: BlockingChannel, name: str
) -> None:
    jobs = numbered(500, "sleep 0.002" if name == SINGLE else "sleep 0.02")
    jobs[100] = "sleep 1 #101"  # which it is in the middle of
    publish(url, *jobs)
    workers = 4 if name == PROCESSES else 20
    first = worker(run, name, workers).wait_for("Done", count=100).wait_for(jobs[100])
    pool = family(first.process.pid)
    first.signal(signal.SIGKILL)
    assert {*received(first)} > {*done(first)}
    assert 100 <= len(done(first)) < 500
    second = worker(run, name, workers)
    poll(lambda: {*jobs} - {*done(first, second)}, set())
    poll(lambda: {each for each in pool if Path(f"/proc/{each}").exists()} - zombies(), set())
    assert second.signal(signal.SIGTERM) == 0
    assert second.stderr == []
    poll(lambda: ready(channel, "jobs"), 0)


def zombies() -> set[int]:
    """Processes that have ended, and that nobody has been told of yet."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                found.add(int(stat.parent.name))
    return found


def test_a_process_of_the_pool_that_dies_loses_nothing(
    run: Run, url: str, channel: BlockingChannel
) -> None:
    publish(url, *numbered(4, "sleep 20"))
    busy = worker(run, PROCESSES, 2).wait_for("Received", count=4)
    poll(lambda: len(family(busy.process.pid)) >= 4, True)
    os.kill(max(family(busy.process.pid)), signal.SIGKILL)
    assert_one_line(busy, "Failed at", "a process of the pool died")
    assert left(channel) == 4


# --- Concurrency, reached and bounded ----------------------------------------


@every(CONCURRENT)
def test_as_many_at_a_time_as_it_is_told(run: Run, watch: Watch, url: str, name: str) -> None:
    """They are done in two waves; and never are more delivered than prefetched."""
    workers = 5
    publish(url, *numbered(workers, "sleep 1"))  # until all of a pool are there
    busy = worker(run, name, workers, url=watch.url).wait_for("Done", count=workers)
    before = len(busy.stdout)
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()  # no confirms: all of them at once
        for job in [*numbered(2 * workers, "sleep 1"), *numbered(20, "sleep 0.01")]:
            channel.basic_publish("", "jobs", job.encode())
    busy.wait_for("Done", count=20 + 3 * workers)
    printed = [*zip(busy.times, busy.stdout, strict=True)][before:]
    times = [when for when, line in printed if "Done" in line]
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps.index(max(gaps)) == workers - 1
    assert max(gaps) > 0.5
    assert watch.most == 2 * workers
    poll(lambda: watch.unacked, 0)


def test_one_at_a_time(run: Run, watch: Watch, url: str) -> None:
    publish(url, *numbered(5, "sleep 0.05"))
    busy = worker(run, SINGLE, url=watch.url).wait_for("Done", count=5)
    each = [(f" [x] Received {job!r}", f" [x] Done {job!r}") for job in numbered(5, "sleep 0.05")]
    assert busy.stdout[1:] == [line for pair in each for line in pair]
    assert watch.most == 1


@every(NAIVE)
def test_a_naive_worker_takes_all_there_is(run: Run, watch: Watch, url: str, name: str) -> None:
    """Nothing bounds what it has begun, since all of it is acked."""
    publish(url, *numbered(100, "sleep 30"))
    busy = worker(run, name, url=watch.url).wait_for("Received", count=100)
    poll(lambda: watch.unacked, 0)
    assert not done(busy)


@every(FIXED)
def test_the_ack_comes_after_the_work(run: Run, watch: Watch, url: str, name: str) -> None:
    publish(url, "sleep 1 #1")
    busy = worker(run, name, 1, url=watch.url).wait_for("Received")
    time.sleep(0.3)  # an early ack would have come by now
    assert watch.unacked == 1
    busy.wait_for("Done")
    poll(lambda: watch.unacked, 0)
    assert busy.times[2] - busy.times[1] > 0.5


# --- Heartbeats ---------------------------------------------------------------


@every(CONCURRENT)
def test_heartbeats_survive_the_work_and_the_finish(
    run: Run, url: str, channel: BlockingChannel, name: str
) -> None:
    """A job four times as long as the heartbeat; during most of it we are finishing."""
    publish(url, "sleep 4 #1")
    busy = worker(run, name, 1, url=f"{url}?heartbeat=1").wait_for("Received")
    assert (busy.signal(signal.SIGTERM), busy.stderr) == (0, [])
    assert done(busy) == ["sleep 4 #1"]
    assert left(channel) == 0


def test_one_at_a_time_does_not_survive_a_long_job(
    run: Run, url: str, channel: BlockingChannel
) -> None:
    """The page shows this loss of the connection; the job goes back."""
    publish(url, "sleep 6 #1")
    assert_one_line(worker(run, SINGLE, url=f"{url}?heartbeat=1"), "Failed at", "Stream")
    assert left(channel) == 1


def test_computing_in_a_coroutine_stops_the_heartbeats_and_in_a_thread_does_not(
    run: Run, url: str, channel: BlockingChannel
) -> None:
    publish(url, "count 1000000000 #1")
    asleep = worker(run, TASKS, 1, url=f"{url}?heartbeat=1").wait_for("Received")
    assert left(channel) == 1  # the broker has given it up
    asleep.process.kill()
    busy = worker(run, THREADS, 1, url=f"{url}?heartbeat=1").wait_for("Received")
    with suppress(AssertionError):
        busy.wait(5)  # it would have ended by now
    assert busy.process.poll() is None
    found = channel.queue_declare("jobs", passive=True).method
    assert (found.consumer_count, found.message_count) == (1, 0)


# --- Ctrl-C and SIGTERM -------------------------------------------------------


@every(FIXED)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_finishes_what_is_in_hand(
    run: Run, url: str, channel: BlockingChannel, name: str, how: signal.Signals
) -> None:
    publish(url, *numbered(20, "sleep 1"))
    in_hand = 1 if name == SINGLE else 6
    busy = worker(run, name, 3).wait_for("Received", count=in_hand)
    assert (busy.signal(how), busy.stderr) == (0, [])
    assert len(received(busy)) == in_hand
    assert {*done(busy)} == {*received(busy)}
    if name != SINGLE:
        assert f" [*] Finishing {in_hand} jobs. To leave them press CTRL+C" in busy.stdout
    poll(lambda: left(channel), 20 - in_hand)


@every(FIXED)
def test_the_second_ctrl_c_ends_it_at_once(
    run: Run, url: str, channel: BlockingChannel, name: str
) -> None:
    publish(url, *numbered(20, "sleep 20"))
    busy = worker(run, name, 3).wait_for("Received", count=1 if name == SINGLE else 3)
    busy.process.send_signal(signal.SIGINT)
    if name == SINGLE:  # which says nothing of it
        poll(lambda: caught(busy, signal.SIGINT), False)
    else:
        busy.wait_for(" [*] Finishing")
    pool = family(busy.process.pid)
    assert busy.interrupt() == -signal.SIGINT
    words = ("resource_tracker", "warnings.warn(")
    tracker = [line for line in busy.stderr if any(word in line for word in words)]
    assert (done(busy), busy.stderr) == ([], tracker), busy  # Python's own, of the processes
    poll(lambda: left(channel), 20)
    poll(lambda: {each for each in pool if Path(f"/proc/{each}").exists()} - zombies(), set())


def caught(script: Script, number: signal.Signals) -> bool:
    """Whether a process has a handler for that signal."""
    status = Path(f"/proc/{script.process.pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) & 1 << number - 1)


@every(FIXED)
def test_an_idle_worker_stops_quietly(run: Run, name: str) -> None:
    idle = worker(run, name)
    assert (idle.interrupt(), idle.stderr) == (0, [])
    assert len(idle.stdout) == (1 if name == SINGLE else 2)


# --- What goes wrong ----------------------------------------------------------


@every(FIXED)
def test_a_job_that_fails_is_set_aside_and_stops_no_other(
    run: Run, url: str, channel: BlockingChannel, name: str
) -> None:
    bad = [b"sleep oops #1", b"caf\xe9 #2", b""]
    publish(url, *bad, *numbered(5, "sleep 0.01"))
    busy = worker(run, name, 2).wait_for(" [!] Failed ", count=3).wait_for("Done", count=5)
    assert " [!] Failed 'sleep oops #1': could not convert string to float: 'oops'" in busy.stdout
    assert (busy.interrupt(), busy.stderr) == (0, [])
    poll(lambda: ready(channel, "failed_jobs"), 3)
    found = {channel.basic_get("failed_jobs", auto_ack=True)[2] for _ in range(3)}
    assert found == {*bad}
    assert left(channel) == 0
    # Once each: requeued, they would come back until the broker has enough of it.
    assert sum(" [!] Failed " in line for line in busy.stdout) == 3


@every(FIXED)
def test_the_queue_is_deleted(run: Run, url: str, channel: BlockingChannel, name: str) -> None:
    publish(url, "sleep 1 #1")
    busy = worker(run, name, 1).wait_for("Received")
    channel.queue_delete("jobs")
    assert_one_line(busy, "Failed at", "the broker ended the consumer")


@every(FIXED)
def test_the_connection_is_lost(
    run: Run, watch: Watch, url: str, channel: BlockingChannel, name: str
) -> None:
    publish(url, *numbered(4, "sleep 1"))
    busy = worker(run, name, 1, url=watch.url).wait_for("Received")
    watch.cut()
    assert_one_line(busy, "Failed at", "make doctor")
    assert left(channel) == 4


@every(CONCURRENT)
def test_the_connection_is_lost_while_it_finishes(
    run: Run, watch: Watch, url: str, channel: BlockingChannel, name: str
) -> None:
    publish(url, "sleep 2 #1")
    busy = worker(run, name, 1, url=watch.url).wait_for("Received")
    busy.process.send_signal(signal.SIGTERM)
    busy.wait_for(" [*] Finishing 1 jobs")
    watch.cut()
    assert_one_line(busy, "Failed at", "make doctor")
    assert left(channel) == 1


# --- The sender ---------------------------------------------------------------


def test_the_sender_numbers_its_jobs(run: Run, channel: BlockingChannel) -> None:
    sender = run("send_jobs.py", "3", "sleep", "0.1")
    assert (sender.wait(), sender.stdout) == (0, [" [x] Sent 3 × 'sleep 0.1'"])
    found = [channel.basic_get("jobs", auto_ack=True) for _ in range(3)]
    assert [body for _, _, body in found] == [b"sleep 0.1 #1", b"sleep 0.1 #2", b"sleep 0.1 #3"]
    assert {properties.delivery_mode for _, properties, _ in found if properties} == {2}


def test_the_sender_says_what_was_refused(
    run: Run, broker: Broker, url: str, channel: BlockingChannel
) -> None:
    channel.queue_declare("failed_jobs", durable=True, arguments=QUORUM)
    channel.queue_declare("jobs", durable=True, arguments=JOBS)
    limit = {"pattern": "^jobs$", "definition": {"max-length": 2}, "apply-to": "queues"}
    broker.call_api("PUT", f"policies/{url.rpartition('/')[2]}/full", limit)
    sender = run("send_jobs.py", "1000", "sleep", "1")
    assert_one_line(sender, "then the broker refused")
    with connected(url) as fresh:
        assert f"Sent {ready(fresh, 'jobs')}, " in sender.stderr[0]


# --- Every script -------------------------------------------------------------

SCRIPTS = sorted(FOLDER.glob("*.py"))
every_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)


@every_script
def test_a_script_needs_only_its_client(script: Path) -> None:
    own = "aio_pika" if "aio_pika" in script.read_text() else "pika"
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Import):
            tops = {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            tops = {(node.module or "").partition(".")[0]}
        else:
            continue
        assert tops <= {own, *sys.stdlib_module_names}


@every_script
def test_a_script_is_short(script: Path) -> None:
    lines = len(script.read_text().splitlines())
    assert lines <= 60 or script.name in LONG
    assert lines <= 145


@every_script
def test_no_broker(run: Run, script: Path) -> None:
    (port,) = brokers.free_ports(1)
    given = ["1", "sleep", "1"] if script.name == "send_jobs.py" else []
    ended = run(script.name, *given, url=f"amqp://guest:secret@localhost:{port}/")
    assert_one_line(ended, f"localhost:{port}/", "make broker")
    assert "secret" not in ended.stderr[0]
    assert ended.stdout == []


@every([*CONCURRENT, "send_jobs.py"])
def test_usage(run: Run, name: str) -> None:
    for wrong in "none", "0":
        ended = run(name, wrong, url="amqp://unused/")
        assert (ended.wait(), ended.stdout) == (2, [])
        assert len(ended.stderr) == 1
        assert ended.stderr[0].startswith(f"Usage: python {name} "), ended


# --- The record behind the page's tables and its figure ------------------------


def test_the_record_shows_what_the_page_says_of_it() -> None:
    data = json.loads(RECORD.read_text())

    def rate(model: str, kind: str) -> float:
        return median(each["a second"] for each in data["models"][model][kind])

    for model in set(MODELS) - {"one_at_a_time"}:
        assert rate(model, IO) > 8 * rate("one_at_a_time", IO)
        if model != "process_pool":
            assert rate(model, CPU) < 1.5 * rate("one_at_a_time", CPU)
    assert rate("process_pool", CPU) > 1.6 * rate("one_at_a_time", CPU)
    for pool, sizes in data["efficiency"].items():
        for size, least in (("32", 0.95), ("128", 0.90), ("256", 0.85)):
            assert median(sizes[size]) >= least or (pool, size) == ("thread_pool", "256")


def test_the_figure_and_the_tables_show_the_record() -> None:
    data = json.loads(RECORD.read_text())
    for name, table in (("", rows(data)), ("-efficiency", efficiency_rows(data))):
        with (FIGURES / f"{CHAPTER}{name}.csv").open(newline="") as file:
            assert [*csv.reader(file)] == table
    svg = RECORD.with_suffix(".svg").read_text()
    for kinds in data["models"].values():
        for runs in kinds.values():
            assert f">{median(each['a second'] for each in runs):,.0f}<" in svg
