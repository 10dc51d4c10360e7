"""What docs/production-retry.rst promises of the dead letters."""

from __future__ import annotations

import signal
from collections import Counter
from functools import partial

import broker as brokers
import pytest
from broker import Broker
from conftest import Copy, Starter, assert_one_line, connected, poll, ready
from pika.adapters.blocking_connection import BlockingChannel
from test_production_retry import (
    CHAPTER,
    DEAD,
    DECLARE,
    DIED,
    MENDED,
    STATIONS,
    TTL,
    WORK,
    Run,
    Team,
    keys,
    pay,
    take,
    wait_dead,
)


@pytest.fixture
def run(start: Starter) -> Run:
    return partial(start, CHAPTER)


# --- The dead -------------------------------------------------------------------


def lay(channel: BlockingChannel, *tasks: str, failures: int = 4) -> None:
    """Dead letters with the keys 1, 2, … as the worker sets them aside."""
    for number, task in enumerate(tasks, 1):
        noted = [f"KeyError('{n}')" for n in range(1, failures + 1)]
        pay(channel, str(number), task, queue="payments.dead", headers={"failures": noted})


def test_the_table(run: Run, client: str, payments: BlockingChannel) -> None:
    lay(payments, "nobody 5", "somebody 6")
    for _ in range(2):  # it takes nothing away
        table = run(client, DEAD)
        assert (table.wait(), table.stderr) == (0, [])
        assert table.stdout == [
            "KEY         PAYMENT             NOTED   LAST",
            "'1'         'nobody 5'          4       KeyError('4')",
            "'2'         'somebody 6'        4       KeyError('4')",
        ]
        poll(lambda: ready(payments, "payments.dead"), 2)


def test_the_history_of_one(run: Run, client: str, payments: BlockingChannel) -> None:
    lay(payments, "nobody 5", "somebody 6")
    shown = run(client, DEAD, "show", "2")
    assert (shown.wait(), shown.stderr) == (0, [])
    assert shown.stdout == [
        " [x] '2': 'somebody 6'",
        *(f"     KeyError('{n}')" for n in range(1, 5)),
    ]
    poll(lambda: ready(payments, "payments.dead"), 2)


def test_what_somebody_else_has_put_there(
    run: Run, client: str, payments: BlockingChannel
) -> None:
    """Without a key, with strange headers, with a body that would fill the screen."""
    pay(payments, None, b"\xff" * 2000, queue="payments.dead")
    pay(payments, "2\n3", "x", queue="payments.dead", headers={"failures": [5, None]})
    pay(payments, "4", "x", queue="payments.dead", headers={"failures": "text"})
    table = run(client, DEAD)
    assert (table.wait(), table.stderr) == (0, [])
    assert [line.split()[-1] for line in table.stdout[1:]] == ["unknown", "None", "unknown"]
    assert all(len(line) < 130 for line in table.stdout)
    back = run(client, DEAD, "put-back", "all")
    assert back.wait() == 0
    poll(lambda: ready(payments, "payments"), 3)


def test_one_is_put_back(run: Run, client: str, payments: BlockingChannel) -> None:
    lay(payments, "nobody 5", "nobody 6", "nobody 7")
    back = run(client, DEAD, "put-back", "2")
    assert (back.wait(), back.stdout) == (0, [" [x] Put back '2': 'nobody 6'"])
    poll(lambda: ready(payments, "payments"), 1)
    poll(lambda: ready(payments, "payments.dead"), 2)
    assert take(payments, "payments")[1] == b"nobody 6"
    assert keys(payments, "payments.dead") == ["1", "3"]


def test_all_are_put_back_in_their_order(run: Run, client: str, payments: BlockingChannel) -> None:
    count = 100
    lay(payments, *(f"nobody {number}" for number in range(count)))
    assert run(client, DEAD).wait() == 0  # which gives them back, too
    back = run(client, DEAD, "put-back", "all")
    assert (back.wait(), len(back.stdout)) == (0, count)
    poll(lambda: ready(payments, "payments"), count)
    assert sorted(keys(payments, "payments"), key=int) == [str(n) for n in range(1, count + 1)]
    assert ready(payments, "payments.dead") == 0


def test_put_back_it_has_all_attempts_again(
    run: Run, client: str, broker: Broker, payments: BlockingChannel
) -> None:
    """But for 4.0, where the nack counts as a failed delivery, and that count follows it."""
    lay(payments, "nobody 5")
    run(client, DEAD, "put-back", "1").wait()
    worker = run(client, TTL).wait_for("now in payments.dead")
    counted = (4, 0) <= tuple(map(int, broker.version.split(".")[:2])) < (4, 3)
    reasons = [DIED if counted else "KeyError('nobody')", *["KeyError('nobody')"] * 3]
    assert worker.stdout[2::2] == [
        f" [x] Failed: {reason}, now in {station}"
        for reason, station in zip(reasons, STATIONS, strict=True)
    ]
    found, _ = take(payments, "payments.dead")
    assert len(found.headers["failures"]) == 8


def test_put_back_does_not_expire(run: Run, client: str, payments: BlockingChannel) -> None:
    """The broker's own dead letters are no copies; it takes the time limit off."""
    pay(payments, "17", "alice 5", expiration="600000")
    method, *_ = payments.basic_get("payments")
    assert method
    payments.basic_nack(method.delivery_tag, requeue=False)
    wait_dead(payments, 1)
    assert run(client, DEAD, "put-back", "17").wait() == 0
    found, _ = take(payments, "payments")
    assert found.expiration is None


def test_who_has_died_again_meanwhile_is_left_there(
    copy: Copy, client: str, payments: BlockingChannel
) -> None:
    """A payment whose cause is still there goes round once, not for ever."""
    lay(payments, "nobody 5")
    again = {
        "pika": "channel.basic_publish('', f'{QUEUE}.dead', text.encode(), old)",
        "aio-pika": "await channel.default_exchange.publish(aio_pika.Message("
        "message.body, message_id=key), f'{QUEUE}.dead')",
    }[client]
    told = 'print(f" [x] Put back'
    back = copy(CHAPTER, client, DEAD, {told: f"{again}; {told}"}, "put-back", "all")
    assert (back.wait(), len(back.stdout)) == (0, 1)
    poll(lambda: ready(payments, "payments"), 1)
    poll(lambda: ready(payments, "payments.dead"), 1)


def test_who_was_looked_at_and_cut_off_is_put_back_all_the_same(
    run: Run, copy: Copy, client: str, url: str, payments: BlockingChannel
) -> None:
    """RabbitMQ 4.3 has such a message's count of failed deliveries follow it."""
    lay(payments, "nobody 5", "nobody 6")
    for _ in range(7):
        with connected(url) as other:
            poll(partial(other.basic_get, "payments.dead"), Anything())
    assert run(client, DEAD, "put-back", "all").wait() == 0
    team = Team(partial(copy, CHAPTER, client, TTL, {WORK: MENDED}))
    team.until(team.done, {"'nobody 5'": 1, "'nobody 6'": 1})
    assert not team.ended()


def test_each_is_put_back_once_however_often_that_is_killed(
    run: Run, client: str, payments: BlockingChannel
) -> None:
    count = 600
    lay(payments, *(f"nobody {number}" for number in range(count)))
    both, kills = ("payments", "payments.dead"), 0
    while left := ready(payments, "payments.dead"):
        back = run(client, DEAD, "put-back", "all")
        if kills < 10:
            back.wait_for("Put back", min(1 + kills, left))
            back.signal(signal.SIGKILL)
            kills += 1
            # What it had in hand is there again.
            poll(lambda: sum(ready(payments, name) for name in both), count)
        assert back.wait() in (0, -signal.SIGKILL)
    assert kills >= 5  # on a busy machine a kill comes late
    poll(lambda: ready(payments, "payments"), count)
    assert Counter(keys(payments, "payments")) == {str(n): 1 for n in range(1, count + 1)}


def test_to_look_at_the_dead_does_not_bury_them(
    run: Run, client: str, url: str, payments: BlockingChannel
) -> None:
    """A quorum queue's own limit is 20 deliveries, since RabbitMQ 4.0."""
    lay(payments, "nobody 5")
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


def test_who_is_not_there(run: Run, client: str, payments: BlockingChannel) -> None:
    lay(payments, "nobody 5")
    assert_one_line(run(client, DEAD, "put-back", "2"), "no '2' among the dead")
    assert_one_line(run(client, DEAD, "show", "2"), "no '2' among the dead")
    poll(lambda: ready(payments, "payments.dead"), 1)
    for words in (["bury", "1"], ["show"], ["put-back"]):
        usage = "Usage: python dead_letters.py [show KEY | put-back KEY]"
        assert_one_line(run(client, DEAD, *words), usage)


def test_no_queue_to_go_back_to(run: Run, client: str, payments: BlockingChannel) -> None:
    lay(payments, "nobody 5")
    payments.queue_delete("payments")
    assert_one_line(run(client, DEAD, "put-back", "all"), DECLARE)
    poll(lambda: ready(payments, "payments.dead"), 1)


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
