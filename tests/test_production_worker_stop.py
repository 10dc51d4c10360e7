"""The promises of docs/production-worker.rst on long tasks, and on stopping in time."""

from __future__ import annotations

import itertools
import os
import random
import re
import select
import signal
import time
from functools import partial
from typing import Any

import broker as brokers
import pytest
from broker import Broker
from conftest import (
    Starter,
    assert_one_line,
    close_connections,
    connected,
    poll,
    ready,
    subscribed,
)
from pika.adapters.blocking_connection import BlockingChannel
from shells.chapters import page, said
from shells.proxy import Proxy
from shells.running import Script
from test_production_worker import (
    AGAIN,
    CHAPTER,
    STOP,
    STOPPING,
    WAITING,
    WORKER,
    Start,
    done,
    lines,
    publish,
    received,
    worker,
)


@pytest.fixture
def run(start: Starter) -> Start:
    return partial(start, CHAPTER)


# --- Long tasks ---


@pytest.mark.long
def test_a_task_longer_than_the_heartbeats_comes_again_and_again_in_pika(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    """Of the reconnecting worker. On asyncio, and in a thread, it is done once."""
    publish(channel, "20.00")
    long = worker(run, client, WORKER).wait_for("Received", 1)
    if client == "pika":
        long.wait_for("Received", 2, seconds=60)
        assert lines(long, AGAIN) == 1
    else:
        long.wait_for("Done")
        assert long.stderr == []


@pytest.mark.long
def test_heartbeats_go_on_during_a_long_task(
    run: Start, client: str, url: str, channel: BlockingChannel
) -> None:
    publish(channel, "20.00", "next")
    often = f"{url}?heartbeat=5"
    long = worker(run, client, STOPPING, url=often).wait_for("Done", 2, seconds=60)
    assert received(long) == ["20.00", "next"]
    assert long.stderr == []


@pytest.mark.long
def test_a_task_longer_than_the_ack_timeout_is_done_again(
    run: Start, client: str, broker: Broker, url: str, channel: BlockingChannel
) -> None:
    """What the page says of RabbitMQ since 4.3; with its policy, and 1 s in place of 30 min."""
    if tuple(map(int, broker.version.split(".")[:2])) < (4, 3):
        pytest.skip("before 4.3 it takes the broker a minute to notice")
    policy = {"pattern": "^orders$", "definition": {"consumer-timeout": 1_000}}
    path = f"policies/{url.rpartition('/')[2]}/long"
    broker.call_api("PUT", path, {**policy, "apply-to": "queues"})
    publish(channel, "15.00")
    long = worker(run, client, STOPPING)
    assert_one_line(long, "Failed: the broker ended the consumer")
    assert received(long) == ["15.00"]
    assert done(long) == (client == "pika")  # which sees it only then
    text = page(CHAPTER).read_text()
    assert f"   {long.stderr[0]}\n" in text
    # With more time it is done, and is gone.
    policy["definition"] = {"consumer-timeout": 7_200_000}
    assert "'{\"consumer-timeout\": 7200000}'" in text
    broker.call_api("PUT", path, {**policy, "apply-to": "queues"})
    again = worker(run, client, STOPPING).wait_for("Received")
    again.process.send_signal(signal.SIGTERM)
    stopped(again)
    assert done(again) == 1


# --- Stop in time ----------------------------------------------------------------

STOPS = (signal.SIGTERM, signal.SIGINT)


def stopped(script: Script) -> None:
    """It has ended as it was told to, quietly."""
    assert (script.wait(), script.stderr) == (0, []), script


@pytest.mark.parametrize("how", STOPS)
def test_it_finishes_what_is_in_hand_and_takes_nothing_new(
    run: Start, client: str, channel: BlockingChannel, how: signal.Signals
) -> None:
    publish(channel, "2.00", "next")
    busy = worker(run, client, STOPPING).wait_for("Received")
    busy.process.send_signal(how)
    stopped(busy)
    assert busy.stdout == [WAITING, " [x] Received '2.00'", STOP, " [x] Done"]
    method, _, body = channel.basic_get("orders")
    assert method
    assert (body, method.redelivered) == (b"next", False)  # it never had that one


@pytest.mark.parametrize("how", STOPS)
def test_what_takes_too_long_is_given_back_after_the_deadline(
    run: Start, client: str, channel: BlockingChannel, how: signal.Signals
) -> None:
    publish(channel, "60.00", "next")
    busy = worker(run, client, STOPPING, STOP_WITHIN="2").wait_for("Received")
    begun = time.monotonic()
    busy.process.send_signal(how)
    stopped(busy)
    assert busy.stdout[1:] == [" [x] Received '60.00'", STOP, " [x] Given back"]
    assert 1.5 < time.monotonic() - begun < 20
    poll(lambda: ready(channel, "orders"), 2)


@pytest.mark.parametrize("signals", [*itertools.product(STOPS, STOPS)])
def test_a_second_signal_gives_back_at_once(
    run: Start, client: str, channel: BlockingChannel, signals: tuple[signal.Signals, ...]
) -> None:
    publish(channel, "60.00", "next")
    busy = worker(run, client, STOPPING, STOP_WITHIN="50").wait_for("Received")
    busy.process.send_signal(signals[0])
    busy.wait_for("Stopping")
    busy.process.send_signal(signals[1])
    stopped(busy)
    assert busy.stdout[1:] == [" [x] Received '60.00'", STOP, " [x] Given back"]
    poll(lambda: ready(channel, "orders"), 2)


def failures(channel: BlockingChannel) -> int:
    """How many deliveries of the one task count as failed, once it is back."""
    taken: list[Any] = []

    def back() -> bool:
        taken[:] = channel.basic_get("orders")
        return taken[0] is not None

    poll(back, True)
    return (taken[1].headers or {}).get("x-delivery-count", 0)


def test_what_is_given_back_at_a_stop_does_not_count_as_a_failure(
    run: Start, client: str, channel: BlockingChannel, broker: Broker
) -> None:
    """Else twenty deployments in a row would drop a long task."""
    publish(channel, "60.00")
    busy = worker(run, client, STOPPING).wait_for("Received")
    busy.process.send_signal(signal.SIGTERM)
    busy.process.send_signal(signal.SIGINT)
    stopped(busy)
    counted = failures(channel)
    if broker.version >= "4.3":
        assert counted == 0


def test_what_is_on_its_way_at_a_stop_counts_as_a_failure(
    run: Start, client: str, channel: BlockingChannel, url: str
) -> None:
    """Nobody can give back what has not come."""
    said(CHAPTER, r"A task on its way just then comes (again), and counts as failed")
    with Proxy(url) as proxy:
        idle = worker(run, client, STOPPING, url=proxy.url)
        proxy.state = "deaf"
        publish(channel, "60.00")
        poll(lambda: ready(channel, "orders"), 0)
        idle.process.send_signal(signal.SIGTERM)
        assert (idle.wait(), idle.stdout) == (0, [WAITING])
    assert failures(channel) == 1


@pytest.mark.parametrize("how", STOPS)
def test_one_with_nothing_in_hand_stops_at_once(
    run: Start, client: str, channel: BlockingChannel, url: str, how: signal.Signals
) -> None:
    """Idle, or waiting for a broker that is silent."""
    idle = worker(run, client, STOPPING)
    with Proxy(url, "silent") as silent:
        frozen = run(client, STOPPING, url=silent.url)
        poll(lambda: len(silent.attempts), 1)
        for each in (idle, frozen):
            each.process.send_signal(how)
            assert each.wait() == 0, each
    assert idle.stdout == [WAITING]


def test_a_broker_that_is_silent_does_not_keep_it(
    run: Start, client: str, channel: BlockingChannel, url: str
) -> None:
    """Without heartbeats, which would end its waiting, too."""
    publish(channel, "2.00")
    with Proxy(url) as proxy:
        unheard = f"{proxy.url}?heartbeat=0"
        busy = run(client, STOPPING, url=unheard, STOP_WITHIN="3").wait_for("Received")
        proxy.state = "silent"
        busy.process.send_signal(signal.SIGTERM)
        assert busy.wait() == 0
    poll(lambda: ready(channel, "orders"), 1, 60)


@pytest.mark.parametrize("value", ["", "0", "-1", "soon", "1.5"])
def test_a_deadline_that_is_none(run: Start, client: str, value: str) -> None:
    assert_one_line(run(client, STOPPING, STOP_WITHIN=value), "STOP_WITHIN wants")


# --- Whatever else ends it ---


@pytest.mark.parametrize("busy", [False, True])
def test_a_lost_connection_ends_it_at_once_with_its_reason(
    run: Start, client: str, broker: Broker, url: str, busy: bool
) -> None:
    """A task in hand is back in the queue, and does not keep it."""
    victim = worker(run, client, STOPPING)
    with connected(url) as channel:
        if busy:
            publish(channel, "3600.00")
            victim.wait_for("Received")
    close_connections(broker, url, "maintenance at noon")
    assert_one_line(victim, "Failed: ", "CONNECTION_FORCED", "maintenance at noon")
    with connected(url) as channel:
        poll(lambda: ready(channel, "orders"), int(busy))


def test_a_queue_that_is_deleted_ends_it(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    victim = worker(run, client, STOPPING)
    subscribed(channel, "orders")
    channel.queue_delete("orders")
    assert_one_line(victim, "Failed: the broker ended the consumer")


def test_what_is_wrong_from_the_start_is_one_line(run: Start, client: str, broker: Broker) -> None:
    where, (port,) = broker.url.rpartition("@")[2], brokers.free_ports(1)
    wrong = (
        f"amqp://guest:s3cret@{where}",
        f"amqp://guest:guest@{where}no-such-vhost",
        f"amqp://guest:s3cret@localhost:{port}/",
        "amqp://alice:s3cr/et@localhost/",
        "localhost",
    )
    for script in [run(client, STOPPING, url=url) for url in wrong]:
        assert_one_line(script, "make doctor")
        assert not re.search("s3|cret|cr/", script.stderr[0]), script
        assert script.stdout == []


# --- At any moment ---


def stop_somewhere(
    run: Start, channel: BlockingChannel, client: str, chance: random.Random, twice: bool
) -> tuple[Script, list[str]]:
    """A worker with tasks of 0 to 300 ms, stopped at a random moment."""
    tasks = [f"0.{chance.randrange(30):02}" for _ in range(4)]
    publish(channel, *tasks)
    busy = worker(run, client, STOPPING)
    if chance.random() < 0.9:
        busy.wait_for("Received")
    select.select([], [], [], chance.uniform(0, 0.4))
    busy.process.send_signal(chance.choice(STOPS))
    if twice:
        select.select([], [], [], 0.0003)
        busy.process.send_signal(chance.choice(STOPS))
    return busy, tasks


@pytest.mark.parametrize("twice", [False, True])
def test_stopped_at_any_moment_it_loses_nothing(
    run: Start, client: str, channel: BlockingChannel, twice: bool
) -> None:
    """Every task is done, or back in the queue; none is both, and none neither."""
    chance = random.Random(f"{client} {twice}")
    for _ in range(int(os.environ.get("STOPS", "5"))):
        busy, tasks = stop_somewhere(run, channel, client, chance, twice)
        stopped(busy)
        finished = done(busy)
        if not twice:  # what was begun was finished
            assert received(busy) == tasks[:finished]
        subscribed(channel, "orders", 0)  # else its last ack may still be on its way
        poll(lambda: ready(channel, "orders"), len(tasks) - finished)
        channel.queue_purge("orders")
