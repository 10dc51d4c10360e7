"""What becomes of a message: each way its delivery can end, tried.

A worker (endings_pika.py, endings_aio_pika.py) gets one message. What becomes
of it, and of the worker, is seen from outside. The record is keyed by RabbitMQ's
version, client and ending. test_what_happens.py tries all of it again and
compares.
"""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pika
from broker import Broker, OwnedBroker
from conftest import close_connections, connected, poll
from pika.adapters.blocking_connection import BlockingChannel
from shells.chapters import DOCS
from shells.running import Script

RECORD = DOCS / "figures" / "what-happens.json"
HERE = Path(__file__).parent

PIKA, AIO, ROBUST, ANY = "pika", "aio-pika", "aio-pika robust", "any"
BOTH, ALL = (PIKA, AIO), (PIKA, AIO, ROBUST)
WORKERS = {PIKA: "endings_pika.py", AIO: "endings_aio_pika.py", ROBUST: "endings_aio_pika.py"}
DEAD_LETTERED = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
QUORUM, CLASSIC = {"x-queue-type": "quorum"}, {"x-queue-type": "classic"}
# Which one it is depends on what pika did when the connection went.
KINDS: dict[str, str] = dict.fromkeys(
    ("StreamLostError", "ConnectionClosedByBroker"), "AMQPConnectionError"
)
BODY, NEXT, LAST = b"the message", b"next", b"last"


@dataclass(frozen=True)
class Fate:
    """What became of the message, and of its worker."""

    message: str
    worker: str


@dataclass(frozen=True)
class Ending:
    """One way in which a delivery can end: a row of a table.

    `act` is the worker's part, a function of endings_*.py; `then` is what
    happens to the worker while it has the message in hand.
    """

    name: str
    what: str
    act: str = ""
    clients: tuple[str, ...] = BOTH
    then: Callable[[Experiment], None] | None = None
    queue: dict[str, Any] = field(default_factory=lambda: {**QUORUM, **DEAD_LETTERED})
    transient: bool = False
    expiration: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    heartbeat: int = 0
    # "": on any broker; "restart", "timeout": on one whose owner may do that.
    needs: str = ""


class Experiment:
    """One ending with one client, on a virtual host of its own."""

    def __init__(self, ending: Ending, client: str, url: str, broker: Broker) -> None:
        self.ending, self.client, self.url, self.broker = ending, client, url, broker
        self._folder = tempfile.TemporaryDirectory(prefix="rabbitmq-by-example-fate-")
        self._file = Path(self._folder.name, "go-on")
        self.worker: Script | None = None

    def begin(self) -> None:
        """Until the worker has the message."""
        with connected(self.url) as channel:
            self.declare(channel)
            if self.client == ANY:
                self.publish(channel, BODY)
                self.publish(channel, NEXT)
                return
            url = self.url + (f"?heartbeat={self.ending.heartbeat}" * bool(self.ending.heartbeat))
            more = {
                **self.ending.environment,
                **({"ROBUST": "1"} if self.client == ROBUST else {}),
            }
            act = self.ending.act or self.ending.name
            self.worker = Script(
                HERE / WORKERS[self.client], act, str(self._file), url=url, **more
            ).wait_for("waiting")
            self.publish(channel, BODY)
            self.worker.wait_for("received")

    def then(self) -> None:
        if self.ending.then:
            self.ending.then(self)

    def watch(self, expected: Fate | None = None) -> Fate:
        """What became of it. What is expected is waited for longer."""

        def patience(wanted: bool) -> float:
            return 12 * bool(self.ending.heartbeat) or 5 if not expected else 20 if wanted else 0.7

        positive = bool(expected) and expected.message.startswith(("back", "dropped"))
        message = self.first_sign(120 if self.repeats else patience(positive))
        if not self.worker:
            return Fate(message, "")
        self.go_on()
        if self.ending.act == "loop_crash":
            return Fate(message or self.last_sign(), "ends")
        silent = bool(expected) and expected.worker == "hears nothing more"
        worker = self.see_worker(patience(not silent))
        return Fate(message or self.last_sign(), worker)

    def go_on(self) -> None:
        """Let a worker that has the message in hand go on to its end."""
        self._file.touch()

    def declare(self, channel: BlockingChannel) -> None:
        channel.queue_declare("dead", durable=True, arguments=CLASSIC)
        channel.queue_declare("tasks", durable=True, arguments=self.ending.queue)

    def publish(self, channel: BlockingChannel, body: bytes) -> None:
        mode = (
            pika.DeliveryMode.Transient if self.ending.transient else pika.DeliveryMode.Persistent
        )
        expiration = self.ending.expiration if body == BODY else None
        properties = pika.BasicProperties(delivery_mode=mode, expiration=expiration)
        channel.basic_publish("", "tasks", body, properties)

    @property
    def repeats(self) -> bool:
        """Whether the worker takes the message again and again."""
        return (self.ending.act or self.ending.name).startswith(("loop_", "process_redelivered"))

    @property
    def lines(self) -> list[str]:
        return self.worker.stdout if self.worker else []

    def get(self, channel: BlockingChannel) -> str:
        """ "back", when the message is in the queue."""
        method, _, body = channel.basic_get("tasks", auto_ack=True)
        if not method or body != BODY:
            return ""
        return "back" if method.redelivered else "back, unmarked"

    def get_dead(self, channel: BlockingChannel) -> str:
        """ "dropped" and why, when it has been dead-lettered."""
        method, properties, body = channel.basic_get("dead", auto_ack=True)
        if not method or not properties or body != BODY:
            return ""
        deaths: Any = (properties.headers or {})["x-death"]
        reason = deaths[0]["reason"]
        if self.repeats:
            time.sleep(0.3)  # the worker's last line may still be on its way
        nth = self.lines.count("received")
        return f"dropped: {reason}" + (f", delivery {nth}" if nth > 1 else "")

    def first_sign(self, patience: float) -> str:
        """Where the message turns up while the worker is left as it is."""
        deadline = time.monotonic() + patience
        with connected(self.url) as channel:
            self.declare(channel)
            while time.monotonic() < deadline:
                if found := self.get_dead(channel):
                    return found
                if "again" in self.lines:
                    nth = self.lines.count("received")
                    return f"back, {nth} times and more" if nth > 1 else "back"
                if self.worker and not self.repeats and (found := self.get(channel)):
                    return found
                if self.repeats and self.lines[-1] == "acted" and "loop_crash" in self.ending.act:
                    break
                time.sleep(0.03)
        return ""

    def see_worker(self, patience: float) -> str:
        """Whether the worker has ended, or takes another message."""
        worker = self.worker
        assert worker
        deadline = time.monotonic() + patience
        with connected(self.url) as channel:
            self.declare(channel)
            self.publish(channel, NEXT)
            while time.monotonic() < deadline:
                # With aio-pika it takes the next before it has acted on the first.
                if {"next", "acted"} <= {*worker.stdout}:
                    return "goes on"
                if worker.process.poll() is not None:
                    return self.ended(worker.wait())
                time.sleep(0.03)
        return "hears nothing more"

    def ended(self, status: int) -> str:
        assert self.worker
        last = self.worker.stderr[-1] if self.worker.stderr else ""
        if status == 0:
            return "ends, status 0"
        if status < 0 or "KeyboardInterrupt" in last:
            return "ends"
        error = last.split(":")[0].rpartition(".")[2]
        return f"ends: {KINDS.get(error, error)}"

    def last_sign(self) -> str:
        """Whether the message comes back when the worker is gone."""
        assert self.worker
        running = self.worker.process.poll() is None
        self.worker.close()
        with connected(self.url) as channel:
            poll(lambda: self.declared(channel).consumer_count, 0)
            self.publish(channel, LAST)
            returned = ""

            def is_last() -> bool:
                nonlocal returned
                method, _, body = channel.basic_get("tasks", auto_ack=True)
                if body == BODY and method:
                    returned = "held" if running else "back"
                    returned += "" if method.redelivered else ", unmarked"
                    if (nth := self.lines.count("received")) > 1:
                        returned = f"back, {nth} times and more"
                return body == LAST

            poll(is_last, True)
            return returned or self.get_dead(channel) or "gone"

    def declared(self, channel: BlockingChannel) -> Any:
        return channel.queue_declare("tasks", passive=True).method

    def close(self) -> None:
        if self.worker:
            self.worker.close()
        self._folder.cleanup()


# --- What happens to the worker while it has the message in hand -------------


def send_signal(number: signal.Signals, experiment: Experiment) -> None:
    assert experiment.worker
    experiment.worker.process.send_signal(number)


interrupt = partial(send_signal, signal.SIGINT)
terminate = partial(send_signal, signal.SIGTERM)
kill = partial(send_signal, signal.SIGKILL)
freeze = partial(send_signal, signal.SIGSTOP)


def delete_queue(experiment: Experiment) -> None:
    with connected(experiment.url) as channel:
        channel.queue_delete("tasks")
    experiment.go_on()
    # Before there is a queue of this name again, the worker may hear of it.
    assert experiment.worker
    with suppress(subprocess.TimeoutExpired):
        experiment.worker.process.wait(1)


def close_connection(experiment: Experiment) -> None:
    """As an operator does in the management interface."""
    close_connections(experiment.broker, experiment.url, "Closed via management plugin")


# --- The rows -----------------------------------------------------------------

TABLES: dict[str, list[Ending]] = {
    "says": [
        Ending("ack", "``basic_ack``; ``ack()``"),
        Ending("nack", "``basic_nack``; ``nack()``"),
        Ending("nack_drop", "… with ``requeue=False``"),
        Ending("reject", "``basic_reject``; ``reject()``"),
        Ending("reject_requeue", "… with ``requeue=True``"),
        Ending("reject_drop", "… with ``requeue=False``"),
        Ending(
            "reject_no_dlx",
            "… where the queue has no dead-letter exchange",
            act="reject_drop",
            queue=QUORUM,
        ),
        Ending("nothing", "nothing: the ack is forgotten"),
        Ending("auto_ack", "nothing, with automatic ack; killed in mid-task", then=kill),
        Ending("unknown_tag", "acks what it may not: twice, or an unknown tag", clients=ALL),
    ],
    "raises": [
        Ending("raises", "the handler raises; nothing catches it"),
        Ending(
            "raises_iterator",
            "… with ``queue.iterator()``",
            act="raises",
            clients=(AIO,),
            environment={"ITERATOR": "1"},
        ),
        Ending("process_raises", "… in ``message.process()``", clients=(AIO,)),
        Ending("process_requeue_raises", "… in ``message.process(requeue=True)``", clients=(AIO,)),
        Ending(
            "process_redelivered_raises",
            "… in ``process(requeue=True, reject_on_redelivered=True)``, each time",
            clients=(AIO,),
        ),
    ],
    "ends": [
        Ending("stops", "leaves without an ack, and closes its connection"),
        Ending("closes_channel", "closes its channel without an ack"),
        Ending("cancels", "cancels its consumer, and has not acked"),
        Ending("interrupt", "Ctrl-C", act="in_hand", then=interrupt),
        Ending(
            "interrupt_process",
            "… in ``process()``, with ``queue.consume()``",
            act="in_hand_process",
            then=interrupt,
            clients=(AIO,),
        ),
        Ending(
            "interrupt_iterator",
            "… in ``process()``, with ``queue.iterator()``",
            act="in_hand_process",
            then=interrupt,
            clients=(AIO,),
            environment={"ITERATOR": "1"},
        ),
        Ending(
            "interrupt_iterator_requeue",
            "… in ``process(requeue=True)``, with ``queue.iterator()``",
            act="in_hand_process_requeue",
            then=interrupt,
            clients=(AIO,),
            environment={"ITERATOR": "1"},
        ),
        Ending("terminate", "SIGTERM", act="in_hand", then=terminate),
        Ending(
            "terminate_iterator",
            "… in ``process()``, with ``queue.iterator()``",
            act="in_hand_process",
            then=terminate,
            clients=(AIO,),
            environment={"ITERATOR": "1"},
        ),
        Ending("kill", "SIGKILL", act="in_hand", then=kill),
        Ending(
            "freeze", "freezes, or its network is cut", act="in_hand", then=freeze, heartbeat=1
        ),
        Ending("blocks", "blocks for longer than two heartbeats", act="blocks", heartbeat=1),
    ],
    "broker": [
        Ending(
            "connection_closed",
            "an operator closes the connection",
            act="in_hand",
            then=close_connection,
            clients=ALL,
        ),
        Ending(
            "queue_deleted", "the queue is deleted", act="in_hand", then=delete_queue, clients=ALL
        ),
        Ending("restart", "the broker restarts", act="in_hand", clients=ALL, needs="restart"),
        Ending(
            "restart_transient",
            "… transient message",
            act="in_hand",
            transient=True,
            needs="restart",
        ),
        Ending(
            "restart_classic",
            "… durable classic queue",
            act="in_hand",
            queue={**CLASSIC, **DEAD_LETTERED},
            needs="restart",
        ),
        Ending(
            "restart_classic_transient",
            "… durable classic queue, transient message",
            act="in_hand",
            queue={**CLASSIC, **DEAD_LETTERED},
            transient=True,
            needs="restart",
        ),
        Ending(
            "timeout", "acked after the ack timeout", act="in_hand", clients=ALL, needs="timeout"
        ),
        Ending(
            "timeout_classic",
            "… classic queue",
            act="in_hand",
            clients=ALL,
            queue={**CLASSIC, **DEAD_LETTERED},
            needs="timeout",
        ),
    ],
    "queue": [
        Ending("limit_crash", "it kills its worker, each time", act="loop_crash"),
        Ending("limit_reject", "rejected with ``requeue=True``, each time", act="loop_reject"),
        Ending("limit_nack", "nacked with ``requeue=True``, each time", act="loop_nack"),
        Ending(
            "limit_process",
            "raises in ``process(requeue=True)``, each time",
            act="loop_process",
            clients=(AIO,),
        ),
        Ending(
            "expires_in_hand",
            "its time to live passes in hand, then it is nacked",
            act="late_nack",
            expiration="500",
        ),
        Ending(
            "expires", "its time to live passes in the queue", clients=(ANY,), expiration="100"
        ),
        Ending(
            "overflow",
            "the queue is longer than ``x-max-length``",
            clients=(ANY,),
            queue={**QUORUM, **DEAD_LETTERED, "x-max-length": 1},
        ),
    ],
}
ENDINGS = {ending.name: ending for rows in TABLES.values() for ending in rows}


def cases(needs: str) -> list[tuple[str, str]]:
    """Names and clients of the endings that need this of the broker."""
    found = [
        (name, client) for name, e in ENDINGS.items() if e.needs == needs for client in e.clients
    ]
    return sorted(found, key=lambda case: not case[0].startswith("limit"))  # the longest first


@contextmanager
def prepared(broker: Broker, name: str, client: str) -> Iterator[Experiment]:
    with broker.vhost() as url, closing(Experiment(ENDINGS[name], client, url, broker)) as found:
        yield found


def experience(broker: Broker, name: str, client: str, expected: Fate | None = None) -> Fate:
    """Try one ending on a broker that others use, too."""
    with prepared(broker, name, client) as experiment:
        experiment.begin()
        experiment.then()
        return experiment.watch(expected)


def together(
    broker: Broker, needs: str, then: Callable[[], object], expected: dict[tuple[str, str], Fate]
) -> dict[tuple[str, str], Fate]:
    """Try all the endings that need the same of the broker, at once."""
    with ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        found = {case: stack.enter_context(prepared(broker, *case)) for case in cases(needs)}
        list(pool.map(Experiment.begin, found.values()))
        then()
        fates = pool.map(lambda case: found[case].watch(expected.get(case)), found)
        return dict(zip(found, fates, strict=True))


def with_restart(
    broker: OwnedBroker, expected: dict[tuple[str, str], Fate]
) -> dict[tuple[str, str], Fate]:
    return together(broker, "restart", broker.restart, expected)


@contextmanager
def short_timeout(broker: OwnedBroker) -> Iterator[None]:
    """An ack timeout of one second, which the broker looks after every second."""

    def set_ms(tick: int, timeout: int) -> None:
        values = {"channel_tick_interval": tick, "consumer_timeout": timeout}
        broker.ctl(
            "eval",
            " ".join(f"application:set_env(rabbit, {k}, {v})," for k, v in values.items())
            + " ok.",
        )

    set_ms(1000, 1000)
    try:
        yield
    finally:
        set_ms(60_000, 1_800_000)


def with_timeout(
    broker: OwnedBroker, expected: dict[tuple[str, str], Fate]
) -> dict[tuple[str, str], Fate]:
    """Call it within `short_timeout`."""
    return together(broker, "timeout", lambda: None, expected)


# --- The record -----------------------------------------------------------------


def series(version: str) -> str:
    return ".".join(version.split(".")[:2])


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def recorded(version: str) -> dict[tuple[str, str], Fate]:
    """The fates of the newest series that is not newer than this version."""
    versions = json.loads(RECORD.read_text())["versions"]
    mine = number(series(version))
    name = max((each for each in versions if number(each) <= mine), key=number)
    return {
        (ending, client): Fate(**fate)
        for client, fates in versions[name]["fates"].items()
        for ending, fate in fates.items()
    }
