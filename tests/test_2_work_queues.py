"""The promises of docs/2-work-queues.rst, each with a test that can break it."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

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
    subscribed,
)
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import NackError
from shells.chapters import CLIENTS, EXAMPLES, figure, page, said, version
from shells.running import INTERRUPTED, Script

CHAPTER = "2-work-queues"
QUORUM = {"x-queue-type": "quorum"}
DRAFT, UNFAIR, FINAL = "tasks_worker_auto_ack.py", "tasks_worker_unfair.py", "tasks_worker.py"
WORKERS = (DRAFT, UNFAIR, FINAL)
SENDERS = ("new_task_unconfirmed.py", "new_task_transient.py", "new_task.py")

Start = Callable[..., Script]


@pytest.fixture
def run(start: Starter) -> Start:
    return partial(start, CHAPTER)


def send(run: Start, client: str, task: str | bytes, name: str = "new_task.py") -> None:
    """Send a task as the reader does, and see it confirmed."""
    sender = run(client, name, task)
    assert (sender.wait(), sender.stderr) == (0, []), sender
    assert sender.stdout[0].startswith(" [x] Sent "), sender


def worker(run: Start, client: str, name: str = FINAL) -> Script:
    """A worker that has declared the queue, and subscribes to it."""
    return run(client, name).wait_for(" [*] Waiting for messages. To exit press CTRL+C")


def workers(run: Start, channel: BlockingChannel, name: str, *clients: str) -> list[Script]:
    """Workers that have subscribed, in this order."""
    started = []
    for client in clients:
        started.append(worker(run, client, name))
        subscribed(channel, "task_queue", len(started))
    return started


def received(script: Script) -> list[str]:
    """The tasks that a worker has printed as received, in its order."""
    return [line.split("'")[1] for line in script.stdout if " [x] Received " in line]


def done(*scripts: Script) -> int:
    return sum(script.stdout.count(" [x] Done") for script in scripts)


def declare(channel: BlockingChannel, name: str = "task_queue") -> None:
    """The queue as the official tutorial declares it."""
    channel.queue_declare(name, durable=True, arguments=QUORUM)


def publish(channel: BlockingChannel, task: str | bytes) -> None:
    """Send a task as the official new_task.py does; confirmed, here."""
    channel.basic_publish(
        exchange="",
        routing_key="task_queue",
        body=task.encode() if isinstance(task, str) else task,
        properties=pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent),
    )


# --- The lesson: round-robin, then fair dispatch ---------------------------


def test_round_robin_is_exact(
    run: Start, client: str, other: str, channel: BlockingChannel
) -> None:
    """Each message goes to the next consumer, in the order of subscription."""
    started = workers(run, channel, DRAFT, client, other, client)
    tasks = [f"task {number}" for number in range(12)]
    for task in tasks:
        publish(channel, task)
    poll(lambda: done(*started), len(tasks))
    assert [received(script) for script in started] == [tasks[i::3] for i in range(3)]


HEAVY, LIGHT = "heavy..", "light"
MIXED = [HEAVY, LIGHT] * 4


def dispatch(run: Start, client: str, channel: BlockingChannel, name: str) -> list[Script]:
    """Two workers, heavy and light tasks in turn, until all are done."""
    pair = workers(run, channel, name, client, client)
    for task in MIXED:
        publish(channel, task)
    poll(lambda: done(*pair), len(MIXED))
    return pair


def work_ratio(pair: list[Script]) -> float:
    """The time they took together, over the best possible (all work shared)."""
    starts = [time for each in pair for time in each.times[1:2]]
    ends = [each.times[-1] for each in pair]
    dot = {"a second": 1.0}[said(CHAPTER, r"every dot in it takes ([^*]+)\*")]
    ideal = dot * sum(task.count(".") for task in MIXED) / len(pair)
    return (max(ends) - min(starts)) / ideal


def test_without_prefetch_one_worker_gets_all_that_is_heavy(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    pair = dispatch(run, client, channel, UNFAIR)
    assert [received(each) for each in pair] == [[HEAVY] * 4, [LIGHT] * 4]
    assert work_ratio(pair) > 1.8


def test_with_prefetch_the_heavy_tasks_are_shared(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    pair = dispatch(run, client, channel, FINAL)
    assert [received(each).count(HEAVY) for each in pair] == [2, 2]
    assert work_ratio(pair) < 1.3


def test_prefetch_leaves_the_backlog_to_a_worker_that_comes_later(
    run: Start, client: str, other: str, channel: BlockingChannel
) -> None:
    declare(channel)
    for number in range(4):
        publish(channel, f"{number}..")
    first = worker(run, client).wait_for("Received")
    poll(lambda: ready(channel, "task_queue"), 3)
    second = worker(run, other).wait_for("Received")
    poll(lambda: done(first, second), 4)
    assert received(second)  # how many depends on how soon it came


def test_without_prefetch_a_worker_that_comes_later_gets_none(
    run: Start, client: str, other: str, channel: BlockingChannel
) -> None:
    declare(channel)
    for number in range(4):
        publish(channel, f"{number}.")
    first = worker(run, client, UNFAIR).wait_for("Received")
    assert ready(channel, "task_queue") == 0
    second = worker(run, other, UNFAIR)
    poll(lambda: done(first, second), 4)
    assert received(second) == []


def test_a_higher_prefetch_count_is_no_concurrency(
    client: str, url: str, channel: BlockingChannel, tmp_path: Path
) -> None:
    """Both workers take one message after the other; the others wait in memory."""
    copy = altered(CHAPTER, client, FINAL, "prefetch_count=1", "prefetch_count=10", tmp_path)
    declare(channel)
    for number in range(10):
        publish(channel, f"{number}")
    with closing(Script(copy, url=url)) as busy:
        busy.wait_for("Done", count=10)
        assert busy.stdout[2::2] == [" [x] Done"] * 10


# --- Senders and workers, in whichever order and client -------------------


@pytest.mark.parametrize("sender", SENDERS[::2])
def test_a_task_waits_for_the_first_worker(
    run: Start, client: str, other: str, sender: str
) -> None:
    send(run, client, "early", sender)
    assert received(worker(run, other).wait_for("Done")) == ["early"]


def test_official_senders_and_our_worker(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    declare(channel)
    publish(channel, "from elsewhere.")
    publish(channel, "another")  # which comes when the first is acked
    finished = worker(run, client).wait_for("Done", count=2)
    assert received(finished) == ["from elsewhere.", "another"]


def test_our_sender_and_official_workers(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    declare(channel)  # must not clash with the sender's own declaration
    send(run, client, "to elsewhere.")
    method, properties, body = channel.basic_get("task_queue")
    assert method
    assert properties
    assert body == b"to elsewhere."
    assert properties.delivery_mode == pika.DeliveryMode.Persistent.value
    channel.basic_ack(method.delivery_tag)


def test_tasks_stay_in_order_whoever_sends_them(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    """aio-pika's default priority would let the others' overtake, in 4.3."""
    declare(channel)
    for number in (0, 3, 6):
        send(run, "aio-pika", str(number))
        send(run, "pika", str(number + 1))
        publish(channel, str(number + 2))
    assert received(worker(run, client).wait_for("Done", count=9)) == list("012345678")


TEXTS = ["Grüße, 世界 👋.", "x" * 100_000, 'it\'s "quoted"', "two\nlines"]


def test_every_text_arrives_as_it_was(run: Start, client: str, other: str) -> None:
    for task in TEXTS:
        send(run, client, task)
    finished = worker(run, other).wait_for("Done", count=len(TEXTS))
    assert finished.stdout[1::2] == [f" [x] Received {task!r}" for task in TEXTS]


def test_without_a_task_it_sends_hello(run: Start, client: str) -> None:
    sender = run(client, "new_task.py")
    assert (sender.wait(), sender.stdout) == (0, [" [x] Sent 'Hello...'"])


def test_a_body_of_a_megabyte(run: Start, client: str, channel: BlockingChannel) -> None:
    declare(channel)
    publish(channel, b"m" * 1_000_000)
    finished = worker(run, client).wait_for("Done")
    assert len(received(finished)[0]) == 1_000_000
    poll(lambda: ready(channel, "task_queue"), 0)


def test_several_words_are_one_task(run: Start, client: str) -> None:
    sender = run(client, "new_task.py", "three", "words", "here.")
    assert (sender.wait(), sender.stdout) == (0, [" [x] Sent 'three words here.'"])


# --- Nothing is lost: the worker ------------------------------------------


@pytest.mark.parametrize("name", [UNFAIR, FINAL])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_ends_in_mid_task_loses_nothing(
    run: Start, client: str, other: str, channel: BlockingChannel, name: str, how: signal.Signals
) -> None:
    send(run, other, "long.....")
    send(run, other, "next")
    first = worker(run, client, name)
    status = first.wait_for("Received").signal(how)
    assert (status, done(first), first.stderr) == (-how, 0, [])
    second = worker(run, other)
    second.wait_for("Done", count=2)
    assert sorted(received(second)) == ["long.....", "next"]
    poll(lambda: ready(channel, "task_queue"), 0)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_the_draft_loses_what_it_was_given(
    run: Start, client: str, channel: BlockingChannel, how: signal.Signals
) -> None:
    """Automatic ack: gone when delivered. The page shows this loss."""
    first = worker(run, client, DRAFT)
    publish(channel, "long.....")
    publish(channel, "next")
    first.wait_for("Received").signal(how)
    second = worker(run, client)
    publish(channel, "after")
    second.wait_for("Done")
    assert received(second) == ["after"]
    assert ready(channel, "task_queue") == 0


def test_a_forgotten_ack_brings_everything_back(
    client: str, url: str, channel: BlockingChannel, tmp_path: Path
) -> None:
    """With the ack taken out as the page does it."""
    ack = {
        "pika": "        channel.basic_ack(method.delivery_tag)",
        "aio-pika": "message.process(requeue=True), ",
    }[client]
    copy = altered(CHAPTER, client, UNFAIR, ack, "", tmp_path)
    with closing(Script(copy, url=url)) as forgetful:
        forgetful.wait_for("Waiting")
        publish(channel, "one")
        publish(channel, "two")
        forgetful.wait_for("Done", count=2)
        assert ready(channel, "task_queue") == 0
        assert forgetful.interrupt() == INTERRUPTED
    poll(lambda: ready(channel, "task_queue"), 2)


def test_the_ack_comes_after_the_work(run: Start, client: str, channel: BlockingChannel) -> None:
    """While the task is worked on, the broker still has it."""
    busy = worker(run, client)
    publish(channel, "long.....")
    busy.wait_for("Received")
    # A worker that had acked would be sent this one at once.
    publish(channel, "next")
    busy.process.kill()
    busy.wait()
    poll(lambda: ready(channel, "task_queue"), 2)


# --- Nothing is lost: tasks that fail -------------------------------------


def test_a_task_that_fails_is_back_in_the_queue_with_the_readers_own_traceback(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    failing = worker(run, client)
    publish(channel, b"caf\xe9.")
    publish(channel, "next")
    assert failing.wait() == 1
    told = "\n".join(failing.stderr)
    assert "Traceback" in told
    assert "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xe9 in position 3" in told
    assert "make doctor" not in told
    poll(lambda: ready(channel, "task_queue"), 2)


ERRORS = ["RuntimeError", "ValueError", "OSError", "TimeoutError", "KeyError"]


@pytest.mark.parametrize("name", [UNFAIR, FINAL])
@pytest.mark.parametrize("error", ERRORS)
def test_a_handler_that_raises_loses_nothing(
    client: str, url: str, channel: BlockingChannel, tmp_path: Path, error: str, name: str
) -> None:
    """The reader's own work may raise anything, also what the client raises."""
    sleep = {"pika": "time.sleep(", "aio-pika": "await asyncio.sleep("}[client]
    copy = altered(CHAPTER, client, name, sleep, f"raise {error}('mine')  # ", tmp_path)
    with closing(Script(copy, url=url)) as failing:
        failing.wait_for("Waiting")
        publish(channel, "work.")
        assert failing.wait() == 1
        told = "\n".join(failing.stderr)
        assert f"{error}: " in told
        assert f"raise {error}('mine')" in told
    poll(lambda: ready(channel, "task_queue"), 1)


def fill(broker: Broker, url: str, channel: BlockingChannel, name: str) -> None:
    """Make a queue that has room for nothing more."""
    declare(channel, name)
    limit = {
        "pattern": f"^{name}$",
        "definition": {"max-length": 1, "overflow": "reject-publish"},
        "apply-to": "queues",
    }
    broker.call_api("PUT", f"policies/{url.rpartition('/')[2]}/full", limit)

    def refuses() -> bool:
        try:
            channel.basic_publish("", name, b"filler")
        except NackError:
            return True
        return False

    poll(refuses, True)


def test_a_task_that_kills_its_worker_does_not_go_round_for_ever(
    broker: Broker, url: str, channel: BlockingChannel
) -> None:
    """The page's figures; before that version there is no limit."""
    limit = figure(CHAPTER, r"has come back (\d+) times")
    since = version(said(CHAPTER, r"Since RabbitMQ (\S+) a quorum queue gives up"))
    declare(channel)
    publish(channel, "poison")
    deliveries = 0
    for _ in range(limit + 5):
        with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
            victim = connection.channel()
            # Takes the message, or gives up after two seconds, and is cut off.
            method, *_ = next(iter(victim.consume("task_queue", inactivity_timeout=2)))
            deliveries += method is not None
        if not method:
            break
    assert deliveries == limit + (1 if version(broker.version) >= since else 5)


def test_how_long_the_broker_waits_for_an_ack(broker: Broker) -> None:
    found = broker.ctl(
        "eval", "{ok, T} = application:get_env(rabbit, consumer_timeout), T div 60000."
    )
    assert int(found) == figure(CHAPTER, r"has not been acked for (\d+) minutes")


# --- Nothing is lost: the sender ------------------------------------------


@pytest.fixture
def full_queue(broker: Broker, url: str, channel: BlockingChannel) -> str:
    """task_queue with room for nothing more."""
    fill(broker, url, channel, "task_queue")
    return url


def test_sent_is_only_said_of_what_the_broker_has(
    run: Start, client: str, full_queue: str, channel: BlockingChannel
) -> None:
    before = ready(channel, "task_queue")
    refused = run(client, "new_task.py", "one more")
    assert_one_line(refused, "Failed: ", "Nack", "make doctor")
    assert refused.stdout == []
    assert ready(channel, "task_queue") == before


def test_the_draft_says_sent_of_what_is_lost(
    run: Start, client: str, full_queue: str, channel: BlockingChannel
) -> None:
    before = ready(channel, "task_queue")
    send(run, client, "one more", "new_task_unconfirmed.py")
    assert ready(channel, "task_queue") == before


@pytest.mark.parametrize("name", SENDERS[::2])
def test_a_task_that_no_queue_takes(client: str, name: str, url: str, tmp_path: Path) -> None:
    """As if the queue were deleted after its declaration: the draft says Sent."""
    key, other = '"task_queue", ', '"no_such_queue", '
    if client == "aio-pika":
        key, other = 'routing_key="task_queue"', 'routing_key="no_such_queue"'
    source = (EXAMPLES / CHAPTER / client / name).read_text()
    *_, publishing = source.rpartition("publish(")
    copy = tmp_path / name
    copy.write_text(source.replace(publishing, publishing.replace(key, other)))
    assert publishing != publishing.replace(key, other)
    with closing(Script(copy, "lost", url=url)) as sender:
        if name == "new_task.py":
            assert_one_line(sender, "Failed: ", "make doctor")
            assert sender.stdout == []
        else:
            found = (sender.wait(), sender.stdout, sender.stderr)
            assert found == (0, [" [x] Sent 'lost'"], [])


def test_the_names_of_delivery_modes(run: Start, client: str, channel: BlockingChannel) -> None:
    sender = run(client, "new_task_transient.py", "task")
    assert sender.wait() == 0
    assert sender.stdout == [f" [x] Sent 'task', {name}" for name in ("transient", "persistent")]
    found = [channel.basic_get("classic_tasks", auto_ack=True)[1] for _ in range(2)]
    assert [each and each.delivery_mode for each in found] == [1, 2]


def test_a_confirm_without_mandatory(channel: BlockingChannel) -> None:
    said(CHAPTER, r"Without ``mandatory=True`` a message that no queue takes is still (acked)")
    channel.confirm_delivery()
    channel.basic_publish("", "no_such_queue", b"")  # it would raise NackError


def test_the_page_counts_what_its_transcripts_show() -> None:
    text = page(CHAPTER).read_text()
    shown = text.split("Break it: sent, and never stored")[1].split("Fix it: ")[0]
    assert shown.count("[x] Sent") == figure(CHAPTER, r"(\w+) are \*Sent\*")
    taken = shown.count("[x] Received")
    assert taken == figure(CHAPTER, r"(?:\*Sent\*,|limit of 1 lets) (\w+) (?:arrive|in)\b")
    assert f'"max-length": {figure(CHAPTER, r"so a limit of (.) lets")},' in shown
    for chapter in ("1-hello-world", CHAPTER):  # the pause is long enough, and no longer
        seconds = figure(chapter, r"(?:tells its numbers|publishes them) every (\w+) seconds")
        assert seconds + 1 == figure(chapter, r"\$ sleep (\d+)")


# --- Nothing is lost: the broker -------------------------------------------


def working_until_enter(client: str, folder: Path) -> Path:
    """A copy of the worker whose work takes until a line comes, however slow the broker is."""
    asleep, waiting = {
        "pika": ('time.sleep(body.count(b"."))', "input()"),
        "aio-pika": ('asyncio.sleep(message.body.count(b"."))', "asyncio.to_thread(input)"),
    }[client]
    (folder / client).mkdir()
    return altered(CHAPTER, client, FINAL, asleep, waiting, folder / client)


def tasks_survive(start: Starter, _broker: Broker, url: str) -> Generator[None]:
    """A promise for test_outages.py."""
    transient = start(CHAPTER, "pika", "new_task_transient.py", "T", url=url)
    assert transient.wait() == 0
    with connected(url) as channel:
        declare(channel)
    yield
    held = [f"{client} held" for client in CLIENTS]
    tasks = [*held, *(f"{client} next" for client in CLIENTS)]
    for task in tasks:
        sender = start(CHAPTER, task.split()[0], "new_task.py", task, url=url)
        assert sender.wait() == 0, sender
    with tempfile.TemporaryDirectory() as folder:
        workers = [
            start("", "", str(copy), url=url, stdin=subprocess.PIPE)
            for copy in (working_until_enter(client, Path(folder)) for client in CLIENTS)
        ]
        for script in workers:
            script.wait_for("Received")
    yield
    for script in workers:  # they end at their ack, and say why in one line
        with suppress(BrokenPipeError):
            print(file=script.process.stdin, flush=True)
        assert_one_line(script, "Failed: ")
    with connected(url) as channel:
        survived: dict[str, bool] = {}

        def tasks_there() -> list[str]:
            method, _, body = channel.basic_get("task_queue")
            if method and body:
                survived[body.decode()] = method.redelivered
                channel.basic_ack(method.delivery_tag)
            return sorted(survived)

        poll(tasks_there, sorted(tasks))
        assert [survived[task] for task in held] == [True, True]
    run = partial(start, CHAPTER, url=url)
    for client in CLIENTS:  # and the queue is as good as before
        send(run, client, f"{client} after")
        again = worker(run, client).wait_for(f"{client} after").wait_for("Done")
        with connected(url) as channel:
            poll(partial(ready, channel, "task_queue"), 0)
        again.interrupt()
    with connected(url) as channel:
        # What does not survive: the transient message in a classic queue.
        assert ready(channel, "classic_tasks") == 1
        _, properties, _ = channel.basic_get("classic_tasks", auto_ack=True)
        assert properties
        assert properties.delivery_mode == pika.DeliveryMode.Persistent.value


# --- Mistakes that the reader can fix -------------------------------------


@pytest.mark.parametrize("name", WORKERS)
def test_the_queue_deleted_under_a_busy_worker(
    run: Start, client: str, channel: BlockingChannel, name: str
) -> None:
    (victim,) = workers(run, channel, name, client)
    publish(channel, "task.")
    victim.wait_for("Received")
    channel.queue_delete("task_queue")
    assert_one_line(victim, "Failed: the queue is gone")


@pytest.mark.parametrize("name", WORKERS)
def test_the_connection_closed_under_a_busy_worker(
    run: Start, client: str, broker: Broker, url: str, name: str
) -> None:
    """The reason is named, also of a worker that finds out when it acks."""
    victim = worker(run, client, name)
    with connected(url) as channel:
        publish(channel, "task" + 10 * ".")  # longer than the API is behind
        victim.wait_for("Received")
    close_connections(broker, url, "maintenance at noon")
    assert_one_line(victim, "320", "CONNECTION_FORCED - maintenance at noon")


# --- Both clients, one lesson ----------------------------------------------


def test_both_clients_print_the_same(run: Start, url: str, channel: BlockingChannel) -> None:
    printed = {}
    for client in CLIENTS:
        lines = []
        for name in SENDERS:
            sender = run(client, name, "same", "task.")
            assert sender.wait() == 0
            lines.append(sender.stdout)
        busy = worker(run, client).wait_for("Done", count=2)
        busy.interrupt()
        printed[client] = [*lines, busy.stdout]
        # Deleted, because an ack may not have made it before the Ctrl-C.
        channel.queue_delete("task_queue")
    assert printed["pika"] == printed["aio-pika"]
