"""The promises of docs/which-client.rst: the script's, and what its table says."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import signal
from collections.abc import Callable
from contextlib import closing
from functools import partial
from importlib.metadata import distribution
from pathlib import Path

import aio_pika
import pika
import pytest
import record_which_client as figures
from aio_pika.abc import AbstractIncomingMessage
from aiormq.abc import DeliveredMessage
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
from pamqp.commands import Basic
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import NackError, UnroutableError
from shells.chapters import CLIENTS, EXAMPLES, figure, page, said
from shells.running import Script

CHAPTER = "which-client"
QUORUM = {"x-queue-type": "quorum"}

Start = Callable[..., Script]


@pytest.fixture
def worker(start: Starter, channel: BlockingChannel) -> Start:
    channel.queue_declare("task_queue", durable=True, arguments=QUORUM)
    run = partial(start, CHAPTER)
    return lambda client: run(client, "ten_at_a_time.py").wait_for("[*] Waiting")


def publish(channel: BlockingChannel, *tasks: str | bytes) -> None:
    for task in tasks:
        channel.basic_publish("", "task_queue", task)


# --- The script --------------------------------------------------------------


def test_ten_at_a_time_and_no_more(worker: Start, client: str, channel: BlockingChannel) -> None:
    ten = figure(CHAPTER, r"This one takes (\w+), because")
    assert figure(CHAPTER, r"the broker delivers no (\w+)th message") == ten + 1
    publish(channel, *(f"{number}..." for number in range(ten + 2)))
    busy = worker(client).wait_for("Received", count=ten)
    poll(lambda: ready(channel, "task_queue"), 2)  # with the broker, not here
    busy.wait_for("Done", count=ten + 2)
    in_hand = most = 0
    for line in busy.stdout:
        in_hand += ("Received" in line) - ("Done" in line)
        most = max(most, in_hand)
    assert most == ten
    poll(lambda: ready(channel, "task_queue"), 0)


def test_done_is_acked(worker: Start, client: str, channel: BlockingChannel) -> None:
    busy = worker(client)
    publish(channel, "a", "b", "c.....")
    busy.wait_for("Done", count=2)
    # Were they not acked, an eleventh could not have come.
    publish(channel, *(f"{number}" for number in range(20)))
    busy.wait_for("Done", count=22)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_what_is_in_hand_comes_back(
    worker: Start, client: str, channel: BlockingChannel, how: signal.Signals
) -> None:
    busy = worker(client)
    publish(channel, *(f"{number}....." for number in range(3)))
    busy.wait_for("Received", count=3)
    assert busy.signal(how) == -how
    assert busy.stderr == []
    poll(lambda: ready(channel, "task_queue"), 3)


def test_a_task_that_fails_ends_the_worker_and_is_not_lost(
    worker: Start, client: str, channel: BlockingChannel
) -> None:
    busy = worker(client)
    publish(channel, b"\xff")
    assert busy.wait() == 1
    assert "UnicodeDecodeError: " in "\n".join(busy.stderr)
    poll(lambda: ready(channel, "task_queue"), 1)


@pytest.mark.parametrize("error", ["ValueError", "RuntimeError"])
def test_work_that_raises_ends_the_worker_and_is_not_lost(
    url: str, client: str, channel: BlockingChannel, tmp_path: Path, error: str
) -> None:
    """And not only a message that cannot be read. The reader sees his traceback."""
    channel.queue_declare("task_queue", durable=True, arguments=QUORUM)
    sleep = {"pika": "time.sleep(", "aio-pika": "await asyncio.sleep("}[client]
    copy = altered(
        CHAPTER, client, "ten_at_a_time.py", sleep, f"raise {error}('mine')  # ", tmp_path
    )
    with closing(Script(copy, url=url)) as busy:
        publish(channel, "a")
        assert busy.wait() == 1
        told = "\n".join(busy.stderr)
        assert "Traceback" in told
        assert f"{error}: mine" in told
    poll(lambda: ready(channel, "task_queue"), 1)


def test_the_connection_closed_while_ten_are_in_hand(
    start: Starter, client: str, broker: Broker, url: str
) -> None:
    with connected(url) as channel:
        channel.queue_declare("task_queue", durable=True, arguments=QUORUM)
        publish(channel, *(f"{number}{10 * '.'}" for number in range(10)))
    busy = start(CHAPTER, client, "ten_at_a_time.py").wait_for("Received", count=10)
    close_connections(broker, url, "maintenance at noon")
    assert_one_line(busy, "320", "CONNECTION_FORCED - maintenance at noon")
    with connected(url) as channel:
        poll(lambda: ready(channel, "task_queue"), 10)


# --- What the table says -----------------------------------------------------


def table() -> dict[str, dict[str, str]]:
    """What the page says of pika and of aio-pika, by the row's name; without its *italics*."""
    text = page(CHAPTER).read_text().split(":widths: 26 37 37")[1].split("What becomes")[0]
    plain = re.sub(r"\*(?=\S)|(?<=\S)\*", "", text)
    rows = [re.split(r"^     - ", row, flags=re.M) for row in re.split(r"(?m)^   \* -", plain)]
    told = [[" ".join(cell.split()) for cell in row] for row in rows[2:]]
    return {name: dict(zip(CLIENTS, cells, strict=True)) for name, *cells in told}


def test_packages() -> None:
    facts = {name: distribution(name) for name in CLIENTS}
    python = {name: fact.metadata["Requires-Python"].split(",")[0] for name, fact in facts.items()}
    assert {name: f"{it[2:]} or later" for name, it in python.items()} == table()["Python"]

    def needs(name: str) -> set[str]:
        return {
            line.split(">")[0].split("<")[0].strip()
            for line in distribution(name).requires or ()
            if "extra ==" not in line
        }

    assert (needs("pika"), table()["Needs"]["pika"]) == (set(), "nothing")
    assert needs("aio-pika") | needs("aiormq") == {*table()["Needs"]["aio-pika"].split(", ")}

    def typed(name: str) -> bool:
        return any(file.name == "py.typed" for file in distribution(name).files or ())

    shipped = {name: "Shipped" if typed(name) else "Not shipped" for name in CLIENTS}
    assert shipped == table()["Type hints"]


def test_pika_and_a_message_that_no_queue_takes(url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        silent = connection.channel()
        silent.basic_publish("", "nowhere", b"")
        silent.basic_publish("", "nowhere", b"", mandatory=True)
        confirming = connection.channel()
        confirming.confirm_delivery()
        confirming.basic_publish("", "nowhere", b"")
        with pytest.raises(UnroutableError) as error:
            confirming.basic_publish("", "nowhere", b"", mandatory=True)
    told = table()["A message that no queue takes"]["pika"]
    assert told.startswith(f"Silence; ``{type(error.value).__name__}`` with confirms and")


def test_pika_has_no_confirms_unless_asked(url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        silent, confirming = connection.channel(), connection.channel()
        confirming.confirm_delivery()
        full = {"x-max-length": 0, "x-overflow": "reject-publish"}
        silent.queue_declare("full", durable=True, arguments=full)
        silent.basic_publish("", "full", b"")
        assert table()["Publisher confirms"]["pika"].startswith("Off until ")
        with pytest.raises(NackError):
            confirming.basic_publish("", "full", b"")


async def publish_with_aio_pika(url: str) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        full = {"x-max-length": 0, "x-overflow": "reject-publish"}
        await channel.declare_queue("full", durable=True, arguments=full)
        assert table()["Publisher confirms"]["aio-pika"] == "On"
        with pytest.raises(aio_pika.exceptions.DeliveryError):
            await channel.default_exchange.publish(aio_pika.Message(b""), "full")
        found = await channel.default_exchange.publish(aio_pika.Message(b""), "nowhere")
        assert isinstance(found, DeliveredMessage)
        assert isinstance(found.delivery, Basic.Return)
        strict = await connection.channel(on_return_raises=True)
        told = table()["A message that no queue takes"]["aio-pika"]
        error = re.search(r"``(\w+)`` with ``on_return_raises=True``", told)
        assert error
        with pytest.raises(getattr(aio_pika.exceptions, error[1])):
            await strict.default_exchange.publish(aio_pika.Message(b""), "nowhere")


def test_aio_pika_confirms_and_returns_what_no_queue_takes(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    asyncio.run(publish_with_aio_pika(url))
    assert caplog.records == []


def test_priority_as_sent(url: str, channel: BlockingChannel) -> None:
    async def main() -> None:
        async with await aio_pika.connect(url) as connection:
            aio_channel = await connection.channel()
            await aio_channel.default_exchange.publish(aio_pika.Message(b""), "task_queue")

    channel.queue_declare("task_queue", durable=True, arguments=QUORUM)
    publish(channel, b"")
    asyncio.run(main())
    sent = [channel.basic_get("task_queue", auto_ack=True)[1] for _ in range(2)]
    found = {properties and properties.priority for properties in sent}
    assert found == {None, int(table()["Priority of a message"]["aio-pika"][0])}


KEPT = {"Requeues": 1, "Drops": 0}


@pytest.mark.parametrize("method", ["nack", "reject"])
def test_pika_gives_back(channel: BlockingChannel, method: str) -> None:
    channel.queue_declare("task_queue", durable=True, arguments=QUORUM)
    publish(channel, b"")
    found, *_ = channel.basic_get("task_queue")
    assert found
    getattr(channel, f"basic_{method}")(found.delivery_tag)
    poll(lambda: ready(channel, "task_queue"), KEPT[table()[f"``{method}()``"]["pika"]])


@pytest.mark.parametrize("method", ["nack", "reject", "process", "process requeue"])
def test_aio_pika_gives_back_or_drops(url: str, channel: BlockingChannel, method: str) -> None:
    if method.startswith("process"):
        kept = int("requeue" in method)
        words = ("()``: rejected, dropped;", "``requeue=True`` returns it")[kept]
        assert words in table()["The handler raises"]["aio-pika"]
    else:
        kept = KEPT[table()[f"``{method}()``"]["aio-pika"]]

    async def main() -> None:
        async with await aio_pika.connect(url) as connection:
            aio_channel = await connection.channel()
            queue = await aio_channel.get_queue("task_queue")
            message = await queue.get()
            if method.startswith("process"):
                with pytest.raises(RuntimeError):
                    async with message.process(requeue="requeue" in method):
                        raise RuntimeError
            else:
                await getattr(message, method)()
            # Closing the connection would give it back in any case.
            assert await queue.get(fail=False, timeout=1) is None or kept

    channel.queue_declare("task_queue", durable=True, arguments=QUORUM)
    publish(channel, b"")
    asyncio.run(main())
    poll(lambda: ready(channel, "task_queue"), kept)


@pytest.mark.parametrize(("prefetch", "at_once"), [(3, 3), (0, 8)])
def test_aio_pika_consumes_at_once_what_the_prefetch_allows(
    url: str, channel: BlockingChannel, prefetch: int, at_once: int
) -> None:
    async def main() -> int:
        most = in_hand = done = 0
        through = asyncio.Event()

        async def on_message(message: AbstractIncomingMessage) -> None:
            nonlocal most, in_hand, done
            in_hand += 1
            most = max(most, in_hand)
            await asyncio.sleep(0.5)
            in_hand -= 1
            await message.ack()
            done += 1
            if done == 8:
                through.set()

        async with await aio_pika.connect(url) as connection:
            aio_channel = await connection.channel()
            await aio_channel.set_qos(prefetch)
            queue = await aio_channel.get_queue("task_queue")
            await queue.consume(on_message)
            await through.wait()
        return most

    channel.queue_declare("task_queue", durable=True, arguments=QUORUM)
    publish(channel, *[b""] * 8)
    assert asyncio.run(main()) == at_once
    told = table()["Several deliveries at a time"]["aio-pika"]
    words = "as many as the prefetch allows" if prefetch else "all of them without one"
    assert words in told


def test_what_each_hears_of_a_deleted_queue(url: str) -> None:
    with connected(url) as channel, connected(url) as other:
        channel.queue_declare("pika_s", durable=True, arguments=QUORUM)
        channel.basic_consume("pika_s", lambda *_: None)
        other.queue_delete("pika_s")
        channel.start_consuming()
        assert "``start_consuming()`` returns, " in table()["The queue is deleted"]["pika"]

    async def main() -> list[str]:
        heard: list[str] = []
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue("aio_pika_s", durable=True, arguments={**QUORUM})
            channel.close_callbacks.add(lambda *_: heard.append("the channel closed"))
            amqp = await channel.get_underlay_channel()
            amqp.on_consumer_cancel_callbacks.add(lambda _: heard.append("cancelled"))
            async with queue.iterator() as messages:
                await channel.queue_delete("aio_pika_s")
                # Two seconds are long enough for what is there at once, or never.
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(messages), 2)
            return list(heard)

    assert asyncio.run(main()) == ["cancelled"]
    told = table()["The queue is deleted"]["aio-pika"]
    assert told.startswith("Silence:")
    assert "``on_consumer_cancel_callbacks``" in told


# --- What it costs -----------------------------------------------------------


def test_the_table_is_the_record() -> None:
    data = json.loads(figures.RECORD.read_text())
    written = [
        ",".join(f'"{cell}"' if "," in cell else cell for cell in row)
        for row in figures.rows(data)
    ]
    assert figures.TABLE.read_text().splitlines() == written
    assert len(data["rounds"]["pika"]) == len(data["rounds"]["aio-pika"]) == figures.ROUNDS


def test_the_page_says_what_the_record_shows() -> None:
    by_name = {row[0]: row for row in figures.rows(json.loads(figures.RECORD.read_text()))}

    def medians(name: str) -> list[float]:
        return [float(cell.split()[0].replace(",", "")) for cell in by_name[name][1:]]

    pika_rate, aio_rate = medians("consumed a second")
    assert pika_rate > aio_rate
    pika_cpu, aio_cpu = medians("CPU, µs a message")
    assert pika_cpu < aio_cpu
    text = page(CHAPTER).read_text()
    assert f"*Consumed*: {figures.CONSUMED:,} messages of 100 bytes" in text
    assert f"*Confirmed*: {figures.PUBLISHED:,} messages" in text
    assert f"prefetch {figures.PREFETCH}, " in text
    assert figure(CHAPTER, r"(\w+) rounds, the clients in turn") == figures.ROUNDS


def test_the_others_are_measured_where_it_says() -> None:
    others = said("which-client", r"Others exist: ([^.]+)\. No chapter")
    named = re.findall(r"kombu|Celery|amqpstorm|FastStream", others)
    assert len(named) == 4
    for name in named:
        assert (EXAMPLES / "consumer-benchmark" / f"peer_{name.lower()}.py").exists()
