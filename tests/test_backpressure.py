"""The promises of docs/backpressure.rst, each with a test that can break it."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pika
import pytest
from broker import Broker, OwnedBroker
from conftest import (
    Starter,
    altered,
    assert_one_line,
    close_connections,
    connected,
    poll,
    ready,
    subscribed,
)
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ConnectionBlockedTimeout
from record_backpressure import BUFFERS, COUNT, MEMORY, memory
from shells.chapters import EXAMPLES, page, said, version
from shells.running import INTERRUPTED, Script
from shells.wiretap import Wiretap

CHAPTER = "backpressure"
FOLDER = EXAMPLES / CHAPTER
QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}
STORED = {**QUORUM, "x-max-length": 5, "x-overflow": "reject-publish"}
Run = Callable[..., Script]


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


def test_the_pauses_grow_up_to_a_second(run: Run, url: str, channel: BlockingChannel) -> None:
    with Wiretap(url, holding=False) as tap:
        producer = run("store_or_wait.py", "20", url=tap.url).wait_for("The queue is full")
        stored = ready(channel, "limited_tasks")
        started = time.monotonic()
        # Ten pauses. If they grew without end, they would take 25 s, or more.
        poll(lambda: tap.published >= stored + 11, True, 20)
        # As long as the shortest are together; all like the first, they take 0.5 s.
        assert time.monotonic() - started > 3
        assert len(bodies(channel, "limited_tasks", 20)) == 20
        assert producer.wait() == 0


def test_ctrl_c_while_it_waits_for_room(run: Run, channel: BlockingChannel) -> None:
    producer = run("store_or_wait.py", "20").wait_for("The queue is full")
    stored = ready(channel, "limited_tasks")
    assert (producer.interrupt(), producer.stderr) == (INTERRUPTED, [])
    assert bodies(channel, "limited_tasks", stored) == [f"task {n + 1}" for n in range(stored)]


def test_the_slow_consumer_acks_what_is_done(run: Run, channel: BlockingChannel) -> None:
    channel.queue_declare("limited_tasks", durable=True, arguments=STORED)
    for number in range(3):
        channel.basic_publish("", "limited_tasks", f"task {number}".encode())
    consumer = run("slow_consumer.py", "limited_tasks", "0.01").wait_for("Done", 3)
    assert consumer.stdout[1:] == [f" [x] Done 'task {n}'" for n in range(3)]
    assert consumer.interrupt() == INTERRUPTED
    subscribed(channel, "limited_tasks", 0)
    assert ready(channel, "limited_tasks") <= 1  # stopped between "Done" and the ack
    channel.queue_purge("limited_tasks")
    consumer = run("slow_consumer.py", "limited_tasks", "60").wait_for("Waiting")
    channel.basic_publish("", "limited_tasks", b"in hand")
    channel.basic_publish("", "limited_tasks", b"next")
    poll(lambda: ready(channel, "limited_tasks"), 1)  # not more than one in hand
    consumer.process.kill()
    poll(lambda: ready(channel, "limited_tasks"), 2)
    consumer = run("slow_consumer.py", "limited_tasks", "60").wait_for("Waiting")
    poll(lambda: ready(channel, "limited_tasks"), 1)
    assert (consumer.interrupt(), consumer.stderr) == (INTERRUPTED, [])
    poll(lambda: ready(channel, "limited_tasks"), 2)


def test_the_slow_consumer_is_told_when_its_queue_is_deleted(
    run: Run, channel: BlockingChannel
) -> None:
    assert_one_line(run("slow_consumer.py", "limited_tasks", "0"), "404")
    channel.queue_declare("limited_tasks", durable=True, arguments=STORED)
    consumer = run("slow_consumer.py", "limited_tasks", "0").wait_for("Waiting")
    subscribed(channel, "limited_tasks")
    channel.queue_delete("limited_tasks")
    assert_one_line(consumer, "the queue is gone")


# --- Drop --------------------------------------------------------------------


def test_the_oldest_are_dropped_unseen(run: Run, channel: BlockingChannel) -> None:
    sent = run("drop_oldest.py", "30")
    assert (sent.wait(), sent.stdout) == (0, [" [x] Sent 30 readings, all confirmed"])
    poll(lambda: ready(channel, "latest_readings"), 5)
    assert bodies(channel, "latest_readings", 5) == [f"reading {n}" for n in range(26, 31)]
    said("backpressure", r"\* - ``drop-head`` - nobody - the (oldest) - nobody")


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
    channel.basic_publish("", "fresh_readings", b"late")
    # Nothing came before it.
    assert bodies(channel, "dropped_readings", 1) == ["late"]


# --- How they end ------------------------------------------------------------

# By script: what it is given, and the queue that it declares.
DECLARING = {
    "store_or_wait.py": (["20"], "limited_tasks"),
    "drop_oldest.py": (["8"], "latest_readings"),
    "drop_and_tell.py": (["8"], "fresh_readings"),
    "count_dropped.py": ([], "dropped_readings"),
    "blocked_pika.py": ([], "event_store"),
    "blocked_aio_pika.py": ([], "event_store"),
}
PUBLISHERS = ("store_or_wait.py", "blocked_pika.py", "blocked_aio_pika.py")


@pytest.mark.parametrize("script", DECLARING)
def test_a_queue_that_was_declared_otherwise(
    run: Run, channel: BlockingChannel, script: str
) -> None:
    arguments, queue = DECLARING[script]
    channel.queue_declare(queue, durable=True)
    assert_one_line(run(script, *arguments), "PRECONDITION_FAILED", f"'{queue}'")


def at_work(run: Run, script: str, url: str) -> Script:
    """The script, when it has published and goes on to."""
    arguments, queue = DECLARING[script]
    started = run(script, *arguments)

    def published() -> bool:
        with connected(url) as channel:
            channel.queue_declare(queue, durable=True, arguments=kinds[queue])
            return ready(channel, queue) > 0

    kinds = {"limited_tasks": STORED, "event_store": QUORUM}
    poll(published, True)
    return started


@pytest.mark.parametrize("script", PUBLISHERS)
def test_a_queue_that_is_deleted_meanwhile(
    run: Run, url: str, channel: BlockingChannel, script: str
) -> None:
    publisher = at_work(run, script, url)
    channel.queue_delete(DECLARING[script][1])
    assert_one_line(publisher)
    # What is under way is nacked, what comes later has no route; and RabbitMQ itself may
    # trip over it, and closes the connection.
    reasons = r"Basic\.Nack|NO_ROUTE|[Uu]nroutable|DeliveryError|INTERNAL_ERROR"
    assert re.search(reasons, publisher.stderr[0]), publisher


@pytest.mark.parametrize("script", ["blocked_pika.py", "blocked_aio_pika.py"])
def test_what_the_queue_refuses_is_no_success(
    run: Run, broker: Broker, url: str, channel: BlockingChannel, script: str
) -> None:
    """A policy makes it full after some."""
    full = {
        "pattern": "^event_store$",
        "definition": {"max-length": 3, "overflow": "reject-publish"},
        "apply-to": "queues",
    }
    broker.call_api("PUT", f"policies/{url.rpartition('/')[2]}/full", full)
    publisher = run(script)
    assert_one_line(publisher)
    assert re.search(r"Basic\.Nack|DeliveryError", publisher.stderr[0]), publisher
    assert publisher.stdout == []
    assert ready(channel, "event_store") >= 3


@pytest.mark.parametrize("script", PUBLISHERS)
def test_an_operator_closes_the_connection(
    run: Run, broker: Broker, url: str, script: str
) -> None:
    publisher = at_work(run, script, url)
    close_connections(broker, url, "maintenance at noon")
    assert_one_line(publisher, "320", "CONNECTION_FORCED - maintenance at noon")


def test_an_operator_closes_the_connection_with_a_window_in_the_air(
    run: Run, broker: Broker, url: str
) -> None:
    with Wiretap(url) as tap:
        publisher = run("publish_window.py", "50", url=tap.url)
        tap.expect(published=50)
        close_connections(broker, url, "maintenance at noon")
        assert_one_line(publisher, "320", "CONNECTION_FORCED - maintenance at noon")


@pytest.mark.parametrize(
    ("script", "arguments", "pause", "sign"),
    [
        ("prefetch_holds.py", ["10"], "timeout=1)", "consumers"),
        ("blocked_aio_pika.py", [], "timeout=0.1)", "messages"),
    ],
)
def test_an_operator_closes_the_connection_in_a_pause(
    broker: Broker,
    url: str,
    tmp_path: Path,
    script: str,
    arguments: list[str],
    pause: str,
    sign: str,
) -> None:
    """A longer one than theirs, so that it is in the pause, and surely."""
    copy = altered(CHAPTER, "", script, pause, "timeout=60)", tmp_path)

    def signs() -> int:
        queues = broker.call_api("GET", f"queues/{url.rpartition('/')[2]}")
        return sum(queue.get(sign, 0) for queue in queues)

    with closing(Script(copy, *arguments, url=url)) as paused:
        poll(signs, 1)
        close_connections(broker, url, "maintenance at noon")
        assert_one_line(paused, "320", "CONNECTION_FORCED - maintenance at noon")


def test_an_operator_closes_the_consumers_connection(run: Run, broker: Broker, url: str) -> None:
    with connected(url) as channel:
        channel.queue_declare("limited_tasks", durable=True, arguments=STORED)
    consumer = run("slow_consumer.py", "limited_tasks", "0").wait_for("Waiting")
    close_connections(broker, url, "maintenance at noon")
    assert_one_line(consumer, "320", "CONNECTION_FORCED - maintenance at noon")


# --- The broker's own --------------------------------------------------------


def test_a_memory_alarm(start: Starter, restartable: OwnedBroker) -> None:
    """Both clients say that they are blocked, go on afterwards, and lose nothing."""
    with restartable.vhost() as one, restartable.vhost() as two, restartable.vhost() as three:
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
                for name in ("blocked_pika.py", "blocked_aio_pika.py"):
                    hasty = run(name, url=three).wait_for("Blocked by the broker")
                    assert (hasty.interrupt(), hasty.stderr) == (INTERRUPTED, [])
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


def test_what_is_the_way_back_from_an_alarm(broker: Broker) -> None:
    """The watermark that the page sets again is the broker's default."""
    typed = said(CHAPTER, r"set_vm_memory_high_watermark (0\.\d) ")
    named = said(CHAPTER, r"\((0\.\d) of the machine's memory is")
    since = version(said(CHAPTER, r"default since (\d\.\d); before, it was"))
    before = said(CHAPTER, r"before, it was (0\.\d):")
    default = broker.ctl("eval", "application:get_env(rabbit, vm_memory_high_watermark).")
    assert typed == named
    assert (typed if version(broker.version) >= since else before) in default


# --- Scripts that don't talk to the broker; test_scripts.py has the others ---------


def test_they_are_short_and_say_how_to_run_them(run: Run) -> None:
    for script in FOLDER.glob("*.py"):
        text = script.read_text()
        assert len(text.splitlines()) <= 55
        if "AMQP_URL" not in text and "Usage: " in text:
            ended = run(script.name, url="amqp://unused/")
            assert_one_line(ended, f"Usage: python {script.name} ")
            assert ended.stdout == []
