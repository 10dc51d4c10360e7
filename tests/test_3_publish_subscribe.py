"""The promises of docs/3-publish-subscribe.rst, each with a test that can break it."""

from __future__ import annotations

import io
import re
import signal
import time
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from broker import Broker
from conftest import (
    Starter,
    altered,
    assert_one_line,
    connected,
    poll,
    ready,
)
from pika.adapters.blocking_connection import BlockingChannel
from shells.chapters import CLIENTS, figure, said, version
from shells.running import INTERRUPTED, Script

CHAPTER = "3-publish-subscribe"
WAITING = " [*] Waiting for logs. To exit press CTRL+C"

Start = Callable[..., Script]


@pytest.fixture
def run(start: Starter) -> Start:
    return partial(start, CHAPTER)


def emit(run: Start, client: str, text: str | bytes) -> None:
    """Send a message as the reader does, and see it confirmed."""
    sender = run(client, "emit_log.py", text)
    assert (sender.wait(), len(sender.stdout), sender.stderr) == (0, 1, []), sender
    assert sender.stdout[0].startswith(" [x] Sent "), sender


def receiver(run: Start, client: str) -> Script:
    """A receiver that has subscribed."""
    return run(client, "receive_logs.py").wait_for(WAITING)


def beside(client: str) -> str:
    """The other client."""
    return CLIENTS[1 - CLIENTS.index(client)]


def received(*texts: str) -> list[str]:
    return [WAITING, *(f" [x] Received {text!r}" for text in texts)]


def declare(channel: BlockingChannel) -> None:
    """The exchange as the official scripts declare it."""
    channel.exchange_declare(exchange="logs", exchange_type="fanout")


def publish(channel: BlockingChannel, body: str | bytes) -> None:
    """Send as the official emit_log.py does; confirmed, here."""
    channel.basic_publish(exchange="logs", routing_key="", body=body)


def subscribe(channel: BlockingChannel) -> str:
    """Subscribe as the official receive_logs.py does, with a queue to look into."""
    declare(channel)
    queue = channel.queue_declare(queue="", exclusive=True).method.queue
    channel.queue_bind(exchange="logs", queue=queue)
    return queue


def queues(broker: Broker, url: str) -> list[dict[str, Any]]:
    return broker.call_api("GET", f"queues/{url.rpartition('/')[2]}")


def bindings(broker: Broker, url: str) -> list[dict[str, Any]]:
    """The bindings of the exchange logs."""
    found = broker.call_api("GET", f"bindings/{url.rpartition('/')[2]}")
    return [each for each in found if each["source"] == "logs"]


# --- Everybody gets everything ---------------------------------------------


def test_every_receiver_gets_every_message(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    """Receivers of both clients, senders of both and an official one, in order."""
    pair = [receiver(run, each) for each in CLIENTS]
    emit(run, client, "one")
    publish(channel, "two")
    emit(run, beside(client), "three")
    for each in pair:
        each.wait_for("'three'")
        assert each.interrupt() == INTERRUPTED
        assert (each.stdout, each.stderr) == (received("one", "two", "three"), [])


def test_sent_means_that_every_bound_queue_has_it(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    """It is there at once, in the queues of official receivers."""
    pair = [subscribe(channel) for _ in range(2)]
    emit(run, client, "to elsewhere")
    assert [ready(channel, queue) for queue in pair] == [1, 1]
    for queue in pair:
        _, _, body = channel.basic_get(queue, auto_ack=True)
        assert body == b"to elsewhere"


def test_official_scripts_may_come_first(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    queue = subscribe(channel)
    ours = receiver(run, client)
    publish(channel, "from elsewhere")
    ours.wait_for("'from elsewhere'")
    emit(run, client, "to elsewhere")
    poll(lambda: ready(channel, queue), 2)


@pytest.mark.parametrize("name", ["emit_log.py", "receive_logs.py"])
def test_official_scripts_may_come_later(run: Start, client: str, url: str, name: str) -> None:
    """The exchange is what they declare, whichever of ours makes it."""
    run(client, name, *(["text"] if name == "emit_log.py" else [])).wait_for(" [")
    with connected(url) as channel:
        declare(channel)


def test_a_body_is_any_bytes(run: Start, client: str, channel: BlockingChannel) -> None:
    started = receiver(run, client)
    for body in ("Grüße, 世界 👋".encode(), b"", b"caf\xe9", b"end"):
        publish(channel, body)
    started.wait_for("'end'")
    assert started.stdout == received("Grüße, 世界 👋", "", "caf\ufffd", "end")


def test_every_text_arrives_as_it_was(run: Start, client: str, channel: BlockingChannel) -> None:
    queue = subscribe(channel)
    text = "Grüße, 世界 👋\n".encode() + b"caf\xe9"
    emit(run, client, text)
    _, _, body = channel.basic_get(queue, auto_ack=True)
    assert body == text


def test_several_words_are_one_message(run: Start, client: str) -> None:
    sender = run(client, "emit_log.py", "info:", "all", "is", "well")
    assert (sender.wait(), sender.stdout) == (0, [" [x] Sent 'info: all is well'"])
    default = run(client, "emit_log.py")  # as the official script
    assert (default.wait(), default.stdout) == (0, [" [x] Sent 'info: Hello World!'"])


# --- Nobody listens, or not yet, or no longer ------------------------------


def test_what_nobody_listens_to_is_gone(run: Start, client: str, broker: Broker, url: str) -> None:
    emit(run, client, "before anybody listens")
    assert queues(broker, url) == []
    late = receiver(run, beside(client))
    emit(run, client, "after")
    late.wait_for("'after'")
    assert late.stdout == received("after")


def test_a_late_receiver_gets_nothing_of_before(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    first = receiver(run, client)
    publish(channel, "before")
    first.wait_for("'before'")
    late = receiver(run, beside(client))
    publish(channel, "after")
    late.wait_for("'after'")
    assert late.stdout == received("after")
    assert first.wait_for("'after'").stdout == received("before", "after")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_receiver_leaves_nothing_behind(
    run: Start, client: str, broker: Broker, url: str, how: signal.Signals
) -> None:
    ended = receiver(run, client)
    (queue,) = queues(broker, url)
    shown = said(CHAPTER, r"such as ``(amq\.[^`]+)``")
    assert (queue["name"][:8], len(queue["name"])) == (shown[:8], len(shown))
    assert queue["exclusive"]
    assert [each["destination"] for each in bindings(broker, url)] == [queue["name"]]
    assert ended.signal(how) == -how
    assert (ended.stdout, ended.stderr) == ([WAITING], [])
    poll(lambda: queues(broker, url), [])
    assert bindings(broker, url) == []


def test_a_stopped_receiver_holds_up_nobody(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    """With more than the connection's buffers hold, so that its queue grows."""
    stopped, running = receiver(run, client), receiver(run, beside(client))
    stopped.process.send_signal(signal.SIGSTOP)
    for number in range(40):
        publish(channel, f"{number:02}".encode() * 250_000)
    emit(run, client, "the end")
    running.wait_for("'the end'")
    assert len(running.stdout) == 42
    assert stopped.stdout == [WAITING]
    stopped.process.send_signal(signal.SIGCONT)
    stopped.wait_for("'the end'")  # and it has missed nothing
    assert stopped.stdout == running.stdout


MANDATORY = {
    "pika": [('routing_key="",', 'routing_key="", mandatory=True,')],
    "aio-pika": [
        ("mandatory=False", "mandatory=True"),
        ("publisher_confirms=True", "on_return_raises=True"),
    ],
}
REFUSED = {"pika": r"pika raises ``(\w+)``", "aio-pika": r"\)`` it raises ``(\w+)``"}


def test_a_mandatory_message_needs_a_listener(
    run: Start, client: str, url: str, tmp_path: Path
) -> None:
    """A change that the page speaks of."""
    copy = altered(CHAPTER, client, "emit_log.py", *MANDATORY[client][0], tmp_path)
    for old, new in MANDATORY[client][1:]:
        copy.write_text(copy.read_text().replace(old, new))
    with closing(Script(copy, "anybody?", url=url)) as alone:
        assert alone.wait() == 1
        assert alone.stdout == []
        assert said(CHAPTER, REFUSED[client]) in alone.stderr[-1]
    listening = receiver(run, client)
    with closing(Script(copy, "anybody?", url=url)) as heard:
        assert (heard.wait(), heard.stdout) == (0, [" [x] Sent 'anybody?'"])
    listening.wait_for("'anybody?'")


def test_a_named_queue_keeps_what_nobody_reads(run: Start, channel: BlockingChannel) -> None:
    """The page's way to lose nothing; in order, whoever sends (see priority)."""
    declare(channel)
    channel.queue_declare("all_logs", durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_bind("all_logs", "logs")
    emit(run, "aio-pika", "one")
    emit(run, "pika", "two")
    publish(channel, "three")
    assert ready(channel, "all_logs") == 3
    bodies = [channel.basic_get("all_logs", auto_ack=True)[2] for _ in range(3)]
    assert bodies == [b"one", b"two", b"three"]


def test_the_types_that_an_exchange_may_have(channel: BlockingChannel) -> None:
    types = re.findall(r"``(\w+)``", said(CHAPTER, r"by which it decides: ([^.]+)\."))
    for each in types:
        channel.exchange_declare(each, each)


def test_the_exchange_is_not_durable(run: Start, client: str, broker: Broker, url: str) -> None:
    receiver(run, client)
    logs = broker.call_api("GET", f"exchanges/{url.rpartition('/')[2]}/logs")
    assert (logs["type"], logs["durable"], logs["auto_delete"]) == ("fanout", False, False)


def some_bindings_survive(_: Starter, broker: Broker, url: str) -> Generator[None]:
    """A promise for test_outages.py: the page's warning.

    An exchange that isn't durable may forget its bindings at a restart.
    """
    kept = {"logs": "all_logs", "durable_logs": "kept_logs"}
    with connected(url) as channel:
        for exchange, queue in kept.items():
            channel.exchange_declare(exchange, "fanout", durable=exchange != "logs")
            channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
            channel.queue_bind(queue, exchange)
    yield
    yield
    with connected(url) as channel:
        declare(channel)
        for exchange in kept:
            channel.basic_publish(exchange, "", b"after")
        got = {exchange: ready(channel, queue) for exchange, queue in kept.items()}
    forgets, keeps = r"Up to RabbitMQ (\S+) a restart", r"RabbitMQ (\S+) has kept both"
    kept = version(broker.version) >= version(said(CHAPTER, keeps))
    if kept or version(broker.version)[:2] <= version(said(CHAPTER, forgets)):
        assert got == {"logs": int(kept), "durable_logs": 1}


# --- Into a file ------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_output_to_a_file_comes_late(
    run: Start,
    client: str,
    broker: Broker,
    url: str,
    channel: BlockingChannel,
    how: signal.Signals,
) -> None:
    """What the page says of `-u`: nothing for now, and lost at the end."""
    collects = figure(CHAPTER, r"it collects some ([\d,]+) bytes")
    chunk = io.TextIOWrapper(io.BytesIO())._CHUNK_SIZE  # type: ignore[attr-defined]
    assert collects == round(chunk, -3)
    redirected = run(client, "receive_logs.py", PYTHONUNBUFFERED="")
    vhost = url.rpartition("/")[2]
    poll(lambda: broker.ctl("list_consumers", "--quiet", "-p", vhost).count("amq.gen"), 1)
    unbuffered = receiver(run, client)
    publish(channel, "a line")
    unbuffered.wait_for("'a line'")
    publish(channel, "x" * (collects * 9 // 10))
    unbuffered.wait_for("'xxx")
    assert redirected.stdout == []
    time.sleep(1)  # until the other has it, too, which nothing shows
    redirected.signal(how)
    assert redirected.stdout == []


# --- Mistakes that the reader can fix --------------------------------------


ALL = [("emit_log.py", "text"), ("receive_logs.py", None)]


def test_the_exchange_is_needed(run: Start, client: str, url: str, tmp_path: Path) -> None:
    """Publishing to an exchange that isn't there is an error: both declare it."""
    old = 'basic_publish("logs"' if client == "pika" else '"logs", "fanout"'
    new = 'basic_publish("nologs"' if client == "pika" else '"nologs", passive=True'
    copy = altered(CHAPTER, client, "emit_log.py", old, new, tmp_path)
    with closing(Script(copy, "text", url=url)) as sender:
        code = said(CHAPTER, r"isn't there is an error, ``(\w+)``")
        assert_one_line(sender, code, "make doctor")
        assert sender.stdout == []
