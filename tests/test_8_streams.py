"""The promises of docs/8-streams.rst, each with a test that can break it."""

from __future__ import annotations

import os
import re
import signal
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pika
import pytest
from broker import Broker
from conftest import Starter, altered, assert_one_line, close_connections, poll
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker, ConnectionClosedByBroker
from shells.chapters import CLIENTS, EXAMPLES, figure, page, said
from shells.running import INTERRUPTED, Script

CHAPTER = "8-streams"
STREAM: dict[str, Any] = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}
READY = " [*] Waiting for events. To exit press CTRL+C"
READERS = (("read.py", "first"), ("read_since.py", "1h"), ("read_resuming.py", "place"))

Start = Callable[..., Script]


@pytest.fixture
def run(tmp_path: Path, start: Starter) -> Start:
    """After tmp_path, so that no script still writes there when it goes."""
    return partial(start, CHAPTER)


def append(run: Start, client: str, event: str | bytes, **more: str) -> None:
    """Append an event as the reader does, and see it confirmed."""
    sender = run(client, "append.py", event, **more)
    assert (sender.wait(), sender.stderr) == (0, []), sender
    assert sender.stdout[0].startswith(" [x] Sent "), sender


def reader(run: Start, client: str, *words: str, **more: str) -> Script:
    """`read.py`, or another script, that is about to subscribe."""
    return run(client, *words, **more).wait_for(READY)


def subscribed(broker: Broker, url: str) -> None:
    """Wait until the first consumer has come, which a stream's declaration does not tell."""
    vhost = url.rpartition("/")[2]
    poll(lambda: len(broker.call_api("GET", f"consumers/{vhost}")), 1)


def received(script: Script) -> list[tuple[int, str]]:
    """Offset and text of what a reader has printed, in its order."""
    lines = [line for line in script.stdout if " [x] Received " in line]
    return [(int(line.rpartition(" ")[2]), line.split("'")[1]) for line in lines]


def offsets(script: Script) -> list[int]:
    return [offset for offset, _ in received(script)]


def declare(channel: BlockingChannel, **more: object) -> None:
    """The stream as any other program would declare it."""
    channel.queue_declare("events", durable=True, arguments={**STREAM, **more})


def publish(channel: BlockingChannel, *events: str | bytes) -> None:
    """Append as any other program would."""
    for event in events:
        body = event.encode() if isinstance(event, str) else event
        channel.basic_publish("", "events", body)


def consume(url: str, start: object, count: int, seconds: float = 30) -> list[tuple[int, str]]:
    """Read `count` events, or as many as there are in that time, as any other program would."""
    found: list[tuple[int, str]] = []
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=min(count, 100))
        messages: Any = channel.consume(
            "events", arguments={"x-stream-offset": start}, inactivity_timeout=seconds
        )
        for method, properties, body in messages:
            if not method:
                break
            found.append((int(properties.headers["x-stream-offset"]), body.decode()))
            if len(found) == count:
                break  # with nothing in hand that pika would nack
            channel.basic_ack(method.delivery_tag)
    return found


# --- Reading removes nothing -----------------------------------------------


def test_every_reader_gets_every_event_however_late(run: Start, client: str, other: str) -> None:
    append(run, client, "one")
    early = [reader(run, name, "read.py", "first") for name in CLIENTS]
    append(run, other, "two")
    for script in early:
        script.wait_for("Received", count=2)
    late = reader(run, other, "read.py", "first").wait_for("Received", count=2)
    assert [received(each) for each in (*early, late)] == [[(0, "one"), (1, "two")]] * 3


def test_other_programs_and_ours(
    run: Start, client: str, url: str, channel: BlockingChannel
) -> None:
    declare(channel)
    publish(channel, "theirs")
    append(run, client, "ours")
    declare(channel)  # does not clash with the script's own
    both = [(0, "theirs"), (1, "ours")]
    assert consume(url, "first", 2) == both
    assert received(reader(run, client, "read.py", "first").wait_for("ours")) == both


def test_more_events_than_the_prefetch_count_come_in_order(
    run: Start, client: str, channel: BlockingChannel, tmp_path: Path
) -> None:
    """An ack is the credit for the next one; without, a reader stops at 100."""
    declare(channel)
    publish(channel, *map(str, range(250)))
    for name, start in READERS:
        start = str(tmp_path / start) if start == "place" else start
        script = reader(run, client, name, start).wait_for("Received", count=250)
        assert [text for _, text in received(script)] == [str(n) for n in range(250)]
        assert offsets(script) == sorted(set(offsets(script)))


def test_the_units_of_an_interval(url: str, channel: BlockingChannel) -> None:
    """All that the table has, and no others; as the script, too, has them."""
    told = begins('``"5m"``')
    units = re.findall(r"``(\w)``", told)
    script = (EXAMPLES / CHAPTER / "pika/read_since.py").read_text()
    assert f'tuple("{"".join(dict.fromkeys(units))}")):  # M: month, m: minute' in script
    assert "``M`` is a month" in told
    assert "last five minutes" in told
    declare(channel)
    publish(channel, "e")
    for unit in units:
        assert consume(url, f"60{unit}", 1)
    with pytest.raises(AMQPError):
        consume(url, "60w", 1)


def test_a_string_that_is_no_interval(url: str, channel: BlockingChannel) -> None:
    declare(channel)
    code = said(CHAPTER, r'-21"`` is refused with ``(\w+)``')
    with pytest.raises(AMQPError, match=f"{code} - "):
        consume(url, said(CHAPTER, r'a string such as ``"([^"]+)"`` is refused'), 1)


@pytest.mark.parametrize("event", ["Grüße, 世界 👋.", "", "two\nlines", 'it\'s "quoted"', b"\xe9"])
def test_every_text_arrives_as_it_was(
    run: Start, client: str, other: str, event: str | bytes
) -> None:
    append(run, client, event)
    script = reader(run, other, "read.py", "first").wait_for("offset 0")
    assert script.stdout[1:] == [f" [x] Received {os.fsdecode(event)!r} at offset 0"]


def test_several_words_are_one_event(run: Start, client: str) -> None:
    sender = run(client, "append.py", "three", "words", "here")
    assert (sender.wait(), sender.stdout) == (0, [" [x] Sent 'three words here'"])


# --- Where to begin --------------------------------------------------------


def begins(value: str) -> str:
    """What the page's table says of a value."""
    text = page(CHAPTER).read_text().split("* - Value")[1]
    cell = re.search(rf"\* - {value}\n     - ((?:.+\n)+?)(?:   \*|\n)", text)
    assert cell, value
    return " ".join(cell[1].split())


# From a stream of five events to which a sixth comes: the offsets, by what the table says.
MEANS = {
    "the oldest event that the stream still has": [0, 1, 2, 3, 4, 5],
    "what is appended from now on; so": [5],
    "the last *chunk*.": [4, 5],
}


@pytest.mark.parametrize("where", ["first", "last", "next", "3", "5", "6"])
def test_where_to_begin(
    run: Start,
    client: str,
    broker: Broker,
    url: str,
    channel: BlockingChannel,
    where: str,
) -> None:
    told = "" if where.isdigit() else begins(rf'``"{where}"``')
    means = [offsets for start, offsets in MEANS.items() if told.startswith(start)]
    (expected,) = means if told else [[*range(int(where), 6)]]
    if where == "6":
        assert expected == {"silence": []}[said(CHAPTER, r"not exist yet: \*\*(\w+)\*\*")]
    declare(channel)
    publish(channel, *"abcde")
    assert len(consume(url, "first", 5)) == 5
    script = reader(run, client, "read.py", where)
    subscribed(broker, url)
    publish(channel, "f")
    assert consume(url, 5, 1) == [(5, "f")]  # so, a chunk of its own
    publish(channel, "the end")
    assert offsets(script.wait_for("the end")) == [*expected, 6]


def test_from_a_time_on(run: Start, client: str, channel: BlockingChannel) -> None:
    epoch = datetime(figure(CHAPTER, r"timestamps begin with (\d+)"), 1, 1, tzinfo=UTC)
    assert epoch.timestamp() == 0
    declare(channel)
    publish(channel, "before")
    # AMQP's times are whole seconds: one that is surely between the two.
    between = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
    time.sleep(max(0, (between - datetime.now(UTC)).total_seconds()) + 0.5)
    publish(channel, "after")
    tokyo = between.astimezone(ZoneInfo("Asia/Tokyo")).replace(tzinfo=None)
    for since, expected, zone in (
        (between.isoformat(), [1], "America/New_York"),
        (tokyo.isoformat(), [1], "Asia/Tokyo"),  # the reader's own time
        ("1h", [0, 1], "UTC"),
        (f"{epoch:%Y-%m-%d}", [0, 1], "Asia/Tokyo"),  # where 1970 began before
        (f"{epoch.year - 1}-01-01", [0, 1], "UTC"),
    ):
        script = reader(run, client, "read_since.py", since, TZ=zone)
        assert offsets(script.wait_for("'after'")) == expected, since
        script.close()
    quiet = reader(run, client, "read_since.py", "2099-01-01")

    def heard() -> bool:  # when it has subscribed is not to be seen
        publish(channel, "later")
        return len(quiet.stdout) > 1

    poll(heard, True)
    assert received(quiet)[0][0] >= 2
    assert received(quiet)[0][1] == "later"


def test_last_is_a_chunk_and_not_one_event(url: str, channel: BlockingChannel) -> None:
    """Published without waiting, events share chunks."""
    declare(channel)
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        fast: Any = connection.channel()
        for newest in range(499, 10_000, 500):
            for _ in range(500):  # what is below does not send each by itself
                fast._impl.basic_publish("", "events", b"event")
            fast.queue_declare("events", passive=True)
            assert consume(url, newest, 1) == [(newest, "event")]
            tail = [offset for offset, _ in consume(url, "last", 10_000, seconds=1)]
            assert tail == list(range(tail[0], newest + 1))
            if len(tail) > 1:
                return
    pytest.fail("the last chunk never has more than one event")


# --- Going on where it left off ---------------------------------------------


def resuming(run: Start, client: str, place: Path, **more: str) -> Script:
    return reader(run, client, "read_resuming.py", str(place), **more)


def stored(place: Path) -> str:
    return place.with_name(f"{place.name}.offset").read_text()


def test_a_restarted_reader_goes_on(
    run: Start, client: str, other: str, channel: BlockingChannel, tmp_path: Path
) -> None:
    """In whichever client: the place is a number in a file."""
    place = tmp_path / "place"
    declare(channel)
    publish(channel, "a", "b")
    first = resuming(run, client, place).wait_for("Done", count=2)
    poll(lambda: stored(place), "1\n")
    assert (first.interrupt(), first.stderr) == (INTERRUPTED, [])
    publish(channel, "c", "d")
    second = resuming(run, other, place).wait_for("Done", count=2)
    assert received(second) == [(2, "c"), (3, "d")]
    elsewhere = resuming(run, client, tmp_path / "another").wait_for("Done", count=4)
    assert offsets(elsewhere) == [0, 1, 2, 3]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_event_in_hand_comes_again(
    run: Start, client: str, channel: BlockingChannel, tmp_path: Path, how: signal.Signals
) -> None:
    place = tmp_path / "place"
    declare(channel)
    publish(channel, "done", "long.....", "next")
    first = resuming(run, client, place).wait_for("long")
    assert (first.signal(how), first.stderr) == (-how, [])
    assert stored(place) == "0\n"
    second = resuming(run, client, place).wait_for("next")
    assert received(second) == [(1, "long....."), (2, "next")]


STOPPED_IN_MID_WRITE = """
import os, pathlib
def write_half(path, text):
    path.open("w").write(text[:1])
    os._exit(9)
pathlib.Path.write_text = write_half
"""


def test_a_kill_in_mid_write_leaves_the_old_place(
    run: Start, client: str, channel: BlockingChannel, tmp_path: Path
) -> None:
    declare(channel)
    publish(channel, *map(str, range(12)))
    place = tmp_path / "place"
    place.with_name("place.offset").write_text("9\n")
    (tmp_path / "sitecustomize.py").write_text(STOPPED_IN_MID_WRITE)
    killed = resuming(run, client, place, PYTHONPATH=str(tmp_path))
    assert killed.wait() == 9
    assert stored(place) == "9\n"
    assert offsets(resuming(run, client, place).wait_for("Done", count=2)) == [10, 11]


@pytest.mark.parametrize("error", ["RuntimeError", "ValueError", "TimeoutError", "OSError"])
def test_work_that_raises_leaves_the_place_where_it_was(
    client: str, url: str, channel: BlockingChannel, tmp_path: Path, error: str
) -> None:
    """The event comes again, and the reader of this page sees his own traceback."""
    declare(channel)
    publish(channel, *"abc")
    (tmp_path / "place.offset").write_text("0\n")
    sleep = {"pika": "time.sleep(", "aio-pika": "await asyncio.sleep("}[client]
    raising = f"raise {error}('mine')  # "
    copy = altered(CHAPTER, client, "read_resuming.py", sleep, raising, tmp_path)
    for _ in range(2):
        with closing(Script(copy, str(tmp_path / "place"), url=url)) as script:
            assert script.wait() == 1
            assert received(script) == [(1, "b")]
            told = "\n".join(script.stderr)
            assert "Traceback" in told
            assert f"{error}: mine" in told
            assert "make doctor" not in told
        assert (tmp_path / "place.offset").read_text() == "0\n"


@pytest.mark.parametrize("content", [b"", b"first\n", b"\xff\x00"])
def test_a_damaged_place_is_a_traceback(
    run: Start, client: str, tmp_path: Path, content: bytes
) -> None:
    place = tmp_path / "place"
    place.with_name("place.offset").write_bytes(content)
    script = run(client, "read_resuming.py", str(place))
    assert (script.wait(), script.stdout) == (1, [])
    assert any("int(saved.read_text())" in line for line in script.stderr)
    assert re.match("(ValueError|UnicodeDecodeError): ", script.stderr[-1])


def test_a_place_in_another_stream_skips_what_is_before_it(
    run: Start, client: str, broker: Broker, url: str, channel: BlockingChannel, tmp_path: Path
) -> None:
    """The stream has been deleted and made anew: silence, and a gap."""
    declare(channel)
    publish(channel, "a", "b")
    place = tmp_path / "place"
    place.with_name("place.offset").write_text("3\n")
    script = resuming(run, client, place)
    subscribed(broker, url)
    publish(channel, *"cdef")
    assert received(script.wait_for("'f'")) == [(4, "e"), (5, "f")]


# --- Sent means stored -------------------------------------------------------


def test_an_event_that_no_stream_takes(client: str, url: str, tmp_path: Path) -> None:
    """As if it were deleted between declaration and publication."""
    key = 'routing_key="events"'
    copy = altered(CHAPTER, client, "append.py", key, 'routing_key="no_such"', tmp_path)
    with closing(Script(copy, "lost", url=url)) as sender:
        assert_one_line(sender, "Failed: ", "make doctor")
        assert sender.stdout == []


def events_and_places_survive(start: Starter, _broker: Broker, url: str) -> Generator[None]:
    """A promise for test_outages.py."""
    run = partial(start, CHAPTER, url=url)
    with tempfile.TemporaryDirectory() as folder:
        places = {client: Path(folder) / client for client in CLIENTS}
        readers = [resuming(run, *place) for place in places.items()]
        yield
        for client in CLIENTS:
            append(run, client, f"from {client}")
        for script in readers:
            script.wait_for("Done", count=2)
        yield
        for script in readers:  # they have ended, and said why in one line
            assert_one_line(script, "Failed: ")

        def kept() -> object:
            try:
                return consume(url, "first", 2, seconds=5)
            except (ChannelClosedByBroker, ConnectionClosedByBroker) as refusal:
                # For a moment, as the page says: no replica is running yet.
                return refusal

        poll(kept, [(0, "from pika"), (1, "from aio-pika")])
        for client in CLIENTS:
            append(run, client, f"more from {client}")
            again = resuming(run, client, places[client]).wait_for(f"more from {client}")
            assert received(again)[0] == (2, "more from pika")
            again.interrupt()  # before the folder goes


# --- Mistakes that the reader can fix ---------------------------------------


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("read.py", ("", "second", "-1", "1 2", "5m", "9" * 30)),
        ("read_since.py", ("", "5x", "soon", "2026-13-01", "9999-12-31T23:59-01:00")),
    ],
)
def test_a_beginning_that_is_none(
    run: Start, client: str, name: str, wrong: tuple[str, ...]
) -> None:
    for script in [run(client, name, each) for each in wrong]:
        assert_one_line(script, f"Usage: python {name} ")
        assert script.stdout == []


def test_an_interval_that_is_none(run: Start, client: str, channel: BlockingChannel) -> None:
    """The broker refuses it."""
    declare(channel)
    for script in [run(client, "read_since.py", each) for each in ("0s", "-5m", "m")]:
        assert_one_line(script, "Failed: ", "make doctor")


def test_without_a_prefetch_count_it_is_refused(
    client: str, channel: BlockingChannel, url: str, tmp_path: Path
) -> None:
    """With the line taken out as the page does it."""
    declare(channel)
    source = (EXAMPLES / CHAPTER / client / "read.py").read_text()
    lines = [line for line in source.splitlines() if "_qos" not in line]
    assert len(lines) == len(source.splitlines()) - 1
    (tmp_path / "read.py").write_text("\n".join(lines))
    with closing(Script(tmp_path / "read.py", "first", url=url)) as script:
        assert_one_line(script, "PRECONDITION_FAILED - consumer prefetch count is not set")


@pytest.mark.parametrize(("name", "word"), READERS)
def test_the_stream_deleted_under_a_reader(
    run: Start, client: str, channel: BlockingChannel, tmp_path: Path, name: str, word: str
) -> None:
    declare(channel)
    publish(channel, "e")
    word = str(tmp_path / word) if word == "place" else word
    script = reader(run, client, name, word).wait_for("Received")
    channel.queue_delete("events")
    assert_one_line(script, "Failed: the queue is gone")


def test_the_connection_closed_under_a_busy_reader(
    run: Start, client: str, broker: Broker, url: str, channel: BlockingChannel, tmp_path: Path
) -> None:
    """The reason is named, also of a reader that finds out when it acks."""
    declare(channel)
    publish(channel, "busy" + 10 * ".")  # longer than the API is behind
    channel.connection.close()
    words = [(name, str(tmp_path / w) if w == "place" else w) for name, w in READERS]
    victims = [reader(run, client, *each).wait_for("Received") for each in words]
    close_connections(broker, url, "maintenance at noon", len(victims))
    for victim in victims:
        assert_one_line(victim, "320", "CONNECTION_FORCED - maintenance at noon")


# --- Both clients, one lesson ------------------------------------------------


def test_both_clients_print_the_same(run: Start, channel: BlockingChannel, tmp_path: Path) -> None:
    declare(channel)
    publish(channel, "a", "b.")
    printed = {}
    for client in CLIENTS:
        scripts = [reader(run, client, "read.py", "1"), reader(run, client, "read_since.py", "1D")]
        scripts.append(resuming(run, client, tmp_path / client).wait_for("Done", count=2))
        for script in scripts[:2]:
            script.wait_for("b.")
        printed[client] = [script.stdout for script in scripts]
    assert printed["pika"] == printed["aio-pika"]
