"""What docs/8-streams.rst says of retention, and of what a stream is not."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pika
import pytest
from broker import Broker
from conftest import altered, poll
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from shells.chapters import page, said, version
from shells.running import Script
from test_8_streams import CHAPTER, READY, STREAM, consume, declare, offsets, publish

# --- Retention ---------------------------------------------------------------


SMALL = 'STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 3000, '
SMALL += '"x-stream-max-segment-size-bytes": 1000}'
BIG = 'STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}'


def test_a_place_that_retention_has_removed(
    client: str, url: str, channel: BlockingChannel, tmp_path: Path
) -> None:
    """The oldest segments go, and the reader goes on behind the gap without a word."""
    limits = {"x-max-length-bytes": 3000, "x-stream-max-segment-size-bytes": 1000}
    declare(channel, **limits)
    publish(channel, *["x" * 100] * 100)
    poll(lambda: consume(url, "first", 1)[0][0] > 20, True)
    kept = consume(url, "first", 100, seconds=1)
    assert len(kept) < 60
    (tmp_path / "place.offset").write_text("5\n")
    copy = altered(CHAPTER, client, "read_resuming.py", BIG, SMALL, tmp_path)
    with closing(Script(copy, str(tmp_path / "place"), url=url)) as script:
        script.wait_for("Done", count=2)
        begin = offsets(script)[0]
        assert begin > 20
        assert script.stdout[:2] == [READY, f" [x] Received {'x' * 100!r} at offset {begin}"]


def test_retention_by_age_acts_when_a_segment_begins(url: str, channel: BlockingChannel) -> None:
    """An idle stream keeps what is too old."""
    declare(channel, **{"x-max-age": "5s", "x-stream-max-segment-size-bytes": 1000})
    publish(channel, *["x" * 100] * 30)
    time.sleep(6)
    assert len(consume(url, "first", 30, seconds=1)) == 30
    publish(channel, *["y" * 100] * 30)
    poll(lambda: consume(url, "first", 1)[0][0] >= 20, True)


def test_offsets_grow_but_may_have_gaps(url: str, channel: BlockingChannel) -> None:
    """A new segment begins with a record of the broker's own, which takes an offset."""
    declare(channel, **{"x-stream-max-segment-size-bytes": 1000})
    publish(channel, *["x" * 100] * 30)
    found = [offset for offset, _ in consume(url, "first", 30)]
    assert found == sorted(set(found))
    assert found[-1] > 29
    # The number after one that is done may be none: then the next event comes.
    before = next(one for one, two in pairwise(found) if two > one + 1)
    assert consume(url, before + 1, 1)[0][0] == found[found.index(before) + 1]


# --- What a stream is not ----------------------------------------------------


def consuming(channel: BlockingChannel, prefetch: int = 10, **more: Any) -> None:
    if prefetch:
        channel.basic_qos(prefetch_count=prefetch)
    channel.basic_consume("events", lambda *_: None, **more)


REFUSED: dict[str, tuple[Callable[[BlockingChannel], object], str]] = {
    "no prefetch": (lambda c: consuming(c, 0), "PRECONDITION_FAILED - consumer prefetch count"),
    "auto_ack": (lambda c: consuming(c, auto_ack=True), "automatic ack"),
    "basic.get": (lambda c: c.basic_get("events"), "NOT_IMPLEMENTED - basic.get"),
    "purge": (lambda c: c.queue_purge("events"), "NOT_IMPLEMENTED - queue.purge"),
    "exclusive": (
        lambda c: c.queue_declare("e", durable=True, exclusive=True, arguments=STREAM),
        "PRECONDITION_FAILED",
    ),
    "auto-delete": (
        lambda c: c.queue_declare("e", durable=True, auto_delete=True, arguments=STREAM),
        "PRECONDITION_FAILED",
    ),
    "not durable": (lambda c: c.queue_declare("e", arguments=STREAM), "PRECONDITION_FAILED"),
    "server-named": (
        lambda c: c.queue_declare("", durable=True, arguments=STREAM),
        "PRECONDITION_FAILED",
    ),
    **{
        name: (
            lambda c, more=(name, value): c.queue_declare(
                "e", durable=True, arguments=STREAM | dict([more])
            ),
            f"PRECONDITION_FAILED - invalid arg '{name}'",
        )
        for name, value in (
            ("x-message-ttl", 1000),
            ("x-dead-letter-exchange", "x"),
            ("x-expires", 100_000),
            ("x-max-length", 10),
            ("x-overflow", "reject-publish"),
            ("x-max-priority", 5),
        )
    },
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_stream_refuses(channel: BlockingChannel, url: str, what: str) -> None:
    declare(channel)
    act, words = REFUSED[what]
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        with pytest.raises(AMQPError) as refusal:
            act(connection.channel())
        assert words in str(refusal.value)
        if what == "auto_ack":
            code = said(CHAPTER, r"is refused with ``(\w+)``, which closes the connection")
            assert code in str(refusal.value)
            assert connection.is_closed
    finally:
        if connection.is_open:
            connection.close()


def test_all_that_the_page_denies_a_stream_is_refused() -> None:
    denied = said(CHAPTER, r"A stream can't be ([^.]+)\.").replace("or ", "").split(",")
    section = page(CHAPTER).read_text().split("What a stream is not for\n")[1].split("Putting")[0]
    named = {*re.findall(r"``([^`]+)``", section)} - {"expiration"}  # which is ignored
    assert {*(" ".join(each.split()) for each in denied), *named, "purge"} <= set(REFUSED)


def test_a_message_does_not_expire(url: str, channel: BlockingChannel) -> None:
    declare(channel)
    channel.basic_publish("", "events", b"short-lived", pika.BasicProperties(expiration="1"))
    publish(channel, "b")
    assert consume(url, "first", 2) == [(0, "short-lived"), (1, "b")]


def test_a_nack_brings_nothing_back(broker: Broker, channel: BlockingChannel) -> None:
    declare(channel)
    publish(channel, *"abc")
    channel.basic_qos(prefetch_count=1)
    found: list[bytes] = []

    def on_message(_: object, method: Any, _properties: object, body: bytes) -> None:
        found.append(body)
        channel.basic_nack(method.delivery_tag, requeue=True)

    channel.basic_consume("events", on_message, arguments={"x-stream-offset": "first"})

    def read() -> int:
        channel.connection.process_data_events(0.1)
        return len(found)

    if version(broker.version)[:2] <= version(said(CHAPTER, r"refused \(RabbitMQ (\S+) does")):
        with pytest.raises(AMQPError, match=r"NOT_IMPLEMENTED - basic\.nack"):
            poll(read, 3)
        return
    poll(read, 3)
    assert found == [b"a", b"b", b"c"]


def test_without_acks_the_broker_stops_at_the_prefetch_count(
    url: str, channel: BlockingChannel
) -> None:
    declare(channel)
    publish(channel, *"abcdef")
    found: list[bytes] = []
    channel.basic_qos(prefetch_count=3)
    first = {"x-stream-offset": "first"}
    channel.basic_consume("events", lambda *m: found.append(m[3]), arguments=first)
    poll(lambda: (channel.connection.process_data_events(0.5), len(found))[1], 3)
    channel.connection.process_data_events(1)
    assert found == [b"a", b"b", b"c"]
