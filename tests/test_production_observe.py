"""The promises of docs/production-observe.rst, each with a test that can break it."""

from __future__ import annotations

import json
import re
import signal
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

CHAPTER, OBSERVED = "production-worker", "worker_observed.py"
DASHBOARD = EXAMPLES / CHAPTER / "dashboard.json"
TEXT = page("production-observe").read_text(encoding="utf-8")


class Observed:
    """A worker, and what it says of itself."""

    def __init__(self, start: Callable[..., Script], client: str, **more: Any) -> None:
        (self.port,) = brokers.free_ports(1)
        name = more.pop("name", OBSERVED)
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
def observed(start: Starter, client: str, payments: BlockingChannel) -> Observed:
    return Observed(partial(start, CHAPTER), client).becomes("/ready", 200)


def event(observed: Observed, message: str, count: int = 1) -> None:
    observed.script.wait_for(f'"message": "{message}"', count)


# --- Logs -------------------------------------------------------------------------


def test_each_event_is_a_line_of_json(observed: Observed, payments: BlockingChannel) -> None:
    pay(payments, "17", "alice 5")
    pay(payments, "18", "nobody 5")
    event(observed, "failed")
    log = observed.log()
    assert observed.events() == [
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
    assert (observed.script.interrupt(), observed.script.stderr) == (INTERRUPTED, [])


def test_whatever_is_in_a_message_it_stays_one_line(
    observed: Observed,
    payments: BlockingChannel,
) -> None:
    pay(payments, 'a"\n{}ü🐰', b"caf\xe9\n5")
    event(observed, "failed")
    assert observed.events()[1:] == [("retried", 'a"\n{}ü🐰'), ("failed", 'a"\n{}ü🐰')]
    assert "UnicodeDecodeError" in observed.log()[-1]["error"]
    assert len(observed.script.stdout) == 3


def test_what_a_library_logs_is_json_too_with_its_traceback(
    client: str, url: str, tmp_path: Path
) -> None:
    bare = "    serve()\n"
    noise = (
        "    try:\n        1 / 0\n    except ZeroDivisionError:\n"
        '        logging.getLogger("library").exception("it failed: %s", "why")\n'
        "    sys.exit()\n"
    )
    path = altered(CHAPTER, client, OBSERVED, bare, noise, tmp_path)
    script = Script(path, url=url)
    assert (script.wait(), script.stderr) == (0, [])
    (line,) = script.stdout
    found = json.loads(line)
    assert (found["message"], found["level"]) == ("it failed: why", "ERROR")
    assert found["traceback"].startswith("Traceback")
    assert "ZeroDivisionError" in found["traceback"]
    script.close()


# --- Metrics ----------------------------------------------------------------------


def test_it_counts(observed: Observed, payments: BlockingChannel) -> None:
    names = ("consumed_total", "retried_total", "failed_total", "in_hand")
    observed.counts(**dict.fromkeys(names, 0.0), duration_seconds_count=0.0, ready=1.0)
    for number in range(3):
        pay(payments, str(number), "alice 5")
    pay(payments, "18", "nobody 5")
    observed.counts(
        consumed_total=5.0,
        retried_total=1.0,
        failed_total=1.0,
        in_hand=0.0,
        duration_seconds_count=5.0,
    )
    poll(lambda: ready(payments, "payments.dead"), 1)
    text = observed.ask("/metrics")[1]
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
    event(worker, "done")
    found = worker.metrics()
    assert found["worker_duration_seconds_sum"] >= 0.3


@pytest.mark.parametrize("port", ["taken", "soon", "70000", "-1"])
def test_a_port_that_cannot_be_used(
    start: Starter,
    client: str,
    payments: BlockingChannel,
    port: str,
) -> None:
    """It shows before a task is taken."""
    with socket.create_server((LOOPBACK, 0)) as other:
        port = str(other.getsockname()[1]) if port == "taken" else port
        pay(payments, "17", "alice 5")
        script = start(CHAPTER, client, OBSERVED, HTTP_PORT=port)
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


def test_the_dashboard_asks_only_for_what_the_worker_exports(observed: Observed) -> None:
    assert unknown(observed) == set()
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


# --- Health -----------------------------------------------------------------------


def test_without_a_broker_it_is_live_and_not_ready(
    start: Starter,
    client: str,
    url: str,
    payments: BlockingChannel,
) -> None:
    with Proxy(url, "closed") as proxy:
        worker = Observed(partial(start, CHAPTER), client, url=proxy.url)
        event(worker, "disconnected")
        poll(lambda: len(proxy.attempts) > 1, True)
        assert (worker.ask("/live")[0], worker.ask("/ready")[0]) == (200, 503)
        assert worker.events() == [("disconnected", None)]  # once, whatever the attempts
        worker.counts(ready=0.0)
        proxy.state = "through"
        worker.becomes("/ready", 200).counts(ready=1.0)
        assert worker.events() == [("disconnected", None), ("consuming", None)]
        assert worker.script.stderr == []  # nor a warning of the connections that were not made
        assert worker.ask("/nothing")[0] == 404
    with Proxy(url, "silent") as proxy:  # which is asked for a connection, and is not heard
        worker = Observed(partial(start, CHAPTER), client, url=proxy.url).becomes("/live", 200)
        poll(lambda: len(proxy.attempts), 1)
        assert (worker.ask("/ready")[0], worker.script.stdout) == (503, [])


def test_with_its_connection_it_loses_its_readiness_and_with_a_new_one_it_is_back(
    start: Starter, client: str, broker: Broker, url: str
) -> None:
    assert start(CHAPTER, client, "declare_queues.py").wait() == 0
    observed = Observed(partial(start, CHAPTER), client).becomes("/ready", 200)
    close_connections(broker, url, "maintenance at noon")
    event(observed, "disconnected")
    assert "CONNECTION_FORCED - maintenance at noon" in observed.log()[1]["reason"]
    assert observed.log()[1]["level"] == "WARNING"
    event(observed, "consuming", 2)
    assert (observed.ask("/ready")[0], len(observed.log())) == (200, 3)


def test_with_its_queue_it_loses_its_readiness(
    observed: Observed,
    url: str,
    payments: BlockingChannel,
) -> None:
    subscribed(payments, "payments")
    payments.queue_delete("payments")
    observed.becomes("/ready", 503)
    assert observed.ask("/live")[0] == 200
    assert observed.script.process.poll() is None
    with connected(url) as again:
        again.queue_declare("payments", durable=True, arguments={"x-queue-type": "quorum"})
    observed.becomes("/ready", 200)


SHORT = {"TURNS_WITHIN = 60": "TURNS_WITHIN = 4"}
BLOCKING = {"await asyncio.sleep(ACC": "time.sleep(ACC"}


def test_held_up_it_is_not_live(
    copy: Run,
    client: str,
    payments: BlockingChannel,
) -> None:
    """And as long as it turns, with or without something to do, it is."""
    changes = SHORT if client == "pika" else {**SHORT, **BLOCKING}
    worker = Observed(lambda c, name, **more: copy(CHAPTER, c, name, changes, **more), client)
    worker.becomes("/ready", 200)
    late = datetime.now(UTC) + timedelta(seconds=5)
    poll(lambda: datetime.now(UTC) > late, True)  # longer than a turn may take
    worker.becomes("/live", 200)
    pay(payments, "17", "sleeper 5")
    worker.becomes("/live", 503)
    worker.counts(in_hand=1.0)


def test_a_task_that_awaits_does_not_hold_up_the_loop(
    copy: Run,
    payments: BlockingChannel,
) -> None:
    run = lambda c, name, **more: copy(CHAPTER, c, name, SHORT, **more)  # noqa: E731
    worker = Observed(run, "aio-pika").becomes("/ready", 200)
    pay(payments, "17", "sleeper 5")
    worker.counts(in_hand=1.0)
    late = datetime.now(UTC) + timedelta(seconds=5)
    poll(lambda: datetime.now(UTC) > late, True)
    worker.becomes("/live", 200)


# --- Mistakes ---------------------------------------------------------------------


def test_what_no_retry_mends_is_one_line(
    start: Starter, client: str, broker: Broker, url: str
) -> None:
    where, vhost = broker.url.rpartition("@")[2], url.rpartition("/")[2]
    wrong = {
        f"amqp://guest:s3cret@{where}{vhost}": "Refused: ",
        f"amqp://guest:guest@{where}no-such-vhost": "Refused: ",
        url: "NOT_FOUND",  # the payments are not declared
        "amqp://alice:s3cr/et@localhost/": "AMQP_URL wants amqp://",
        "none": "AMQP_URL wants amqp://",
    }
    for bad, words in wrong.items():
        worker = Observed(partial(start, CHAPTER), client, url=bad)
        assert_one_line(worker.script, words)
        assert not re.search("s3|cret|cr/", worker.script.stderr[0])
        assert worker.script.stdout == []


@pytest.mark.parametrize("client", CLIENTS)
def test_it_can_be_copied_out(client: str) -> None:
    script = EXAMPLES / CHAPTER / client / OBSERVED
    own = {"pika": "pika", "aio-pika": "aio_pika"}[client]
    assert imported(script) <= {own, "prometheus_client", *sys.stdlib_module_names}
    lines = script.read_text().splitlines()
    assert len(lines) <= 160
    assert max(map(len, lines)) <= 79
    seconds = said("production-observe", r"``TURNS_WITHIN`` seconds for a turn \((\d+)\)")
    assert f"TURNS_WITHIN = {seconds}.0" in script.read_text()


def test_the_health_and_the_logs_are_the_same_in_both_clients() -> None:
    texts = [(EXAMPLES / CHAPTER / client / OBSERVED).read_text() for client in CLIENTS]
    parts = [text[text.index("def measure") :].partition("def handle")[0] for text in texts]
    assert parts[0] == parts[1].removesuffix("async ")


def test_sigterm_ends_it(observed: Observed) -> None:
    """Whether it stops in good order is the subject of another page."""
    assert observed.script.signal(signal.SIGTERM) == -signal.SIGTERM
