"""The promises of docs/production-copy.rst: worker.py under faults, with handlers of a test."""

from __future__ import annotations

import os
import random
import re
import select
import signal
import socket
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import broker as brokers
import pytest
import trustme
from broker import LOOPBACK, Broker, OwnedBroker
from conftest import (
    Starter,
    assert_one_line,
    close_connections,
    connected,
    declare_payments,
    poll,
    ready,
    subscribed,
)
from pika.adapters.blocking_connection import BlockingChannel
from shells.chapters import CLIENTS, EXAMPLES, figure, page
from shells.proxy import Proxy
from shells.running import Script
from test_production_observe import Observed, event, unknown
from test_production_retry import Team, keys, pay, take
from test_production_retry_once import balance
from test_production_worker_faults import killed, paused, restarted, short_of_memory
from test_scripts import imported

CHAPTER, WORKER = "production-worker", "worker.py"
STOPS = (signal.SIGTERM, signal.SIGINT)

# A reader's own handler: the task's first word says how it goes.
HANDLER = """
import asyncio, os, time
TABLES = "CREATE TABLE IF NOT EXISTS effect (task TEXT);"
async def handle(database, body):
    word, _, rest = body.decode().partition(" ")
    if word == "killer":
        os._exit(1)
    if word == "nobody":
        raise KeyError(word)
    if word == "wrong":
        database.execute("SELECT * FROM nowhere")
    if word == "slow":
        await asyncio.sleep(float(rest))
    while word == "until" and not os.path.exists(rest):
        await asyncio.sleep(0.05)
    database.execute("INSERT INTO effect VALUES (?)", (body.decode(),))
    if word == "late":
        raise KeyError(word)
"""

Run = Callable[..., Script]


def handler_for(client: str) -> str:
    if client == "pika":
        return HANDLER.replace("async def", "def").replace("await asyncio", "time")
    return HANDLER


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Run]:
    """Start a copy of worker.py, with the handler above, and changes if any."""
    started: list[Script] = []

    def run(client: str, name: str = WORKER, **more: Any) -> Script:
        folder = tmp_path / f"{len(started)}"
        folder.mkdir()
        text = (EXAMPLES / CHAPTER / client / name).read_text()
        for old, new in more.pop("changes", {}).items():
            assert old in text
            text = text.replace(old, new)
        (folder / name).write_text(text)
        (folder / "handler.py").write_text(more.pop("handler", handler_for(client)))
        more.setdefault("HTTP_PORT", str(brokers.free_ports(1)[0]))
        more.setdefault("DATABASE", str(tmp_path / "own.sqlite3"))
        url = more.pop("url", None) or request.getfixturevalue("url")
        started.append(Script(folder / name, url=url, **more))
        return started[-1]

    yield run
    for script in started:
        script.close()
        print(script)


def says(script: Script, message: str, count: int = 1) -> Script:
    return script.wait_for(f'"message": "{message}"', count)


def told(script: Script) -> list[tuple[str, str | None]]:
    """What happened, each with the key of its message."""
    found = [re.search(r'"message": "([^"]*)"(?:, "key": "([^"]*)")?', x) for x in script.stdout]
    return [(each[1], each[2]) for each in found if each]


def effects(folder: Path) -> list[str]:
    opened = sqlite3.connect(folder / "own.sqlite3")
    with closing(opened), suppress(sqlite3.OperationalError):  # not there yet
        return [task for (task,) in opened.execute("SELECT task FROM effect")]
    return []


# --- It does what the other pages' workers do ---------------------------------------


def test_the_handler_that_comes_with_it(
    start: Starter, client: str, payments: BlockingChannel, tmp_path: Path
) -> None:
    database = tmp_path / "own.sqlite3"
    worker = Observed(partial(start, CHAPTER), client, name=WORKER, DATABASE=str(database))
    for key, task in [("17", "alice 5"), ("18", "alice 7"), ("17", "alice 5")]:
        pay(payments, key, task)
    event(worker, "done before")
    assert worker.events() == [
        ("consuming", None),
        ("done", "17"),
        ("done", "18"),
        ("done before", "17"),
    ]
    assert balance(database) == 12
    worker.counts(consumed_total=3.0, in_hand=0.0, duration_seconds_count=3.0, ready=1.0)
    assert (worker.ask("/live"), worker.ask("/ready")) == ((200, "yes\n"), (200, "yes\n"))
    assert (worker.script.signal(signal.SIGTERM), worker.script.stderr) == (0, [])


def test_what_fails_comes_later_and_is_set_aside_with_its_reasons(
    run: Run, client: str, payments: BlockingChannel, tmp_path: Path
) -> None:
    observed = Observed(lambda *_, **more: run(client, **more), client)
    pay(payments, "17", "late 1", headers={"CC": [], "shop": "north"}, priority=7)
    worker = says(observed.script, "failed")
    observed.counts(retried_total=3.0, failed_total=1.0)
    assert told(worker)[1:] == [*[("retried", "17")] * 3, ("failed", "17")]
    gaps = [b - a for a, b in zip(worker.times[1:], worker.times[2:], strict=False)]
    assert all(gap > 0.5 * delay for gap, delay in zip(gaps, (1, 2, 4), strict=True)), gaps
    found, body = take(payments, "payments.dead")
    assert (found.message_id, body, found.priority) == ("17", b"late 1", 7)
    last = HANDLER.count("\n")
    assert found.headers["failures"] == [f"KeyError('late') in handle, line {last}"] * 4
    assert (found.headers["shop"], found.delivery_mode) == ("north", 2)
    assert "CC" not in found.headers
    assert effects(tmp_path) == []


@pytest.mark.parametrize(
    ("key", "task", "why"),
    [(None, "alice 5", "no message_id"), ("17", "wrong", "no such table: nowhere")],
)
def test_what_is_the_tasks_own_fault_fails(
    run: Run, client: str, payments: BlockingChannel, key: str | None, task: str, why: str
) -> None:
    pay(payments, key, task, headers={"failures": ["", "", ""]})
    worker = says(run(client), "failed")
    assert why in worker.stdout[-1]
    assert worker.signal(signal.SIGTERM) == 0


def poison(number: int) -> str | bytes:
    kinds = (f"nobody {number}", f"killer {number}", "slow 3600", b"caf\xe9 %d" % number)
    return kinds[number % len(kinds)]


@pytest.mark.long
def test_poison_blocks_nobody(
    run: Run, client: str, other: str, payments: BlockingChannel, tmp_path: Path
) -> None:
    assert figure("production-copy", r"one task in (\d+)") == 20
    for number in range(100):
        bad = number % 20 == 0
        pay(payments, f"{number}", poison(number // 20) if bad else f"alice {number}")
    team = Team(*(partial(run, each, TIME_LIMIT="3") for each in (client, other)))
    team.until(lambda: ready(payments, "payments.dead"), 5, 300)
    team.until(lambda: len(effects(tmp_path)), 95, 300)
    assert sorted(effects(tmp_path)) == sorted(f"alice {n}" for n in range(100) if n % 20)
    # The two that end their workers do so four times at most.
    team.until(lambda: len(team.ended()), 8)
    assert {script.wait() for script in team.ended()} == {1}
    assert sorted(keys(payments, "payments.dead")) == sorted(["0", "20", "40", "60", "80"])
    team.close()


@pytest.mark.parametrize("before", ["its key", "the ack"])
def test_killed_between_its_work_and(
    run: Run, client: str, payments: BlockingChannel, tmp_path: Path, before: str
) -> None:
    ack = {"pika": "channel.basic_ack(tag)", "aio-pika": "await asyncio.gather(old.ack(),"}[client]
    act = ack if before == "the ack" else "database.execute(note,"
    pay(payments, "17", "alice 5")
    victim = run(client, changes={act: f"os.kill(os.getpid(), 9), {act}"})
    assert victim.wait() == -signal.SIGKILL
    assert effects(tmp_path) == (["alice 5"] if act == ack else [])
    says(run(client), "done before" if act == ack else "done")
    assert effects(tmp_path) == ["alice 5"]
    poll(lambda: ready(payments, "payments"), 0)


def test_no_ack_before_the_copy_is_stored(
    run: Run, client: str, payments: BlockingChannel
) -> None:
    payments.queue_delete("payments.retry.1")
    worker = run(client)
    pay(payments, "17", "nobody 5")
    says(worker, "disconnected")
    worker.signal(signal.SIGKILL)
    subscribed(payments, "payments", 0)
    poll(lambda: ready(payments, "payments") + ready(payments, "payments.dead"), 1)


def test_the_database_fails_and_no_task_is_blamed(
    run: Run, client: str, payments: BlockingChannel, tmp_path: Path
) -> None:
    """A disk that is full in the middle; and then at the start."""
    worker = run(client)
    pay(payments, "17", "alice 5")
    says(worker, "done").signal(signal.SIGTERM)
    subscribed(payments, "payments", 0)
    pay(payments, "18", "alice 5")
    limit = {"AMQP_URL = ": "__import__('resource').setrlimit(1, (0, 0))\nAMQP_URL = "}
    assert_one_line(run(client, changes=limit), "disk", "DATABASE is ")
    found, _ = take(payments, "payments")
    assert (found.message_id, not (found.headers or {}).get("x-delivery-count")) == ("18", True)
    for number in range(300):
        pay(payments, f"{number + 100}", "alice" * 50)
    full = {"PRAGMA user_version = 1;": "PRAGMA max_page_count = 12;"}
    assert_one_line(run(client, changes=full), "database or disk is full", "DATABASE is ")
    done = len(effects(tmp_path))
    poll(lambda: ready(payments, "payments"), 300 - done + 1)


# --- Faults ------------------------------------------------------------------------

MANY, MOST = 400, 250


def load(channel: BlockingChannel, count: int = MANY) -> set[str]:
    tasks = [f"alice {number}" for number in range(count)]
    for task in tasks:
        pay(channel, task, task)
    return set(tasks)


def all_done_once(folder: Path, wanted: set[str]) -> None:
    poll(lambda: len(set(effects(folder))), len(wanted), 120)
    assert Counter(effects(folder)) == dict.fromkeys(wanted, 1)


@contextmanager
def frozen(broker: OwnedBroker, workers: list[Script]) -> Iterator[None]:
    with paused(broker):
        for worker in workers:
            says(worker, "disconnected")
    yield


@contextmanager
def alarmed(broker: OwnedBroker, workers: list[Script]) -> Iterator[None]:
    """Until both wait, each with a copy of a failed task that the broker doesn't take."""
    with short_of_memory(broker, workers):
        poll(lambda: broker.ctl("list_connections", "state", "-q").split().count("blocked"), 2)
        select.select([], [], [], 7)  # longer than a task may take
    yield


@pytest.mark.parametrize("outage", [restarted, killed, frozen, alarmed])
def test_the_broker_fails_and_each_task_is_done_once(
    run: Run, restartable: OwnedBroker, tmp_path: Path, outage: Any
) -> None:
    with restartable.vhost() as url:
        with connected(url) as channel:
            declare_payments(channel)
            wanted = load(channel)  # which also lets the queue grow older than a second
            poison = {f"nobody {number}" for number in range(6)}
            for task in poison:
                pay(channel, task, task)
        losses, limit = (0, "5") if outage is alarmed else (1, "")
        workers = [run(client, url=url, TIME_LIMIT=limit) for client in CLIENTS]
        for worker in workers:
            says(worker, "done", 20)
        with outage(restartable, workers):
            for worker in workers:
                says(worker, "consuming", 1 + losses)
        all_done_once(tmp_path, wanted)
        with connected(url) as channel:
            dead: set[str] = set()  # a copy may be there twice
            poll(lambda: dead.update(keys(channel, "payments.dead")) or dead, poison)
            poll(lambda: ready(channel, "payments"), 0)
        for worker in workers:
            assert [name for name, _ in told(worker)].count("disconnected") == losses
            assert (worker.signal(signal.SIGTERM), worker.stderr) == (0, [])


def test_connections_are_closed_by_force(
    run: Run, client: str, other: str, broker: Broker, url: str, tmp_path: Path
) -> None:
    with connected(url) as channel:
        declare_payments(channel)
        wanted = load(channel, 200)
        pay(channel, "slow", "slow 3")
    workers = [run(client), run(other)]
    poll(lambda: len(effects(tmp_path)) >= 200, True)  # all but the slow one
    close_connections(broker, url, "maintenance at noon", 2)
    for worker in workers:
        says(worker, "disconnected")
        assert "CONNECTION_FORCED - maintenance at noon" in "".join(worker.stdout)
        says(worker, "consuming", 2)
    all_done_once(tmp_path, wanted | {"slow 3"})


@pytest.mark.parametrize("how", ["cut", "silent"])
def test_the_network_fails(
    run: Run, client: str, url: str, payments: BlockingChannel, tmp_path: Path, how: str
) -> None:
    wanted = load(payments)
    with Proxy(url) as proxy:
        worker = says(run(client, url=proxy.url), "done", 20)
        if how == "silent":
            proxy.state = "silent"
            says(worker, "disconnected")
        proxy.cut("through")
        says(worker, "consuming", 2)
        all_done_once(tmp_path, wanted)
        assert [name for name, _ in told(worker)].count("disconnected") == 1


def test_the_queue_is_deleted_and_is_back(
    run: Run, client: str, url: str, payments: BlockingChannel
) -> None:
    worker = says(run(client), "consuming")
    subscribed(payments, "payments")
    payments.queue_delete("payments")
    says(worker, "disconnected", 2)  # that it is gone, and that it is not there
    assert ["NOT_FOUND" in line for line in worker.stdout[-2:]] == [False, True]
    with connected(url) as again:
        again.queue_declare("payments", durable=True, arguments={"x-queue-type": "quorum"})
        says(worker, "consuming", 2)
        pay(again, "17", "alice 5")
    says(worker, "done")
    assert [name for name, _ in told(worker)].count("disconnected") == 2


def test_it_goes_on_at_another_node(
    run: Run, client: str, url: str, payments: BlockingChannel
) -> None:
    with Proxy(url) as one, Proxy(url) as two:
        urls = f"amqp://guest:guest@localhost:{brokers.free_ports(1)[0]}/,{one.url},{two.url}"
        worker = says(run(client, AMQP_URLS=urls), "consuming")
        used, other = (one, two) if one.attempts else (two, one)
        used.cut("closed")
        says(worker, "consuming", 2)
        assert other.attempts


def test_connections_that_were_not_made_leave_no_warning(
    run: Run, client: str, url: str, payments: BlockingChannel
) -> None:
    """Whichever thread clears them away: here, the one that answers."""
    collect = {
        "        live = ": "        __import__('gc').collect()\n        live = ",
        "import faulthandler": "import gc\nimport faulthandler\ngc.disable()",
    }
    with Proxy(url, "closed") as proxy:
        some = partial(run, client, url=proxy.url, changes=collect)
        worker = Observed(lambda *_, **more: some(**more), client)
        poll(lambda: len(proxy.attempts) >= 4, True)
        worker.becomes("/live", 200)
        proxy.state = "through"
        worker.becomes("/ready", 200)
        assert (worker.script.signal(signal.SIGTERM), worker.script.stderr) == (0, [])


def test_a_lost_task_does_not_end_its_worker_later(
    run: Run, client: str, url: str, payments: BlockingChannel
) -> None:
    """The time limit was for that task, and not for the time without a broker."""
    with Proxy(url) as proxy:
        worker = says(run(client, url=proxy.url, TIME_LIMIT="5"), "consuming")
        pay(payments, "17", "slow 1")
        subscribed(payments, "payments")
        poll(lambda: ready(payments, "payments"), 0)
        proxy.cut("closed")
        says(worker, "disconnected")
        before = len(proxy.attempts)
        select.select([], [], [], 7)  # longer than a task may take
        assert worker.process.poll() is None, worker
        assert len(proxy.attempts) > before
        proxy.state = "through"
        worker.wait_for('"message": "done')  # or "done before", where it had begun


# --- Stop in time --------------------------------------------------------------------


@pytest.mark.parametrize("how", STOPS)
def test_it_finishes_what_is_in_hand_and_takes_nothing_new(
    run: Run, client: str, payments: BlockingChannel, tmp_path: Path, how: signal.Signals
) -> None:
    pay(payments, "17", f"until {tmp_path}/now")
    pay(payments, "18", "alice 5")
    worker = Observed(lambda *_, **more: run(client, **more), client)
    worker.counts(in_hand=1.0)
    worker.script.process.send_signal(how)
    event(worker, "stopping")
    assert worker.ask("/ready")[0] == 503
    (tmp_path / "now").touch()
    assert (worker.script.wait(), worker.script.stderr) == (0, [])
    assert told(worker.script) == [("consuming", None), ("stopping", None), ("done", "17")]
    method, properties, _ = payments.basic_get("payments")
    assert method
    assert properties
    assert (properties.message_id, method.redelivered) == ("18", False)  # it never had that one


@pytest.mark.parametrize("twice", [False, True])
def test_what_is_not_done_in_time_or_at_a_second_signal_is_given_back(
    run: Run,
    client: str,
    broker: Broker,
    payments: BlockingChannel,
    tmp_path: Path,
    twice: bool,
) -> None:
    pay(payments, "17", "slow 20")
    patience = {"STOP_WITHIN": "50" if twice else "2"}
    observed = Observed(lambda *_, **more: run(client, **patience, **more), client)
    observed.counts(in_hand=1.0)
    worker = observed.script
    worker.process.send_signal(signal.SIGTERM)
    if twice:
        says(worker, "stopping")
        worker.process.send_signal(signal.SIGINT)
    assert (worker.wait(), worker.stderr) == (0, []), worker
    assert told(worker)[1:] == [("stopping", None), ("given back", "17")]
    found, _ = take(payments, "payments")
    if broker.version >= "4.3":  # before, each return counts as a failure
        assert not (found.headers or {}).get("x-delivery-count")
    assert effects(tmp_path) == []


def test_with_nothing_in_hand_it_ends_at_once(
    run: Run, client: str, url: str, payments: BlockingChannel
) -> None:
    with Proxy(url, "closed") as closed, Proxy(url, "silent") as silent:
        longest = partial(run, client, STOP_WITHIN="60000")  # nobody waits for that
        idle, away, frozen = longest(), longest(url=closed.url), longest(url=silent.url)
        says(idle, "consuming")
        says(away, "disconnected")
        poll(lambda: len(silent.attempts), 1)
        for each in (idle, away, frozen):
            assert (each.signal(signal.SIGTERM), each.stderr) == (0, []), each


def test_stopped_at_any_moment_each_task_is_done_once(
    run: Run, client: str, payments: BlockingChannel, tmp_path: Path
) -> None:
    chance = random.Random(client)
    tasks = [f"slow 0.{chance.randrange(30):02}{number:02}" for number in range(40)]
    for task in tasks:
        pay(payments, task, task)
    for _ in range(int(os.environ.get("STOPS", "6"))):
        worker = says(run(client), "consuming")
        select.select([], [], [], chance.uniform(0, 0.5))
        worker.process.send_signal(chance.choice(STOPS))
        if chance.random() < 0.5:
            select.select([], [], [], 0.0003)
            worker.process.send_signal(chance.choice(STOPS))
        assert (worker.wait(), worker.stderr) == (0, []), worker
    run(client)
    all_done_once(tmp_path, set(tasks))
    poll(lambda: ready(payments, "payments"), 0)
    assert ready(payments, "payments.dead") == 0


# --- Settings --------------------------------------------------------------------------


def test_what_is_wrong_is_one_line(run: Run, client: str, broker: Broker, url: str) -> None:
    where, vhost = broker.url.rpartition("@")[2], url.rpartition("/")[2]
    taken = socket.create_server((LOOPBACK, 0))
    secure = f"amqps://guest:s3cret@localhost/{vhost}"
    wrong: list[tuple[dict[str, str], str]] = [
        ({"AMQP_URLS": f"amqp://guest:s3cret@{where}{vhost}"}, "Refused: "),
        ({"AMQP_URLS": f"amqp://guest:guest@{where}no-such-vhost"}, "Refused: "),
        ({"AMQP_URLS": f"{url},amqp://alice:s3cr/et@localhost/"}, "AMQP_URLS wants amqp"),
        ({"AMQP_URLS": "localhost"}, "AMQP_URLS wants amqp"),
        ({"AMQP_URLS": secure, "AMQP_CA": "/no/such"}, "AMQP_CA '/no/such' cannot be used"),
        ({"AMQP_URLS": secure, "AMQP_CA": __file__}, "AMQP_CA "),
        ({"QUEUE": "nobody-made-it"}, "NOT_FOUND"),
        ({"HTTP_PORT": f"{taken.getsockname()[1]}"}, "cannot be used: [Errno 98]"),
        ({"DATABASE": "/dev/full"}, "DATABASE is '/dev/full'"),
        ({"DATABASE": __file__}, "not a database"),
        *(
            ({name: value}, f"{name} wants a number from 1 to 65535, and is {value!r}")
            for name in ("HTTP_PORT", "STOP_WITHIN", "TIME_LIMIT")
            for value in ("0", "soon", "1.5", "65536")
        ),
    ]
    for first in range(0, len(wrong), 4):
        started = [(run(client, **more), words) for more, words in wrong[first : first + 4]]
        for script, words in started:
            assert_one_line(script, words)
            assert not re.search("s3|cret|cr/", script.stderr[0]), script
            assert script.stdout == []
    taken.close()


def test_a_handler_that_cannot_be_used(run: Run, client: str) -> None:
    """One of the other client, too: pika's worker would ack what nobody has done."""
    status = figure("production-copy", r"says why in one line, and ends with status (\d)")
    own = handler_for(client)
    wrong = {
        "cannot import name 'handle'": own.replace("def handle", "def other"),
        "cannot import name 'TABLES'": own.replace("TABLES", "OTHER"),
        "handler.py', 4": own.replace("(database, body)", "(database, body"),
        "KeyError('OUT')": f"import os; os.environ['OUT']\n{own}",
        "No module named 'no_such'": f"import no_such\n{own}",
        "async": handler_for(next(each for each in CLIENTS if each != client)),
    }
    started = {words: run(client, url="none", handler=text) for words, text in wrong.items()}
    started["named 'others'"] = run(client, url="none", changes={"from handler": "from others"})
    for words, script in started.items():
        assert_one_line(script, "handler.py cannot be used: ", words, status=status)
        assert script.stdout == []


def test_tls(
    run: Run, client: str, broker: Broker, url: str, payments: BlockingChannel, tmp_path: Path
) -> None:
    """Who shows no certificate for that name from whom we trust gets no password."""
    if not broker.tls_url:
        pytest.skip("whether the broker that AMQP_URL names has TLS is not known")
    secure, right, other = broker.over_tls(url), broker.ca_file, str(tmp_path / "other.pem")
    trustme.CA().cert_pem.write_to_path(other)
    wrong = [
        run(client, AMQP_URLS=secure),  # the system doesn't know it
        run(client, AMQP_URLS=secure, AMQP_CA=other),
        run(client, AMQP_URLS=secure.replace("localhost", "127.0.0.1"), AMQP_CA=right),
    ]
    for script in wrong:
        assert_one_line(script, "Refused: ", "CERTIFICATE_VERIFY_FAILED")
    worker = says(run(client, AMQP_URLS=secure, AMQP_CA=right), "consuming")
    pay(payments, "17", "alice 5")
    says(worker, "done")


# --- What it is ------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
def test_it_can_be_copied_out(client: str) -> None:
    own = {"pika": "pika", "aio-pika": "aio_pika"}[client]
    for name in (WORKER, "handler.py"):
        script = EXAMPLES / CHAPTER / client / name
        known = {own, "handler", "prometheus_client", *sys.stdlib_module_names}
        assert imported(script) <= known
        lines = script.read_text().splitlines()
        assert len(lines) <= MOST
        assert max(map(len, lines)) <= 79


def test_its_metrics_are_those_of_the_dashboard(
    run: Run, client: str, payments: BlockingChannel
) -> None:
    worker = Observed(lambda *_, **more: run(client, **more), client)
    assert unknown(worker.becomes("/live", 200)) == set()


def test_both_clients_have_the_same_settings_metrics_logs_and_answers() -> None:
    texts = [(EXAMPLES / CHAPTER / client / WORKER).read_text() for client in CLIENTS]
    parts = [text[text.index("def number") : text.index("def on_signal")] for text in texts]
    assert len({re.sub(r"(?m)^(HOPELESS|LOST) = .*\n", "", part) for part in parts}) == 1


def test_the_page_names_every_setting_with_what_holds_without_it(client: str) -> None:
    text = (EXAMPLES / CHAPTER / client / WORKER).read_text()
    pattern = r'"([A-Z_]+)"(?:\)|, ("[^"]+"|\d+)\))(?: or ("?[\w.]+"?))?'
    found = {name: (a or b).strip('"') for name, a, b in re.findall(pattern, text)}
    rows = re.findall(r"\* - ``([A-Z_]+)``\n     - (.*)\n", page("production-copy").read_text())
    said = {name: default.strip("`") for name, default in rows}
    assert said.pop("AMQP_CA") == "what the system trusts"
    assert not found.pop("AMQP_CA")
    assert found == said
    assert figure("production-copy", r"one file of at most (\d+) lines") == MOST
    assert figure("production-copy", r"one queue with (\d+) tasks") == MANY
