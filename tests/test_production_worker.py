"""The promises of docs/production-worker.rst, each with a test that can break it."""

from __future__ import annotations

import importlib.util
import itertools
import os
import random
import re
import select
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import broker as brokers
import pytest
from broker import Broker, DockerBroker, OwnedBroker, reaper
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
from shells.chapters import CLIENTS, EXAMPLES, page
from shells.proxy import Proxy
from shells.running import INTERRUPTED, Script

CHAPTER = "production-worker"
WORKER, PUBLISHER = "worker_reconnecting.py", "publisher_reconnecting.py"
STOPPING = "worker_stopping.py"
WORKERS = (WORKER, STOPPING)
WAITING = " [*] Waiting for messages. To exit press CTRL+C"
STOP = " [*] Stopping. Once more gives the task back"
AGAIN = " [!] Trying again: "
MANY = 2_000

Start = Callable[..., Script]


@pytest.fixture
def run(start: Starter) -> Start:
    return partial(start, CHAPTER)


def declare(channel: BlockingChannel) -> None:
    channel.queue_declare("orders", durable=True, arguments={"x-queue-type": "quorum"})


def publish(channel: BlockingChannel, *tasks: str | bytes) -> None:
    declare(channel)
    for task in tasks:
        body = task.encode() if isinstance(task, str) else task
        channel.basic_publish("", "orders", body)


def worker(run: Start, client: str, name: str = WORKER, **more: str) -> Script:
    return run(client, name, **more).wait_for(WAITING)


def received(*scripts: Script) -> list[str]:
    return [
        line.split("'")[1] for each in scripts for line in each.stdout if " [x] Received " in line
    ]


def done(*scripts: Script) -> int:
    return sum(script.stdout.count(" [x] Done") for script in scripts)


def lines(script: Script, text: str) -> int:
    """How many lines with that text there are on either output."""
    return sum(text in line for line in [*script.stdout, *script.stderr])


def seen(script: Script, text: str, count: int = 1, seconds: float = 60) -> Script:
    """Wait for lines with that text on either output, no more and no fewer."""
    try:
        poll(lambda: lines(script, text), count, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}: {text!r} from {script}") from None
    return script


def input_of(folder: Path, *tasks: str) -> Path:
    file = folder / f"input-{len(list(folder.iterdir()))}"
    file.write_text("".join(f"{task}\n" for task in tasks))
    return file


@pytest.fixture
def publisher(run: Start, tmp_path: Path) -> Callable[..., Script]:
    """Start a publisher with these tasks as its input."""

    def start(client: str, *tasks: str, **more: str) -> Script:
        with input_of(tmp_path, *tasks).open() as file:
            return run(client, PUBLISHER, stdin=file, **more)

    return start


def stored(channel: BlockingChannel) -> list[tuple[str, str]]:
    """What is in the queue, each with its id; it is taken out."""
    found = []
    while True:
        method, properties, body = channel.basic_get("orders", auto_ack=True)
        if not (method and properties and body is not None):
            return found
        found.append((body.decode(), str(properties.message_id)))


TASKS = [f"order {number}" for number in range(MANY)]


# --- Stay connected ------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
def test_a_publisher_and_a_worker_with_nothing_in_the_way(
    run: Start, client: str, publisher: Start, other: str
) -> None:
    sender = publisher(other, "First.", "Second", "2.00")
    assert (sender.wait(), sender.stderr) == (0, [])
    assert sender.stdout == [
        " [*] Connected",
        " [x] Confirmed 'First.'",
        " [x] Confirmed 'Second'",
        " [x] Confirmed '2.00'",
    ]
    doing = worker(run, client).wait_for("Done", count=3)
    assert received(doing) == ["First.", "Second", "2.00"]
    # A dot is a second, N.NN are that many.
    assert doing.times[2] - doing.times[1] > 0.9
    assert doing.times[6] - doing.times[5] > 1.9
    assert (doing.interrupt(), doing.stderr) == (INTERRUPTED, [])


def module(client: str, name: str) -> ModuleType:
    path = EXAMPLES / CHAPTER / client / name
    spec = importlib.util.spec_from_file_location(f"{client}_{path.stem}", path)
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("name", [*WORKERS, PUBLISHER])
def test_the_pause_is_anything_up_to_a_bound_that_doubles_up_to_ten_seconds(
    client: str, name: str
) -> None:
    pause = module(client, name).pause
    for failures, bound in [
        (0, 0.5),
        (1, 1),
        (2, 2),
        (3, 4),
        (4, 8),
        (5, 10),
        (9, 10),
        (10**6, 10),
    ]:
        pauses = [pause(failures) for _ in range(2_000)]
        assert 0 <= min(pauses) < 0.02 * bound, failures
        assert 0.98 * bound < max(pauses) <= bound, failures
        assert 0.45 * bound < sum(pauses) / len(pauses) < 0.55 * bound, failures


@pytest.mark.parametrize("name", [*WORKERS, PUBLISHER])
def test_it_waits_for_a_broker_that_is_not_there_yet(
    run: Start, publisher: Start, client: str, name: str, url: str
) -> None:
    """One line when it is missed, one when it is there, and pauses in between."""
    with Proxy(url, "closed") as proxy:
        early = publisher(client, "task", url=proxy.url)
        if name != PUBLISHER:
            early = run(client, name, url=proxy.url)
        poll(lambda: len(proxy.attempts) >= 5, True, 60)
        gaps = [b - a for a, b in zip(proxy.attempts, proxy.attempts[1:], strict=False)]
        assert sum(gaps) > 0.3
        for number, gap in enumerate(gaps, 1):  # generous: the machine may be busy
            assert gap < min(10, 0.5 * 2**number) + 10
        assert lines(early, AGAIN) == 1
        proxy.state = "through"
        seen(early, WAITING if name != PUBLISHER else "Connected")
        assert lines(early, AGAIN) == 1


@pytest.mark.parametrize("name", WORKERS)
def test_one_thrown_out_again_and_again_waits_longer_and_longer(
    client: str, url: str, broker: Broker, name: str, tmp_path: Path
) -> None:
    """Not allowed to consume: it gets as far as Waiting each time.

    In a copy that says how often it has failed, instead of waiting.
    """
    says = "(print('failures:', failures) or 0.1)"
    copy = altered(CHAPTER, client, name, "(pause(failures))", says, tmp_path)
    vhost = url.rpartition("/")[2]
    broker.call_api("PUT", f"users/{vhost}", {"password": "s3cret", "tags": ""})
    try:
        rights = {"configure": ".*", "write": ".*", "read": ""}
        broker.call_api("PUT", f"permissions/{vhost}/{vhost}", rights)
        where = broker.url.rpartition("@")[2]
        with closing(Script(copy, url=f"amqp://{vhost}:s3cret@{where}{vhost}")) as unread:
            unread.wait_for("failures: 5")
            assert unread.stdout[:6] == [
                line for number in (1, 2, 3) for line in (WAITING, f"failures: {number}")
            ]
            assert "ACCESS_REFUSED" in unread.stderr[0]
    finally:
        broker.call_api("DELETE", f"users/{vhost}")


@pytest.mark.parametrize("name", WORKERS)
def test_after_a_connection_that_lasted_the_pauses_are_short_again(
    client: str, url: str, name: str, tmp_path: Path
) -> None:
    says = "(print('failures:', failures) or 0.1)"
    copy = altered(CHAPTER, client, name, "(pause(failures))", says, tmp_path)
    copy.write_text(copy.read_text().replace("LONGEST = 10.0", "LONGEST = 2.0"))
    with Proxy(url, "closed") as proxy, closing(Script(copy, url=proxy.url)) as script:
        script.wait_for("failures: 3")
        proxy.state = "through"
        script.wait_for("Waiting")
        select.select([], [], [], 3)  # for so long the connection has lasted
        proxy.cut()
        script.wait_for("failures: 0")


@pytest.mark.parametrize("busy", [False, True])
@pytest.mark.parametrize("name", WORKERS)
def test_a_connection_closed_by_force(
    run: Start, client: str, broker: Broker, url: str, name: str, busy: bool
) -> None:
    """One line that names the reason, one when it is back; a task in hand comes again."""
    victim = worker(run, client, name)
    if busy:
        with connected(url) as channel:
            publish(channel, 10 * ".")
        victim.wait_for("Received")
    close_connections(broker, url, "maintenance at noon")
    seen(victim, AGAIN)
    # One that sleeps on its connection may find it gone, and not why.
    if not (busy and client == "pika" and name == WORKER):
        assert "CONNECTION_FORCED - maintenance at noon" in victim.stderr[0]
    seen(victim, WAITING, 2)
    assert len(victim.stderr) == 1
    with connected(url) as channel:
        publish(channel, "next")
    victim.wait_for("'next'")
    if busy:
        assert lines(victim, "'..........'") == 2


@pytest.mark.parametrize("name", WORKERS)
def test_the_queue_deleted_under_a_worker(
    run: Start, client: str, channel: BlockingChannel, name: str
) -> None:
    victim = worker(run, client, name)
    subscribed(channel, "orders")
    channel.queue_delete("orders")
    seen(victim, AGAIN)
    assert "the broker ended the consumer" in victim.stderr[0]
    seen(victim, WAITING, 2)
    publish(channel, "after")
    victim.wait_for("'after'").wait_for("Done")


ERRORS = ["RuntimeError", "OSError", "ConnectionResetError", "ValueError", "TimeoutError"]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", WORKERS)
def test_an_error_of_the_task_is_not_taken_for_a_lost_connection(
    client: str, url: str, channel: BlockingChannel, tmp_path: Path, error: str, name: str
) -> None:
    sleep = {"pika": "time.sleep(float", "aio-pika": "await asyncio.sleep(float"}[client]
    copy = altered(CHAPTER, client, name, sleep, f"raise {error}('mine')  # ", tmp_path)
    with closing(Script(copy, url=url)) as failing:
        failing.wait_for("Waiting")
        publish(channel, "task")
        assert failing.wait() == 1
        told = "\n".join(failing.stderr)
        assert f"{error}: mine" in told
        assert AGAIN not in told
    poll(lambda: ready(channel, "orders"), 1)


def both_ways(run: Start, publisher: Start, client: str, url: str) -> tuple[Script, Script]:
    """A publisher with many tasks, and a worker, in the middle of it."""
    doing = worker(run, client, url=url)
    sending = publisher(client, *TASKS, url=url)
    sending.wait_for("Confirmed", count=300)
    doing.wait_for("Done", count=100)
    return sending, doing


def all_done(sending: Script, doing: Script) -> None:
    """Everything that was to be sent is confirmed, in order, and done."""
    assert sending.wait(120) == 0, sending
    confirmed = [line for line in sending.stdout if "Confirmed" in line]
    assert confirmed == [f" [x] Confirmed {task!r}" for task in TASKS]
    poll(lambda: len(set(received(doing))), MANY, 60)
    poll(lambda: done(doing) >= MANY, True, 60)
    assert set(received(doing)) == set(TASKS)
    assert len(received(doing)) <= MANY + 20  # those in hand come again


@pytest.mark.long
@pytest.mark.parametrize("how", ["cut", "silent"])
def test_nothing_is_lost_when_the_network_fails(
    run: Start, publisher: Start, client: str, url: str, how: str
) -> None:
    with Proxy(url) as proxy:
        sending, doing = both_ways(run, publisher, client, proxy.url)
        if how == "silent":
            proxy.state = "silent"
            for each in (sending, doing):
                seen(each, AGAIN)
            proxy.cut("through")
        else:
            proxy.cut()
        all_done(sending, doing)
        for each in (sending, doing):
            assert (lines(each, AGAIN), lines(each, "[*]")) == (1, 2), each


def test_nothing_is_lost_when_connections_are_closed_by_force(
    run: Start, publisher: Start, client: str, broker: Broker, url: str
) -> None:
    doing = worker(run, client)
    with ExitStack() as stack:
        sending = run(client, PUBLISHER, stdin=subprocess.PIPE)
        pipe = stack.enter_context(closing(sending.process.stdin))  # type: ignore
        half = MANY // 2
        pipe.write("".join(f"{task}\n" for task in TASKS[:half]))
        pipe.flush()
        sending.wait_for("Confirmed")
        close_connections(broker, url, "first", 2)
        pipe.write("".join(f"{task}\n" for task in TASKS[half:]))
    seen(doing, WAITING, 2)
    all_done(sending, doing)
    assert (lines(sending, AGAIN), lines(doing, AGAIN)) == (1, 1)


MISTAKES = {
    "wrong password": ("amqp://guest:s3cret@{where}{vhost}", "REFUSED", "Fix AMQP_URLS"),
    "wrong vhost": ("amqp://guest:guest@{where}no-such-vhost", "Refused", "Fix AMQP_URLS"),
    "no port": ("amqp://localhost:s3cret/", "wants amqp://user:password@host:5672/vhost"),
    "no host": ("localhost", "AMQP_URLS wants"),
    "raw password": ("amqp://alice:s3cr#et@localhost/", "AMQP_URLS wants"),
    "one of two": ("{url},amqp://alice:s3cr/et@localhost/", "AMQP_URLS wants"),
    "an end": ("{url},", "AMQP_URLS wants"),
    "empty": ("", "AMQP_URLS wants"),
}


@pytest.mark.parametrize("name", [*WORKERS, PUBLISHER])
def test_what_no_retry_mends_is_one_line(
    run: Start, publisher: Start, client: str, name: str, url: str, broker: Broker
) -> None:
    where, vhost = broker.url.rpartition("@")[2], url.rpartition("/")[2]
    started = []
    for bad, *words in MISTAKES.values():
        wrong = bad.format(where=where, vhost=vhost, url=url)
        which = {"AMQP_URLS": wrong} if wrong else {"url": wrong or "none"}
        script = publisher if name == PUBLISHER else run
        args = ("task",) if name == PUBLISHER else (name,)
        started.append((script(client, *args, **which), words))
    for script, words in started:
        assert_one_line(script, *words)
        assert not re.search("s3|cret|cr#", script.stderr[0]), script
        assert script.stdout == []


@pytest.mark.parametrize("name", [*WORKERS, PUBLISHER])
def test_a_queue_of_that_name_with_other_arguments(
    run: Start, publisher: Start, client: str, name: str, channel: BlockingChannel
) -> None:
    channel.queue_declare("orders", durable=True, arguments={"x-queue-type": "classic"})
    script = publisher(client, "task") if name == PUBLISHER else run(client, name)
    assert_one_line(script, "PRECONDITION_FAILED", "x-queue-type")


@pytest.mark.parametrize("name", [*WORKERS, PUBLISHER])
def test_a_handshake_that_is_cut_off_is_no_wrong_password(
    run: Start, publisher: Start, client: str, name: str, url: str
) -> None:
    """pika takes it for one: "probable authentication error"."""
    with Proxy(url, "greeting") as proxy:
        script = publisher(client, "task", url=proxy.url)
        if name != PUBLISHER:
            script = run(client, name, url=proxy.url)
        poll(lambda: len(proxy.attempts) >= 3, True, 60)
        proxy.state = "through"
        seen(script, WAITING if name != PUBLISHER else "Confirmed")


@pytest.mark.parametrize("name", [*WORKERS, PUBLISHER])
def test_it_goes_on_at_another_node(
    run: Start, publisher: Start, client: str, name: str, url: str
) -> None:
    with Proxy(url) as one, Proxy(url) as two:
        (dead,) = brokers.free_ports(1)
        urls = f"amqp://guest:guest@localhost:{dead}/,{one.url},{two.url}"
        if name == PUBLISHER:
            script = run(client, name, stdin=subprocess.PIPE, AMQP_URLS=urls)
            assert script.process.stdin
            script.process.stdin.write("first\n")
            script.process.stdin.flush()
            script.wait_for("Confirmed")
        else:
            script = run(client, name, AMQP_URLS=urls).wait_for(WAITING)
        used, other = (one, two) if one.attempts else (two, one)
        used.cut("closed")
        if name == PUBLISHER:
            assert script.process.stdin
            script.process.stdin.write("second\n")
            script.process.stdin.flush()
            script.wait_for("'second'")
        else:
            script.wait_for(WAITING, 2)
        assert other.attempts


@pytest.mark.parametrize("name", [*WORKERS, PUBLISHER])
def test_not_all_go_to_the_first_node(
    run: Start, publisher: Start, client: str, name: str, url: str
) -> None:
    with Proxy(url) as one, Proxy(url) as two:
        for _ in range(30):  # all alike by chance: once in 2 to the power of 29
            if one.attempts and two.attempts:
                return
            urls = f"{one.url},{two.url}"
            if name == PUBLISHER:
                assert publisher(client, "task", AMQP_URLS=urls).wait() == 0
            else:
                run(client, name, AMQP_URLS=urls).wait_for(WAITING).interrupt()
        raise AssertionError(f"{len(one.attempts)} and {len(two.attempts)}")


def room(pipe: IO[Any]) -> bool:
    """Whether more can be written: its reader reads on."""
    return bool(select.select([], [pipe], [], 3)[1])


def test_while_the_broker_is_away_the_publisher_reads_no_input(
    run: Start, client: str, url: str
) -> None:
    """What is to be published waits where it comes from, and not in memory."""
    lines = b"".join(b"line %d %s\n" % (number, b"x" * 1_000) for number in range(64))
    with Proxy(url, "closed") as proxy:
        waiting = run(client, PUBLISHER, stdin=subprocess.PIPE, url=proxy.url)
        assert waiting.process.stdin
        pipe = waiting.process.stdin.buffer.raw  # type: ignore
        os.set_blocking(pipe.fileno(), False)
        written = 0
        while room(pipe):
            written += pipe.write(lines) or 0
            assert written < 1_000_000
        proxy.state = "through"
        waiting.wait_for("Confirmed", 64, seconds=60)
        assert room(pipe)


def test_what_is_sent_again_has_the_id_that_it_had(
    run: Start, publisher: Start, client: str, url: str, channel: BlockingChannel
) -> None:
    """Stored, and its confirm is lost: once more, to be sure."""
    declare(channel)
    with Proxy(url) as proxy:
        sending = run(client, PUBLISHER, stdin=subprocess.PIPE, url=proxy.url)
        pipe = sending.process.stdin
        assert pipe
        for number in range(3):
            proxy.state = "through"
            pipe.write(f"early {number}\n")
            pipe.flush()
            sending.wait_for(f"'early {number}'")
            proxy.state = "deaf"
            pipe.write(f"twice {number}\n")
            pipe.flush()
            poll(lambda: ready(channel, "orders"), 3 * number + 2)
            proxy.cut("through")
            sending.wait_for(f"'twice {number}'")
        pipe.close()
        assert sending.wait() == 0
    found = stored(channel)
    assert Counter(task for task, _ in found) == {
        **{f"early {number}": 1 for number in range(3)},
        **{f"twice {number}": 2 for number in range(3)},
    }
    assert len({each for _, each in found}) == 6
    assert len(set(found)) == 6


def test_a_confirm_that_never_comes_is_not_waited_for_for_ever(
    client: str, url: str, channel: BlockingChannel, tmp_path: Path
) -> None:
    """As on a node that is cut off from the others. In a copy that waits for 3 s."""
    declare(channel)
    copy = altered(CHAPTER, client, PUBLISHER, "(20)", "(3)", tmp_path)
    with (
        Proxy(url, "unconfirmed") as proxy,
        input_of(tmp_path, "task").open() as file,
        closing(Script(copy, url=proxy.url, stdin=file)) as sending,
    ):
        seen(sending, AGAIN)
        assert "TimeoutError" in sending.stderr[0]
        proxy.cut("through")
        sending.wait_for("Confirmed")
    assert len({number for _, number in stored(channel)}) == 1


def test_refused_by_a_full_queue_it_tries_again_and_leaves_no_connections_behind(
    publisher: Start, client: str, url: str, broker: Broker, channel: BlockingChannel
) -> None:
    declare(channel)
    vhost = url.rpartition("/")[2]
    limit = {"max-length": 1, "overflow": "reject-publish"}
    policy = {"pattern": "orders", "definition": limit, "apply-to": "queues"}
    broker.call_api("PUT", f"policies/{vhost}/full", policy)
    sending = publisher(client, *(f"task {number}" for number in range(6)))
    seen(sending, "[*] Connected", 5)
    assert "Nack" in sending.stderr[0]
    # Ours, and that of the channel of this test.
    poll(lambda: len(broker.call_api("GET", f"vhosts/{vhost}/connections")) <= 3, True)
    broker.call_api("DELETE", f"policies/{vhost}/full")
    assert sending.wait(60) == 0
    assert [line for line in sending.stdout if "Confirmed" in line] == [
        f" [x] Confirmed 'task {number}'" for number in range(6)
    ]


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
def frozen(broker: OwnedBroker, scripts: list[Script]) -> Iterator[None]:
    """Until all have noticed."""
    docker = isinstance(broker, DockerBroker)
    try:
        if docker:
            subprocess.run(["docker", "pause", broker.tag], check=True, capture_output=True)
        else:
            for process in reaper.processes(broker.tag):
                process.suspend()
        for script in scripts:
            seen(script, AGAIN)
    finally:
        if docker:
            subprocess.run(["docker", "unpause", broker.tag], check=True, capture_output=True)
        else:
            for process in reaper.processes(broker.tag):
                process.resume()
    yield


@contextmanager
def alarmed(broker: OwnedBroker, scripts: list[Script]) -> Iterator[None]:
    """Until the publishers, which it blocks, have tried again."""
    publishers = [script for script in scripts if PUBLISHER in script.name]
    for script in publishers:  # else they are through before rabbitmqctl is
        script.process.send_signal(signal.SIGSTOP)
    limit = broker.ctl("eval", "vm_memory_monitor:get_vm_memory_high_watermark().").strip()
    try:
        broker.ctl("set_vm_memory_high_watermark", "0.0000001")
        for script in publishers:
            script.process.send_signal(signal.SIGCONT)
        for script in publishers:
            seen(script, AGAIN)
    finally:
        broker.ctl("set_vm_memory_high_watermark", limit)
    yield


@pytest.mark.parametrize("outage", [restarted, killed, frozen, alarmed])
def test_nothing_is_lost_when_the_broker_fails(
    start: Starter, restartable: OwnedBroker, tmp_path: Path, outage: Any
) -> None:
    """With publishers and workers of both clients on one queue, in the middle of it."""
    with restartable.vhost() as url:
        # A queue younger than a second or so is not safe from a SIGKILL of its only node.
        with connected(url) as channel:
            publish(channel, *(f"early {number}" for number in range(1_000)))
        workers = [start(CHAPTER, client, WORKER, url=url) for client in CLIENTS]
        publishers = []
        for client in CLIENTS:
            file = input_of(tmp_path, *(f"{client} {task}" for task in TASKS))
            with file.open() as tasks:
                publishers.append(start(CHAPTER, client, PUBLISHER, url=url, stdin=tasks))
        for script in publishers:
            script.wait_for("Confirmed", 200)
        for script in workers:
            script.wait_for("Done", 200)
        with outage(restartable, [*workers, *publishers]):
            for script in publishers:
                assert script.wait(120) == 0, script
            sent = {f"{client} {task}" for client in CLIENTS for task in TASKS}
            poll(lambda: len(sent - set(received(*workers))), 0, 60)
            for script in (*workers, *publishers):
                lost = 0 if outage is alarmed and script in workers else 1
                assert lines(script, AGAIN) == lost or outage is alarmed, script
        with connected(url) as again:
            poll(lambda: ready(again, "orders"), 0)
        many = Counter(received(*workers))
        twice = sum(count - 1 for task, count in many.items() if task in sent)
        print(f"{outage.__name__}: {len(sent)} tasks, {twice} of them more than once")
        assert twice <= 20


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
        robust.wait_for("Done", count=2)  # and not a word of the loss
        assert robust.stdout == ["Waiting", "Received before", "Done", "Received after", "Done"]
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


@pytest.mark.long
def test_a_task_longer_than_the_heartbeats_comes_again_and_again_in_pika(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    """Of the reconnecting worker. On asyncio, and in a thread, it is done once."""
    publish(channel, "20.00")
    long = worker(run, client, WORKER).wait_for("Received", 1)
    if client == "pika":
        long.wait_for("Received", 2, seconds=60)
        assert lines(long, AGAIN) == 1
    else:
        long.wait_for("Done")
        assert long.stderr == []


@pytest.mark.long
def test_heartbeats_go_on_during_a_long_task(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    publish(channel, "20.00", "next")
    long = worker(run, client, STOPPING).wait_for("Done", 2, seconds=60)
    assert received(long) == ["20.00", "next"]
    assert long.stderr == []


@pytest.mark.long
def test_a_task_longer_than_the_ack_timeout_is_done_again(
    run: Start, client: str, broker: Broker, url: str, channel: BlockingChannel
) -> None:
    """What the page says of RabbitMQ since 4.3; with its policy, and 1 s in place of 30 min."""
    if tuple(map(int, broker.version.split(".")[:2])) < (4, 3):
        pytest.skip("before 4.3 it takes the broker a minute to notice")
    policy = {"pattern": "^orders$", "definition": {"consumer-timeout": 1_000}}
    path = f"policies/{url.rpartition('/')[2]}/long"
    broker.call_api("PUT", path, {**policy, "apply-to": "queues"})
    publish(channel, "15.00")
    long = worker(run, client, STOPPING)
    long.wait_for("Done").wait_for("Received", 2)
    assert [line for line in long.stderr if AGAIN in line] == [
        f"{AGAIN}ConnectionError('the broker ended the consumer')"
    ]
    text = page(CHAPTER).read_text()
    assert long.stderr[0] in text
    # With more time it is done, and is gone.
    policy["definition"] = {"consumer-timeout": 7_200_000}
    assert "'{\"consumer-timeout\": 7200000}'" in text
    broker.call_api("PUT", path, {**policy, "apply-to": "queues"})
    long.process.send_signal(signal.SIGTERM)
    assert long.wait() == 0


def test_what_the_page_says_of_limits_is_so() -> None:
    text = page(CHAPTER).read_text()
    for client, limit in (("pika", "alarm(20)"), ("aio-pika", "timeout(20)")):
        folder = EXAMPLES / CHAPTER / client
        assert limit in (folder / PUBLISHER).read_text()
        assert '"STOP_WITHIN", "20"' in (folder / STOPPING).read_text()
        for name in WORKERS:
            assert re.search(r"heartbeat ?= ?5\b|heartbeat=5\b", (folder / name).read_text())
    assert "20 s without an answer" in text
    assert "``STOP_WITHIN`` seconds (20, unless" in " ".join(text.split())
    assert f"{MANY:,} tasks" in " ".join(text.split())


def test_both_clients_print_the_same(
    run: Start, publisher: Start, channel: BlockingChannel
) -> None:
    printed = {}
    for client in CLIENTS:
        sender = publisher(client, "same", "Grüße", "0.10")
        assert sender.wait() == 0
        lines_of = [sender.stdout]
        for name in WORKERS:
            busy = worker(run, client, name).wait_for("Done", 3)
            busy.interrupt()
            lines_of.append([line for line in busy.stdout if line != STOP])
            channel.queue_purge("orders")
            publish(channel, "same", "Grüße", "0.10")
        printed[client] = lines_of
        channel.queue_purge("orders")
    assert printed["pika"] == printed["aio-pika"]


@pytest.mark.parametrize("name", WORKERS)
def test_any_bytes_are_a_task_whatever_can_be_printed(
    run: Start, client: str, channel: BlockingChannel, name: str
) -> None:
    publish(channel, b"caf\xe9", "Grüße 🐰")
    busy = worker(run, client, name, PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    busy.wait_for("Done", 2)
    poll(lambda: ready(channel, "orders"), 0)


# --- Stop in time ----------------------------------------------------------------

STOPS = (signal.SIGTERM, signal.SIGINT)


def stopped(script: Script) -> None:
    """It has ended as it was told to, quietly."""
    assert (script.wait(), script.stderr) == (0, []), script


@pytest.mark.parametrize("how", STOPS)
def test_it_finishes_what_is_in_hand_and_takes_nothing_new(
    run: Start, client: str, channel: BlockingChannel, how: signal.Signals
) -> None:
    publish(channel, "2.00", "next")
    busy = worker(run, client, STOPPING).wait_for("Received")
    busy.process.send_signal(how)
    stopped(busy)
    assert busy.stdout == [WAITING, " [x] Received '2.00'", STOP, " [x] Done"]
    method, _, body = channel.basic_get("orders")
    assert method
    assert (body, method.redelivered) == (b"next", False)  # it never had that one


@pytest.mark.parametrize("how", STOPS)
def test_what_takes_too_long_is_given_back_after_the_deadline(
    run: Start, client: str, channel: BlockingChannel, how: signal.Signals
) -> None:
    publish(channel, "60.00", "next")
    busy = worker(run, client, STOPPING, STOP_WITHIN="2").wait_for("Received")
    begun = time.monotonic()
    busy.process.send_signal(how)
    stopped(busy)
    assert busy.stdout[1:] == [" [x] Received '60.00'", STOP, " [x] Given back"]
    assert 1.5 < time.monotonic() - begun < 20
    poll(lambda: ready(channel, "orders"), 2)


@pytest.mark.parametrize("signals", [*itertools.product(STOPS, STOPS)])
def test_a_second_signal_gives_back_at_once(
    run: Start, client: str, channel: BlockingChannel, signals: tuple[signal.Signals, ...]
) -> None:
    publish(channel, "60.00", "next")
    busy = worker(run, client, STOPPING, STOP_WITHIN="50").wait_for("Received")
    busy.process.send_signal(signals[0])
    busy.wait_for("Stopping")
    busy.process.send_signal(signals[1])
    stopped(busy)
    assert busy.stdout[1:] == [" [x] Received '60.00'", STOP, " [x] Given back"]
    poll(lambda: ready(channel, "orders"), 2)


def test_what_is_given_back_at_a_stop_does_not_count_as_a_failure(
    run: Start, client: str, channel: BlockingChannel, broker: Broker
) -> None:
    """Else twenty deployments in a row would drop a long task."""
    publish(channel, "60.00")
    busy = worker(run, client, STOPPING).wait_for("Received")
    busy.process.send_signal(signal.SIGTERM)
    busy.process.send_signal(signal.SIGINT)
    stopped(busy)
    taken: list[Any] = []

    def back() -> bool:
        taken[:] = channel.basic_get("orders")
        return taken[0] is not None

    poll(back, True)
    counted = (taken[1].headers or {}).get("x-delivery-count", 0)
    if broker.version >= "4.3":
        assert counted == 0


@pytest.mark.parametrize("how", STOPS)
def test_one_with_nothing_in_hand_stops_at_once(
    run: Start, client: str, channel: BlockingChannel, url: str, how: signal.Signals
) -> None:
    """Idle, or waiting for a broker that is not there, or that is silent."""
    idle = worker(run, client, STOPPING)
    with Proxy(url, "closed") as closed, Proxy(url, "silent") as silent:
        away, frozen = (run(client, STOPPING, url=each.url) for each in (closed, silent))
        seen(away, AGAIN)
        poll(lambda: len(silent.attempts), 1)
        for each in (idle, away, frozen):
            each.process.send_signal(how)
            assert each.wait() == 0, each
    assert idle.stdout == [WAITING]


def test_a_broker_that_is_silent_does_not_keep_it(
    client: str, channel: BlockingChannel, url: str, tmp_path: Path
) -> None:
    """In a copy without heartbeats, which would end its waiting, too."""
    old = {"pika": "heartbeat = 5", "aio-pika": "heartbeat=5"}[client]
    copy = altered(CHAPTER, client, STOPPING, old, old.replace("5", "0"), tmp_path)
    publish(channel, "2.00")
    with Proxy(url) as proxy, closing(Script(copy, url=proxy.url, STOP_WITHIN="3")) as busy:
        busy.wait_for("Received")
        proxy.state = "silent"
        busy.process.send_signal(signal.SIGTERM)
        assert busy.wait() == 0
    poll(lambda: ready(channel, "orders"), 1, 60)


@pytest.mark.parametrize("value", ["", "0", "-1", "soon", "1.5"])
def test_a_deadline_that_is_none(run: Start, client: str, value: str) -> None:
    assert_one_line(run(client, STOPPING, STOP_WITHIN=value), "STOP_WITHIN wants")


def stop_somewhere(
    run: Start, channel: BlockingChannel, client: str, chance: random.Random, twice: bool
) -> tuple[Script, list[str]]:
    """A worker with tasks of 0 to 300 ms, stopped at a random moment."""
    tasks = [f"0.{chance.randrange(30):02}" for _ in range(4)]
    publish(channel, *tasks)
    busy = worker(run, client, STOPPING)
    if chance.random() < 0.9:
        busy.wait_for("Received")
    select.select([], [], [], chance.uniform(0, 0.4))
    busy.process.send_signal(chance.choice(STOPS))
    if twice:
        select.select([], [], [], 0.0003)
        busy.process.send_signal(chance.choice(STOPS))
    return busy, tasks


@pytest.mark.parametrize("twice", [False, True])
def test_stopped_at_any_moment_it_loses_nothing(
    run: Start, client: str, channel: BlockingChannel, twice: bool
) -> None:
    """Every task is done, or back in the queue; none is both, and none neither."""
    chance = random.Random(f"{client} {twice}")
    for _ in range(int(os.environ.get("STOPS", "5"))):
        busy, tasks = stop_somewhere(run, channel, client, chance, twice)
        stopped(busy)
        finished = done(busy)
        if not twice:  # what was begun was finished
            assert received(busy) == tasks[:finished]
        poll(lambda: ready(channel, "orders"), len(tasks) - finished)
        channel.queue_purge("orders")
