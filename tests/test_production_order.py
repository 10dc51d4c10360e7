"""The promises of docs/production-order.rst, each with a test that can break it."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import aio_pika
import broker as brokers
import pika
import pytest
from broker import Broker
from conftest import Starter, altered, assert_one_line, connected, poll, ready, subscribed
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker
from shells.chapters import EXAMPLES, declared_in, figure, page, said, version
from shells.running import INTERRUPTED, Script
from test_scripts import MALFORMED, imported

CHAPTER, PAGE = "production-worker", "production-order"
WORKER, NEW, DECLARE = "worker_errands.py", "new_errand.py", "declare_errands.py"
NAMES = (WORKER, NEW, DECLARE)
ARGUMENTS = {NEW: ["Letter"]}
WAITING = " [*] Waiting for messages. To exit press CTRL+C"
TEXT = page(PAGE).read_text(encoding="utf-8")
QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}
every_script = pytest.mark.parametrize("name", NAMES)

Run = Callable[..., Script]


@pytest.fixture
def run(start: Starter) -> Run:
    return partial(start, CHAPTER)


@pytest.fixture
def errands(channel: BlockingChannel) -> BlockingChannel:
    """A channel to a virtual host that has the queues of the errands."""
    for found in declared_in(EXAMPLES / CHAPTER / "pika" / DECLARE):
        channel.queue_declare(found.name, **found.arguments)
    return channel


def send(channel: BlockingChannel, queue: str, *tasks: str, **properties: Any) -> None:
    for task in tasks:
        sent = pika.BasicProperties(delivery_mode=2, **properties)
        channel.basic_publish("", queue, task.encode(), sent, mandatory=True)


def received(script: Script, count: int) -> list[str]:
    """The first errands that a worker got."""
    script.wait_for("Received", count)
    return [line.partition("Received ")[2].strip("'") for line in script.stdout if "Rec" in line]


def in_order(channel: BlockingChannel, queue: str, count: int) -> list[str]:
    """What a queue gives out, one after the other."""
    channel.basic_qos(prefetch_count=1)
    found = []
    messages: Any = channel.consume(queue)
    for method, _, body in messages:
        found.append(body.decode())
        channel.basic_ack(method.delivery_tag)
        if len(found) == count:
            break
    channel.cancel()
    return found


def test_the_queues_are_made(run: Run, client: str, channel: BlockingChannel) -> None:
    declare = run(client, DECLARE)
    assert (declare.wait(), declare.stderr) == (0, [])
    found = declared_in(EXAMPLES / CHAPTER / client / DECLARE)
    assert declare.stdout == [f" [x] Declared {each.name}" for each in found]
    for each in found:
        channel.queue_declare(each.name, **each.arguments)  # the same again is allowed


# --- The urgent first ---------------------------------------------------------------


def test_what_is_urgent_comes_first(
    run: Run, client: str, other: str, errands: BlockingChannel
) -> None:
    for task, priority in {"low": "", "high": "9", "middle": "5", "none": "0"}.items():
        sender = run(client, NEW, task, QUEUE="errands.urgent", PRIORITY=priority)
        assert (sender.wait(), sender.stdout) == (0, [f" [x] Sent {task!r}"]), sender
    worker = run(other, WORKER, QUEUE="errands.urgent")
    assert received(worker, 4) == ["high", "middle", "low", "none"]


def test_within_a_priority_the_order_stays(
    run: Run, client: str, errands: BlockingChannel
) -> None:
    for priority in (4, 9):
        send(errands, "errands.urgent", *(f"{priority}{n}" for n in range(5)), priority=priority)
    worker = run(client, WORKER, QUEUE="errands.urgent")
    assert received(worker, 10) == [f"{p}{n}" for p in (9, 4) for n in range(5)]


def rows() -> dict[str, list[str]]:
    """The page's table of priorities: the order for each queue, and that of sending."""
    found = re.findall(r"\* - (.*)\n +- ((?:none|\d)[\w ]*)\n", TEXT)
    return {name: order.split() for name, order in found}


def test_what_each_version_does_with_priorities(broker: Broker, url: str) -> None:
    orders = rows()
    sent = orders.pop("Queue")
    most = re.search(r"^classic, ``x-max-priority`` of (\d+)$", "\n".join(orders), re.MULTILINE)
    assert most
    assert figure(PAGE, r"``x-max-priority`` of (\d+)") == int(most[1])
    quorum = {name.split()[-1]: order for name, order in orders.items() if "quorum" in name}
    assert list(quorum) == ["3.10", "4.0", "4.3"]
    (own,) = (order for name, order in quorum.items() if broker.version.startswith(f"{name}."))
    classic = {"x-queue-type": "classic", "x-max-priority": int(most[1])}
    for name, arguments, wanted in (("q", QUORUM, own), ("c", classic, orders[most[0]])):
        with connected(url) as channel:
            channel.queue_declare(name, durable=True, arguments=arguments)
            for each in sent:
                send(channel, name, each, priority=None if each == "none" else int(each))
            assert in_order(channel, name, len(sent)) == wanted


def test_two_of_the_high_ones_then_one_of_the_others(broker: Broker, url: str) -> None:
    high = figure(PAGE, r"more than (\d+) is high")
    most = figure(PAGE, r"strict, from 0 to (\d+)")
    with connected(url) as channel:
        channel.queue_declare("q", durable=True, arguments=QUORUM)
        for priority in (high, high + 1):
            send(channel, "q", *[str(priority)] * 6, priority=priority)
        got = "".join("x" if each == str(high + 1) else "." for each in in_order(channel, "q", 12))
        if version(broker.version) >= (4, 3):
            assert got == "xxxxxx......"
            for priority in (most - 1, most + 1, most):
                send(channel, "q", str(priority), priority=priority)
            assert in_order(channel, "q", 3) == [str(most + 1), str(most), str(most - 1)]
        elif version(broker.version) >= (4,):
            assert got == "xx.xx.xx...."
            assert said(PAGE, r"It gives out (\w+) of the high ones, then one") == "two"
        else:
            assert got == "......xxxxxx"


def test_a_quorum_queue_takes_no_most(channel: BlockingChannel) -> None:
    name = said(PAGE, r"A quorum queue takes no ``(x-[a-z-]+)``")
    with pytest.raises(ChannelClosedByBroker, match=f"invalid arg '{name}'"):
        channel.queue_declare("q", durable=True, arguments={**QUORUM, name: 5})


def test_what_the_clients_send_without_a_priority(channel: BlockingChannel, url: str) -> None:
    async def publish() -> None:
        async with await aio_pika.connect(url) as connection:
            aio_channel = await connection.channel()
            await aio_channel.default_exchange.publish(aio_pika.Message(b"aio"), "q")

    channel.queue_declare("q", durable=True, arguments=QUORUM)
    asyncio.run(publish())
    channel.basic_publish("", "q", b"pika", pika.BasicProperties(delivery_mode=2))
    got: list[Any] = [channel.basic_get("q") for _ in "12"]
    given = {body: properties.priority for _, properties, body in got}
    assert given == {b"aio": figure(PAGE, r"without a ``priority`` it sends (\d+)"), b"pika": None}


def test_what_is_sent_says_so(run: Run, client: str, errands: BlockingChannel) -> None:
    for environment, wanted in (
        ({}, (2, figure(PAGE, r"therefore always says (\d+)"), None)),
        ({"PRIORITY": "0"}, (2, 0, None)),
        ({"PRIORITY": "255", "EXPIRES": "60.5"}, (2, 255, "60500")),
    ):
        assert run(client, NEW, "Grüße", "\udcff", **environment).wait() == 0
        _, properties, body = errands.basic_get("errands", auto_ack=True)
        assert properties
        assert body == "Grüße ".encode() + b"\xff"
        found = (properties.delivery_mode, properties.priority, properties.expiration)
        assert found == wanted


def test_nothing_overtakes_what_has_been_delivered(
    client: str, errands: BlockingChannel, tmp_path: Path, url: str, run: Run
) -> None:
    prefetch = figure(PAGE, r"A worker with a prefetch of (\w+)")
    old, new = "prefetch_count=1", f"prefetch_count={prefetch}"
    path = altered(CHAPTER, client, WORKER, old, new, tmp_path)
    with closing(Script(path, url=url, QUEUE="errands.urgent")) as worker:
        worker.wait_for("Waiting")
        letters = [f"Letter {n}" for n in range(prefetch)]
        send(errands, "errands.urgent", letters[0] + "..", *letters[1:], priority=4)
        poll(lambda: ready(errands, "errands.urgent"), 0)
        send(errands, "errands.urgent", "Fire", priority=9)
        assert received(worker, prefetch + 1)[-1] == "Fire"


def test_with_a_prefetch_of_1_it_comes_next(
    run: Run, client: str, errands: BlockingChannel
) -> None:
    worker = run(client, WORKER, QUEUE="errands.urgent").wait_for("Waiting")
    send(errands, "errands.urgent", "Letter 1....", "Letter 2", priority=4)
    worker.wait_for("Received")
    send(errands, "errands.urgent", "Fire", priority=9)
    assert received(worker, 3) == ["Letter 1....", "Fire", "Letter 2"]


# --- Not too late --------------------------------------------------------------------


def test_what_is_too_late_is_gone_without_a_word(
    run: Run, client: str, errands: BlockingChannel
) -> None:
    sender = run(client, NEW, "late", EXPIRES="0.01")
    assert (sender.wait(), sender.stdout, sender.stderr) == (0, [" [x] Sent 'late'"], [])
    poll(lambda: ready(errands, "errands"), 0)
    assert run(client, NEW, "in time", EXPIRES="600").wait() == 0
    assert received(run(client, WORKER), 1) == ["in time"]
    assert ready(errands, "errands.late") == 0


@pytest.mark.parametrize(("expires", "sooner"), [("", False), ("0.2", True), ("600", False)])
def test_the_shorter_time_counts_and_the_late_are_set_aside(
    run: Run, client: str, errands: BlockingChannel, expires: str, sooner: bool
) -> None:
    """A message that says less than the queue is gone before."""
    said(PAGE, r"both have a time limit, the (shorter) one counts")
    assert run(client, NEW, "late", QUEUE="errands.fresh", EXPIRES=expires).wait() == 0
    worker = run(client, WORKER, QUEUE="errands.late")
    worker.wait_for("Done")
    assert worker.stdout == [WAITING, " [x] Received 'late'", " [x] Done"]
    if sooner:  # 600 s for all, and 0.01 s for this one
        errands.queue_declare("long", durable=True, arguments={**QUORUM, "x-message-ttl": 600_000})
        assert run(client, NEW, "late", QUEUE="long", EXPIRES="0.01").wait() == 0
        poll(lambda: ready(errands, "long"), 0)


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_behind_one_that_waits_longer_it_stays(channel: BlockingChannel, kind: str) -> None:
    channel.queue_declare("q", durable=True, arguments={"x-queue-type": kind})
    channel.queue_declare("alone", durable=True, arguments={"x-queue-type": kind})
    send(channel, "q", "first", expiration="600000")
    send(channel, "q", "second", expiration="10")
    send(channel, "alone", "third", expiration="300")
    poll(lambda: ready(channel, "alone"), 0)  # so the second's time is over, too
    assert ready(channel, "q") == 2
    assert channel.basic_get("q", auto_ack=True)[2] == b"first"
    poll(lambda: ready(channel, "q"), 0)


def test_in_the_hands_of_a_worker_nothing_expires(channel: BlockingChannel) -> None:
    channel.queue_declare("q", durable=True, arguments=QUORUM)
    channel.queue_declare("alone", durable=True, arguments=QUORUM)
    send(channel, "q", "in hand", expiration="1000")
    method, _, body = channel.basic_get("q")
    assert (method, body) != (None, None)
    send(channel, "alone", "later", expiration="1500")
    poll(lambda: ready(channel, "alone"), 0)
    assert method
    channel.basic_nack(method.delivery_tag)
    poll(lambda: ready(channel, "q"), 0)
    assert channel.basic_get("q")[0] is None


# --- In turn -------------------------------------------------------------------------


def test_two_workers_lose_the_order(run: Run, client: str, errands: BlockingChannel) -> None:
    workers = [run(client, WORKER).wait_for("Waiting") for _ in range(2)]
    subscribed(errands, "errands", 2)
    send(errands, "errands", "first....", "second")
    poll(lambda: sorted(len(each.stdout) for each in workers), [2, 3])  # the second is done
    assert "Done" not in "".join(max(workers, key=lambda x: "first" in x.stdout[1]).stdout)


def consumers(broker: Broker, url: str, count: int) -> None:
    """Wait until there are so many; a queue itself does not count those that wait."""
    path = f"consumers/{url.rpartition('/')[2]}"
    poll(lambda: len(broker.call_api("GET", path)), count)


def test_one_gets_all_and_then_the_next(
    run: Run, client: str, other: str, broker: Broker, url: str, errands: BlockingChannel
) -> None:
    """In order, and what the first one had in hand is the first that the next one gets."""
    first = run(client, WORKER, QUEUE="errands.in_turn").wait_for("Waiting")
    subscribed(errands, "errands.in_turn")
    following = run(other, WORKER, QUEUE="errands.in_turn").wait_for("Waiting")
    consumers(broker, url, 2)
    tasks = [f"errand {n}" for n in range(4)]
    send(errands, "errands.in_turn", *tasks, "in hand" + "." * 60, "last")
    assert received(first, 5)[:4] == tasks
    assert following.stdout == [WAITING]
    assert first.signal(signal.SIGKILL) == -signal.SIGKILL
    assert received(following, 1) == ["in hand" + "." * 60]
    assert ready(errands, "errands.in_turn") == 1


def test_what_is_tried_again_later_has_lost_its_place(channel: BlockingChannel) -> None:
    back = {**QUORUM, "x-dead-letter-exchange": ""}
    channel.queue_declare(
        "q", durable=True, arguments={**back, "x-dead-letter-routing-key": "wait"}
    )
    waits = {**back, "x-dead-letter-routing-key": "q", "x-message-ttl": 100}
    channel.queue_declare("wait", durable=True, arguments=waits)
    send(channel, "q", "first", "second")
    method = channel.basic_get("q")[0]
    assert method
    channel.basic_nack(method.delivery_tag, requeue=False)
    assert in_order(channel, "q", 2) == ["second", "first"]


def test_a_higher_priority_takes_over_or_not(
    run: Run, client: str, broker: Broker, url: str, errands: BlockingChannel
) -> None:
    first = run(client, WORKER, QUEUE="errands.in_turn").wait_for("Waiting")
    subscribed(errands, "errands.in_turn")
    higher = run(client, WORKER, QUEUE="errands.in_turn", CONSUMER_PRIORITY="1")
    higher.wait_for("Waiting")
    consumers(broker, url, 2)
    send(errands, "errands.in_turn", "errand")
    new = said(PAGE, r"takes over from the active one at once, on (.+?)\. On")
    old = said(PAGE, r"On ([\d.]+) the first one stays")
    series = ".".join(broker.version.split(".")[:2])
    assert series in (*re.findall(r"[\d.]+\d", new), old)
    gets, waits = (first, higher) if series == old else (higher, first)
    gets.wait_for("Done")
    assert waits.stdout == [WAITING]


# --- The best one first ----------------------------------------------------------------


@pytest.mark.parametrize("better", ["1", "10", "255"])
def test_the_others_get_what_it_has_no_room_for(
    run: Run, client: str, other: str, errands: BlockingChannel, better: str
) -> None:
    low = run(client, WORKER).wait_for("Waiting")
    subscribed(errands, "errands")
    high = run(other, WORKER, CONSUMER_PRIORITY=better).wait_for("Waiting")
    subscribed(errands, "errands", 2)
    for n in range(1, 6):
        send(errands, "errands", f"{n}")
        high.wait_for("Done", n)
        poll(lambda: errands.queue_declare("errands", passive=True).method.message_count, 0)
    assert low.stdout == [WAITING]
    send(errands, "errands", "long" + "." * 60)
    high.wait_for("long")
    send(errands, "errands", "for the other")
    low.wait_for("Done")
    assert received(low, 1) == ["for the other"]


def test_without_it_they_take_turns(run: Run, client: str, errands: BlockingChannel) -> None:
    workers = [run(client, WORKER).wait_for("Waiting") for _ in range(2)]
    subscribed(errands, "errands", 2)
    send(errands, "errands", "1..", "2..")
    for each in workers:
        each.wait_for("Done")
    assert sorted(len(each.stdout) for each in workers) == [3, 3]


# --- Mishaps ---------------------------------------------------------------------------

WRONG = [
    (NEW, {"PRIORITY": value}, "PRIORITY wants") for value in ("256", "-1", "high", "1.5", " ")
]
WRONG += [(NEW, {"EXPIRES": value}, "EXPIRES") for value in ("-1", "soon", "nan", "inf")]
WRONG += [
    (WORKER, {"CONSUMER_PRIORITY": value}, "CONSUMER_PRIORITY wants")
    for value in ("256", "-1", "best", "9" * 30)
]


@pytest.mark.parametrize(("name", "environment", "word"), WRONG)
def test_a_setting_that_is_none(
    client: str, name: str, environment: dict[str, str], word: str
) -> None:
    path = EXAMPLES / CHAPTER / client / name
    arguments = ARGUMENTS.get(name, [])
    with closing(Script(path, *arguments, url="amqp://unused/", **environment)) as script:
        assert_one_line(script, word)
        assert script.stdout == []


def test_no_errand_is_a_usage(client: str) -> None:
    with closing(Script(EXAMPLES / CHAPTER / client / NEW, url="amqp://unused/")) as script:
        assert_one_line(script, "Usage: python new_errand.py ERRAND")


def test_no_queue(run: Run, client: str) -> None:
    worker, sender = run(client, WORKER), run(client, NEW, "Letter")
    assert_one_line(worker, "Failed: ", "NOT_FOUND", DECLARE)
    assert_one_line(sender, "Failed: ", DECLARE)
    assert worker.stdout == sender.stdout == []


def test_a_queue_that_is_full(run: Run, client: str, channel: BlockingChannel) -> None:
    full = {"x-max-length": 0, "x-overflow": "reject-publish"}
    channel.queue_declare("full", durable=True, arguments=full)
    sender = run(client, NEW, "Letter", QUEUE="full")
    assert_one_line(sender, "Failed: ", "Nack")
    assert sender.stdout == []


def test_its_queue_deleted_under_it(run: Run, client: str, errands: BlockingChannel) -> None:
    worker = run(client, WORKER).wait_for("Waiting")
    subscribed(errands, "errands")
    errands.queue_delete("errands")
    assert_one_line(worker, "Failed: the queue is gone")


def test_ctrl_c_loses_nothing(run: Run, client: str, errands: BlockingChannel) -> None:
    send(errands, "errands", "in hand" + "." * 60, "next")
    worker = run(client, WORKER).wait_for("Received")
    assert ready(errands, "errands") == 1
    assert (worker.interrupt(), worker.stderr) == (INTERRUPTED, [])
    poll(lambda: ready(errands, "errands"), 2)


@every_script
def test_no_broker_no_url_and_a_wrong_password(
    run: Run, client: str, name: str, broker: Broker
) -> None:
    (port,) = brokers.free_ports(1)
    away = f"amqp://guest:s3cret@localhost:{port}/"
    wrong = broker.url.replace("guest:guest", "guest:s3cret")
    for url in (away, wrong, MALFORMED[4], MALFORMED[6]):
        script = run(client, name, *ARGUMENTS.get(name, []), url=url)
        assert_one_line(script, "make doctor")
        assert not re.search("s3|cret|cr/", script.stderr[0])


def test_what_cannot_be_printed_is_done(run: Run, client: str, errands: BlockingChannel) -> None:
    ascii_only = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    sender = run(client, NEW, "Grüße \udcff", **ascii_only)
    assert (sender.wait(), sender.stdout) == (0, [r" [x] Sent 'Gr\xfc\xdfe \udcff'"])
    worker = run(client, WORKER, **ascii_only).wait_for("Done")
    assert worker.stdout[1] == r" [x] Received 'Gr\xfc\xdfe \udcff'"


@every_script
def test_it_can_be_copied_out(client: str, name: str) -> None:
    script = EXAMPLES / CHAPTER / client / name
    own = {"pika": "pika", "aio-pika": "aio_pika"}[client]
    assert imported(script) <= {own, *sys.stdlib_module_names}
    lines = script.read_text().splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 79
