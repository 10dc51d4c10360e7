"""What docs/production-worker.rst promises of a worker and a publisher under faults."""

from __future__ import annotations

import fcntl
import shutil
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import broker as brokers
import pika
import pytest
from broker import Broker, OwnedBroker
from conftest import (
    Starter,
    altered,
    close_connections,
    connected,
    declare_payments,
    poll,
    ready,
)
from pika.adapters.blocking_connection import BlockingChannel
from shells.chapters import CLIENTS, EXAMPLES
from shells.proxy import Proxy
from shells.running import Script
from test_production_worker import (
    AGAIN,
    CHAPTER,
    MANY,
    PUBLISHER,
    WORKER,
    Start,
    declare,
    done,
    lines,
    publish,
    received,
    seen,
    stored,
    worker,
)


@pytest.fixture
def run(start: Starter) -> Start:
    return partial(start, CHAPTER)


class Feed(threading.Thread):
    """Gives a publisher MANY tasks, and more until it is told that it is enough.

    So the publisher is in the middle of it, whatever happens when, and however fast it is.
    """

    def __init__(self, script: Script, name: str) -> None:
        super().__init__(daemon=True)
        self.script, self.name = script, name
        self.tasks: list[str] = []
        self.over = threading.Event()
        pipe = script.process.stdin
        assert pipe
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)  # a few hundred tasks ahead
        self.start()

    def run(self) -> None:
        assert self.script.process.stdin
        with suppress(OSError), self.script.process.stdin as pipe:  # it may be killed
            while len(self.tasks) < MANY or not self.over.is_set():
                if len(self.tasks) >= MANY // 2:  # what comes while all wait costs time
                    self.over.wait(0.002)
                self.tasks.append(f"{self.name} {len(self.tasks)}")
                pipe.write(f"{self.tasks[-1]}\n")
                pipe.flush()

    def enough(self) -> Script:
        """Wait until the publisher has ended: all is confirmed, once and in order."""
        self.over.set()
        self.join(120)
        assert self.script.wait(120) == 0, self.script
        confirmed = [line for line in self.script.stdout if "Confirmed" in line]
        assert confirmed == [f" [x] Confirmed {task!r}" for task in self.tasks]
        return self.script


def both_ways(run: Start, client: str, url: str) -> tuple[Feed, Script]:
    """A publisher with many tasks, and a worker, in the middle of it."""
    doing = worker(run, client, url=url)
    feed = Feed(run(client, PUBLISHER, stdin=subprocess.PIPE, url=url), "order")
    feed.script.wait_for("Confirmed", count=300)
    doing.wait_for("Done", count=100)
    return feed, doing


def all_done(feed: Feed, doing: Script) -> None:
    """Everything that was to be sent is confirmed, in order, and done."""
    feed.enough()
    count = len(feed.tasks)
    poll(lambda: len(set(received(doing))), count, 60)
    poll(lambda: done(doing) >= count, True, 60)
    assert set(received(doing)) == set(feed.tasks)
    assert len(received(doing)) <= count + 20  # those in hand come again


@pytest.mark.long
@pytest.mark.parametrize("how", ["cut", "silent"])
def test_nothing_is_lost_when_the_network_fails(
    run: Start, client: str, url: str, how: str
) -> None:
    with Proxy(url) as proxy:
        feed, doing = both_ways(run, client, proxy.url)
        if how == "silent":
            proxy.state = "silent"
            for each in (feed.script, doing):
                seen(each, AGAIN)
            proxy.cut("through")
        else:
            proxy.cut()
        for each in (feed.script, doing):
            seen(each, "[*]", 2)
        all_done(feed, doing)
        for each in (feed.script, doing):
            assert (lines(each, AGAIN), lines(each, "[*]")) == (1, 2), each


def test_nothing_is_lost_when_connections_are_closed_by_force(
    run: Start, client: str, broker: Broker, url: str
) -> None:
    feed, doing = both_ways(run, client, url)
    close_connections(broker, url, "first", 2)
    for each in (feed.script, doing):
        seen(each, "[*]", 2)
    all_done(feed, doing)
    assert (lines(feed.script, AGAIN), lines(doing, AGAIN)) == (1, 1)


@contextmanager
def restarted(broker: OwnedBroker, _: list[Script]) -> Iterator[None]:
    broker.restart()
    yield


@contextmanager
def killed(broker: OwnedBroker, _: list[Script]) -> Iterator[None]:
    broker.kill()
    broker.start()
    yield


@contextmanager
def paused(broker: OwnedBroker) -> Iterator[None]:
    broker.pause()
    try:
        yield
    finally:
        broker.resume()


@contextmanager
def short_of_memory(broker: OwnedBroker, scripts: list[Script]) -> Iterator[None]:
    """It takes no messages. The scripts stand still until it does so."""
    for script in scripts:  # else they are through before rabbitmqctl is
        script.process.send_signal(signal.SIGSTOP)
    limit = broker.ctl("eval", "vm_memory_monitor:get_vm_memory_high_watermark().").strip()
    try:
        broker.ctl("set_vm_memory_high_watermark", "0.0000001")
        for script in scripts:
            script.process.send_signal(signal.SIGCONT)
        yield
    finally:
        broker.ctl("set_vm_memory_high_watermark", limit)


@contextmanager
def frozen(broker: OwnedBroker, scripts: list[Script]) -> Iterator[None]:
    """Until all have noticed."""
    with paused(broker):
        for script in scripts:
            seen(script, AGAIN)
    yield


@contextmanager
def alarmed(broker: OwnedBroker, scripts: list[Script]) -> Iterator[None]:
    """Until the publishers, which it blocks, have tried again."""
    publishers = [script for script in scripts if PUBLISHER in script.name]
    with short_of_memory(broker, publishers):
        for script in publishers:
            seen(script, AGAIN)
    yield


@pytest.mark.xdist_group("faults")  # half of what all that restart a broker take
@pytest.mark.parametrize("outage", [restarted, killed, frozen, alarmed])
def test_nothing_is_lost_when_the_broker_fails(
    start: Starter, restartable: OwnedBroker, outage: Any
) -> None:
    """With publishers and workers of both clients on one queue, in the middle of it."""
    with restartable.vhost() as url:
        # A queue younger than a second or so is not safe from a SIGKILL of its only node.
        with connected(url) as channel:
            publish(channel, *(f"early {number}" for number in range(1_000)))
        workers = [start(CHAPTER, client, WORKER, url=url) for client in CLIENTS]
        feeds = [
            Feed(start(CHAPTER, client, PUBLISHER, url=url, stdin=subprocess.PIPE), client)
            for client in CLIENTS
        ]
        publishers = [feed.script for feed in feeds]
        for script in publishers:
            script.wait_for("Confirmed", 200)
        for script in workers:
            script.wait_for("Done", 200)
        with outage(restartable, [*workers, *publishers]):
            for script in publishers:
                poll(lambda script=script: lines(script, "Connected") >= 2, True, 60)
            for feed in feeds:
                feed.enough()
            sent = {task for feed in feeds for task in feed.tasks}
            poll(lambda: len(sent - set(received(*workers))), 0, 60)
            for script in (*workers, *publishers):
                assert lines(script, AGAIN) == 1 or outage is alarmed, script
        with connected(url) as again:
            poll(lambda: ready(again, "orders"), 0)
        many = Counter(received(*workers))
        twice = sum(count - 1 for task, count in many.items() if task in sent)
        print(f"{outage.__name__}: {len(sent)} tasks, {twice} of them more than once")
        assert twice <= 20


# --- connect_robust ---


ROBUST = """
import asyncio, logging, os, aio_pika
logging.disable(logging.CRITICAL)

async def main():
    connection = await aio_pika.connect_robust(os.environ["AMQP_URL"])
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=1)
    queue = await channel.declare_queue(
        "orders", durable=True, arguments={"x-queue-type": "quorum"}
    )
    print("Waiting", flush=True)
    async for message in queue.iterator():
        async with message.process(requeue=True):
            print("Received", message.body.decode(), flush=True)
            await asyncio.sleep(0.5)
        print("Done", flush=True)

asyncio.run(main())
"""


def test_connect_robust_comes_back_idle_says_nothing_and_ends_with_a_task_in_hand(
    tmp_path: Path, url: str, channel: BlockingChannel
) -> None:
    """What the page says of it."""
    declare(channel)
    script = tmp_path / "robust.py"
    script.write_text(ROBUST)
    with Proxy(url) as proxy, closing(Script(script, url=proxy.url)) as robust:
        publish(channel, "before")  # a loss in its own set-up it does not survive
        robust.wait_for("Done")
        proxy.cut()
        poll(lambda: len(proxy.attempts) >= 2, True)
        publish(channel, "after")
        robust.wait_for("after")  # and not a word of the loss
        told = [line for line in robust.stdout if line not in ("Received before", "Done")]
        assert told == ["Waiting", "Received after"]
        publish(channel, "in hand")
        robust.wait_for("in hand")
        proxy.cut()
        assert robust.wait() == 1
        assert "ChannelInvalidStateError" in robust.stderr[-1]


ROBUST_PUBLISHER = """
import asyncio, logging, os, aio_pika
logging.disable(logging.CRITICAL)

async def main():
    connection = await aio_pika.connect_robust(os.environ["AMQP_URL"], reconnect_interval=1)
    channel = await connection.channel()
    await channel.declare_queue("orders", durable=True, arguments={"x-queue-type": "quorum"})
    for task in "first", "second", *100 * ["third"]:
        print("Publishing", task, flush=True)
        try:
            await channel.default_exchange.publish(aio_pika.Message(task.encode()), "orders")
            print("Confirmed", task, flush=True)
            await asyncio.to_thread(input)
        except BaseException:
            print("Failed", task, flush=True)
            await asyncio.sleep(0.3)  # until it is connected again

asyncio.run(main())
"""


def test_connect_robust_sends_nothing_again(
    tmp_path: Path, url: str, channel: BlockingChannel
) -> None:
    declare(channel)
    script = tmp_path / "robust.py"
    script.write_text(ROBUST_PUBLISHER)
    with (
        Proxy(url) as proxy,
        closing(Script(script, url=proxy.url, stdin=subprocess.PIPE)) as robust,
    ):
        assert robust.process.stdin
        robust.wait_for("Confirmed first")
        proxy.state = "silent"
        robust.process.stdin.write("\n")
        robust.process.stdin.flush()
        robust.wait_for("Publishing second")
        poll(lambda: ready(channel, "orders"), 1)
        proxy.cut("through")
        robust.wait_for("Failed second")
        robust.wait_for("Confirmed third")
    assert [task for task, _ in stored(channel)] == ["first", "third"]


def test_connect_robust_needs_the_broker_for_its_first_connection(
    tmp_path: Path, url: str
) -> None:
    script = tmp_path / "robust.py"
    script.write_text(ROBUST)
    with Proxy(url, "closed") as proxy, closing(Script(script, url=proxy.url)) as robust:
        assert robust.wait() == 1
        assert len(proxy.attempts) == 1


# As where the broker is killed just when aiormq has something to send.
LATE = """import aio_pika
import aiormq


async def late(channel, *_, **__):
    await channel.connection.close()
    raise Exception


aiormq.channel.Channel.basic_ack = late
"""


@pytest.mark.parametrize(
    ("where", "queue", "waits"),
    [
        ("production-worker/worker_reconnecting.py", "orders", "Waiting"),
        ("production-worker/worker.py", "payments", '"consuming"'),
        ("cluster/worker.py", "bookings", "Waiting"),
    ],
    ids=lambda value: value.replace("/", "-") if value.endswith(".py") else "",
)
def test_an_ack_too_late_does_not_end_it(
    start: Starter, channel: BlockingChannel, tmp_path: Path, where: str, queue: str, waits: str
) -> None:
    """Even though aiormq may raise a bare Exception then, which no list of errors has."""
    chapter, name = where.split("/")
    copy = altered(chapter, "aio-pika", name, "import aio_pika\n", LATE, tmp_path)
    shutil.copy(EXAMPLES / "production-worker/aio-pika/handler.py", tmp_path)
    declare_payments(channel)
    channel.queue_declare("bookings", durable=True)
    (port,) = brokers.free_ports(1)
    own = {"DATABASE": str(tmp_path / "own.sqlite3"), "HTTP_PORT": str(port)}
    script = start("", "", str(copy), **own).wait_for(waits)
    its = pika.BasicProperties(message_id="17", delivery_mode=2)
    channel.basic_publish("", queue, b"alice 5", its, mandatory=True)
    script.wait_for(waits, 2)
    assert script.process.poll() is None
