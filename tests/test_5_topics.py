"""The promises of docs/5-topics.rst, each with a test that can break it."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from functools import partial

import pytest
from broker import Broker
from conftest import Starter, poll, too_long
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import UnroutableError
from shells.chapters import figure, page, said
from shells.running import INTERRUPTED, Script

CHAPTER = "5-topics"
SENDER, RECEIVER = "emit_log_topic.py", "receive_logs_topic.py"
ALL = [(SENDER, "kern.info", "text"), (RECEIVER, "kern.*")]

Start = Callable[..., Script]


@pytest.fixture
def run(start: Starter) -> Start:
    return partial(start, CHAPTER)


def receiver(run: Start, client: str, *binding_keys: str) -> Script:
    """A receiver that is ready."""
    return run(client, RECEIVER, *binding_keys).wait_for(
        " [*] Waiting for logs. To exit press CTRL+C"
    )


def emit(run: Start, client: str, *words: str | bytes) -> None:
    """Send a log message as the reader does, and see it taken by a queue."""
    sender = run(client, SENDER, *words)
    assert (sender.wait(), sender.stderr) == (0, []), sender
    assert sender.stdout[0].startswith(" [x] Sent "), sender


def received(script: Script) -> list[str]:
    """What a receiver has printed, without its first line and the voice."""
    return [line.removeprefix(" [x] Received ") for line in script.stdout[1:]]


def official_publish(channel: BlockingChannel, key: str, text: str | bytes) -> None:
    """As the official emit_log_topic.py does it; confirmed, here."""
    channel.exchange_declare(exchange="topic_logs", exchange_type="topic")
    body = text.encode() if isinstance(text, str) else text
    channel.basic_publish(exchange="topic_logs", routing_key=key, body=body)


def official_queue(channel: BlockingChannel, *binding_keys: str) -> str:
    """As the official receive_logs_topic.py does it; the test gets from it."""
    channel.exchange_declare(exchange="topic_logs", exchange_type="topic")
    queue = channel.queue_declare(queue="", exclusive=True).method.queue
    for key in binding_keys:
        channel.queue_bind(exchange="topic_logs", queue=queue, routing_key=key)
    return queue


def bindings(broker: Broker, url: str) -> list[str]:
    """The keys with which queues are bound to the exchange."""
    path = f"exchanges/{url.rpartition('/')[2]}/topic_logs/bindings/source"
    return sorted(each["routing_key"] for each in broker.call_api("GET", path))


# --- The page's table, row by row -------------------------------------------


def key_of(cell: str) -> str:
    """A cell's key: ``kern.*``, or *(empty)*."""
    if cell == "*(empty)*":
        return ""
    found = re.fullmatch(r"``(\S+)``", cell)
    assert found, cell
    return found[1]


def rules() -> list[tuple[str, str, bool]]:
    """The table's rows: binding key, routing key, delivered."""
    text = page(CHAPTER).read_text(encoding="utf-8")
    table = text.split(".. csv-table::")[1].split("\n\n")[1]
    rows = [[cell.strip() for cell in row.split("|")] for row in table.splitlines()]
    return [(key_of(row[0]), key_of(row[1]), {"yes": True, "no": False}[row[2]]) for row in rows]


RULES = rules()


def matches(channel: BlockingChannel, binding_key: str, routing_key: str) -> bool:
    """Publish it to a queue that is bound so, and see whether it is there."""
    queue = official_queue(channel, binding_key)
    try:
        channel.basic_publish("topic_logs", routing_key, b"", mandatory=True)
        routed = True
    except UnroutableError:
        routed = False
    count = channel.queue_declare(queue, passive=True).method.message_count
    assert count == routed
    channel.queue_delete(queue)
    return routed


def test_every_row_of_the_table_is_so(channel: BlockingChannel) -> None:
    wrong = [row for row in RULES if matches(channel, *row[:2]) != row[2]]
    assert not wrong


def test_the_table_leaves_nothing_out() -> None:
    """One row each, and all cases that the chapter is about, with both answers."""
    assert len(RULES) == len({row[:2] for row in RULES}) > 50
    given = {(binding, key): delivered for binding, key, delivered in RULES}
    assert {given["#", ""], given["*", ""], given["", ""]} == {True, False}
    for wildcard in ("*", "#", "*.#", "#.*", "kern.*", "kern.#", "kern.#.critical"):
        assert any(row[0] == wildcard and row[2] for row in RULES), wildcard
    empty_words = [row[2] for row in RULES if re.search(r"^\.|\.\.|\.$", row[1])]
    assert {*empty_words} == {True, False}
    assert len(empty_words) > 8


def test_an_empty_part_is_a_word(channel: BlockingChannel) -> None:
    """The prose under the table."""
    key = said(CHAPTER, r"has no part sends ``(\S+)``")
    assert len(key.split(".")) == figure(CHAPTER, r"which is (\w+) words long\. It")
    assert matches(channel, said(CHAPTER, r"It matches ``(\S+)``, and not"), key)
    assert not matches(channel, said(CHAPTER, r", and not ``(\S+)``\."), key)


# --- The lesson: who gets what ---------------------------------------------


def test_each_gets_what_matches(run: Start, client: str, other: str) -> None:
    """Both patterns match the first message: one copy of it."""
    both = receiver(run, other, "kern.*", "*.critical")
    everything = receiver(run, client, "#")
    caption = (r"``(\S+)`` goes to both receivers", r"``(\S+)`` goes to receiver 2 alone")
    keys = [*(said(CHAPTER, each) for each in caption), "cron.critical"]
    for number, key in enumerate(keys):
        emit(run, client, key, "message", str(number))
    both.wait_for("message 2")
    everything.wait_for("message 2")
    assert received(both) == [f"{keys[0]!r}:'message 0'", "'cron.critical':'message 2'"]
    assert received(everything) == [f"'{key}':'message {i}'" for i, key in enumerate(keys)]


def test_a_message_comes_once_however_many_patterns_match(
    run: Start, client: str, broker: Broker, url: str, channel: BlockingChannel
) -> None:
    patterns = ["#", "*.*", "kern.#", "kern.critical", "kern.critical"]
    listening = receiver(run, client, *patterns)
    assert bindings(broker, url) == sorted({*patterns})
    official_publish(channel, "kern.critical", "one")
    official_publish(channel, "last", "two")  # a second copy would be before it
    listening.wait_for("two")
    assert received(listening) == ["'kern.critical':'one'", "'last':'two'"]


def test_sent_is_only_said_of_what_a_queue_has(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    official_queue(channel, "kern.*")
    lost = run(client, SENDER, "kern.sda.info", "gone")
    assert (lost.wait(), lost.stdout) == (1, [])
    assert lost.stderr == [" [!] Lost 'kern.sda.info':'gone': no queue takes it"]
    emit(run, client, "kern.info", "there")


def test_a_receiver_that_ends_leaves_nothing(
    run: Start, client: str, broker: Broker, url: str
) -> None:
    killed, interrupted = receiver(run, client, "killed.#"), receiver(run, client, "stopped.#")
    assert bindings(broker, url) == ["killed.#", "stopped.#"]
    vhost = url.rpartition("/")[2]
    assert all(each["exclusive"] for each in broker.call_api("GET", f"queues/{vhost}"))
    assert killed.signal(signal.SIGKILL) == -signal.SIGKILL
    assert (interrupted.interrupt(), interrupted.stderr) == (INTERRUPTED, [])
    assert len(interrupted.stdout) == 1
    poll(lambda: bindings(broker, url), [])
    poll(lambda: broker.call_api("GET", f"queues/{vhost}"), [])


# --- With the official scripts ---------------------------------------------


def test_our_sender_and_official_receivers(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    queue = official_queue(channel, "kern.*", "*.critical")
    emit(run, client, "kern.critical", "to", "elsewhere")
    method, _, body = channel.basic_get(queue, auto_ack=True)
    assert method
    assert (method.routing_key, body) == ("kern.critical", b"to elsewhere")


def test_official_senders_and_our_receiver(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    channel.exchange_declare(exchange="topic_logs", exchange_type="topic")
    ours = receiver(run, client, "anonymous.*")
    official_publish(channel, "anonymous.info", b"caf\xe9")  # which is not UTF-8
    official_publish(channel, "anonymous.info", "from elsewhere")
    ours.wait_for("elsewhere")
    assert received(ours) == ["'anonymous.info':'caf\ufffd'", "'anonymous.info':'from elsewhere'"]


# --- Keys and texts ----------------------------------------------------------


def most() -> int:
    return figure(CHAPTER, r"(?:\*\*|it has more than )(\d+) bytes")


def test_keys_of_any_characters(run: Start, client: str) -> None:
    longest = "ü" * (most() // 2) + "."
    assert len(longest.encode()) == most()
    listening = receiver(run, client, "", "größe.*", longest)
    keys = ["", "größe.名", longest]
    for sender in [run(client, SENDER, key, "Grüße 👋", key) for key in keys]:
        assert sender.wait() == 0, sender
    listening.wait_for("Received", count=len(keys))
    expected = [f"{key!r}:{f'Grüße 👋 {key}'!r}" for key in keys]
    assert sorted(received(listening)) == sorted(expected)


def test_a_key_that_is_too_long(run: Start, client: str) -> None:
    """What the page says: one line, or, of the TypeError, a traceback."""
    characters = figure(CHAPTER, r"not more than (\d+) characters")
    for key, few in too_long(most(), characters).items():
        aio_pika = r"characters, a ``(\w+)``" if few else r"a ``(\w+)`` or,"
        raised = said(CHAPTER, r"pika raises ``(\w+)``" if client == "pika" else aio_pika)
        traceback = raised == said(CHAPTER, r"in one line; the ``(\w+)`` is a traceback")
        for script in (run(client, SENDER, key, "text"), run(client, RECEIVER, "kern.*", key)):
            assert (script.wait(), script.stdout) == (1, []), script
            assert raised in script.stderr[-1], script
            assert f"{most()} bytes" in script.stderr[-1], script
            assert (len(script.stderr) > 1) == traceback, script


# --- Mistakes that the reader can fix ---------------------------------------


def test_a_key_without_a_message_sends_nothing(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    """The official script would send "Hello World!", as anonymous.info."""
    queue = official_queue(channel, "#")
    ended = run(client, SENDER, "kern.info")
    assert (ended.wait(), ended.stdout) == (1, [])
    assert ended.stderr == [f"Usage: python {SENDER} ROUTING_KEY MESSAGE..."]
    assert channel.queue_declare(queue, passive=True).method.message_count == 0
