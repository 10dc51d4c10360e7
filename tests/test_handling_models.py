"""The promises of docs/handling-models.rst, each with a test that can break it."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import pika
import pytest
from broker import Broker
from conftest import (
    Starter,
    assert_one_line,
    close_connections,
    connected,
    poll,
    ready,
)
from pika.adapters.blocking_connection import BlockingChannel
from plotting import FIGURES
from record_handling_models import (
    CPU,
    EACH,
    IO,
    KINDS,
    MODEL_ROUNDS,
    MODELS,
    POOL_ROUNDS,
    QUORUM,
    RECORD,
    SIZES,
    efficiency_rows,
    family,
    publish,
)
from record_handling_models import (
    TASKS as JOBS,
)
from shells.chapters import EXAMPLES, figure, page
from shells.chapters import said as the_page
from shells.running import INTERRUPTED, Script
from shells.wiretap import Wiretap, frames

CHAPTER = "handling-models"
FOLDER = EXAMPLES / CHAPTER
SINGLE, THREADS, PROCESSES = "one_at_a_time.py", "thread_pool.py", "process_pool.py"
TASKS, BLOCKING, ADAPTER = "asyncio_tasks.py", "asyncio_to_thread.py", "asyncio_with_pika.py"
CONCURRENT = (THREADS, PROCESSES, TASKS, BLOCKING, ADAPTER)
FIXED = (SINGLE, *CONCURRENT)
SCRIPTS = sorted(FOLDER.glob("*.py"))
NAIVE = ("thread_per_message_naive.py", "asyncio_naive.py")
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


def gone(processes: set[int]) -> None:
    """Wait for the end of processes that a script has started."""

    def there() -> set[int]:
        return {each for each in processes if Path(f"/proc/{each}").exists()} - zombies()

    try:
        poll(there, set(), 10)
    except AssertionError:  # they would keep the script's output open
        for each in there():
            os.kill(each, signal.SIGKILL)
        raise


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
def test_a_naive_worker_loses_all(run: Run, url: str, channel: BlockingChannel, name: str) -> None:
    """All have been acked, and none has been done."""
    jobs = figure(CHAPTER, r"(?:Send |All |\*\*|there were |\d of |jobs.py )(\d{3})\b")
    publish(url, *numbered(jobs, "sleep 30"))
    naive = worker(run, name)
    poll(lambda: len(received(naive)), jobs)
    threads = len([*Path(f"/proc/{naive.process.pid}/task").iterdir()])
    naive.signal(signal.SIGKILL)
    lost = jobs - len(done(naive)) - left(channel)
    assert jobs - 1 <= lost <= jobs  # the last ack may still have been on its way
    if name == NAIVE[0]:
        assert threads == jobs + 1


@every(FIXED)
def test_a_killed_worker_loses_none_of_500(
    run: Run, watch: Watch, url: str, channel: BlockingChannel, name: str
) -> None:
    jobs = numbered(500, "sleep 0.002" if name == SINGLE else "sleep 0.02")
    jobs[100] = "sleep 4 #101"  # which it is in the middle of
    publish(url, *jobs)
    workers = 4 if name == PROCESSES else 20
    first = worker(run, name, workers).wait_for("Done", count=100).wait_for(jobs[100])
    pool = family(first.process.pid)
    first.process.kill()
    gone(pool)
    first.wait()
    assert {*received(first)} > {*done(first)}
    assert 100 <= len(done(first)) < 500
    second = worker(run, name, workers, url=watch.url)
    poll(lambda: {*jobs} - {*done(first, second)}, set())
    poll(lambda: watch.unacked, 0)
    assert (second.interrupt(), second.stderr) == (INTERRUPTED, [])
    assert left(channel) == 0


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
    assert len(family(busy.process.pid)) == 2
    os.kill(max(family(busy.process.pid)), signal.SIGKILL)
    assert busy.wait() == 1
    # Python 3.11 may fail once more, at its exit, and say so after it.
    name = the_page(CHAPTER, r"worker ends with ``(\w+)``")
    assert f"concurrent.futures.process.{name}: " in "\n".join(busy.stderr), busy
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
    times = the_page(CHAPTER, r"(\w+) (?:the number of workers|as many jobs)")
    assert watch.most == {"twice": 2}[times] * workers
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
def test_heartbeats_survive_the_work(
    run: Run, watch: Watch, url: str, channel: BlockingChannel, name: str
) -> None:
    """A job four times as long as the heartbeat."""
    publish(url, "sleep 4 #1")
    busy = worker(run, name, 1, url=f"{watch.url}?heartbeat=1").wait_for("Done")
    poll(lambda: watch.unacked, 0)
    assert (busy.interrupt(), busy.stderr) == (INTERRUPTED, [])
    assert left(channel) == 0


def test_one_at_a_time_does_not_survive_a_long_job(
    run: Run, url: str, channel: BlockingChannel
) -> None:
    """The page shows this loss of the connection; the job goes back."""
    publish(url, "sleep 6 #1")
    assert_one_line(
        worker(run, SINGLE, url=f"{url}?heartbeat=1"), "Failed: ", "StreamLostError", "make doctor"
    )
    assert left(channel) == 1


def test_the_heartbeat_without_a_wish(broker: Broker) -> None:
    seconds = broker.ctl("eval", "element(2, application:get_env(rabbit, heartbeat)).")
    assert int(seconds) == figure(CHAPTER, r"by default it is (\d+)")
    assert int(seconds) == 60 * figure("6-rpc", r"default, (\w+) to two minutes")
    missed = figure(CHAPTER, r"after about (\w+) missed heartbeats")
    assert missed * int(seconds) == 60 * figure("6-rpc", r"default, one to (\w+) minutes")
    assert int(seconds) == figure("glossary", r"\((\d+) seconds each, by default\)")


def test_the_threads_that_asyncio_has_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    most = figure(CHAPTER, r"four more \((\d+) at most\)")
    more = figure(CHAPTER, r"as many threads as cores and (\w+) more")
    for cores, wanted in ((2, 2 + more), (most - more, most), (most - more + 1, most)):
        for name in ("cpu_count", "process_cpu_count"):
            monkeypatch.setattr(os, name, lambda cores=cores: cores, raising=False)
        assert ThreadPoolExecutor()._max_workers == wanted


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


# --- Ctrl-C -------------------------------------------------------------------


@every(FIXED)
def test_at_ctrl_c_what_is_in_hand_goes_back(
    run: Run, url: str, channel: BlockingChannel, name: str
) -> None:
    """At once, quietly; and no process of a pool stays behind."""
    publish(url, *numbered(20, "sleep 20"))
    busy = worker(run, name, 3).wait_for("Received", count=1 if name == SINGLE else 6)
    pool = family(busy.process.pid)
    assert len(pool) == (3 if name == PROCESSES else 0)
    busy.process.send_signal(signal.SIGINT)
    gone(pool)
    assert (busy.wait(), busy.stderr, done(busy)) == (INTERRUPTED, [], [])
    assert left(channel) == 20


# --- What goes wrong ----------------------------------------------------------


@every(FIXED)
def test_a_job_that_raises_ends_the_worker_and_goes_back(
    run: Run, url: str, channel: BlockingChannel, name: str
) -> None:
    """With the traceback that leads to it; and what else is in hand goes back, too."""
    publish(url, "sleep oops #1", "sleep 1 #2")
    busy = worker(run, name, 2)
    assert busy.wait() == 1
    said = "\n".join(busy.stderr)
    assert "Traceback" in said
    assert "ValueError: could not convert string to float: 'oops'" in said
    assert ", in work" in said
    assert "Failed" not in said
    assert done(busy) == []
    assert left(channel) == 2


@every((*FIXED, *NAIVE))
def test_the_queue_is_deleted(run: Run, url: str, channel: BlockingChannel, name: str) -> None:
    publish(url, "sleep 1 #1")
    busy = worker(run, name, 1).wait_for("Received")
    channel.queue_delete("jobs")
    assert_one_line(busy, "Failed: ", "the queue is gone")


@every(FIXED)
def test_the_connection_is_lost(
    run: Run, watch: Watch, url: str, channel: BlockingChannel, name: str
) -> None:
    publish(url, *numbered(4, "sleep 1"))
    busy = worker(run, name, 1, url=watch.url).wait_for("Received")
    watch.cut()
    assert_one_line(busy, "Failed: ")
    assert left(channel) == 4


@every((*FIXED, *NAIVE))
def test_an_operator_closes_the_connection(
    run: Run, watch: Watch, broker: Broker, url: str, name: str
) -> None:
    """In the middle of the work; the reason that was given is what we read."""
    publish(url, *numbered(2, "sleep 20"))  # the API may take a while to know of it
    busy = worker(run, name, 1, url=watch.url).wait_for("Received")
    if name in NAIVE:  # they ack both, and have done neither
        busy.wait_for("Received", 2)
        poll(lambda: watch.unacked, 0)
    close_connections(broker, url, "maintenance at noon")
    assert_one_line(busy, "Failed: ", "maintenance at noon")
    with connected(url) as channel:  # the broker may close it before it takes the second ack
        assert left(channel) in ((0, 1) if name in NAIVE else (2,))


@every(FIXED)
def test_a_text_that_the_screen_lacks_costs_no_job_and_no_worker(
    run: Run, watch: Watch, url: str, channel: BlockingChannel, name: str
) -> None:
    texts = [
        f"sleep 0.01 Gr\u00fc\u00dfe \N{RABBIT FACE} #{number}".encode() for number in range(5)
    ]
    publish(url, *texts, *(b"sleep 0.01 caf\xe9 #%d" % number for number in range(5)))
    ascii_only = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    busy = worker(run, name, 2, url=watch.url, **ascii_only).wait_for("Done", count=10)
    poll(lambda: watch.unacked, 0)
    assert (busy.interrupt(), busy.stderr) == (INTERRUPTED, [])
    assert left(channel) == 0


# --- The sender ---------------------------------------------------------------


def test_the_sender_numbers_its_jobs(run: Run, channel: BlockingChannel) -> None:
    sender = run("send_jobs.py", "3", "sleep", "0.1")
    assert (sender.wait(), sender.stdout) == (0, [" [x] Sent 3 × 'sleep 0.1'"])
    found = [channel.basic_get("jobs", auto_ack=True) for _ in range(3)]
    assert [body for _, _, body in found] == [b"sleep 0.1 #1", b"sleep 0.1 #2", b"sleep 0.1 #3"]
    assert {properties.delivery_mode for _, properties, _ in found if properties} == {2}


def test_the_sender_does_not_say_sent_if_one_was_refused(
    run: Run, broker: Broker, url: str, channel: BlockingChannel
) -> None:
    channel.queue_declare("jobs", durable=True, arguments=QUORUM)
    limit = {"max-length": 2, "overflow": "reject-publish"}
    policy = {"pattern": "^jobs$", "definition": limit, "apply-to": "queues"}
    broker.call_api("PUT", f"policies/{url.rpartition('/')[2]}/full", policy)
    sender = run("send_jobs.py", "1000", "sleep", "1")
    assert_one_line(sender, "Failed: ", "NackError")
    assert sender.stdout == []


# --- Every script -------------------------------------------------------------

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


@every([TASKS, BLOCKING, ADAPTER, "send_jobs.py"])
def test_usage(run: Run, name: str) -> None:
    for wrong in "none", "0":
        assert_one_line(run(name, wrong, url="amqp://unused/"), f"Usage: python {name} ")


# --- The record behind the page's table and its figure ------------------------


def test_the_record_shows_what_the_page_says_of_it() -> None:
    data = json.loads(RECORD.read_text())

    def rate(model: str, kind: str) -> float:
        return median(each["a second"] for each in data["models"][model][kind])

    alone = figure(CHAPTER, r"(?:at a time does|and does) (\w+) (?:jobs of 100 ms )?a second")
    assert alone == round(rate("one_at_a_time", IO))
    workers, cores = (KINDS[kind][0] for kind in (IO, CPU))
    assert workers == figure(CHAPTER, r"the highest\. (\w+) workers for jobs of")
    assert cores == figure(CHAPTER, r"(\w+), which is the number of cores, for")
    assert figure(CHAPTER, r": medians of (\w+) rounds, with") == MODEL_ROUNDS
    assert figure(CHAPTER, r"\(medians of (\w+) rounds") == POOL_ROUNDS
    assert figure(CHAPTER, r"for ([\d,]+) jobs of 100 ms, as the ideal") == JOBS
    assert figure(CHAPTER, r"(\d+) (?:workers are|threads that)") == max(SIZES)
    peaks = {
        (model, kind): round(median(each["peak MiB"] for each in runs))
        for model, kinds in data["models"].items()
        for kind, runs in kinds.items()
    }
    processes = [peaks.pop(("process_pool", kind)) for kind in (IO, CPU)]
    assert processes == [
        figure(CHAPTER, rf"(\d+) MiB for (?:the pool of|that of) {many}")
        for many in (r"ten\b", "two")
    ]
    assert min(peaks.values()) == figure(CHAPTER, r"(\d+) to \d+ MiB, but")
    assert max(peaks.values()) == figure(CHAPTER, r"\d+ to (\d+) MiB, but")
    stated = figure(CHAPTER, r"workers are ([\d,]+) messages a second")
    assert 0.95 < stated / (max(SIZES) / EACH) <= 1
    for model in set(MODELS) - {"one_at_a_time"}:
        assert rate(model, IO) > 8 * rate("one_at_a_time", IO)
        if model != "process_pool":
            assert rate(model, CPU) < 1.5 * rate("one_at_a_time", CPU)
    assert rate("process_pool", CPU) > 1.6 * rate("one_at_a_time", CPU)
    for pool, sizes in data["efficiency"].items():
        for size, least in (("32", 0.95), ("128", 0.90), ("256", 0.85)):
            assert median(sizes[size]) >= least or (pool, size) == ("thread_pool", "256")


def test_the_table_of_choices_names_scripts_that_are_so() -> None:
    text = page(CHAPTER).read_text().split("Which one?\n")[1]
    rows = re.findall(r"^   \* - (.+)\n     - ``(\S+).*``\n     - (.+)", text, re.MULTILINE)
    assert len(rows) == len(FIXED) + 1
    for work, name, workers in rows:
        assert ("asyncio" in name) == ("asyncio" in work or "aio-pika" in work)
        assert ("blocks" in work, "for aio-pika" in work) == (name == BLOCKING, name == ADAPTER)
        assert ("computes" in work) == (name == PROCESSES) == ("cores" in workers)
        assert ("1" in workers) == ("in order" in work or "one at a time" in work)


def test_the_figure_and_the_table_show_the_record() -> None:
    data = json.loads(RECORD.read_text())
    with (FIGURES / f"{CHAPTER}-efficiency.csv").open(newline="") as file:
        assert [*csv.reader(file)] == efficiency_rows(data)
    svg = RECORD.with_suffix(".svg").read_text()
    for kinds in data["models"].values():
        for runs in kinds.values():
            assert f">{median(each['a second'] for each in runs):,.0f}<" in svg
