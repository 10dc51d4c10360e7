"""The promises of docs/production-worker.rst, each with a test that can break it."""

from __future__ import annotations

import importlib.util
import os
import re
import select
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import broker as brokers
import pytest
from broker import Broker
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
from shells.chapters import CLIENTS, EXAMPLES, figure
from shells.proxy import Proxy
from shells.running import INTERRUPTED, Script
from test_scripts import imported

CHAPTER = "production-worker"
WORKER, PUBLISHER = "worker_reconnecting.py", "publisher_reconnecting.py"
STOPPING = "worker_stopping.py"
WORKERS = (WORKER, STOPPING)
RECONNECTING = (WORKER, PUBLISHER)
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
    return sum(" [x] Done" in line for script in scripts for line in script.stdout)


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


def send(run: Start, folder: Path, client: str, *tasks: str, **more: str) -> Script:
    """Start a publisher with these tasks as its input."""
    with input_of(folder, *tasks).open() as file:
        return run(client, PUBLISHER, stdin=file, **more)


@pytest.fixture
def publisher(run: Start, tmp_path: Path) -> Start:
    return partial(send, run, tmp_path)


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
    assert doing.times[2] - doing.times[1] > 0.5
    assert doing.times[6] - doing.times[5] > 1.2
    assert (doing.interrupt(), doing.stderr) == (INTERRUPTED, [])


def module(client: str, name: str) -> ModuleType:
    path = EXAMPLES / CHAPTER / client / name
    spec = importlib.util.spec_from_file_location(f"{client}_{path.stem}", path)
    assert spec
    assert spec.loader
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.mark.parametrize("name", RECONNECTING)
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


@pytest.mark.parametrize("name", RECONNECTING)
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


def test_one_thrown_out_again_and_again_waits_longer_and_longer(
    client: str, url: str, broker: Broker, tmp_path: Path
) -> None:
    """Not allowed to consume: it gets as far as Waiting each time.

    In a copy that says how often it has failed, instead of waiting.
    """
    says = "(print('failures:', failures) or 0.1)"
    copy = altered(CHAPTER, client, WORKER, "(pause(failures))", says, tmp_path)
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


def test_after_a_connection_that_lasted_the_pauses_are_short_again(
    client: str, url: str, tmp_path: Path
) -> None:
    says = "(print('failures:', failures) or 0.1)"
    copy = altered(CHAPTER, client, WORKER, "(pause(failures))", says, tmp_path)
    copy.write_text(copy.read_text().replace("LONGEST = 10.0", "LONGEST = 2.0"))
    with Proxy(url, "closed") as proxy, closing(Script(copy, url=proxy.url)) as script:
        script.wait_for("failures: 3")
        proxy.state = "through"
        script.wait_for("Waiting")
        select.select([], [], [], 3)  # for so long the connection has lasted
        proxy.cut()
        script.wait_for("failures: 0")


@pytest.mark.parametrize("busy", [False, True])
def test_a_connection_closed_by_force(
    run: Start, client: str, broker: Broker, url: str, busy: bool
) -> None:
    """One line that names the reason, one when it is back; a task in hand comes again."""
    victim = worker(run, client)
    if busy:
        with connected(url) as channel:
            publish(channel, 10 * ".")
        victim.wait_for("Received")
    close_connections(broker, url, "maintenance at noon")
    seen(victim, AGAIN)
    # One that sleeps on its connection may find it gone, and not why.
    if not (busy and client == "pika"):
        assert "CONNECTION_FORCED - maintenance at noon" in victim.stderr[0]
    seen(victim, WAITING, 2)
    assert len(victim.stderr) == 1
    with connected(url) as channel:
        publish(channel, "next")
    victim.wait_for("'next'")
    if busy:
        assert lines(victim, "'..........'") == 2


def test_the_queue_deleted_under_a_worker(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    victim = worker(run, client)
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


@pytest.mark.parametrize("name", RECONNECTING)
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


@pytest.mark.parametrize("name", RECONNECTING)
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


@pytest.mark.parametrize("name", RECONNECTING)
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


@pytest.mark.parametrize("name", RECONNECTING)
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


# What the page says, and where the scripts of both clients do.
LIMITS = {
    r"doubles, from a second to (\w+);": (WORKER, r"LONGEST = (\d+)\.0 "),
    r"after a connection has lasted for (\w+) seconds": (WORKER, r"LONGEST = (\d+)\.0 "),
    r"It asks for heartbeats of (\d+) s": (WORKER, r"heartbeat ?= ?(\d+)"),
    r"After (\d+) s without an answer": (PUBLISHER, r"(?:alarm|timeout)\((\d\d)\)"),
    r"``STOP_WITHIN`` seconds \((\d+), unless": (STOPPING, r'"STOP_WITHIN", "(\d+)"'),
    r"(\w+) seconds after the deadline": (STOPPING, r"int\(STOP_WITHIN\) if .* else (\d)"),
}


@pytest.mark.parametrize("words", LIMITS)
def test_what_the_page_says_of_limits_is_so(client: str, words: str) -> None:
    name, pattern = LIMITS[words]
    text = (EXAMPLES / CHAPTER / client / name).read_text()
    assert re.findall(pattern, text) == [str(figure(CHAPTER, words))]


def test_what_the_page_says_of_the_tests_is_so() -> None:
    assert figure(CHAPTER, r"on one queue, ([\d,]+) tasks each") == MANY


@pytest.mark.parametrize(("name", "most"), [(WORKER, 80), (PUBLISHER, 80), (STOPPING, 88)])
def test_it_can_be_copied_out(client: str, name: str, most: int) -> None:
    own = {"pika": "pika", "aio-pika": "aio_pika"}[client]
    script = EXAMPLES / CHAPTER / client / name
    assert imported(script) <= {own, *sys.stdlib_module_names}
    lines = script.read_text().splitlines()
    assert len(lines) <= most
    assert max(map(len, lines)) <= 79


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
            # It may have been stopped between "Done" and the ack.
            subscribed(channel, "orders", 0)
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
