"""The promises of docs/7-publisher-confirms.rst, each with a test that can break it."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from statistics import median

import aio_pika
import aiormq
import pika
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
)
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker, NackError
from shells.chapters import CLIENTS, DOCS, figure, page, said
from shells.running import INTERRUPTED, Script
from shells.wiretap import Wiretap

CHAPTER = "7-publisher-confirms"
PAGE = page(CHAPTER).read_text()
QUEUE = "confirmed_events"
QUORUM = {"x-queue-type": "quorum"}
ONE, BATCHES, ASYNC = (
    "publish_individually.py",
    "publish_in_batches.py",
    "publish_asynchronously.py",
)
# As the page has it, wherever it does.
HUNDRED = figure(
    CHAPTER,
    r"(?:room for|missing from|runs|\bA|more than|batch of|window of|batches of|nously with)"
    r" (?:a )?(hundred|\d\d+)\b",
)
# By script: how many it leaves unconfirmed.
WINDOW = {ONE: figure(CHAPTER, r"unconfirmed than (\d+),"), BATCHES: HUNDRED, ASYNC: HUNDRED}
MANY = 10_000_000  # more than it gets done here
EXPLAIN = "publish_or_explain.py"

Start = Callable[..., Script]
every_way = pytest.mark.parametrize("name", WINDOW)


@pytest.fixture
def run(start: Starter) -> Start:
    return partial(start, CHAPTER)


def confirmed(script: Script, count: int) -> tuple[int, float]:
    """How many of `count` it says are confirmed, in its one line, and how many a second."""
    (line,) = script.stdout
    found = re.fullmatch(rf" \[x\] Confirmed (\d+) of {count} in (\d+\.\d{{3}}) s", line)
    assert found, script
    return int(found[1]), int(found[1]) / float(found[2])


def assert_refused(script: Script, name: str, count: int, what: str) -> int:
    """It ended for what the broker refused or returned; how many are confirmed."""
    done, _ = confirmed(script, count)
    words = (what,) if name == ONE else (f"Failed: {count - done} refused or returned",)
    assert_one_line(script, *words)
    return done


def declare(channel: BlockingChannel) -> None:
    channel.queue_declare(QUEUE, durable=True, arguments=QUORUM)


def limit(broker: Broker, url: str, channel: BlockingChannel, length: int) -> None:
    """Give the queue room for about so many messages, and none is in it."""
    declare(channel)
    policy = {
        "pattern": f"^{QUEUE}$",
        "definition": {"max-length": length, "overflow": "reject-publish"},
        "apply-to": "queues",
    }
    broker.call_api("PUT", f"policies/{url.rpartition('/')[2]}/full", policy)

    def refuses() -> bool:
        try:
            channel.basic_publish("", QUEUE, b"filler")
        except NackError:
            return True
        return False

    poll(refuses, True)


# --- What is said to be confirmed is there, and nothing else ---------------


@every_way
def test_what_is_confirmed_is_in_the_queue_once_and_in_order(
    run: Start, client: str, channel: BlockingChannel, name: str
) -> None:
    script = run(client, name, "250")
    assert (script.wait(), script.stderr) == (0, []), script
    assert confirmed(script, 250)[0] == 250
    assert ready(channel, QUEUE) == 250
    found = []
    for method, properties, body in channel.consume(QUEUE, auto_ack=True):
        assert method
        assert properties
        found.append(
            (
                body,
                properties.delivery_mode,
                4 if properties.priority is None else properties.priority,
            )
        )
        if len(found) == 250:
            break
    assert found == [(f"event {number}".encode(), 2, 4) for number in range(1, 251)]


@pytest.mark.parametrize("name", [BATCHES, ASYNC])
def test_without_an_argument_it_takes_a_number_of_its_own(
    run: Start, client: str, name: str, url: str
) -> None:
    with Wiretap(url, holding=False) as tap:
        script = run(client, name, url=tap.url)
        assert script.wait() == 0, script
        assert confirmed(script, 2000)[0] == tap.published == len(tap.told) == 2000


# --- How many are unconfirmed at a time -------------------------------------


@every_way
def test_so_many_are_unconfirmed_and_never_more(
    run: Start, client: str, name: str, url: str, channel: BlockingChannel
) -> None:
    with Wiretap(url) as tap:
        script = run(client, name, "320", url=tap.url)
        tap.expect(published=WINDOW[name])
        tap.open()
        assert script.wait() == 0, script
        assert (tap.published, tap.most) == (320, WINDOW[name])
    assert (confirmed(script, 320)[0], ready(channel, QUEUE)) == (320, 320)


def test_one_by_one_goes_on_with_each_confirm(run: Start, client: str, url: str) -> None:
    with Wiretap(url) as tap:
        run(client, ONE, "10", url=tap.url)
        for number in range(1, 4):
            tap.expect(published=number)
            tap.tell(number)
        tap.expect(published=4)


def test_a_batch_waits_for_the_last_confirm_of_the_one_before(
    run: Start, client: str, url: str
) -> None:
    with Wiretap(url) as tap:
        run(client, BATCHES, "320", url=tap.url)
        tap.expect(published=100)
        tap.tell(98, multiple=True)
        tap.tell(100)
        tap.expect(published=100)
        tap.tell(99)
        tap.expect(published=200)


def test_a_window_slides_with_every_confirm(run: Start, client: str, url: str) -> None:
    with Wiretap(url) as tap:
        script = run(client, ASYNC, "320", url=tap.url)
        tap.expect(published=100)
        tap.tell(7, multiple=True)
        tap.expect(published=107)
        tap.tell(50)
        tap.expect(published=108)
        tap.tell(60, multiple=True)  # 52 of them are news
        tap.expect(published=160)
        tap.open()
        assert script.wait() == 0, script


# --- What becomes of each message -------------------------------------------


@every_way
@pytest.mark.parametrize("how", ["cut", "interrupt"])
def test_an_end_in_the_middle_counts_what_is_confirmed(
    run: Start, client: str, name: str, url: str, how: str
) -> None:
    with Wiretap(url) as tap:
        script = run(client, name, "320", url=tap.url)
        if name == ONE:
            for number in range(1, 6):
                tap.tell(number)
        else:
            tap.tell(5, multiple=True)
        tap.expect(published={ONE: 6, BATCHES: 100, ASYNC: 105}[name])
        if how == "interrupt":  # it says nothing of what was confirmed
            assert script.interrupt() == INTERRUPTED
            assert (script.stdout, script.stderr) == ([], []), script
        else:
            tap.cut()
            assert_one_line(script, "Failed: ", "make doctor")
            assert confirmed(script, 320)[0] == 5


@every_way
def test_what_a_full_queue_refuses_is_not_confirmed(
    run: Start, client: str, name: str, broker: Broker, url: str, channel: BlockingChannel
) -> None:
    limit(broker, url, channel, 10)
    channel.queue_purge(QUEUE)
    script = run(client, name, "250")
    script.wait()
    nack = {"pika": "NackError", "aio-pika": "Basic.Nack"}[client]
    done = assert_refused(script, name, 250, nack)
    assert ready(channel, QUEUE) == done
    assert 10 <= done < 250
    method, _, body = channel.basic_get(QUEUE, auto_ack=True)
    assert method
    assert body == b"event 1"


@every_way
def test_what_comes_back_is_not_confirmed(
    client: str, name: str, url: str, channel: BlockingChannel, tmp_path: Path
) -> None:
    """As if three of them were for a queue that isn't there.

    The one that waits for each stops at the first; the others go on.
    """
    event = "event" if client == "aio-pika" else "body"
    old = '"", QUEUE, body' if client == "pika" else "publish(event, QUEUE)"
    lost = f"{event}.body" if client == "aio-pika" else event
    here = f'"nowhere" if int({lost}.split()[1]) % 50 == 7 else QUEUE'
    copy = altered(CHAPTER, client, name, old, old.replace("QUEUE", here), tmp_path)
    expected = 6 if name == ONE else 127
    with closing(Script(copy, "130", url=url)) as script:
        script.wait()
        returned = {"pika": "UnroutableError", "aio-pika": "NO_ROUTE"}[client]
        assert assert_refused(script, name, 130, returned) == expected
    assert ready(channel, QUEUE) == expected


def test_pikas_batch_waits_for_the_answer_to_what_came_back(
    url: str, channel: BlockingChannel, tmp_path: Path
) -> None:
    """That it came back is said before. To aio-pika this is the answer already."""
    declare(channel)
    copy = altered(CHAPTER, "pika", BATCHES, '"", QUEUE', '"", "nowhere"', tmp_path)
    with Wiretap(url) as tap, closing(Script(copy, "250", url=tap.url)) as script:
        tap.expect(published=100)
        tap.tell(99, multiple=True)
        tap.expect(published=100)
        tap.tell(100)
        tap.expect(published=200)
        tap.open()
        script.wait()
        assert_one_line(script, "250 refused or returned")
        assert confirmed(script, 250)[0] == 0


def assert_none_is_lost(scripts: list[Script], name: str, url: str) -> None:
    """All that they call confirmed is there; of what was not answered, some may be."""
    done = sum(confirmed(script, MANY)[0] for script in scripts)
    most = done + WINDOW[name] * len(scripts)
    with connected(url) as channel:
        poll(lambda: done <= ready(channel, QUEUE) <= most, True)


def in_mid_run(script: Script, url: str) -> Script:
    """Wait until it publishes."""
    with connected(url) as channel:
        declare(channel)
        poll(lambda: ready(channel, QUEUE) > 100, True)
    return script


@every_way
def test_the_connection_closed_in_mid_run(
    run: Start, client: str, name: str, broker: Broker, url: str
) -> None:
    script = in_mid_run(run(client, name, str(MANY)), url)
    # It waits meanwhile: the API lists a connection some seconds late.
    script.process.send_signal(signal.SIGSTOP)
    close_connections(broker, url, "maintenance at noon")
    script.process.send_signal(signal.SIGCONT)
    assert_one_line(script, "CONNECTION_FORCED", "maintenance at noon", "make doctor")
    assert_none_is_lost([script], name, url)


@every_way
def test_the_queue_deleted_in_mid_run(
    run: Start, client: str, name: str, broker: Broker, url: str, channel: BlockingChannel
) -> None:
    if broker.version.startswith("3."):
        pytest.skip("RabbitMQ 3.10 then forgets confirms")
    count = 10_000  # so many that it is not through before the queue is gone
    script = in_mid_run(run(client, name, str(count)), url)
    channel.queue_delete(QUEUE)
    script.wait(240)
    if "INTERNAL_ERROR" in script.stderr[0]:  # RabbitMQ itself may trip over it
        assert_one_line(script)
        return
    returned = "" if name == ONE else "refused or returned"
    assert 0 < assert_refused(script, name, count, returned) < count


def what_is_confirmed_survives(start: Starter, _broker: Broker, url: str) -> Generator[None]:
    """A promise for test_outages.py."""
    with connected(url) as channel:
        declare(channel)
    yield
    with ExitStack() as stack:
        taps = [stack.enter_context(Wiretap(url, holding=False)) for _ in CLIENTS]
        scripts = [
            start(CHAPTER, client, ASYNC, str(MANY), url=tap.url)
            for client, tap in zip(CLIENTS, taps, strict=True)
        ]
        poll(lambda: min(len(tap.told) for tap in taps) > 100, True)
        yield
        for script in scripts:
            assert_one_line(script, "Failed: ", "make doctor")
    assert_none_is_lost(scripts, ASYNC, url)


# --- What the broker says, and what the clients make of it ------------------


def test_explained(
    run: Start, client: str, broker: Broker, url: str, channel: BlockingChannel
) -> None:
    declare(channel)
    good = run(client, EXPLAIN, QUEUE, "a", "b")
    assert (good.wait(), good.stdout, good.stderr) == (0, [" [x] Confirmed 'a b'"], [])
    assert ready(channel, QUEUE) == 1
    lost = run(client, EXPLAIN, "nowhere", "c")
    assert (lost.wait(), lost.stdout) == (1, [])
    assert lost.stderr == [" [!] Returned 'c': NO_ROUTE"]
    limit(broker, url, channel, 1)
    refused = run(client, EXPLAIN, QUEUE, "d")
    assert (refused.wait(), refused.stdout) == (1, [])
    assert refused.stderr == [f" [!] Nacked 'd': {QUEUE} refuses it"]


@pytest.mark.parametrize(
    ("client", "old", "new"),
    [
        ("pika", "mandatory=True", "mandatory=False"),
        ("aio-pika", "on_return_raises=True", "on_return_raises=False"),
    ],
)
def test_a_confirm_alone_does_not_mean_that_a_queue_has_it(
    client: str, old: str, new: str, url: str, tmp_path: Path
) -> None:
    copy = altered(CHAPTER, client, EXPLAIN, old, new, tmp_path)
    with closing(Script(copy, "nowhere", "lost", url=url)) as script:
        assert (script.wait(), script.stdout) == (0, [" [x] Confirmed 'lost'"]), script


def of_pika(url: str, settings: str, exchange: str, queue: str) -> str:
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        channel = connection.channel()
        if "by default" not in settings:
            channel.confirm_delivery()
        try:
            channel.basic_publish(exchange, queue, b"x", mandatory="mandatory" in settings)
            connection.process_data_events(time_limit=1)
        except AMQPError as error:
            return type(error).__name__
        return "nothing, then a closed channel" if channel.is_closed else "nothing"


async def of_aio_pika(url: str, settings: str, exchange: str, queue: str) -> str:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel(on_return_raises="raises" in settings)
        to = await channel.get_exchange(exchange, ensure=False)
        try:
            result = await to.publish(aio_pika.Message(b"x"), queue)
        except aio_pika.exceptions.AMQPError as error:
            return type(error).__name__
        returned = isinstance(getattr(result, "delivery", None), aiormq.spec.Basic.Return)
        return "returned as the result" if returned else "nothing"


def test_a_channel_has_confirms_or_transactions(channel: BlockingChannel) -> None:
    with pytest.raises(ChannelClosedByBroker):
        channel.tx_select()


def test_the_table_of_answers(broker: Broker, url: str, channel: BlockingChannel) -> None:
    limit(broker, url, channel, 1)
    with pytest.raises(NackError) as nack:
        channel.basic_publish("", QUEUE, b"")
    assert said(CHAPTER, r"``NackError`` says \*([^*]+)\*") in repr(nack.value)
    kind, of = r"aio-pika's ``(\w+)`` is a kind of", r"is a kind of ``(\w+)``"
    errors = [getattr(aio_pika.exceptions, said(CHAPTER, each)) for each in (kind, of)]
    assert issubclass(*errors)
    assert not issubclass(*errors[::-1])
    rows = re.findall(r"^   \* - ((?:pika|aio|and).+)\n((?:     - .+\n)+)", PAGE, re.MULTILINE)
    assert len(rows) == 5
    for settings, cells in rows:
        ask = of_aio_pika if "aio-pika" in settings else of_pika
        given = re.findall(r"- (.+)", cells.replace("``", ""))
        found = []
        for exchange, queue in (("", "nowhere"), ("", QUEUE), ("nowhere", QUEUE)):
            answer = ask(url, settings, exchange, queue)
            found.append(answer if isinstance(answer, str) else asyncio.run(answer))
        assert found == given, settings


# --- Speed --------------------------------------------------------------------


def test_waiting_for_each_is_the_slowest_by_far(run: Start, client: str, url: str) -> None:
    """With answers so late that it is not the machine's load that counts."""
    late = figure(CHAPTER, r"answers take (\d+) milliseconds") / 1000
    speeds: dict[str, float] = {}
    for name in WINDOW:
        with Wiretap(url, holding=False, delay=late) as tap:
            script = run(client, name, "200", url=tap.url)
            assert script.wait() == 0, script
            speeds[name] = confirmed(script, 200)[1]
    slow, *fast = speeds.values()
    assert slow <= 1 / late == figure(CHAPTER, r"at most (\d+) messages a second"), speeds
    assert min(fast) > 2 * slow, speeds


def test_the_figure_shows_what_the_page_says_of_it() -> None:
    runs = json.loads((DOCS / f"figures/{CHAPTER}.json").read_text())["runs"]
    assert set(runs) == set(CLIENTS)
    for run in runs.values():
        slow, *fast = (median(run[name]) for name in WINDOW)
        assert slow * {"a thousandth": 0.001}[said(CHAPTER, r"that is ([^.]+) of a second")] > 0.5
        assert min(fast) > 2 * slow
        assert max(fast) < 3 * min(fast)  # "of one kind"


# --- Mistakes that the reader can fix -------------------------------------
