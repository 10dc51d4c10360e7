"""The promises of docs/production-observe.rst, each with a test that can break it."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import broker as brokers
import httpx
import promql_parser
import pytest
from broker import LOOPBACK, Broker
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
from prometheus_client.parser import text_string_to_metric_families
from shells.chapters import CLIENTS, EXAMPLES, page, said
from shells.proxy import Proxy
from shells.running import INTERRUPTED, Script
from test_production_retry import Run, pay, take
from test_scripts import imported

CHAPTER = "production-worker"
LOGGED, MEASURED, PROBED = "worker_logged.py", "worker_measured.py", "worker_probed.py"
DASHBOARD = EXAMPLES / CHAPTER / "dashboard.json"
TEXT = page("production-observe").read_text(encoding="utf-8")


class Observed:
    """A worker, and what it says of itself."""

    def __init__(self, start: Callable[..., Script], client: str, **more: Any) -> None:
        (self.port,) = brokers.free_ports(1)
        name = more.pop("name", MEASURED)
        self.script = start(client, name, HTTP_PORT=str(self.port), **more)

    def ask(self, path: str) -> tuple[int, str]:
        try:
            found = httpx.get(f"http://{LOOPBACK}:{self.port}{path}", timeout=30)
        except httpx.TransportError:
            return 0, ""
        return found.status_code, found.text

    def becomes(self, path: str, status: int) -> Observed:
        try:
            poll(lambda: self.ask(path)[0], status)
        except AssertionError as error:
            raise AssertionError(f"{error}: {path} of {self.script}") from None
        return self

    def metrics(self) -> dict[str, float]:
        """The samples without labels but the queue's."""
        families = text_string_to_metric_families(self.ask("/metrics")[1])
        samples = [sample for family in families for sample in family.samples]
        return {s.name: s.value for s in samples if s.name.startswith("worker") and s.labels}

    def counts(self, **wanted: float) -> None:
        """Wait until these are the values of metrics worker_…"""
        poll(lambda: {k: self.metrics().get(f"worker_{k}") for k in wanted}, wanted)

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in [*self.script.stdout]]

    def events(self) -> list[tuple[str, str | None]]:
        return [(each["message"], each.get("key")) for each in self.log()]


@pytest.fixture
def logged(start: Starter, client: str, payments: BlockingChannel) -> Observed:
    return Observed(partial(start, CHAPTER), client, name=LOGGED)


@pytest.fixture
def measured(start: Starter, client: str, payments: BlockingChannel) -> Observed:
    return Observed(partial(start, CHAPTER), client, name=MEASURED).becomes("/metrics", 200)


@pytest.fixture
def probed(start: Starter, client: str, payments: BlockingChannel) -> Observed:
    return Observed(partial(start, CHAPTER), client, name=PROBED).becomes("/ready", 200)


def event(observed: Observed, message: str, count: int = 1) -> None:
    observed.script.wait_for(f'"message": "{message}"', count)


# --- Logs -------------------------------------------------------------------------


def test_each_event_is_a_line_of_json(logged: Observed, payments: BlockingChannel) -> None:
    pay(payments, "17", "alice 5")
    pay(payments, "18", "nobody 5")
    event(logged, "failed")
    log = logged.log()
    assert logged.events() == [
        ("consuming", None),
        ("done", "17"),
        ("retried", "18"),
        ("failed", "18"),
    ]
    assert [each["level"] for each in log] == ["INFO", "INFO", "WARNING", "ERROR"]
    assert [each.get("error") for each in log[2:]] == ["KeyError('nobody')"] * 2
    for each in log:
        behind = datetime.now(UTC) - datetime.fromisoformat(each["time"])
        assert timedelta(0) <= behind + timedelta(milliseconds=1) < timedelta(hours=1)
    assert "5" not in {word for each in log for word in str(each).split("'")}  # no body
    assert (logged.script.interrupt(), logged.script.stderr) == (INTERRUPTED, [])


def test_whatever_is_in_a_message_it_stays_one_line(
    logged: Observed,
    payments: BlockingChannel,
) -> None:
    pay(payments, 'a"\n{}ü🐰', b"caf\xe9\n5")
    event(logged, "failed")
    assert logged.events()[1:] == [("retried", 'a"\n{}ü🐰'), ("failed", 'a"\n{}ü🐰')]
    assert "UnicodeDecodeError" in logged.log()[-1]["error"]
    assert len(logged.script.stdout) == 3


def test_what_a_library_logs_is_json_too_with_its_traceback(
    client: str, url: str, tmp_path: Path
) -> None:
    bare = "  # we say it\n"
    noise = (
        f"{bare}    try:\n        1 / 0\n    except ZeroDivisionError:\n"
        '        logging.getLogger("library").exception("it failed: %s", "why")\n'
        "    sys.exit()\n"
    )
    path = altered(CHAPTER, client, LOGGED, bare, noise, tmp_path)
    script = Script(path, url=url)
    assert (script.wait(), script.stderr) == (0, [])
    (line,) = script.stdout
    found = json.loads(line)
    assert (found["message"], found["level"]) == ("it failed: why", "ERROR")
    assert found["traceback"].startswith("Traceback")
    assert "ZeroDivisionError" in found["traceback"]
    script.close()


# --- Metrics ----------------------------------------------------------------------


def test_it_counts(measured: Observed, payments: BlockingChannel) -> None:
    names = ("consumed_total", "retried_total", "failed_total", "in_hand")
    measured.counts(**dict.fromkeys(names, 0.0), duration_seconds_count=0.0, ready=1.0)
    for number in range(3):
        pay(payments, str(number), "alice 5")
    pay(payments, "18", "nobody 5")
    measured.counts(
        consumed_total=5.0,
        retried_total=1.0,
        failed_total=1.0,
        in_hand=0.0,
        duration_seconds_count=5.0,
    )
    poll(lambda: ready(payments, "payments.dead"), 1)
    text = measured.ask("/metrics")[1]
    bounds = re.findall(r'worker_duration_seconds_bucket\{le="([\d.]+)"', text)
    for bound in re.findall(r"up to (\d+) ms", TEXT):
        assert f"{int(bound) / 1000}" in bounds
    assert {*re.findall(r'^worker_\w+\{.*queue="(\w+)"', text, re.MULTILINE)} == {"payments"}


def test_what_is_in_hand_is_seen(
    start: Starter,
    client: str,
    payments: BlockingChannel,
) -> None:
    worker = Observed(partial(start, CHAPTER), client)
    pay(payments, "17", "sleeper 5")
    worker.counts(in_hand=1.0, consumed_total=1.0, duration_seconds_count=0.0)


def test_the_time_of_a_task_is_measured(
    copy: Run,
    client: str,
    payments: BlockingChannel,
) -> None:
    slow = {'{"alice": 0,': '{"alice": 0.3,'}
    worker = Observed(lambda c, name, **more: copy(CHAPTER, c, name, slow, **more), client)
    pay(payments, "17", "alice 5")
    worker.counts(duration_seconds_count=1.0)
    found = worker.metrics()
    assert found["worker_duration_seconds_sum"] >= 0.3


@pytest.mark.parametrize(
    ("name", "port"),
    [(PROBED, "taken"), *((MEASURED, x) for x in ("taken", "soon", "70000", "-1"))],
)
def test_a_port_that_cannot_be_used(
    start: Starter,
    client: str,
    payments: BlockingChannel,
    name: str,
    port: str,
) -> None:
    """It shows before a task is taken."""
    with socket.create_server((LOOPBACK, 0)) as other:
        port = str(other.getsockname()[1]) if port == "taken" else port
        pay(payments, "17", "alice 5")
        script = start(CHAPTER, client, name, HTTP_PORT=port)
        assert_one_line(script, f"HTTP_PORT '{port}' cannot be used")
        assert script.stdout == []
        found, _ = take(payments, "payments")
        assert not (found.headers or {}).get("x-delivery-count")


# --- The dashboard ----------------------------------------------------------------


class Selectors(dict[str, set[str]]):
    """The metrics that an expression reads, with the labels that it names for each."""

    def __init__(self, expression: str) -> None:
        self.visit(promql_parser.parse(expression), set())

    def visit(self, node: Any, by: set[str]) -> None:
        if isinstance(node, promql_parser.AggregateExpr):
            self.visit(node.expr, by | {*(node.modifier.labels if node.modifier else ())})
        elif isinstance(node, promql_parser.Call):
            for each in node.args:
                self.visit(each, by)
        elif isinstance(node, promql_parser.BinaryExpr):
            self.visit(node.lhs, by)
            self.visit(node.rhs, by)
        elif isinstance(node, promql_parser.MatrixSelector):
            self.visit(node.vector_selector, by)
        elif isinstance(node, promql_parser.VectorSelector):
            named = {each.name for each in node.matchers.matchers}
            self.setdefault(node.name or "", set()).update(by | named)
        else:
            assert isinstance(node, promql_parser.NumberLiteral), node


def expressions() -> list[str]:
    """All that the dashboard asks Prometheus for, and all that the page does."""
    made = json.loads(DASHBOARD.read_text())
    found = [target["expr"] for panel in made["panels"] for target in panel["targets"]]
    block = re.search(r"\.\. code-block:: promql\n\n((?: +.*\n)+)", TEXT)
    assert block
    found += [line.strip() for line in block[1].splitlines()]
    return [each.replace("$__rate_interval", "5m") for each in found]


def unknown(worker: Observed) -> set[str]:
    """The metrics that are asked for, and that this worker lacks, or a label of theirs."""
    there: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(worker.ask("/metrics")[1]):
        for sample in family.samples:
            there.setdefault(sample.name, set()).update(sample.labels)
    asked = [item for each in expressions() for item in Selectors(each).items()]
    return {name for name, labels in asked if not labels <= there.get(name, set())}


def test_the_dashboard_asks_only_for_what_the_worker_exports(measured: Observed) -> None:
    assert unknown(measured) == set()
    asked = [Selectors(each) for each in expressions()]
    assert all(asked)
    wanted = {"consumed_total", "retried_total", "failed_total", "in_hand", "ready"}
    wanted |= {"duration_seconds_bucket"}
    assert {f"worker_{name}" for name in wanted} == {name for each in asked for name in each}


def test_the_dashboard_is_whole() -> None:
    """As far as can be seen without Grafana: panels with places, and known variables."""
    made = json.loads(DASHBOARD.read_text())
    names = {each["name"]: each for each in made["templating"]["list"]}
    assert set(re.findall(r"\$\{?([a-z]+)", DASHBOARD.read_text())) == set(names)
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", names["queue"]["query"]).groups()  # type: ignore
    assert (metric, label) == ("worker_consumed_total", "queue")
    ids = [panel["id"] for panel in made["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in made["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
        for target in panel["targets"]:
            counters = re.findall(r"worker_\w+_(?:total|bucket)", target["expr"])
            for name in counters:  # never the value itself
                assert re.search(rf"(rate|increase)\({name}", target["expr"])


def test_the_alarm_rings_where_no_worker_is_left() -> None:
    """A metric that nobody exports is smaller than nothing."""
    (alarm,) = (each for each in expressions() if "ready) < 1" in each)
    either = promql_parser.parse(alarm)
    assert isinstance(either, promql_parser.BinaryExpr)
    assert isinstance(either.lhs, promql_parser.Call)
    assert (str(either.op), either.lhs.func.name) == ("or", "absent")


# --- Health -----------------------------------------------------------------------

WAITING = " [*] Waiting for messages. To exit press CTRL+C"


def complaint(worker: Observed, *words: str) -> None:
    """Wait for its one line on stderr, which says why it is not ready."""
    poll(lambda: len(worker.script.stderr), 1)
    for each in ("Trying again: ", *words):
        assert each in worker.script.stderr[0], worker.script


def test_without_a_broker_it_is_live_and_not_ready(
    start: Starter,
    client: str,
    url: str,
    payments: BlockingChannel,
) -> None:
    with Proxy(url, "closed") as proxy:
        worker = Observed(partial(start, CHAPTER), client, name=PROBED, url=proxy.url)
        complaint(worker)
        poll(lambda: len(proxy.attempts) > 1, True)
        assert (worker.ask("/live")[0], worker.ask("/ready")[0]) == (200, 503)
        assert worker.script.stdout == []
        proxy.state = "through"
        worker.becomes("/ready", 200).script.wait_for(WAITING)
        assert worker.ask("/live") == (200, "yes\n")
        assert worker.ask("/nothing")[0] == 404
        complaint(worker)  # the same, once, whatever the attempts and the questions
    with Proxy(url, "silent") as proxy:  # which is asked for a connection, and is not heard
        worker = Observed(partial(start, CHAPTER), client, name=PROBED, url=proxy.url)
        worker.becomes("/live", 200)
        poll(lambda: len(proxy.attempts), 1)
        assert (worker.ask("/ready"), worker.script.stdout) == ((503, "no\n"), [])


def test_with_its_connection_it_loses_its_readiness_and_with_a_new_one_it_is_back(
    probed: Observed, payments: BlockingChannel, broker: Broker, url: str
) -> None:
    subscribed(payments, "payments")
    close_connections(broker, url, "maintenance at noon")
    complaint(probed, "CONNECTION_FORCED - maintenance at noon")
    probed.script.wait_for(WAITING, 2)
    assert (probed.ask("/ready")[0], len(probed.script.stderr)) == (200, 1)


def test_with_its_queue_it_loses_its_readiness(
    probed: Observed,
    url: str,
    payments: BlockingChannel,
) -> None:
    subscribed(payments, "payments")
    payments.queue_delete("payments")
    probed.becomes("/ready", 503)
    assert probed.ask("/live")[0] == 200
    assert probed.script.process.poll() is None
    with connected(url) as again:
        again.queue_declare("payments", durable=True, arguments={"x-queue-type": "quorum"})
    probed.becomes("/ready", 200)


def test_what_is_done_is_acked(probed: Observed, payments: BlockingChannel) -> None:
    subscribed(payments, "payments")
    pay(payments, "17", "alice 5")
    pay(payments, "18", "sleeper 5")
    poll(lambda: ready(payments, "payments"), 0)  # it has the second one
    probed.script.process.kill()
    subscribed(payments, "payments", 0)
    assert take(payments, "payments")[1] == b"sleeper 5"
    assert ready(payments, "payments") == 0


SHORT = {"TURNS_WITHIN = 60": "TURNS_WITHIN = 4"}
BLOCKING = {"await asyncio.sleep(36": "time.sleep(36"}


def turning(copy: Run, client: str, changes: dict[str, str]) -> Observed:
    """One that has turned for longer than a turn may take, with nothing to do."""
    run = lambda c, name, **more: copy(CHAPTER, c, name, changes, **more)  # noqa: E731
    worker = Observed(run, client, name=PROBED).becomes("/ready", 200)
    late = datetime.now(UTC) + timedelta(seconds=5)
    poll(lambda: datetime.now(UTC) > late, True)
    return worker.becomes("/live", 200)


def test_held_up_it_is_not_live(copy: Run, client: str, payments: BlockingChannel) -> None:
    """And as long as it turns, with or without something to do, it is."""
    worker = turning(copy, client, SHORT if client == "pika" else {**SHORT, **BLOCKING})
    pay(payments, "17", "sleeper 5")
    assert worker.becomes("/live", 503).ask("/ready")[0] == 200


def test_a_task_that_awaits_does_not_hold_up_the_loop(
    copy: Run,
    payments: BlockingChannel,
) -> None:
    pay(payments, "17", "sleeper 5")
    turning(copy, "aio-pika", SHORT)
    assert ready(payments, "payments") == 0


# --- Mistakes ---------------------------------------------------------------------


def test_what_no_retry_mends_is_one_line(
    start: Starter, client: str, broker: Broker, url: str
) -> None:
    """It may be mended at the broker; a URL that is none can't be."""
    where, vhost = broker.url.rpartition("@")[2], url.rpartition("/")[2]
    denied = {
        f"amqp://guest:s3cret@{where}{vhost}": "ACCESS_REFUSED|ProbableAuth",
        f"amqp://guest:guest@{where}no-such-vhost": "NOT_ALLOWED|OpenOk",
        url: "NOT_FOUND",  # the payments are not declared
    }
    for bad, words in denied.items():
        worker = Observed(partial(start, CHAPTER), client, name=PROBED, url=bad)
        complaint(worker)
        assert re.search(words, worker.script.stderr[0]), worker.script
        assert not re.search("s3|cret", worker.script.stderr[0])
        assert (worker.ask("/live")[0], worker.ask("/ready")[0]) == (200, 503)
        assert worker.script.stdout == []
    for bad in ("amqp://alice:s3cr/et@localhost/", "none"):
        worker = Observed(partial(start, CHAPTER), client, name=PROBED, url=bad)
        assert_one_line(worker.script)
        assert re.search("AMQP_URL wants amqp://|make doctor", worker.script.stderr[0])
        assert not re.search("s3|cret|cr/", worker.script.stderr[0])


@pytest.mark.parametrize("name", [LOGGED, MEASURED])
def test_no_queue_is_one_line(start: Starter, client: str, name: str) -> None:
    """Said before it says that it waits."""
    worker = Observed(partial(start, CHAPTER), client, name=name)
    assert_one_line(worker.script, "NOT_FOUND", "declare_queues.py")
    assert worker.script.stdout == []


@pytest.mark.parametrize("name", [LOGGED, MEASURED, PROBED])
def test_it_can_be_copied_out(client: str, name: str) -> None:
    script = EXAMPLES / CHAPTER / client / name
    own = {"pika": "pika", "aio-pika": "aio_pika"}[client]
    more = {"prometheus_client"} if name == MEASURED else set[str]()
    assert imported(script) <= {own, *more, *sys.stdlib_module_names}
    lines = script.read_text().splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 79


def test_a_turn_has_as_long_as_the_page_says(client: str) -> None:
    seconds = said("production-observe", r"``TURNS_WITHIN`` seconds for a turn \((\d+)\)")
    script = EXAMPLES / CHAPTER / client / PROBED
    assert f"TURNS_WITHIN = {seconds}.0" in script.read_text()


@pytest.mark.parametrize(
    ("name", "begins", "ends"),
    [
        (LOGGED, "class OneLine", "def handle"),
        (MEASURED, "def measure", "def handle"),
        (PROBED, "class Answers", "\n\n\n"),
    ],
)
def test_what_does_not_depend_on_the_client_is_the_same(name: str, begins: str, ends: str) -> None:
    texts = [(EXAMPLES / CHAPTER / client / name).read_text() for client in CLIENTS]
    parts = [text[text.index(begins) :].partition(ends)[0] for text in texts]
    assert parts[0] == parts[1].removesuffix("async ")
