"""The promises of docs/4-routing.rst, each with a test that can break it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial

import pytest
from broker import Broker
from conftest import Starter, poll, too_long
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import UnroutableError
from shells.chapters import figure, said
from shells.running import INTERRUPTED, Script

CHAPTER = "4-routing"
SENDER, DRAFT, RECEIVER = (
    "emit_log_direct.py",
    "emit_log_direct_silent.py",
    "receive_logs_direct.py",
)
ALL = [(SENDER, "error", "text"), (DRAFT, "error", "text"), (RECEIVER, "error")]

Start = Callable[..., Script]


@pytest.fixture
def run(start: Starter) -> Start:
    return partial(start, CHAPTER)


def receiver(run: Start, client: str, *severities: str) -> Script:
    """A receiver that is ready."""
    return run(client, RECEIVER, *severities).wait_for(
        " [*] Waiting for logs. To exit press CTRL+C"
    )


def emit(run: Start, client: str, *words: str | bytes, name: str = SENDER) -> None:
    """Send a log message as the reader does, and see it taken by a queue."""
    sender = run(client, name, *words)
    assert (sender.wait(), sender.stderr) == (0, []), sender
    assert sender.stdout[0].startswith(" [x] Sent "), sender


def received(script: Script) -> list[str]:
    """What a receiver has printed, without its first line and the voice."""
    return [line.removeprefix(" [x] Received ") for line in script.stdout[1:]]


def official_publish(channel: BlockingChannel, severity: str, text: str | bytes) -> None:
    """As the official emit_log_direct.py does it; confirmed, here."""
    channel.exchange_declare(exchange="direct_logs", exchange_type="direct")
    body = text.encode() if isinstance(text, str) else text
    channel.basic_publish(exchange="direct_logs", routing_key=severity, body=body)


def official_queue(channel: BlockingChannel, *severities: str) -> str:
    """As the official receive_logs_direct.py does it; the test gets from it."""
    channel.exchange_declare(exchange="direct_logs", exchange_type="direct")
    queue = channel.queue_declare(queue="", exclusive=True).method.queue
    for severity in severities:
        channel.queue_bind(exchange="direct_logs", queue=queue, routing_key=severity)
    return queue


def bindings(broker: Broker, url: str) -> list[str]:
    """The keys with which queues are bound to the exchange."""
    path = f"exchanges/{url.rpartition('/')[2]}/direct_logs/bindings/source"
    return sorted(each["routing_key"] for each in broker.call_api("GET", path))


# --- The lesson: who gets what ---------------------------------------------


def test_each_gets_what_it_asked_for(run: Start, client: str, other: str) -> None:
    """Several keys on one queue, and one key on two queues; in order, each once."""
    first = receiver(run, other, "warning", "error")
    second = receiver(run, client, "info", "error")
    sent = ["info", "warning", "error"]
    for number, severity in enumerate(sent):
        emit(run, client, severity, "message", str(number))
    first.wait_for("message 2")
    second.wait_for("message 2")

    def expected(*wanted: str) -> list[str]:
        return [f"'{s}':'message {i}'" for i, s in enumerate(sent) if s in wanted]

    assert received(first) == expected("warning", "error")
    assert received(second) == expected("info", "error")


def test_the_same_key_twice_delivers_once(
    run: Start, client: str, broker: Broker, url: str, channel: BlockingChannel
) -> None:
    twice = receiver(run, client, "error", "error", "last")
    assert bindings(broker, url) == ["error", "last"]
    official_publish(channel, "error", "one")
    # A second copy would have come before this.
    official_publish(channel, "last", "two")
    twice.wait_for("two")
    assert received(twice) == ["'error':'one'", "'last':'two'"]


def test_a_key_is_compared_letter_by_letter(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    listening = receiver(run, client, "error", "*", "#")
    for key in ("Error", "error ", " error", "errors", "error.disk", ""):
        official_publish(channel, key, "other")
    official_publish(channel, "error", "this")
    listening.wait_for("this")
    assert received(listening) == ["'error':'this'"]


# --- With the official scripts ---------------------------------------------


@pytest.mark.parametrize("name", [SENDER, DRAFT])
def test_our_sender_and_official_receivers(
    run: Start, client: str, channel: BlockingChannel, name: str
) -> None:
    queue = official_queue(channel, "warning", "error")
    emit(run, client, "error", "to", "elsewhere", name=name)
    method, _, body = channel.basic_get(queue, auto_ack=True)
    assert method
    assert (method.routing_key, body) == ("error", b"to elsewhere")


def test_official_senders_and_our_receiver(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    channel.exchange_declare(exchange="direct_logs", exchange_type="direct")
    ours = receiver(run, client, "error")
    official_publish(channel, "error", "from elsewhere")
    assert received(ours.wait_for("elsewhere")) == ["'error':'from elsewhere'"]


# --- A severity that nobody asked for ---------------------------------------


def test_sent_is_only_said_of_what_a_queue_has(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    official_queue(channel, "error")
    lost = run(client, SENDER, "eror", "gone")
    assert (lost.wait(), lost.stdout) == (1, [])
    assert lost.stderr == [" [!] Lost 'eror':'gone': no queue takes it"]
    with pytest.raises(UnroutableError) as back:
        channel.basic_publish("direct_logs", "eror", b"", mandatory=True)
    # pika raises this only if it has the message back before the confirm.
    reason = said(CHAPTER, r"with the reason ``(\w+)``\) before it confirms it")
    assert back.value.messages[0].method.reply_text == reason
    emit(run, client, "error", "there")


def test_the_draft_says_sent_of_what_is_lost(run: Start, client: str) -> None:
    """And nothing is kept for a receiver that comes later."""
    emit(run, client, "early", "gone", name=DRAFT)
    late = receiver(run, client, "early")
    emit(run, client, "early", "there", name=DRAFT)
    late.wait_for("there")
    assert received(late) == ["'early':'there'"]


def test_a_receiver_that_ends_leaves_nothing(
    run: Start, client: str, broker: Broker, url: str
) -> None:
    killed, interrupted = receiver(run, client, "killed"), receiver(run, client, "stopped")
    assert bindings(broker, url) == ["killed", "stopped"]
    vhost = url.rpartition("/")[2]
    assert all(each["exclusive"] for each in broker.call_api("GET", f"queues/{vhost}"))
    assert killed.signal(signal.SIGKILL) == -signal.SIGKILL
    assert interrupted.interrupt() == INTERRUPTED
    poll(lambda: bindings(broker, url), [])
    poll(lambda: broker.call_api("GET", f"queues/{vhost}"), [])


# --- Any text ----------------------------------------------------------------


def longest() -> int:
    return figure(CHAPTER, r"of (?:up to|more than) (\d+) bytes")


def test_a_severity_is_any_text_that_is_not_too_long(run: Start, client: str) -> None:
    texts = ["Grüße, 世界 👋", "", 'it\'s "quoted"', "ü" * (longest() // 2) + "x"]
    assert len(texts[-1].encode()) == longest()
    listening = receiver(run, client, *texts)
    for sender in [run(client, SENDER, text, text) for text in texts]:
        assert sender.wait() == 0
    listening.wait_for("Received", count=len(texts))
    assert sorted(received(listening)) == sorted(f"{text!r}:{text!r}" for text in texts)


def test_a_severity_that_is_too_long(run: Start, client: str, channel: BlockingChannel) -> None:
    """One line, but for what is too long only in bytes, in aio-pika 10.2: a traceback."""
    characters = figure(CHAPTER, r"if it has no more than (\d+) characters")
    queue = official_queue(channel, "#")
    for key, few in too_long(longest(), characters).items():
        for script in (run(client, SENDER, key, "text"), run(client, RECEIVER, "error", key)):
            assert (script.wait(), script.stdout) == (1, []), script
            assert f"{longest()} bytes" in script.stderr[-1], script
            assert (len(script.stderr) > 1) == (client == "aio-pika" and few), script
    assert channel.queue_declare(queue, passive=True).method.message_count == 0


def test_a_body_that_is_not_text_ends_no_receiver(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    listening = receiver(run, client, "error")
    official_publish(channel, "error", b"caf\xe9")
    emit(run, client, "error", b"caf\xe9", "next")
    listening.wait_for("next")
    assert received(listening) == ["'error':'caf\ufffd'", "'error':'caf\ufffd next'"]


# --- Mistakes that the reader can fix ---------------------------------------


def test_a_severity_without_a_message_sends_nothing(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    """The official script would send "Hello World!", and as info."""
    queue = official_queue(channel, "error", "info")
    for name in (SENDER, DRAFT):
        ended = run(client, name, "error")
        assert (ended.wait(), ended.stdout) == (1, [])
        assert ended.stderr == [f"Usage: python {name} SEVERITY MESSAGE..."]
    assert channel.queue_declare(queue, passive=True).method.message_count == 0
