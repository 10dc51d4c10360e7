"""The promises of docs/1-hello-world.rst, each with a test that can break it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import aio_pika
import pika
import pytest
from broker import Broker
from conftest import (
    Starter,
    altered,
    assert_one_line,
    connected,
    poll,
    ready,
    subscribed,
)
from pika.adapters.blocking_connection import BlockingChannel
from shells.chapters import CLIENTS, figure, page, said, version
from shells.running import INTERRUPTED, Script

CHAPTER = "1-hello-world"
HELLO = "Hello World!"
SENT = f" [x] Sent {HELLO!r}"
RECEIVED = f" [x] Received {HELLO!r}"
WAITING = " [*] Waiting for messages. To exit press CTRL+C"

Start = Callable[..., Script]


@pytest.fixture
def run(start: Starter) -> Start:
    return partial(start, CHAPTER)


def send(run: Start, client: str) -> None:
    """Send the message as the reader does."""
    sender = run(client, "send.py")
    assert (sender.wait(), sender.stdout, sender.stderr) == (0, [SENT], [])


def receiver(run: Start, client: str) -> Script:
    """A receiver that is ready."""
    return run(client, "receive.py").wait_for(WAITING)


def not_found() -> str:
    return said(CHAPTER, r"queue is told ``(\w+)``, and so is ``count.py``")


def declare(channel: BlockingChannel) -> None:
    """The queue as both scripts of the official tutorial declare it."""
    channel.queue_declare(queue="hello", durable=True, arguments={"x-queue-type": "quorum"})


def publish(channel: BlockingChannel, body: str | bytes) -> None:
    """Send as the official send.py does; confirmed, here."""
    channel.basic_publish(exchange="", routing_key="hello", body=body)


# --- Whoever comes first, with whichever client ----------------------------


def test_the_message_waits_for_a_receiver(
    run: Start, client: str, other: str, channel: BlockingChannel
) -> None:
    send(run, client)
    assert ready(channel, "hello") == 1
    started = receiver(run, other).wait_for(RECEIVED)
    assert (started.interrupt(), started.stdout, started.stderr) == (
        INTERRUPTED,
        [WAITING, RECEIVED],
        [],
    )
    assert ready(channel, "hello") == 0


def test_the_receiver_waits_for_a_message(run: Start, client: str, other: str) -> None:
    started = receiver(run, other)
    send(run, client)
    started.wait_for(RECEIVED)
    assert (started.interrupt(), started.stdout, started.stderr) == (
        INTERRUPTED,
        [WAITING, RECEIVED],
        [],
    )


def test_the_official_sender_and_our_receiver(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    declare(channel)
    publish(channel, HELLO)  # a str, which pika encodes
    started = receiver(run, client).wait_for(RECEIVED)
    declare(channel)  # does not clash with the receiver's own declaration
    publish(channel, HELLO)
    started.wait_for(RECEIVED, count=2)


def test_our_sender_and_the_official_receiver(run: Start, client: str, url: str) -> None:
    """The official receive.py, with an end after two messages."""
    with connected(url) as channel:
        declare(channel)
        send(run, client)
        got: list[bytes] = []

        def callback(
            ch: BlockingChannel, _method: object, _properties: object, body: bytes
        ) -> None:
            got.append(body)
            if len(got) == 2:
                ch.stop_consuming()

        channel.basic_consume(queue="hello", on_message_callback=callback, auto_ack=True)
        send(run, client)
        channel.connection.call_later(30, channel.stop_consuming)
        channel.start_consuming()
        assert got == [b"Hello World!"] * 2


def test_both_make_the_queue_that_the_official_scripts_declare(
    run: Start, client: str, url: str
) -> None:
    for first in ("send.py", "receive.py"):
        run(client, first).wait_for(" [")
        with connected(url) as channel:
            declare(channel)
            channel.queue_delete("hello")


def test_messages_stay_in_order_whoever_sends_them(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    """aio-pika's default priority would let the others' overtake, since 4.3."""
    declare(channel)
    send(run, "aio-pika")
    publish(channel, "second")
    lines = receiver(run, client).wait_for("'second'").stdout
    assert lines == [WAITING, RECEIVED, " [x] Received 'second'"]


def test_priorities_as_the_page_has_them(broker: Broker, channel: BlockingChannel) -> None:
    assert aio_pika.Message(b"").priority == figure(CHAPTER, r"aio-pika sends priority (\d)")
    usual = figure(CHAPTER, r"send none, which counts as (\d)")
    assert usual == figure("which-client", r"None sent, which counts as (\d)")
    declare(channel)
    for given in (usual - 1, None, usual, usual + 1):
        properties = pika.BasicProperties(priority=given)
        channel.basic_publish("", "hello", str(given), properties)
    found = [channel.basic_get("hello", auto_ack=True)[2] for _ in range(4)]
    in_order = found == [str(each).encode() for each in (usual + 1, None, usual, usual - 1)]
    since = version(said(CHAPTER, r"Since RabbitMQ (\S+) every quorum queue sorts"))
    assert in_order == (version(broker.version) >= since)
    assert since == version(said("3-publish-subscribe", r"does, since RabbitMQ (\S+): aio-pika"))


def test_a_body_is_any_bytes(run: Start, client: str, channel: BlockingChannel) -> None:
    started = receiver(run, client)
    for body in ("Grüße, 世界 👋".encode(), b"", b"caf\xe9", b"x" * 200_000, b"end"):
        publish(channel, body)
    started.wait_for("'end'")
    texts = ["Grüße, 世界 👋", "", "caf\ufffd", "x" * 200_000, "end"]
    assert started.stdout[1:] == [f" [x] Received {text!r}" for text in texts]


def test_two_receivers_share(run: Start, client: str) -> None:
    pair = [receiver(run, each) for each in CLIENTS]
    for _ in range(2):
        send(run, client)
    for each in pair:
        each.wait_for(RECEIVED)
        assert each.stdout == [WAITING, RECEIVED]


def test_count_is_of_this_moment(run: Start, client: str, channel: BlockingChannel) -> None:
    def counted() -> list[str]:
        counting = run(client, "count.py")
        assert (counting.wait(), counting.stderr) == (0, [])
        return counting.stdout

    declare(channel)
    for _ in range(3):
        publish(channel, HELLO)
    assert counted() == [" [*] Messages: 3", " [*] Consumers: 0"]
    receiver(run, client).wait_for(RECEIVED, count=3)
    assert counted() == [" [*] Messages: 0", " [*] Consumers: 1"]


def test_count_changes_nothing(run: Start, client: str, url: str) -> None:
    for _ in range(2):  # it has not made the queue that it looked for
        assert_one_line(run(client, "count.py"), not_found(), "no queue 'hello'", "make doctor")


# --- What "Sent" and "Received" mean ---------------------------------------


def test_sent_is_not_said_of_a_message_that_no_queue_takes(
    client: str, url: str, tmp_path: Path
) -> None:
    """As if the queue were deleted after its declaration."""
    key = 'routing_key="hello"'
    copy = altered(CHAPTER, client, "send.py", key, 'routing_key="hallo"', tmp_path)
    with closing(Script(copy, url=url)) as sender:
        assert_one_line(sender, "Failed: ")
        assert sender.stdout == []


def test_sent_is_not_said_of_a_message_that_the_broker_refuses(
    run: Start, client: str, broker: Broker, url: str, channel: BlockingChannel
) -> None:
    declare(channel)
    full = {
        "pattern": "^hello$",
        "definition": {"max-length": 0, "overflow": "reject-publish"},
        "apply-to": "queues",
    }
    broker.call_api("PUT", f"policies/{url.rpartition('/')[2]}/full", full)
    # Which takes effect in its own time, and after one message too many.
    outcomes: list[tuple[int, list[str]]] = []

    def refused() -> bool:
        sender = run(client, "send.py")
        outcomes.append((sender.wait(), sender.stdout))
        return outcomes[-1][0] == 1

    poll(refused, True)
    assert set(map(str, outcomes)) <= {str((0, [SENT])), str((1, []))}
    assert ready(channel, "hello") == outcomes.count((0, [SENT]))


def test_received_messages_are_forgotten_before_they_are_printed(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    """What automatic acknowledgment costs, and the page says."""
    stopped = receiver(run, client)
    subscribed(channel, "hello")
    stopped.process.send_signal(signal.SIGSTOP)
    for number in range(100):
        publish(channel, str(number))
    poll(lambda: ready(channel, "hello"), 0)
    stopped.process.kill()
    stopped.wait()
    assert stopped.stdout == [WAITING]
    second = receiver(run, client)
    publish(channel, "after")
    second.wait_for("'after'")
    assert second.stdout == [WAITING, " [x] Received 'after'"]


# --- When it doesn't work ---------------------------------------------------


@pytest.mark.parametrize("declares", ["send.py", "receive.py"])
def test_with_one_declaration_the_other_cannot_be_first(
    run: Start, client: str, url: str, tmp_path: Path, declares: str
) -> None:
    """Why both declare: the one that doesn't fails on a new broker."""
    lazy = "receive.py" if declares == "send.py" else "send.py"
    arguments = '"hello", durable=True, arguments={"x-queue-type": "quorum"}'
    other = '"hello", passive=True' if lazy == "receive.py" else '"another", durable=True'
    copy = altered(CHAPTER, client, lazy, arguments, other, tmp_path)
    with closing(Script(copy, url=url)) as first:
        assert_one_line(first, "Failed: ", not_found() if lazy == "receive.py" else "")
    run(client, declares).wait_for(" [")
    with closing(Script(copy, url=url)) as second:
        second.wait_for(" [")


def test_a_wrong_password_as_the_page_quotes_it(run: Start, client: str, broker: Broker) -> None:
    where = broker.url.rpartition("@")[2]
    refused = run(client, "send.py", url=f"amqp://guest:wrong@{where}")
    assert_one_line(refused)
    assert refused.stderr[0] in page(CHAPTER).read_text()


def test_what_the_terminal_cannot_show_is_received_all_the_same(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    started = run(client, "receive.py", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    started.wait_for(WAITING)
    publish(channel, "Grüße")
    publish(channel, HELLO)
    started.wait_for(HELLO)
    assert started.stdout == [WAITING, r" [x] Received 'Gr\xfc\xdfe'", RECEIVED]
