"""What the chapters promise of a broker that is restarted, or killed.

A start takes a broker longer than most tests together. So there is one outage of
each kind for all such promises. Each is a generator in its chapter's tests that
declares, yields, sends, yields and, after the outage, looks at what is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing

import broker as brokers
import pytest
from broker import Broker, OwnedBroker
from conftest import Starter
from pika.exceptions import AMQPError
from test_2_work_queues import tasks_survive
from test_3_publish_subscribe import some_bindings_survive
from test_7_publisher_confirms import what_is_confirmed_survives
from test_8_streams import events_and_places_survive

Promise = Callable[[Starter, Broker, str], Generator[None]]
PROMISES: dict[str, list[Promise]] = {
    "restart": [some_bindings_survive, tasks_survive],
    # The one that publishes all the time is the last to begin.
    "kill": [events_and_places_survive, tasks_survive, what_is_confirmed_survives],
}


def outage(broker: OwnedBroker, how: str) -> None:
    if how == "kill":
        broker.kill()
    else:
        broker.stop()
    with pytest.raises((AMQPError, OSError)):
        brokers.handshake(broker.url)
    broker.start()
    assert brokers.handshake(broker.url) == broker.version


@pytest.mark.parametrize("how", PROMISES)
def test_what_survives(start: Starter, restartable: OwnedBroker, how: str) -> None:
    with ExitStack() as stack:
        promises = [
            stack.enter_context(
                closing(promise(start, restartable, stack.enter_context(restartable.vhost())))
            )
            for promise in PROMISES[how]
        ]
        for promise in promises:
            next(promise)
        # A queue younger than a second or so comes back empty, or not at all, from a
        # SIGKILL of its only node, as the page on work queues says.
        time.sleep(5)
        for promise in promises:
            next(promise)
        outage(restartable, how)
        for promise in promises:
            assert next(promise, "through") == "through"
