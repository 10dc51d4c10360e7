"""The promises of docs/backpressure.rst, each with a test that can break it."""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pika
import pytest
from broker import LOOPBACK, OwnedBroker, free_ports
from chapters import EXAMPLES, page
from conftest import Starter, assert_one_line, connected, poll, ready
from figures_backpressure import BUFFERS, COUNT, MEMORY, STORM, memory, simulated
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ConnectionBlockedTimeout
from running import INTERRUPTED, Script

CHAPTER = "backpressure"
FOLDER = EXAMPLES / CHAPTER
QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}
STORED = {**QUORUM, "x-max-length": 5, "x-overflow": "reject-publish"}
# More lines than a reader takes in at a glance, and why.
LONG = {
    "blocked_pika.py": "callbacks",
    "blocked_aio_pika.py": "its tail",
    "produce_naive.py": "its tail",
    "store_or_wait.py": "its tail",
    "produce.py": "an app, with its bounds",
    "retry_storm.py": "a simulation",
}
BROKERLESS = {"unbounded_buffer.py", "bounded_buffer.py", "retry_storm.py"}
SERVERS = {"ask.py", "consumer_service.py", "produce.py", "produce_naive.py"}
Run = Callable[..., Script]

scripts = sorted(FOLDER.glob("*.py"))


@pytest.fixture
def run(start: Starter) -> Run:
    return partial(start, CHAPTER, "")


# --- Slow down ---------------------------------------------------------------


def test_memory_has_a_bound_or_has_not() -> None:
    """300 items of 100 kB are 30 MB, which one of them has at a time."""
    peaks = {}
    for script in BUFFERS:
        used = [each for _, each in memory(FOLDER / script, 300)]
        peaks[script] = max(used)
    unbounded, bounded = peaks.values()
    assert unbounded - bounded > 20, peaks


@pytest.mark.parametrize("script", BUFFERS)
def test_the_buffer_loses_nothing_and_takes_as_long(run: Run, script: str) -> None:
    ended = run(script, "100", url="amqp://unused/")
    assert ended.wait() == 0
    produced, consumed, waited = ended.stdout
    assert produced.startswith(" [x] Produced 100 items in ")
    assert consumed.startswith(" [x] Consumed 100 items in ")
    (most,) = re.findall(r"At most (\d+) waited", waited)
    if script == "bounded_buffer.py":
        assert int(most) == 10
        # The producer takes as long as the consumer, whose work is at least this.
        seconds = float(produced.split()[-2])
        assert seconds > 90 * 0.002
    else:
        assert int(most) > 50


def test_the_figure_of_the_memory_shows_what_the_page_says_of_it() -> None:
    data = json.loads(MEMORY.read_text())
    unbounded, bounded = (data["runs"][script] for script in BUFFERS)
    assert f"{COUNT:,} items" in data["script"]
    assert max(used for _, used in unbounded) > 5 * max(used for _, used in bounded)
    assert 0.7 < unbounded[-1][0] / bounded[-1][0] < 1.4  # it costs no time


@pytest.mark.parametrize(("prefetch", "here"), [(0, 999), (10, 9)])
def test_the_prefetch_is_what_waits_in_the_consumer(run: Run, prefetch: int, here: int) -> None:
    ended = run("prefetch_holds.py", str(prefetch))
    assert ended.wait() == 0
    there = 999 - here
    assert ended.stdout[-1] == f" [x] Working on 1; {here} more wait here, {there} there"


@pytest.mark.parametrize("window", [50, 2000])
def test_no_more_in_the_air_than_the_window(run: Run, window: int) -> None:
    ended = run("publish_window.py", str(window))
    assert ended.wait() == 0
    most = min(window, 1000)
    assert ended.stdout == [f" [x] Confirmed 1000 messages, at most {most} in the air"]


# --- Store -------------------------------------------------------------------


def bodies(channel: BlockingChannel, queue: str, count: int) -> list[str]:
    """Take so many messages; fewer if no more come."""
    found: list[str] = []
    for method, _, body in channel.consume(queue, inactivity_timeout=10):
        if not method or body is None:
            break
        channel.basic_ack(method.delivery_tag)
        found.append(body.decode())
        if len(found) == count:
            break
    channel.cancel()
    return found


def test_a_full_queue_loses_nothing(run: Run, channel: BlockingChannel) -> None:
    producer = run("store_or_wait.py", "40").wait_for("The queue is full")
    assert ready(channel, "limited_tasks") in (5, 6)  # the limit is soft
    assert bodies(channel, "limited_tasks", 40) == [f"task {n}" for n in range(1, 41)]
    assert producer.wait() == 0
    (refused,) = re.findall(r"Stored 40 of 40, refused (\d+) times", producer.stdout[-1])
    assert int(refused) > 0
    poll(lambda: ready(channel, "limited_tasks"), 0)


def test_the_pauses_grow(run: Run, channel: BlockingChannel) -> None:
    """At the shortest pause there would be 20 refusals a second or more."""
    producer = run("store_or_wait.py", "20").wait_for("The queue is full")
    time.sleep(5)  # long enough for the pauses to grow
    bodies(channel, "limited_tasks", 20)
    assert producer.wait() == 0
    (refused,) = re.findall(r"refused (\d+) times", producer.stdout[-1])
    assert int(refused) < 30, producer


def test_the_slow_consumer_acks_what_is_done(run: Run, channel: BlockingChannel) -> None:
    channel.queue_declare("limited_tasks", durable=True, arguments=STORED)
    for number in range(3):
        channel.basic_publish("", "limited_tasks", f"task {number}".encode())
    consumer = run("slow_consumer.py", "limited_tasks", "0.01").wait_for("Done", 3)
    assert consumer.stdout[1:] == [f" [x] Done 'task {n}'" for n in range(3)]
    assert consumer.interrupt() == INTERRUPTED
    poll(lambda: ready(channel, "limited_tasks") <= 1, True)  # the last ack may be late
    channel.queue_purge("limited_tasks")
    consumer = run("slow_consumer.py", "limited_tasks", "60").wait_for("Waiting")
    channel.basic_publish("", "limited_tasks", b"in hand")
    channel.basic_publish("", "limited_tasks", b"next")
    poll(lambda: ready(channel, "limited_tasks"), 1)  # not more than one in hand
    consumer.process.kill()
    poll(lambda: ready(channel, "limited_tasks"), 2)


def test_the_slow_consumer_is_told_when_its_queue_is_deleted(
    run: Run, channel: BlockingChannel
) -> None:
    assert_one_line(run("slow_consumer.py", "limited_tasks", "0"), "404")
    channel.queue_declare("limited_tasks", durable=True, arguments=STORED)
    consumer = run("slow_consumer.py", "limited_tasks", "0").wait_for("Waiting")
    channel.queue_delete("limited_tasks")
    assert_one_line(consumer, "the queue is gone")


# --- Drop --------------------------------------------------------------------


def test_the_oldest_are_dropped_unseen(run: Run, channel: BlockingChannel) -> None:
    sent = run("drop_oldest.py", "30")
    assert (sent.wait(), sent.stdout) == (0, [" [x] Sent 30 readings, all confirmed"])
    poll(lambda: ready(channel, "latest_readings"), 5)
    assert bodies(channel, "latest_readings", 5) == [f"reading {n}" for n in range(26, 31)]


def test_all_that_is_dropped_is_found(run: Run, channel: BlockingChannel) -> None:
    assert run("drop_and_tell.py", "30").wait() == 0
    poll(lambda: ready(channel, "dropped_readings"), 30)  # the last 5 after a second
    counted = run("count_dropped.py")
    assert counted.wait() == 0
    assert counted.stdout == [
        " [x] 30 dropped",
        "     5 from fresh_readings: expired",
        "     25 from fresh_readings: maxlen",
    ]
    assert ready(channel, "dropped_readings") == 0


def test_what_is_read_in_time_is_not_dropped(run: Run, channel: BlockingChannel) -> None:
    """With a reader that is fast enough nothing is dropped: it takes both queues."""
    limits = {"x-max-length": 5, "x-message-ttl": 1000, **QUORUM}
    limits |= {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "dropped_readings",
    }
    channel.queue_declare("dropped_readings", durable=True, arguments=QUORUM)
    channel.queue_declare("fresh_readings", durable=True, arguments=limits)
    sent = run("drop_and_tell.py", "3")
    assert bodies(channel, "fresh_readings", 3) == ["reading 1", "reading 2", "reading 3"]
    assert sent.wait() == 0
    time.sleep(1.2)  # longer than the time to live: nothing comes
    assert ready(channel, "dropped_readings") == 0


# --- The broker's own --------------------------------------------------------


def test_a_memory_alarm(start: Starter, restartable: OwnedBroker) -> None:
    """Both clients say that they are blocked, go on afterwards, and lose nothing."""
    with restartable.vhost() as one, restartable.vhost() as two:
        run = partial(start, CHAPTER, "")
        publishers = [
            run("blocked_pika.py", url=one),
            run("blocked_aio_pika.py", url=two),
        ]
        # As long as 50 events take without an alarm: a publisher that did not
        # wait would have ended by then.
        limited = pika.URLParameters(one + "?blocked_connection_timeout=5")
        for url in (one, two):
            with connected(url) as other:
                other.queue_declare("event_store", durable=True, arguments=QUORUM)
                # Confirmed before the alarm, and so surely at work.
                poll(lambda it=other: ready(it, "event_store") > 0, True)
        with pika.BlockingConnection(limited) as blocking:
            third = blocking.channel()
            third.confirm_delivery()
            told: list[object] = []
            blocking.add_on_connection_blocked_callback(lambda *frame: told.append(frame))
            for each in publishers:  # they would be through before a slow rabbitmqctl
                each.process.send_signal(signal.SIGSTOP)
            restartable.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
            for each in publishers:
                each.process.send_signal(signal.SIGCONT)
            try:
                for each in publishers:
                    each.wait_for(" [!] Blocked by the broker: low on memory")
                with pytest.raises(ConnectionBlockedTimeout):
                    third.basic_publish("", "nowhere", b"?")
                assert not told  # as the page says of a BlockingConnection
                assert [each.process.poll() for each in publishers] == [None, None]
            finally:
                restartable.ctl("set_vm_memory_high_watermark", "0.6")
        shown = re.search(r"text\n\n((?: {4}.*\n)+)", page(CHAPTER).read_text())
        assert shown
        for each, url in zip(publishers, (one, two), strict=True):
            assert each.wait() == 0
            assert each.stdout == [line[3:] for line in shown[1].splitlines()]
            with connected(url) as other:
                found = bodies(other, "event_store", 50)
                assert found == [f"event {n}" for n in range(1, 51)]
                assert ready(other, "event_store") == 0


# --- An endpoint that passes things on ---------------------------------------


class Apps:
    """The consumer service and an app before it, on ports of their own."""

    def __init__(self, run: Run) -> None:
        self.port, other = free_ports(2)
        own, consumer = (f"http://{LOOPBACK}:{port}" for port in (self.port, other))
        self.url = f"{own}/produce"
        self.run = partial(run, url="amqp://unused/", PRODUCE_URL=own, CONSUMER_URL=consumer)

    def app(self, name: str) -> Script:
        return self.run(name).wait_for("Waiting for lists")

    def service(self, seconds: str = "0") -> Script:
        return self.run("consumer_service.py", seconds).wait_for("Waiting for items")

    def ask(self, items: object, seconds: float = 20) -> httpx.Response:
        return httpx.post(self.url, json=items, timeout=seconds)


@pytest.fixture
def apps(run: Run) -> Apps:
    return Apps(run)


def test_the_naive_one_lies_and_hangs(apps: Apps) -> None:
    service, app = apps.service(), apps.app("produce_naive.py")
    assert apps.ask(["first", "oops"]).json() == {"status": "done"}  # and it isn't
    service.interrupt()
    with pytest.raises(httpx.ReadTimeout):
        apps.ask(["second"], 1.5)
    service = apps.service()
    with pytest.raises(httpx.ReadTimeout):  # somebody else's item
        apps.ask(["third"], 1.5)
    service.wait_for("Took 'third'")
    assert app.interrupt() == INTERRUPTED


def test_each_item_has_its_fate(apps: Apps) -> None:
    apps.app("produce.py")

    def fates(items: list[str]) -> tuple[int, list[str]]:
        answer = apps.ask(items)
        return answer.status_code, answer.json()

    assert fates(["a", "b"]) == (502, ["failed", "failed"])
    service = apps.service()
    assert fates(["a", "oops", "b"]) == (502, ["delivered", "refused", "delivered"])
    assert fates(["a"] * 12) == (200, ["delivered"] * 12)
    service.interrupt()
    apps.service("60")
    assert fates(["a"] * 9) == (502, ["unknown"] * 8 + ["not tried"])


def test_what_take_bounded_does_not_take(apps: Apps) -> None:
    apps.app("take_bounded.py")
    for body, status in {
        b"[1, 2]": 200,
        b"[" + b"1," * 600_000 + b"1]": 413,
        b"": 400,
        b"[" * 100_000: 400,
    }.items():
        assert httpx.post(apps.url, content=body).status_code == status, body[:20]
    with socket.create_connection((LOOPBACK, apps.port)) as slow:
        slow.sendall(b"POST /produce HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n[")
        slow.settimeout(20)
        assert b" 408 " in slow.recv(100)
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(apps.ask, [["item"]] * 24))
    refused = [each for each in answers if each.status_code == 503]
    assert {each.headers["Retry-After"] for each in refused} == {"1"}
    assert len(answers) - len(refused) >= 8


def test_ask_says_what_is_missing(apps: Apps) -> None:
    ended = apps.run("ask.py", "item")
    assert ended.wait() == 1
    assert [line.startswith("Failed at http://") for line in ended.stderr] == [True]


# --- The retry storm ---------------------------------------------------------


def test_the_simulation_is_the_same_each_time_and_as_recorded() -> None:
    assert simulated() == json.loads(STORM.read_text())["runs"]


def test_what_the_simulation_shows() -> None:
    runs = json.loads(STORM.read_text())["runs"]
    calm, trouble = slice(0, 10), slice(20, 30)

    def mean(policy: str, what: str, when: slice) -> float:
        found = runs[policy][what][when]
        return sum(found) / len(found)

    for policy in runs:
        assert mean(policy, "goodput", calm) > 70
        assert max(runs[policy]["goodput"]) <= 101  # not more than it can do
    for policy in ("at once", "backoff, jitter"):
        assert mean(policy, "load", trouble) > 4 * 80
        assert mean(policy, "goodput", slice(20, 120)) == 0
    assert mean("backoff, jitter", "load", trouble) < mean("at once", "load", trouble)
    assert mean("and a budget", "load", trouble) < 80 * 1.25
    assert mean("and a budget", "goodput", slice(60, 120)) > 70
    assert mean("and a bounded queue", "goodput", slice(10, 120)) > 75
