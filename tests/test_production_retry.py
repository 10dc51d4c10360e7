"""The promises of docs/production-retry.rst, each with a test that can break it."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pika
import pytest
from broker import Broker
from conftest import Copy, Starter, assert_one_line, poll, ready, subscribed
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import NackError
from shells.chapters import DOCS, EXAMPLES, declared_in, figure
from shells.running import INTERRUPTED, Script

CHAPTER = "production-worker"
PAGE = (DOCS / "production-retry.rst").read_text(encoding="utf-8")
TTL, DELAYED, DEAD = "worker_retry_ttl.py", "worker_retry_delayed.py", "dead_letters.py"
ONCE, OUTBOX, NEW, DECLARE = "worker_once.py", "outbox.py", "new_payment.py", "declare_queues.py"
NAMES = (DECLARE, NEW, TTL, DELAYED, DEAD, ONCE, OUTBOX)
WAITING = " [*] Waiting for messages. To exit press CTRL+C"
STATIONS = ["payments.retry.1", "payments.retry.2", "payments.retry.4", "payments.dead"]
DIED = "RuntimeError('its worker died, or the time was up')"
# Replaced by this, the work of a retry worker no longer minds whose payment it is.
WORK, MENDED = "    account, _ = body.decode().split()", '    account = "alice"'

# Seconds for a task and for what is published instead of it.
LIMIT = 5
SHORT = {"TIME_LIMIT = 30": f"TIME_LIMIT = {LIMIT}"}
# A payment that says that the others are done.
END = "end"

Run = Callable[..., Script]


@pytest.fixture
def run(start: Starter) -> Run:
    return partial(start, CHAPTER)


class Team:
    """Workers that are started again when they end, as a supervisor does it."""

    def __init__(self, *starts: Callable[[], Script]) -> None:
        self.starts = starts
        self.now = [start() for start in starts]
        self.all = [*self.now]

    def look_after(self) -> None:
        for number, script in enumerate(self.now):
            if script.process.poll() is not None:
                self.now[number] = self.starts[number]()
                self.all.append(self.now[number])

    def ended(self) -> list[Script]:
        return [script for script in self.all if script not in self.now]

    def until(self, measure: Callable[[], Any], wanted: Any, seconds: float = 90.0) -> None:
        def looked() -> Any:
            self.look_after()
            return measure()

        poll(looked, wanted, seconds)

    def done(self) -> Counter[str]:
        """How often each payment was done: what is said after it was received."""
        found: Counter[str] = Counter()
        for script in self.all:
            for before, line in pairwise([*script.stdout]):
                if line == " [x] Done" and END not in before:
                    found[before.partition("Received ")[2]] += 1
        return found

    def settle(self, channel: BlockingChannel) -> None:
        """Until each has been given one more, which says that its last ack has arrived."""
        before = {script: len(script.stdout) for script in self.now}

        def served() -> bool:
            self.look_after()  # the last poison may have killed one just now
            pay(channel, END, f"alice {END}")
            return all(END in "".join(x.stdout[before.get(x, 0) :]) for x in self.now)

        poll(served, True, 300)

    def close(self) -> None:
        for script in self.now:
            script.close()


def pay(channel: BlockingChannel, key: str | None, task: str | bytes, **more: Any) -> None:
    queue = more.pop("queue", "payments")
    body = task.encode() if isinstance(task, str) else task
    properties = pika.BasicProperties(delivery_mode=2, message_id=key, **more)
    channel.basic_publish("", queue, body, properties, mandatory=True)


def wait_dead(channel: BlockingChannel, count: int, queue: str = "payments.dead") -> None:
    poll(lambda: ready(channel, queue), count, 60)


def take(channel: BlockingChannel, queue: str) -> tuple[Any, bytes]:
    """A message's properties and body; it is acked."""
    poll(lambda: ready(channel, queue) > 0, True)
    method, properties, body = channel.basic_get(queue, auto_ack=True)
    assert method
    assert body is not None
    return properties, body


def fill(broker: Broker, url: str, channel: BlockingChannel, queue: str) -> None:
    """Leave a queue no room; it looks at its limit after it has taken a message."""
    limit = {
        "pattern": f"^{re.escape(queue)}$",
        "definition": {"max-length": 1},
        "apply-to": "queues",
    }
    broker.call_api("PUT", f"policies/{url.rpartition('/')[2]}/full", limit)

    def refuses() -> bool:
        try:
            pay(channel, "filler", "alice 1", queue=queue)
        except NackError:
            return True
        return False

    poll(refuses, True)


def keys(channel: BlockingChannel, queue: str) -> list[str]:
    """The keys of all messages in a queue, which is empty then."""
    found = []
    while True:
        method, properties, _ = channel.basic_get(queue, auto_ack=True)
        if not method:
            return found
        assert properties
        found.append(properties.message_id)


# --- Again, later ---------------------------------------------------------------


def test_what_fails_comes_back_after_delays_that_grow(
    run: Run, client: str, payments: BlockingChannel
) -> None:
    worker = run(client, TTL).wait_for(WAITING)
    pay(payments, "17", "nobody 5")
    worker.wait_for("now in payments.dead")
    assert worker.stdout[1::2] == [" [x] Received 'nobody 5'"] * 4
    assert worker.stdout[2::2] == [
        f" [x] Failed: KeyError('nobody'), now in {station}" for station in STATIONS
    ]
    times = worker.times
    waited = [times[1 + 2 * n] - times[2 * n] for n in (1, 2, 3)]
    # When a line is read says less than when it was printed.
    assert all(time > 0.5 * delay for time, delay in zip(waited, (1, 2, 4), strict=True)), waited
    delays = {
        each.name: each.arguments["arguments"]["x-message-ttl"]
        for each in declared_in(EXAMPLES / CHAPTER / client / DECLARE)
        if each.name in STATIONS[:-1]
    }
    assert delays == {name: 1_000 * int(name.rpartition(".")[2]) for name in STATIONS[:-1]}
    assert worker.interrupt() == INTERRUPTED


def test_one_queue_for_all_delays_would_not_do(channel: BlockingChannel) -> None:
    """It looks only at its head: a short delay waits behind a long one."""
    quorum = {"x-queue-type": "quorum"}
    out = {**quorum, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "out"}
    channel.queue_declare("out", durable=True, arguments=quorum)
    for name in ("mixed", "alone"):
        channel.queue_declare(name, durable=True, arguments=out)
    for queue, delay in (("mixed", "60000"), ("mixed", "100"), ("alone", "1000")):
        pay(channel, queue, "alice 5", queue=queue, expiration=delay)
    assert take(channel, "out")[0].message_id == "alone"
    assert ready(channel, "mixed") == 2


def test_the_dead_have_their_reasons(run: Run, client: str, payments: BlockingChannel) -> None:
    run(client, TTL)
    pay(payments, "17", "nobody 5")
    wait_dead(payments, 1)
    properties, body = take(payments, "payments.dead")
    assert (properties.message_id, body) == ("17", b"nobody 5")
    assert properties.headers["failures"] == ["KeyError('nobody')"] * 4
    for name in STATIONS[:-1]:
        assert ready(payments, name) == 0
    poll(lambda: ready(payments, "payments"), 0)


def test_a_copy_is_a_fresh_message(run: Run, client: str, payments: BlockingChannel) -> None:
    """It neither expires nor goes elsewhere; what the sender said of it is kept."""
    payments.queue_declare("elsewhere", durable=True, arguments={"x-queue-type": "quorum"})
    pay(
        payments,
        "17",
        "nobody 5",
        user_id="guest",
        expiration="60000",
        content_type="text/plain",
        correlation_id="4711",
        type="payment",
        priority=7,
        headers={"CC": ["elsewhere"], "BCC": ["elsewhere"], "shop": "north", "CCY": "EUR"},
    )
    poll(lambda: ready(payments, "elsewhere"), 1)
    run(client, TTL)
    wait_dead(payments, 1)
    found, _ = take(payments, "payments.dead")
    assert ready(payments, "elsewhere") == 1
    assert found.user_id is None
    assert found.expiration is None
    assert (found.content_type, found.correlation_id) == ("text/plain", "4711")
    assert (found.type, found.priority, found.delivery_mode) == ("payment", 7, 2)
    own = {name: value for name, value in found.headers.items() if name != "x-delivery-count"}
    assert own == {"shop": "north", "CCY": "EUR", "failures": ["KeyError('nobody')"] * 4}


def test_copies_keep_their_place_among_others(
    run: Run, client: str, payments: BlockingChannel
) -> None:
    """A quorum queue takes none for 4; aio-pika would say 0 unless told."""
    run(client, TTL)
    pay(payments, "17", "nobody 5")
    wait_dead(payments, 1)
    found, _ = take(payments, "payments.dead")
    assert found.priority in (None, 4)


def test_no_ack_before_the_copy_is_stored(
    run: Run, client: str, payments: BlockingChannel
) -> None:
    """Without a queue to wait in it stays where it was, and the worker says why."""
    payments.queue_delete("payments.retry.1")
    worker = run(client, TTL).wait_for(WAITING)
    pay(payments, "17", "nobody 5")
    assert_one_line(worker, "Failed: ")
    poll(lambda: ready(payments, "payments"), 1)


def test_no_ack_before_the_copy_is_confirmed(
    run: Run, client: str, broker: Broker, url: str, payments: BlockingChannel
) -> None:
    """The broker refuses it, because its queue is full."""
    fill(broker, url, payments, "payments.dead")
    worker = run(client, TTL).wait_for(WAITING)
    pay(payments, "17", "nobody 5", headers={"failures": ["", "", ""]})
    assert_one_line(worker, "Failed: ")
    poll(lambda: ready(payments, "payments"), 1)


# --- Poison ---------------------------------------------------------------------


@pytest.mark.parametrize("poison", ["killer 1", "sleeper 1"])
def test_what_ends_its_worker_ends_four_and_is_set_aside(
    copy: Copy, client: str, payments: BlockingChannel, poison: str
) -> None:
    worker = partial(copy, CHAPTER, client, TTL, SHORT)
    pay(payments, "17", poison)
    team = Team(worker, worker)
    pay(payments, "18", "alice 5")
    team.until(lambda: ready(payments, "payments.dead"), 1)
    team.until(lambda: len(team.ended()), 4)
    assert {script.wait() for script in team.ended()} == {1}
    assert team.done() == {"'alice 5'": 1}
    found, _ = take(payments, "payments.dead")
    assert found.headers["failures"] == [DIED] * 4


def test_what_was_in_the_hands_of_a_killed_worker_waits_and_is_done(
    copy: Copy, client: str, payments: BlockingChannel
) -> None:
    """It has done nothing, but who could tell?"""
    slow = copy(CHAPTER, client, TTL, {'{"alice": 0,': '{"alice": 60,'}).wait_for(WAITING)
    pay(payments, "17", "alice 5")
    slow.wait_for("Received").signal(signal.SIGKILL)
    worker = copy(CHAPTER, client, TTL, SHORT).wait_for("Done")
    assert worker.stdout[1:] == [
        " [x] Received 'alice 5'",
        f" [x] Failed: {DIED}, now in payments.retry.1",
        " [x] Received 'alice 5'",
        " [x] Done",
    ]


def test_who_runs_out_of_time_says_where(
    copy: Copy, client: str, payments: BlockingChannel
) -> None:
    """Whatever it does: a wait, or what leaves the interpreter no time."""
    worker = copy(CHAPTER, client, TTL, SHORT).wait_for(WAITING)
    pay(payments, "17", "sleeper 1")
    assert worker.wait() == 1
    assert worker.stderr[0] == f"Timeout (0:00:0{LIMIT})!"
    assert any(TTL in line for line in worker.stderr)
    poll(lambda: ready(payments, "payments"), 1)


def test_what_blocks_everything_ends_too(
    copy: Copy, client: str, payments: BlockingChannel
) -> None:
    """A call into C that never returns, and that lets no other thread run."""
    wait = {"pika": "time.sleep", "aio-pika": "await asyncio.sleep"}[client]
    blocked = '__import__("re").match("(a*)*b", "a" * 90)  # '
    change = {f"    {wait}(ACCOUNTS[account])": f"    {blocked}"}
    worker = copy(CHAPTER, client, TTL, {**change, **SHORT}).wait_for(WAITING)
    pay(payments, "17", "alice 1")
    assert worker.wait() == 1
    assert any("in handle" in line for line in worker.stderr), worker


def test_a_task_in_time_is_left_alone(copy: Copy, client: str, payments: BlockingChannel) -> None:
    """The limit is for one task, not for the worker's life."""
    change = {'{"alice": 0,': '{"alice": 1.5,'}
    worker = copy(CHAPTER, client, TTL, {**change, **SHORT}).wait_for(WAITING)
    for number in range(4):
        pay(payments, str(number), f"alice {number}")
    worker.wait_for("Done", 4)
    assert worker.process.poll() is None


def test_what_no_worker_can_look_at_is_set_aside_by_the_broker(
    run: Run, client: str, payments: BlockingChannel
) -> None:
    pay(payments, "17", "nobody 5", headers={"failures": 5})
    pay(payments, "18", "alice 5")
    team = Team(partial(run, client, TTL))
    team.until(lambda: ready(payments, "payments.dead"), 1)
    team.until(team.done, {"'alice 5'": 1})
    team.until(lambda: len(team.ended()), 6)
    table = run(client, DEAD)
    assert table.wait() == 0
    assert re.fullmatch(r"'17' +'nobody 5' +1 +delivery_limit", table.stdout[1])


def poison(number: int) -> str | bytes:
    kinds = (f"nobody {number}", f"killer {number}", f"sleeper {number}", b"caf\xe9 %d" % number)
    return kinds[number % len(kinds)]


def mass(
    run: Run, copy: Copy, clients: tuple[str, str], channel: BlockingChannel, count: int, bad: int
) -> Team:
    """Good payments and poison, all at once, for two workers; then they are mended."""
    every = count // bad
    for number in range(count):
        wrong = number % every == 0
        pay(channel, str(number), poison(number // every) if wrong else f"alice {number}")
    team = Team(*(partial(copy, CHAPTER, each, TTL, SHORT) for each in clients))
    team.until(
        lambda: (len(team.done()), ready(channel, "payments.dead")), (count - bad, bad), 900
    )
    team.settle(channel)
    team.close()
    subscribed(channel, "payments", 0)
    assert set(team.done().values()) == {1}
    table = run(clients[0], DEAD)
    assert table.wait() == 0
    found = [line.split(maxsplit=4) for line in table.stdout[1:]]
    assert sorted(row[0] for row in found) == sorted(repr(str(n)) for n in range(0, count, every))
    reasons = {"nobody": "KeyError", "killer": DIED[:12], "sleeper": DIED[:12]}
    for row in found:
        last = reasons.get(row[1].strip("'"), "UnicodeDecodeError")
        assert row[3] == "4"
        assert row[4].startswith(last), row
    assert run(clients[1], DEAD, "put-back", "all").wait() == 0
    mended = Team(*(partial(copy, CHAPTER, each, TTL, {WORK: MENDED}) for each in clients))
    mended.until(lambda: len(mended.done()), bad, 900)
    mended.settle(channel)
    poll(lambda: ready(channel, "payments"), 0)
    assert ready(channel, "payments.dead") == 0
    assert set(mended.done().values()) == {1}
    assert len(team.done() | mended.done()) == count
    return team


def test_poison_blocks_nobody_and_all_is_done_in_the_end(
    run: Run, copy: Copy, client: str, other: str, payments: BlockingChannel
) -> None:
    """A hundred, five of them poison; a thousand with fifty takes minutes."""
    mass(run, copy, (client, other), payments, 100, 5)


# --- Again later, by the broker ----------------------------------------------------


def is_old(broker: Broker) -> bool:
    return tuple(map(int, broker.version.split(".")[:2])) < (4, 3)


def test_it_says_what_it_needs(
    run: Run, copy: Copy, client: str, broker: Broker, payments: BlockingChannel
) -> None:
    """On an older broker, or on one that this script takes for older."""
    old = is_old(broker)
    worker = run(client, DELAYED) if old else copy(CHAPTER, client, DELAYED, {"[4, 3]": "[4, 99]"})
    assert_one_line(worker, f"RabbitMQ {broker.version}", TTL)
    assert worker.stdout == []
    if old:  # where it would not wait: what is rejected comes back at once
        pay(payments, "17", "alice 5", queue="payments.delayed")
        for _ in range(3):
            method, *_ = payments.basic_get("payments.delayed")
            assert method
            payments.basic_reject(method.delivery_tag)
            poll(lambda: ready(payments, "payments.delayed"), 1, 0.9)


def test_the_broker_waits_longer_each_time(
    run: Run, client: str, broker: Broker, payments: BlockingChannel
) -> None:
    if is_old(broker):
        return
    worker = run(client, DELAYED).wait_for(WAITING)
    pay(payments, "17", "nobody 5", queue="payments.delayed")
    wait_dead(payments, 1, "payments.delayed.dead")
    worker.wait_for("Failed: KeyError('nobody')", 4)
    assert "\n".join(f"   {line}" for line in worker.stdout) in PAGE
    assert len(worker.stdout) == 9
    waited = [worker.times[1 + 2 * n] - worker.times[2 * n] for n in (1, 2, 3)]
    assert all(time > 0.5 * delay for time, delay in zip(waited, (1, 2, 3), strict=True)), waited
    found, body = take(payments, "payments.delayed.dead")
    assert found.headers["x-death"][0]["reason"] == "delivery_limit"
    assert (found.message_id, body) == ("17", b"nobody 5")


def test_the_delivery_limit_that_the_page_names(client: str) -> None:
    limit = figure("production-retry", r"After \w+ deliveries, (\w+) more than the first")
    assert figure("production-retry", r"After (\w+) deliveries, \w+ more than") == limit + 1
    text = (EXAMPLES / CHAPTER / client / "declare_queues.py").read_text()
    assert f'"payments": {{**TO_DEAD, "x-delivery-limit": {limit}}}' in text


@pytest.mark.parametrize("poison", ["killer 1", "sleeper 1"])
def test_what_ends_its_worker_waits_too(
    run: Run, copy: Copy, client: str, broker: Broker, payments: BlockingChannel, poison: str
) -> None:
    if is_old(broker):
        return
    pay(payments, "17", poison, queue="payments.delayed")
    team = Team(partial(copy, CHAPTER, client, DELAYED, SHORT))
    pay(payments, "18", "alice 5", queue="payments.delayed")
    team.until(lambda: ready(payments, "payments.delayed.dead"), 1)
    team.until(team.done, {"'alice 5'": 1})
    team.until(lambda: len(team.ended()), 4)
    table = run(client, DEAD, QUEUE="payments.delayed")
    assert table.wait() == 0
    assert re.fullmatch(rf"'17' +'{poison}' +1 +delivery_limit", table.stdout[1])
    team.close()
    subscribed(payments, "payments.delayed", 0)
    assert run(client, DEAD, "put-back", "17", QUEUE="payments.delayed").wait() == 0
    poll(lambda: ready(payments, "payments.delayed"), 1)


def test_delayed_poison_comes_back_when_it_is_mended(
    run: Run, copy: Copy, client: str, broker: Broker, payments: BlockingChannel
) -> None:
    if is_old(broker):
        return
    worker = run(client, DELAYED)
    pay(payments, "17", b"caf\xe9 5", queue="payments.delayed")
    wait_dead(payments, 1, "payments.delayed.dead")
    # Unmended, it has one attempt, because its deliveries stay counted.
    assert run(client, DEAD, "put-back", "all", QUEUE="payments.delayed").wait() == 0
    worker.wait_for("Received", 5)
    wait_dead(payments, 1, "payments.delayed.dead")
    assert sum("Received" in line for line in worker.stdout) == 5
    worker.close()
    subscribed(payments, "payments.delayed", 0)
    assert run(client, DEAD, "put-back", "all", QUEUE="payments.delayed").wait() == 0
    copy(CHAPTER, client, DELAYED, {WORK: MENDED}).wait_for("Done")
    poll(lambda: ready(payments, "payments.delayed"), 0)
