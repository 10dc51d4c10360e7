"""The promises of docs/production-retry.rst on doing it once; and what holds for its scripts."""

from __future__ import annotations

import signal
import sqlite3
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import broker as brokers
import pytest
from broker import Broker
from conftest import Copy, Starter, assert_one_line, poll, ready, subscribed
from pika.adapters.blocking_connection import BlockingChannel
from shells.chapters import EXAMPLES
from shells.running import INTERRUPTED
from test_production_retry import (
    CHAPTER,
    DEAD,
    DECLARE,
    DELAYED,
    NEW,
    ONCE,
    OUTBOX,
    TTL,
    WAITING,
    Run,
    fill,
    is_old,
    pay,
    take,
    wait_dead,
)
from test_scripts import imported

NAMES = (DECLARE, NEW, TTL, DELAYED, DEAD, ONCE, OUTBOX)


@pytest.fixture
def run(start: Starter) -> Run:
    return partial(start, CHAPTER)


# --- Once in effect ---------------------------------------------------------------


def balance(database: Path, name: str = "alice") -> int:
    with closing(sqlite3.connect(database)) as opened:
        found = opened.execute("SELECT balance FROM account WHERE name = ?", (name,)).fetchone()
    return found[0] if found else 0


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "own.sqlite3"


def test_sent_twice_booked_once(
    run: Run, client: str, payments: BlockingChannel, database: Path
) -> None:
    worker = run(client, ONCE, DATABASE=str(database)).wait_for(WAITING)
    for key in ("17", "18", "17"):
        pay(payments, key, "alice 5")
    worker.wait_for("before: '17'")
    assert worker.stdout[1:] == [
        " [x] Booked: alice has 5",
        " [x] Booked: alice has 10",
        " [x] Booked before: '17'",
    ]
    assert balance(database) == 10
    poll(lambda: ready(payments, "payments"), 0)


KILL = "__import__('os').kill(__import__('os').getpid(), 9)"


def test_killed_between_work_and_ack(
    run: Run, copy: Copy, client: str, payments: BlockingChannel, database: Path
) -> None:
    ack = {
        "pika": "channel.basic_ack(method.delivery_tag)",
        "aio-pika": "await message.ack()",
    }[client]
    pay(payments, "17", "alice 5")
    victim = copy(CHAPTER, client, ONCE, {ack: KILL}, DATABASE=str(database))
    assert victim.wait() == -signal.SIGKILL
    assert balance(database) == 5
    run(client, ONCE, DATABASE=str(database)).wait_for("Booked before: '17'")
    assert balance(database) == 5


def test_killed_between_key_and_work(
    run: Run, copy: Copy, client: str, payments: BlockingChannel, database: Path
) -> None:
    pay(payments, "17", "alice 5")
    before = "        ((now,),) = "
    change = {before: f"        {KILL}\n{before}"}
    assert copy(CHAPTER, client, ONCE, change, DATABASE=str(database)).wait() == -signal.SIGKILL
    assert balance(database) == 0
    run(client, ONCE, DATABASE=str(database)).wait_for("Booked: alice has 5")


def test_work_that_fails_leaves_no_key(
    run: Run, client: str, payments: BlockingChannel, database: Path
) -> None:
    worker = run(client, ONCE, DATABASE=str(database)).wait_for(WAITING)
    pay(payments, "17", "alice five")
    worker.wait_for("Set aside: ValueError")
    wait_dead(payments, 1)
    payments.queue_purge("payments.dead")
    pay(payments, "17", "alice 5")
    worker.wait_for("Booked: alice has 5")


@pytest.mark.parametrize(
    ("key", "task"),
    [("17", b"caf\xe9 5"), ("17", b"alice"), ("17", b"alice " + b"9" * 30), (None, b"alice 5")],
)
def test_what_cannot_be_booked_is_set_aside(
    run: Run,
    client: str,
    payments: BlockingChannel,
    database: Path,
    key: str | None,
    task: bytes,
) -> None:
    """Also what has no key: it could not be told from its double."""
    pay(payments, key, task)
    pay(payments, "18", "alice 5")
    run(client, ONCE, DATABASE=str(database)).wait_for("Booked: alice has 5")
    wait_dead(payments, 1)
    found, body = take(payments, "payments.dead")
    assert body == task
    assert found.headers["x-death"][0]["reason"] == "rejected"
    poll(lambda: ready(payments, "payments"), 0)


def test_two_workers_on_one_database(
    run: Run, client: str, other: str, payments: BlockingChannel, database: Path
) -> None:
    for number in range(100):
        for _ in range(2):
            pay(payments, str(number), f"alice {number}")
    pair = [run(each, ONCE, DATABASE=str(database)) for each in (client, other)]
    poll(lambda: sum(line.startswith(" [x] Booked") for x in pair for line in x.stdout), 200)
    assert balance(database) == sum(range(100))


def test_a_worker_killed_again_and_again_books_each_once(
    run: Run, client: str, payments: BlockingChannel, database: Path
) -> None:
    """Put back from the dead, too: what has died meanwhile isn't lost."""
    count, kills = 300, 0  # many, as a kill may come late
    for number in range(count):
        pay(payments, str(number), f"alice {2**number % 1009}")
    wanted = sum(2**number % 1009 for number in range(count))
    while kills < 6:
        worker = run(client, ONCE, DATABASE=str(database)).wait_for("Booked", 3)
        worker.signal(signal.SIGKILL)
        kills += 1
    run(client, ONCE, DATABASE=str(database))
    poll(lambda: balance(database), wanted)
    poll(lambda: ready(payments, "payments"), 0)
    assert ready(payments, "payments.dead") == 0


WRONG = {
    "full": ("/dev/full", "full"),
    "a folder": (".", "unable to open"),
    "no folder": ("no-such-folder/x.sqlite3", "unable to open"),
    "no database": (__file__, "not a database"),
}


@pytest.mark.parametrize("name", [ONCE, OUTBOX])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_database_that_cannot_be_used(
    run: Run, client: str, payments: BlockingChannel, name: str, wrong: str
) -> None:
    """It shows before a task is taken, so that the task stays unharmed."""
    path, told = WRONG[wrong]
    pay(payments, "17", "alice 5")
    script = run(client, name, DATABASE=path)
    assert_one_line(script, told, "DATABASE is ", path)
    assert script.stdout == []
    found, _ = take(payments, "payments")
    assert not (found.headers or {}).get("x-delivery-count")


def test_a_full_disk_shows_before_a_task_is_taken(
    run: Run, copy: Copy, client: str, payments: BlockingChannel, database: Path
) -> None:
    """Else each start would count as one more delivery, and bury one task after the other."""
    pay(payments, "17", "alice 5")
    worker = run(client, ONCE, DATABASE=str(database)).wait_for("Booked")
    pay(payments, "18", "alice 5")
    worker.wait_for("has 10").close()
    subscribed(payments, "payments", 0)  # else it may be sent to who is no longer there
    pay(payments, "19", "alice 5")
    limit = "__import__('resource').setrlimit(1, (0, 0))  # RLIMIT_FSIZE"
    assert_one_line(
        copy(
            CHAPTER, client, ONCE, {"AMQP_URL = ": f"{limit}\nAMQP_URL = "}, DATABASE=str(database)
        ),
        "disk",
        "DATABASE is ",
    )
    poll(lambda: ready(payments, "payments"), 1)
    found, _ = take(payments, "payments")
    assert found.message_id == "19"
    assert not (found.headers or {}).get("x-delivery-count")


def test_a_disk_that_is_full_in_the_middle(
    copy: Copy, client: str, payments: BlockingChannel, database: Path
) -> None:
    change = {"PRAGMA user_version = 1;": "PRAGMA max_page_count = 7;"}
    for number in range(300):
        pay(payments, str(number), f"{'alice' * 20}{number} 5")
    worker = copy(CHAPTER, client, ONCE, change, DATABASE=str(database))
    assert_one_line(worker, "database or disk is full", "DATABASE is ")
    booked = sum("Booked" in line for line in worker.stdout)
    assert booked > 0
    poll(lambda: ready(payments, "payments"), 300 - booked)


# --- The outbox -------------------------------------------------------------------


def rows(database: Path, table: str) -> int:
    with closing(sqlite3.connect(database)) as opened:
        return opened.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


def test_row_and_message(
    run: Run, client: str, other: str, payments: BlockingChannel, database: Path, tmp_path: Path
) -> None:
    order = run(client, OUTBOX, "alice", "5", DATABASE=str(database))
    assert (order.wait(), order.stderr) == (0, [])
    assert order.stdout == [" [x] Stored 'alice 5'", " [x] Sent 'alice 5'"]
    assert (rows(database, "orders"), rows(database, "outbox")) == (1, 0)
    run(other, ONCE, DATABASE=str(tmp_path / "b.sqlite3")).wait_for("Booked: alice has 5")


def test_neither_row_nor_message(
    run: Run, copy: Copy, client: str, payments: BlockingChannel, database: Path
) -> None:
    second = '        database.execute("INSERT INTO outbox'
    change = {second: f"        {KILL}\n{second}"}
    killed = copy(CHAPTER, client, OUTBOX, change, "alice", "5", DATABASE=str(database))
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
    run: Run, copy: Copy, client: str, payments: BlockingChannel, database: Path, tmp_path: Path
) -> None:
    """Killed when the broker has it, and the outbox as well."""
    before = 'database.execute("DELETE'
    change = {before: f"{KILL}, {before}"}
    killed = copy(CHAPTER, client, OUTBOX, change, "alice", "5", DATABASE=str(database))
    assert killed.wait() == -signal.SIGKILL
    assert run(client, OUTBOX, DATABASE=str(database)).wait() == 0
    poll(lambda: ready(payments, "payments"), 2)
    worker = run(client, ONCE, DATABASE=str(tmp_path / "b.sqlite3"))
    worker.wait_for("Booked before")
    assert worker.stdout[1] == " [x] Booked: alice has 5"


def test_what_the_broker_refuses_stays_in_the_outbox(
    run: Run, client: str, broker: Broker, url: str, payments: BlockingChannel, database: Path
) -> None:
    fill(broker, url, payments, "payments")
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


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_copied_out(client: str, name: str) -> None:
    script = EXAMPLES / CHAPTER / client / name
    own = {"pika": "pika", "aio-pika": "aio_pika"}[client]
    assert imported(script) <= {own, *sys.stdlib_module_names}
    lines = script.read_text().splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 79


@pytest.mark.parametrize("name", [NEW, TTL, DEAD, ONCE])
def test_no_queues(run: Run, client: str, name: str, database: Path, url: str) -> None:
    script = run(client, name, *ARGUMENTS.get(name, []), DATABASE=str(database))
    assert_one_line(script, DECLARE)


def test_queues_can_be_declared_again(run: Run, client: str, other: str, url: str) -> None:
    for each in (client, other, client):
        script = run(each, DECLARE)
        assert (script.wait(), script.stderr) == (0, [])
    assert script.stdout[0] == " [x] Declared payments"


def test_a_payment_is_sent(run: Run, client: str, payments: BlockingChannel) -> None:
    sender = run(client, NEW, "17", "alice", "5")
    assert (sender.wait(), sender.stdout) == (0, [" [x] Sent 'alice 5'"])
    found, body = take(payments, "payments")
    assert (found.message_id, body, found.delivery_mode) == ("17", b"alice 5", 2)
    assert found.priority in (None, 4)
    usage = run(client, NEW, "17")
    assert_one_line(usage, "Usage: python new_payment.py KEY ACCOUNT AMOUNT")


@pytest.mark.parametrize("name", [TTL, ONCE])
def test_what_cannot_be_printed_is_done_all_the_same(
    run: Run, client: str, payments: BlockingChannel, name: str, database: Path
) -> None:
    ascii_only = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii", "DATABASE": str(database)}
    worker = run(client, name, **ascii_only).wait_for(WAITING)
    pay(payments, "17", "Grüße🐰 5")
    word = "Failed: KeyError('Gr" if name == TTL else r"Booked: Gr\xfc\xdfe\U0001f430 has 5"
    worker.wait_for(word)
    assert worker.interrupt() == INTERRUPTED


@pytest.mark.parametrize("name", [TTL, DELAYED, ONCE])
def test_a_worker_says_why_it_ends(
    run: Run, client: str, broker: Broker, payments: BlockingChannel, name: str, database: Path
) -> None:
    """Its queue is deleted while it waits."""
    if name == DELAYED and is_old(broker):
        return
    worker = run(client, name, DATABASE=str(database)).wait_for(WAITING)
    queue = "payments.delayed" if name == DELAYED else "payments"
    subscribed(payments, queue)
    payments.queue_delete(queue)
    assert_one_line(worker, "Failed: ")


@pytest.mark.parametrize("name", [TTL, DELAYED, ONCE])
def test_ctrl_c_in_mid_task_loses_nothing(
    run: Run, client: str, broker: Broker, payments: BlockingChannel, name: str, database: Path
) -> None:
    if name == DELAYED and is_old(broker):
        return
    queue = "payments.delayed" if name == DELAYED else "payments"
    worker = run(client, name, DATABASE=str(database)).wait_for(WAITING)
    if name != ONCE:
        pay(payments, "17", "sleeper 1", queue=queue)
        worker.wait_for("Received")
    assert (worker.interrupt(), worker.stderr) == (INTERRUPTED, [])
    if name == TTL:
        poll(lambda: ready(payments, queue), 1)
