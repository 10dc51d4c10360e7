"""The promises of docs/production-retry.rst, each with a test that can break it."""

from __future__ import annotations

import re
import signal
import socket
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import broker as brokers
import pika
import pytest
from broker import Broker
from conftest import Starter, altered, assert_one_line, connected, poll, ready, subscribed
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import NackError
from shells.chapters import DOCS, EXAMPLES, declared_in
from shells.running import INTERRUPTED, Script
from test_scripts import MALFORMED, imported

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
LIMIT = 3
SHORT = {"TIME_LIMIT = 30": f"TIME_LIMIT = {LIMIT}"}
# A payment that says that the others are done.
END = "end"

Run = Callable[..., Script]


@pytest.fixture
def run(start: Starter) -> Run:
    return partial(start, CHAPTER)


@pytest.fixture
def queues(channel: BlockingChannel) -> BlockingChannel:
    """A channel to a virtual host that has the queues of the payments."""
    for found in declared_in(EXAMPLES / CHAPTER / "pika" / DECLARE):
        channel.queue_declare(found.name, **found.arguments)
    return channel


@pytest.fixture
def copy(tmp_path: Path, url: str) -> Iterator[Run]:
    """Start a script with changes; it must have what they replace."""
    started: list[Script] = []

    def run(client: str, name: str, changes: dict[str, str], **more: str) -> Script:
        folder = tmp_path / f"{len(started)}"
        folder.mkdir()
        (old, new), *others = changes.items()
        path = altered(CHAPTER, client, name, old, new, folder)
        for old, new in others:
            text = path.read_text()
            assert old in text
            path.write_text(text.replace(old, new))
        arguments = more.pop("arguments", "").split()
        started.append(Script(path, *arguments, url=more.pop("url", url), **more))
        return started[-1]

    yield run
    for script in started:
        script.close()
        print(script)


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
        before = [len(script.stdout) for script in self.now]

        def served() -> bool:
            pay(channel, END, f"alice {END}")
            return all(
                END in "".join(script.stdout[count:])
                for script, count in zip(self.now, before, strict=True)
            )

        poll(served, True)

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
    run: Run, client: str, queues: BlockingChannel
) -> None:
    worker = run(client, TTL).wait_for(WAITING)
    pay(queues, "17", "nobody 5")
    worker.wait_for("now in payments.dead")
    assert worker.stdout[1::2] == [" [x] Received 'nobody 5'"] * 4
    assert worker.stdout[2::2] == [
        f" [x] Failed: KeyError('nobody'), now in {station}" for station in STATIONS
    ]
    times = worker.times
    waited = [times[1 + 2 * n] - times[2 * n] for n in (1, 2, 3)]
    assert all(time > 0.9 * delay for time, delay in zip(waited, (1, 2, 4), strict=True)), waited
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


def test_the_dead_have_their_reasons(run: Run, client: str, queues: BlockingChannel) -> None:
    run(client, TTL)
    pay(queues, "17", "nobody 5")
    wait_dead(queues, 1)
    properties, body = take(queues, "payments.dead")
    assert (properties.message_id, body) == ("17", b"nobody 5")
    assert properties.headers["failures"] == ["KeyError('nobody')"] * 4
    for name in STATIONS[:-1]:
        assert ready(queues, name) == 0
    poll(lambda: ready(queues, "payments"), 0)


def test_a_copy_is_a_fresh_message(run: Run, client: str, queues: BlockingChannel) -> None:
    """It neither expires nor goes elsewhere; what the sender said of it is kept."""
    queues.queue_declare("elsewhere", durable=True, arguments={"x-queue-type": "quorum"})
    pay(
        queues,
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
    poll(lambda: ready(queues, "elsewhere"), 1)
    run(client, TTL)
    wait_dead(queues, 1)
    found, _ = take(queues, "payments.dead")
    assert ready(queues, "elsewhere") == 1
    assert found.user_id is None
    assert found.expiration is None
    assert (found.content_type, found.correlation_id) == ("text/plain", "4711")
    assert (found.type, found.priority, found.delivery_mode) == ("payment", 7, 2)
    own = {name: value for name, value in found.headers.items() if name != "x-delivery-count"}
    assert own == {"shop": "north", "CCY": "EUR", "failures": ["KeyError('nobody')"] * 4}


def test_copies_keep_their_place_among_others(
    run: Run, client: str, queues: BlockingChannel
) -> None:
    """A quorum queue takes none for 4; aio-pika would say 0 unless told."""
    run(client, TTL)
    pay(queues, "17", "nobody 5")
    wait_dead(queues, 1)
    found, _ = take(queues, "payments.dead")
    assert found.priority in (None, 4)


def test_no_ack_before_the_copy_is_stored(run: Run, client: str, queues: BlockingChannel) -> None:
    """Without a queue to wait in it stays where it was, and the worker says why."""
    queues.queue_delete("payments.retry.1")
    worker = run(client, TTL).wait_for(WAITING)
    pay(queues, "17", "nobody 5")
    assert_one_line(worker, "Failed: ")
    poll(lambda: ready(queues, "payments"), 1)


def test_no_ack_before_the_copy_is_confirmed(
    run: Run, client: str, broker: Broker, url: str, queues: BlockingChannel
) -> None:
    """The broker refuses it, because its queue is full."""
    fill(broker, url, queues, "payments.dead")
    worker = run(client, TTL).wait_for(WAITING)
    pay(queues, "17", "nobody 5", headers={"failures": ["", "", ""]})
    assert_one_line(worker, "Failed: ")
    poll(lambda: ready(queues, "payments"), 1)


# --- Poison ---------------------------------------------------------------------


@pytest.mark.parametrize("poison", ["killer 1", "sleeper 1"])
def test_what_ends_its_worker_ends_four_and_is_set_aside(
    copy: Run, client: str, queues: BlockingChannel, poison: str
) -> None:
    worker = partial(copy, client, TTL, SHORT)
    pay(queues, "17", poison)
    team = Team(worker, worker)
    pay(queues, "18", "alice 5")
    team.until(lambda: ready(queues, "payments.dead"), 1)
    assert len(team.ended()) == 4
    assert {script.wait() for script in team.ended()} == {1}
    assert team.done() == {"'alice 5'": 1}
    found, _ = take(queues, "payments.dead")
    assert found.headers["failures"] == [DIED] * 4


def test_what_was_in_the_hands_of_a_killed_worker_waits_and_is_done(
    copy: Run, client: str, queues: BlockingChannel
) -> None:
    """It has done nothing, but who could tell?"""
    slow = copy(client, TTL, {'{"alice": 0,': '{"alice": 60,'}).wait_for(WAITING)
    pay(queues, "17", "alice 5")
    slow.wait_for("Received").signal(signal.SIGKILL)
    worker = copy(client, TTL, SHORT).wait_for("Done")
    assert worker.stdout[1:] == [
        " [x] Received 'alice 5'",
        f" [x] Failed: {DIED}, now in payments.retry.1",
        " [x] Received 'alice 5'",
        " [x] Done",
    ]


def test_who_runs_out_of_time_says_where(copy: Run, client: str, queues: BlockingChannel) -> None:
    """Whatever it does: a wait, or what leaves the interpreter no time."""
    worker = copy(client, TTL, SHORT).wait_for(WAITING)
    pay(queues, "17", "sleeper 1")
    assert worker.wait() == 1
    assert worker.stderr[0] == f"Timeout (0:00:0{LIMIT})!"
    assert any(TTL in line for line in worker.stderr)
    poll(lambda: ready(queues, "payments"), 1)


def test_what_blocks_everything_ends_too(copy: Run, client: str, queues: BlockingChannel) -> None:
    """A call into C that never returns, and that lets no other thread run."""
    wait = {"pika": "time.sleep", "aio-pika": "await asyncio.sleep"}[client]
    blocked = '__import__("re").match("(a*)*b", "a" * 90)  # '
    change = {f"    {wait}(ACCOUNTS[account])": f"    {blocked}"}
    worker = copy(client, TTL, {**change, **SHORT}).wait_for(WAITING)
    pay(queues, "17", "alice 1")
    assert worker.wait() == 1
    assert any("in handle" in line for line in worker.stderr), worker


def test_a_task_in_time_is_left_alone(copy: Run, client: str, queues: BlockingChannel) -> None:
    """The limit is for one task, not for the worker's life."""
    change = {'{"alice": 0,': '{"alice": 1.2,'}
    worker = copy(client, TTL, {**change, **SHORT}).wait_for(WAITING)
    for number in range(4):
        pay(queues, str(number), f"alice {number}")
    worker.wait_for("Done", 4)
    assert worker.process.poll() is None


def test_what_no_worker_can_look_at_is_set_aside_by_the_broker(
    run: Run, client: str, queues: BlockingChannel
) -> None:
    pay(queues, "17", "nobody 5", headers={"failures": 5})
    pay(queues, "18", "alice 5")
    team = Team(partial(run, client, TTL))
    team.until(lambda: ready(queues, "payments.dead"), 1)
    team.until(team.done, {"'alice 5'": 1})
    assert len(team.ended()) == 6
    table = run(client, DEAD)
    assert table.wait() == 0
    assert re.fullmatch(r"'17' +'nobody 5' +1 +delivery_limit", table.stdout[1])


def poison(number: int) -> str | bytes:
    kinds = (f"nobody {number}", f"killer {number}", f"sleeper {number}", b"caf\xe9 %d" % number)
    return kinds[number % len(kinds)]


def mass(
    run: Run, copy: Run, clients: tuple[str, str], channel: BlockingChannel, count: int, bad: int
) -> Team:
    """Good payments and poison, all at once, for two workers; then they are mended."""
    every = count // bad
    for number in range(count):
        wrong = number % every == 0
        pay(channel, str(number), poison(number // every) if wrong else f"alice {number}")
    team = Team(*(partial(copy, each, TTL, SHORT) for each in clients))
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
    mended = Team(*(partial(copy, each, TTL, {WORK: MENDED}) for each in clients))
    mended.until(lambda: len(mended.done()), bad, 900)
    mended.settle(channel)
    poll(lambda: ready(channel, "payments"), 0)
    assert ready(channel, "payments.dead") == 0
    assert set(mended.done().values()) == {1}
    assert len(team.done() | mended.done()) == count
    return team


def test_poison_blocks_nobody_and_all_is_done_in_the_end(
    run: Run, copy: Run, client: str, other: str, queues: BlockingChannel
) -> None:
    """A hundred, five of them poison; a thousand with fifty takes minutes."""
    mass(run, copy, (client, other), queues, 100, 5)


# --- Again later, by the broker ----------------------------------------------------


def is_old(broker: Broker) -> bool:
    return tuple(map(int, broker.version.split(".")[:2])) < (4, 3)


def test_it_says_what_it_needs(
    run: Run, copy: Run, client: str, broker: Broker, queues: BlockingChannel
) -> None:
    """On an older broker, or on one that this script takes for older."""
    old = is_old(broker)
    worker = run(client, DELAYED) if old else copy(client, DELAYED, {"[4, 3]": "[4, 99]"})
    assert_one_line(worker, f"RabbitMQ {broker.version}", TTL)
    assert worker.stdout == []
    if old:  # where it would not wait: what is rejected comes back at once
        pay(queues, "17", "alice 5", queue="payments.delayed")
        for _ in range(3):
            method, *_ = queues.basic_get("payments.delayed")
            assert method
            queues.basic_reject(method.delivery_tag)
            poll(lambda: ready(queues, "payments.delayed"), 1, 0.9)


def test_the_broker_waits_longer_each_time(
    run: Run, client: str, broker: Broker, queues: BlockingChannel
) -> None:
    if is_old(broker):
        return
    worker = run(client, DELAYED).wait_for(WAITING)
    pay(queues, "17", "nobody 5", queue="payments.delayed")
    wait_dead(queues, 1, "payments.delayed.dead")
    worker.wait_for("Failed: KeyError('nobody')", 4)
    assert "\n".join(f"   {line}" for line in worker.stdout) in PAGE
    assert len(worker.stdout) == 9
    waited = [worker.times[1 + 2 * n] - worker.times[2 * n] for n in (1, 2, 3)]
    assert all(time > 0.9 * delay for time, delay in zip(waited, (1, 2, 3), strict=True)), waited
    found, body = take(queues, "payments.delayed.dead")
    assert found.headers["x-death"][0]["reason"] == "delivery_limit"
    assert (found.message_id, body) == ("17", b"nobody 5")


@pytest.mark.parametrize("poison", ["killer 1", "sleeper 1"])
def test_what_ends_its_worker_waits_too(
    run: Run, copy: Run, client: str, broker: Broker, queues: BlockingChannel, poison: str
) -> None:
    if is_old(broker):
        return
    pay(queues, "17", poison, queue="payments.delayed")
    team = Team(partial(copy, client, DELAYED, SHORT))
    pay(queues, "18", "alice 5", queue="payments.delayed")
    team.until(lambda: ready(queues, "payments.delayed.dead"), 1)
    team.until(team.done, {"'alice 5'": 1})
    assert len(team.ended()) == 4
    table = run(client, DEAD, QUEUE="payments.delayed")
    assert table.wait() == 0
    assert re.fullmatch(rf"'17' +'{poison}' +1 +delivery_limit", table.stdout[1])
    team.close()
    subscribed(queues, "payments.delayed", 0)
    assert run(client, DEAD, "put-back", "17", QUEUE="payments.delayed").wait() == 0
    poll(lambda: ready(queues, "payments.delayed"), 1)


def test_delayed_poison_comes_back_when_it_is_mended(
    run: Run, copy: Run, client: str, broker: Broker, queues: BlockingChannel
) -> None:
    if is_old(broker):
        return
    worker = run(client, DELAYED)
    pay(queues, "17", b"caf\xe9 5", queue="payments.delayed")
    wait_dead(queues, 1, "payments.delayed.dead")
    # Unmended, it has one attempt, because its deliveries stay counted.
    assert run(client, DEAD, "put-back", "all", QUEUE="payments.delayed").wait() == 0
    worker.wait_for("Received", 5)
    wait_dead(queues, 1, "payments.delayed.dead")
    assert sum("Received" in line for line in worker.stdout) == 5
    worker.close()
    subscribed(queues, "payments.delayed", 0)
    assert run(client, DEAD, "put-back", "all", QUEUE="payments.delayed").wait() == 0
    copy(client, DELAYED, {WORK: MENDED}).wait_for("Done")
    poll(lambda: ready(queues, "payments.delayed"), 0)


# --- The dead -------------------------------------------------------------------


def lay(channel: BlockingChannel, *tasks: str, failures: int = 4) -> None:
    """Dead letters with the keys 1, 2, … as the worker sets them aside."""
    for number, task in enumerate(tasks, 1):
        noted = [f"KeyError('{n}')" for n in range(1, failures + 1)]
        pay(channel, str(number), task, queue="payments.dead", headers={"failures": noted})


def test_the_table(run: Run, client: str, queues: BlockingChannel) -> None:
    lay(queues, "nobody 5", "somebody 6")
    for _ in range(2):  # it takes nothing away
        table = run(client, DEAD)
        assert (table.wait(), table.stderr) == (0, [])
        assert table.stdout == [
            "KEY         PAYMENT             NOTED   LAST",
            "'1'         'nobody 5'          4       KeyError('4')",
            "'2'         'somebody 6'        4       KeyError('4')",
        ]
        poll(lambda: ready(queues, "payments.dead"), 2)


def test_the_history_of_one(run: Run, client: str, queues: BlockingChannel) -> None:
    lay(queues, "nobody 5", "somebody 6")
    shown = run(client, DEAD, "show", "2")
    assert (shown.wait(), shown.stderr) == (0, [])
    assert shown.stdout == [
        " [x] '2': 'somebody 6'",
        *(f"     KeyError('{n}')" for n in range(1, 5)),
    ]
    poll(lambda: ready(queues, "payments.dead"), 2)


def test_what_somebody_else_has_put_there(run: Run, client: str, queues: BlockingChannel) -> None:
    """Without a key, with strange headers, with a body that would fill the screen."""
    pay(queues, None, b"\xff" * 2000, queue="payments.dead")
    pay(queues, "2\n3", "x", queue="payments.dead", headers={"failures": [5, None]})
    pay(queues, "4", "x", queue="payments.dead", headers={"failures": "text"})
    table = run(client, DEAD)
    assert (table.wait(), table.stderr) == (0, [])
    assert [line.split()[-1] for line in table.stdout[1:]] == ["unknown", "None", "unknown"]
    assert all(len(line) < 130 for line in table.stdout)
    back = run(client, DEAD, "put-back", "all")
    assert back.wait() == 0
    poll(lambda: ready(queues, "payments"), 3)


def test_one_is_put_back(run: Run, client: str, queues: BlockingChannel) -> None:
    lay(queues, "nobody 5", "nobody 6", "nobody 7")
    back = run(client, DEAD, "put-back", "2")
    assert (back.wait(), back.stdout) == (0, [" [x] Put back '2': 'nobody 6'"])
    poll(lambda: ready(queues, "payments"), 1)
    poll(lambda: ready(queues, "payments.dead"), 2)
    assert take(queues, "payments")[1] == b"nobody 6"
    assert keys(queues, "payments.dead") == ["1", "3"]


def test_all_are_put_back_in_their_order(run: Run, client: str, queues: BlockingChannel) -> None:
    count = 100
    lay(queues, *(f"nobody {number}" for number in range(count)))
    assert run(client, DEAD).wait() == 0  # which gives them back, too
    back = run(client, DEAD, "put-back", "all")
    assert (back.wait(), len(back.stdout)) == (0, count)
    poll(lambda: ready(queues, "payments"), count)
    assert sorted(keys(queues, "payments"), key=int) == [str(n) for n in range(1, count + 1)]
    assert ready(queues, "payments.dead") == 0


def test_put_back_it_has_all_attempts_again(
    run: Run, client: str, broker: Broker, queues: BlockingChannel
) -> None:
    """But for 4.0, where the nack counts as a failed delivery, and that count follows it."""
    lay(queues, "nobody 5")
    run(client, DEAD, "put-back", "1").wait()
    worker = run(client, TTL).wait_for("now in payments.dead")
    counted = (4, 0) <= tuple(map(int, broker.version.split(".")[:2])) < (4, 3)
    reasons = [DIED if counted else "KeyError('nobody')", *["KeyError('nobody')"] * 3]
    assert worker.stdout[2::2] == [
        f" [x] Failed: {reason}, now in {station}"
        for reason, station in zip(reasons, STATIONS, strict=True)
    ]
    found, _ = take(queues, "payments.dead")
    assert len(found.headers["failures"]) == 8


def test_put_back_does_not_expire(run: Run, client: str, queues: BlockingChannel) -> None:
    """The broker's own dead letters are no copies; it takes the time limit off."""
    pay(queues, "17", "alice 5", expiration="600000")
    method, *_ = queues.basic_get("payments")
    assert method
    queues.basic_nack(method.delivery_tag, requeue=False)
    wait_dead(queues, 1)
    assert run(client, DEAD, "put-back", "17").wait() == 0
    found, _ = take(queues, "payments")
    assert found.expiration is None


def test_who_has_died_again_meanwhile_is_left_there(
    copy: Run, client: str, queues: BlockingChannel
) -> None:
    """A payment whose cause is still there goes round once, not for ever."""
    lay(queues, "nobody 5")
    again = {
        "pika": "channel.basic_publish('', f'{QUEUE}.dead', text.encode(), old)",
        "aio-pika": "await channel.default_exchange.publish(aio_pika.Message("
        "message.body, message_id=key), f'{QUEUE}.dead')",
    }[client]
    told = 'print(f" [x] Put back'
    back = copy(client, DEAD, {told: f"{again}; {told}"}, arguments="put-back all")
    assert (back.wait(), len(back.stdout)) == (0, 1)
    poll(lambda: ready(queues, "payments"), 1)
    poll(lambda: ready(queues, "payments.dead"), 1)


def test_who_was_looked_at_and_cut_off_is_put_back_all_the_same(
    run: Run, copy: Run, client: str, url: str, queues: BlockingChannel
) -> None:
    """RabbitMQ 4.3 has such a message's count of failed deliveries follow it."""
    lay(queues, "nobody 5", "nobody 6")
    for _ in range(7):
        with connected(url) as other:
            poll(partial(other.basic_get, "payments.dead"), Anything())
    assert run(client, DEAD, "put-back", "all").wait() == 0
    team = Team(partial(copy, client, TTL, {WORK: MENDED}))
    team.until(team.done, {"'nobody 5'": 1, "'nobody 6'": 1})
    assert not team.ended()


def test_each_is_put_back_once_however_often_that_is_killed(
    run: Run, client: str, queues: BlockingChannel
) -> None:
    count = 120
    lay(queues, *(f"nobody {number}" for number in range(count)))
    both, kills = ("payments", "payments.dead"), 0
    while ready(queues, "payments.dead"):
        back = run(client, DEAD, "put-back", "all")
        if kills < 10:
            back.wait_for("Put back", 1 + kills)
            back.signal(signal.SIGKILL)
            kills += 1
            # What it had in hand is there again.
            poll(lambda: sum(ready(queues, name) for name in both), count)
        assert back.wait() in (0, -signal.SIGKILL)
    assert kills == 10
    poll(lambda: ready(queues, "payments"), count)
    assert Counter(keys(queues, "payments")) == {str(n): 1 for n in range(1, count + 1)}


def test_to_look_at_the_dead_does_not_bury_them(
    run: Run, client: str, url: str, queues: BlockingChannel
) -> None:
    """A quorum queue's own limit is 20 deliveries, since RabbitMQ 4.0."""
    lay(queues, "nobody 5")
    for _ in range(25):
        with connected(url) as other:
            poll(partial(other.basic_get, "payments.dead"), Anything())
    table = run(client, DEAD)
    assert table.wait() == 0
    assert len(table.stdout) == 2


class Anything:
    """Equal to any message, and to none that isn't there."""

    def __eq__(self, found: object) -> bool:
        return isinstance(found, tuple) and found[0] is not None

    __hash__ = None  # type: ignore[assignment]


def test_who_is_not_there(run: Run, client: str, queues: BlockingChannel) -> None:
    lay(queues, "nobody 5")
    assert_one_line(run(client, DEAD, "put-back", "2"), "no '2' among the dead")
    assert_one_line(run(client, DEAD, "show", "2"), "no '2' among the dead")
    poll(lambda: ready(queues, "payments.dead"), 1)
    for words in (["bury", "1"], ["show"], ["put-back"]):
        usage = "Usage: python dead_letters.py [show KEY | put-back KEY]"
        assert_one_line(run(client, DEAD, *words), usage)


def test_no_queue_to_go_back_to(run: Run, client: str, queues: BlockingChannel) -> None:
    lay(queues, "nobody 5")
    queues.queue_delete("payments")
    assert_one_line(run(client, DEAD, "put-back", "all"), DECLARE)
    poll(lambda: ready(queues, "payments.dead"), 1)


def test_dead_letters_wait_until_they_have_a_place(
    run: Run, client: str, restartable: brokers.OwnedBroker
) -> None:
    """At least once: the broker keeps one that nobody takes, and tries again."""
    minutes = "application:set_env(rabbit, dead_letter_worker_publisher_confirm_timeout, 500)."
    restartable.ctl("eval", minutes)
    with restartable.vhost() as url, connected(url) as channel:
        assert run(client, DECLARE, url=url).wait() == 0
        channel.queue_delete("payments.dead")
        pay(channel, "17", "alice 5")
        method, *_ = channel.basic_get("payments")
        assert method
        channel.basic_nack(method.delivery_tag, requeue=False)
        assert run(client, DECLARE, url=url).wait() == 0
        wait_dead(channel, 1)
        assert take(channel, "payments.dead")[0].message_id == "17"


# --- Once in effect ---------------------------------------------------------------


def balance(database: Path, name: str = "alice") -> int:
    with closing(sqlite3.connect(database)) as opened:
        found = opened.execute("SELECT balance FROM account WHERE name = ?", (name,)).fetchone()
    return found[0] if found else 0


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "own.sqlite3"


def test_sent_twice_booked_once(
    run: Run, client: str, queues: BlockingChannel, database: Path
) -> None:
    worker = run(client, ONCE, DATABASE=str(database)).wait_for(WAITING)
    for key in ("17", "18", "17"):
        pay(queues, key, "alice 5")
    worker.wait_for("before: '17'")
    assert worker.stdout[1:] == [
        " [x] Booked: alice has 5",
        " [x] Booked: alice has 10",
        " [x] Booked before: '17'",
    ]
    assert balance(database) == 10
    poll(lambda: ready(queues, "payments"), 0)


KILL = "__import__('os').kill(__import__('os').getpid(), 9)"


def test_killed_between_work_and_ack(
    run: Run, copy: Run, client: str, queues: BlockingChannel, database: Path
) -> None:
    ack = {
        "pika": "channel.basic_ack(method.delivery_tag)",
        "aio-pika": "await message.ack()",
    }[client]
    pay(queues, "17", "alice 5")
    victim = copy(client, ONCE, {ack: KILL}, DATABASE=str(database))
    assert victim.wait() == -signal.SIGKILL
    assert balance(database) == 5
    run(client, ONCE, DATABASE=str(database)).wait_for("Booked before: '17'")
    assert balance(database) == 5


def test_killed_between_key_and_work(
    run: Run, copy: Run, client: str, queues: BlockingChannel, database: Path
) -> None:
    pay(queues, "17", "alice 5")
    before = "        ((now,),) = "
    change = {before: f"        {KILL}\n{before}"}
    assert copy(client, ONCE, change, DATABASE=str(database)).wait() == -signal.SIGKILL
    assert balance(database) == 0
    run(client, ONCE, DATABASE=str(database)).wait_for("Booked: alice has 5")


def test_work_that_fails_leaves_no_key(
    run: Run, client: str, queues: BlockingChannel, database: Path
) -> None:
    worker = run(client, ONCE, DATABASE=str(database)).wait_for(WAITING)
    pay(queues, "17", "alice five")
    worker.wait_for("Set aside: ValueError")
    wait_dead(queues, 1)
    queues.queue_purge("payments.dead")
    pay(queues, "17", "alice 5")
    worker.wait_for("Booked: alice has 5")


@pytest.mark.parametrize(
    ("key", "task"),
    [("17", b"caf\xe9 5"), ("17", b"alice"), ("17", b"alice " + b"9" * 30), (None, b"alice 5")],
)
def test_what_cannot_be_booked_is_set_aside(
    run: Run,
    client: str,
    queues: BlockingChannel,
    database: Path,
    key: str | None,
    task: bytes,
) -> None:
    """Also what has no key: it could not be told from its double."""
    pay(queues, key, task)
    pay(queues, "18", "alice 5")
    run(client, ONCE, DATABASE=str(database)).wait_for("Booked: alice has 5")
    wait_dead(queues, 1)
    found, body = take(queues, "payments.dead")
    assert body == task
    assert found.headers["x-death"][0]["reason"] == "rejected"
    poll(lambda: ready(queues, "payments"), 0)


def test_two_workers_on_one_database(
    run: Run, client: str, other: str, queues: BlockingChannel, database: Path
) -> None:
    for number in range(100):
        for _ in range(2):
            pay(queues, str(number), f"alice {number}")
    pair = [run(each, ONCE, DATABASE=str(database)) for each in (client, other)]
    poll(lambda: sum(line.startswith(" [x] Booked") for x in pair for line in x.stdout), 200)
    assert balance(database) == sum(range(100))


def test_a_worker_killed_again_and_again_books_each_once(
    run: Run, client: str, queues: BlockingChannel, database: Path
) -> None:
    """Put back from the dead, too: what has died meanwhile isn't lost."""
    count, kills = 60, 0
    for number in range(count):
        pay(queues, str(number), f"alice {2**number % 1009}")
    wanted = sum(2**number % 1009 for number in range(count))
    while kills < 6:
        worker = run(client, ONCE, DATABASE=str(database)).wait_for("Booked", 3)
        worker.signal(signal.SIGKILL)
        kills += 1
    run(client, ONCE, DATABASE=str(database))
    poll(lambda: balance(database), wanted)
    poll(lambda: ready(queues, "payments"), 0)
    assert ready(queues, "payments.dead") == 0


WRONG = {
    "full": ("/dev/full", "full"),
    "a folder": (".", "unable to open"),
    "no folder": ("no-such-folder/x.sqlite3", "unable to open"),
    "no database": (__file__, "not a database"),
}


@pytest.mark.parametrize("name", [ONCE, OUTBOX])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_database_that_cannot_be_used(
    run: Run, client: str, queues: BlockingChannel, name: str, wrong: str
) -> None:
    """It shows before a task is taken, so that the task stays unharmed."""
    path, told = WRONG[wrong]
    pay(queues, "17", "alice 5")
    script = run(client, name, DATABASE=path)
    assert_one_line(script, told, "DATABASE is ", path)
    assert script.stdout == []
    found, _ = take(queues, "payments")
    assert not (found.headers or {}).get("x-delivery-count")


def test_a_full_disk_shows_before_a_task_is_taken(
    run: Run, copy: Run, client: str, queues: BlockingChannel, database: Path
) -> None:
    """Else each start would count as one more delivery, and bury one task after the other."""
    pay(queues, "17", "alice 5")
    worker = run(client, ONCE, DATABASE=str(database)).wait_for("Booked")
    pay(queues, "18", "alice 5")
    worker.wait_for("has 10").close()
    subscribed(queues, "payments", 0)  # else it may be sent to who is no longer there
    pay(queues, "19", "alice 5")
    limit = "__import__('resource').setrlimit(1, (0, 0))  # RLIMIT_FSIZE"
    assert_one_line(
        copy(client, ONCE, {"AMQP_URL = ": f"{limit}\nAMQP_URL = "}, DATABASE=str(database)),
        "disk",
        "DATABASE is ",
    )
    poll(lambda: ready(queues, "payments"), 1)
    found, _ = take(queues, "payments")
    assert found.message_id == "19"
    assert not (found.headers or {}).get("x-delivery-count")


def test_a_disk_that_is_full_in_the_middle(
    copy: Run, client: str, queues: BlockingChannel, database: Path
) -> None:
    change = {"PRAGMA user_version = 1;": "PRAGMA max_page_count = 7;"}
    for number in range(300):
        pay(queues, str(number), f"{'alice' * 20}{number} 5")
    worker = copy(client, ONCE, change, DATABASE=str(database))
    assert_one_line(worker, "database or disk is full", "DATABASE is ")
    booked = sum("Booked" in line for line in worker.stdout)
    assert booked > 0
    poll(lambda: ready(queues, "payments"), 300 - booked)


# --- The outbox -------------------------------------------------------------------


def rows(database: Path, table: str) -> int:
    with closing(sqlite3.connect(database)) as opened:
        return opened.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def test_row_and_message(
    run: Run, client: str, other: str, queues: BlockingChannel, database: Path, tmp_path: Path
) -> None:
    order = run(client, OUTBOX, "alice", "5", DATABASE=str(database))
    assert (order.wait(), order.stderr) == (0, [])
    assert order.stdout == [" [x] Stored 'alice 5'", " [x] Sent 'alice 5'"]
    assert (rows(database, "orders"), rows(database, "outbox")) == (1, 0)
    run(other, ONCE, DATABASE=str(tmp_path / "b.sqlite3")).wait_for("Booked: alice has 5")


def test_neither_row_nor_message(
    run: Run, copy: Run, client: str, queues: BlockingChannel, database: Path
) -> None:
    second = '        database.execute("INSERT INTO outbox'
    change = {second: f"        {KILL}\n{second}"}
    killed = copy(client, OUTBOX, change, DATABASE=str(database), arguments="alice 5")
    assert killed.wait() == -signal.SIGKILL
    later = run(client, OUTBOX, DATABASE=str(database))
    assert (later.wait(), later.stdout) == (0, [])
    assert (rows(database, "orders"), rows(database, "outbox")) == (0, 0)


def test_stored_and_sent_later(
    run: Run, client: str, channel: BlockingChannel, database: Path
) -> None:
    """No broker, and then no queue: it stays in the outbox until it can go."""
    (port,) = brokers.free_ports(1)
    nowhere = f"amqp://guest:s3cret@localhost:{port}/"
    for number, more in enumerate(({"url": nowhere}, {}), 1):
        order = run(client, OUTBOX, "alice", f"{number}", DATABASE=str(database), **more)
        assert_one_line(order, "make doctor")
        assert order.stdout == [f" [x] Stored 'alice {number}'"]
        assert rows(database, "outbox") == number
    assert run(client, DECLARE).wait() == 0
    later = run(client, OUTBOX, DATABASE=str(database))
    assert (later.wait(), later.stdout) == (0, [" [x] Sent 'alice 1'", " [x] Sent 'alice 2'"])
    assert (rows(database, "orders"), rows(database, "outbox")) == (2, 0)
    poll(lambda: ready(channel, "payments"), 2)


def test_sent_twice_with_one_key(
    run: Run, copy: Run, client: str, queues: BlockingChannel, database: Path, tmp_path: Path
) -> None:
    """Killed when the broker has it, and the outbox as well."""
    before = 'database.execute("DELETE'
    change = {before: f"{KILL}, {before}"}
    killed = copy(client, OUTBOX, change, DATABASE=str(database), arguments="alice 5")
    assert killed.wait() == -signal.SIGKILL
    assert run(client, OUTBOX, DATABASE=str(database)).wait() == 0
    poll(lambda: ready(queues, "payments"), 2)
    worker = run(client, ONCE, DATABASE=str(tmp_path / "b.sqlite3"))
    worker.wait_for("Booked before")
    assert worker.stdout[1] == " [x] Booked: alice has 5"


def test_what_the_broker_refuses_stays_in_the_outbox(
    run: Run, client: str, broker: Broker, url: str, queues: BlockingChannel, database: Path
) -> None:
    fill(broker, url, queues, "payments")
    order = run(client, OUTBOX, "alice", "5", DATABASE=str(database))
    assert_one_line(order, "Failed: ")
    assert (order.stdout, rows(database, "outbox")) == ([" [x] Stored 'alice 5'"], 1)


@pytest.mark.parametrize("words", [["alice"], ["alice", "five"], ["a", "1", "2"]])
def test_an_order_that_is_none(run: Run, client: str, database: Path, words: list[str]) -> None:
    script = run(client, OUTBOX, *words, DATABASE=str(database))
    assert_one_line(script, "Usage: python outbox.py [ACCOUNT AMOUNT]")
    assert not database.exists()


# --- What holds for all of them -----------------------------------------------------

ARGUMENTS = {NEW: ["17", "alice", "5"], OUTBOX: ["alice", "5"]}
every_script = pytest.mark.parametrize("name", NAMES)


@every_script
def test_it_can_be_copied_out(client: str, name: str) -> None:
    script = EXAMPLES / CHAPTER / client / name
    own = {"pika": "pika", "aio-pika": "aio_pika"}[client]
    assert imported(script) <= {own, *sys.stdlib_module_names}
    lines = script.read_text().splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 79


@every_script
def test_no_broker_and_no_url(run: Run, client: str, name: str, database: Path) -> None:
    (port,) = brokers.free_ports(1)
    for url in (f"amqp://guest:s3cret@localhost:{port}/", MALFORMED[4], MALFORMED[6]):
        script = run(client, name, *ARGUMENTS.get(name, []), url=url, DATABASE=str(database))
        assert_one_line(script, "make doctor")
        assert not re.search("s3|cret|cr/", script.stderr[0])


@every_script
def test_wrong_password_and_wrong_vhost(
    run: Run, client: str, name: str, broker: Broker, database: Path
) -> None:
    where = broker.url.rpartition("@")[2]
    for url in (f"amqp://guest:s3cret@{where}", f"amqp://guest:guest@{where}no-such-vhost"):
        script = run(client, name, *ARGUMENTS.get(name, []), url=url, DATABASE=str(database))
        assert_one_line(script, "make doctor")
        assert "s3cret" not in script.stderr[0]


@every_script
def test_a_server_that_says_nothing(run: Run, client: str, name: str, database: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://guest:guest@127.0.0.1:{silent.getsockname()[1]}/"
        script = run(client, name, *ARGUMENTS.get(name, []), url=url, DATABASE=str(database))
        assert script.wait(60) == 1
        assert_one_line(script, "make doctor")


@pytest.mark.parametrize("name", [NEW, TTL, DEAD, ONCE])
def test_no_queues(run: Run, client: str, name: str, database: Path, url: str) -> None:
    script = run(client, name, *ARGUMENTS.get(name, []), DATABASE=str(database))
    assert_one_line(script, DECLARE)


def test_queues_can_be_declared_again(run: Run, client: str, other: str, url: str) -> None:
    for each in (client, other, client):
        script = run(each, DECLARE)
        assert (script.wait(), script.stderr) == (0, [])
    assert script.stdout[0] == " [x] Declared payments"


def test_a_payment_is_sent(run: Run, client: str, queues: BlockingChannel) -> None:
    sender = run(client, NEW, "17", "alice", "5")
    assert (sender.wait(), sender.stdout) == (0, [" [x] Sent 'alice 5'"])
    found, body = take(queues, "payments")
    assert (found.message_id, body, found.delivery_mode) == ("17", b"alice 5", 2)
    assert found.priority in (None, 4)
    usage = run(client, NEW, "17")
    assert_one_line(usage, "Usage: python new_payment.py KEY ACCOUNT AMOUNT")


@pytest.mark.parametrize("name", [TTL, ONCE])
def test_what_cannot_be_printed_is_done_all_the_same(
    run: Run, client: str, queues: BlockingChannel, name: str, database: Path
) -> None:
    ascii_only = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "DATABASE": str(database)}
    worker = run(client, name, **ascii_only).wait_for(WAITING)
    pay(queues, "17", "Grüße🐰 5")
    word = "Failed: KeyError('Gr" if name == TTL else r"Booked: Gr\xfc\xdfe\U0001f430 has 5"
    worker.wait_for(word)
    assert worker.interrupt() == INTERRUPTED


@pytest.mark.parametrize("name", [TTL, DELAYED, ONCE])
def test_a_worker_says_why_it_ends(
    run: Run, client: str, broker: Broker, queues: BlockingChannel, name: str, database: Path
) -> None:
    """Its queue is deleted while it waits."""
    if name == DELAYED and is_old(broker):
        return
    worker = run(client, name, DATABASE=str(database)).wait_for(WAITING)
    queue = "payments.delayed" if name == DELAYED else "payments"
    subscribed(queues, queue)
    queues.queue_delete(queue)
    assert_one_line(worker, "Failed: ")


@pytest.mark.parametrize("name", [TTL, DELAYED, ONCE])
def test_ctrl_c_in_mid_task_loses_nothing(
    run: Run, client: str, broker: Broker, queues: BlockingChannel, name: str, database: Path
) -> None:
    if name == DELAYED and is_old(broker):
        return
    queue = "payments.delayed" if name == DELAYED else "payments"
    worker = run(client, name, DATABASE=str(database)).wait_for(WAITING)
    if name != ONCE:
        pay(queues, "17", "sleeper 1", queue=queue)
        worker.wait_for("Received")
    assert (worker.interrupt(), worker.stderr) == (INTERRUPTED, [])
    if name == TTL:
        poll(lambda: ready(queues, queue), 1)
