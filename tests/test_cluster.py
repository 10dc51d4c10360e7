"""The cluster of `make cluster`, and what its page promises of one that loses a node."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path
from statistics import median
from typing import Any

import broker as brokers
import pika
import psutil
import pytest
import record_cluster
from broker import Broker, BrokerError, reaper
from broker.base import Place
from broker.cluster import ACTS, Cluster
from conftest import (
    TESTS,
    Starter,
    assert_one_line,
    close_connections,
    connected,
    poll,
    ready,
    subscribers,
)
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker, NackError
from shells.chapters import CLIENTS, DOCS, EXAMPLES, figure, said
from shells.running import INTERRUPTED, Script

# --- make cluster --------------------------------------------------------------


def remains(tags: list[str]) -> list[str]:
    """Processes, containers, networks and folders that carry one of these tags."""
    found = [repr(process) for tag in tags for process in reaper.processes(tag)]
    for tag in tags:
        found += [str(path) for path in Path(tempfile.gettempdir()).glob(f"{tag}*")]
    if not brokers.docker_trouble(brokers.DEFAULT_IMAGE, pull=False).startswith("no "):
        import docker

        with closing(docker.from_env()) as engine:
            for tag in tags:
                found += [
                    str(x.name)
                    for x in engine.containers.list(
                        all=True, filters={"name": tag}, ignore_removed=True
                    )
                ]
                found += [str(x.name) for x in engine.networks.list(names=[tag])]
    return found


def three_ports() -> int:
    """The first of three that nobody holds."""
    free = brokers.reserve
    return next(port for port in brokers.free_ports(50) if free(port + 1) and free(port + 2))


def keep_cluster(port: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "broker.cluster"],
        cwd=TESTS,
        env={**os.environ, "PORT": str(port)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def tags_of(process: subprocess.Popen[str]) -> list[str]:
    """The tags of its nodes and of their network, as far as they are there."""
    found = set()
    with suppress(psutil.Error):
        for child in psutil.Process(process.pid).children():
            if reaper.__file__ in (words := child.cmdline()):
                found |= {each for each in words if each.startswith(brokers.PREFIX)}
    return sorted(found)


@pytest.mark.xdist_group("cluster")
@pytest.mark.long
def test_nothing_is_left_of_a_cluster_whose_owner_is_killed() -> None:
    """And until then all is as `make cluster` says."""
    port = three_ports()
    with keep_cluster(port) as process:
        assert process.stdout
        assert process.stderr
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("Ctrl-C"):
                break
        assert lines, process.stderr.read()
        tags = tags_of(process)
        assert len(remains(tags)) >= 6  # a folder for each, and what runs
        text = "\n".join(lines)
        urls = text.partition("export AMQP_URLS=")[2].split()[0].split(",")
        assert urls == [f"amqp://guest:guest@localhost:{port + each}/" for each in range(3)]
        assert {brokers.handshake(url) for url in urls} == {lines[0].split()[1]}
        path = text.partition("export PATH=")[2].partition(":")[0]
        for act in ACTS:
            assert act in text
        typed = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
        shown = next(line for line in lines if line.startswith("node1 rabbitmqctl"))
        subprocess.run(shown.partition("   ")[0], shell=True, env=typed, check=True)
        process.kill()
    poll(lambda: remains(tags), [])


@pytest.mark.parametrize(("how", "status"), {signal.SIGINT: 130, signal.SIGTERM: 0}.items())
def test_nothing_is_left_of_a_cluster_that_only_starts(how: signal.Signals, status: int) -> None:
    port = three_ports()
    process = keep_cluster(port)
    poll(lambda: len(remains(tags_of(process))) > 4, True)
    tags = tags_of(process)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, "is up" in out) == (status, False), err
    poll(lambda: remains(tags), [])


def test_a_port_that_is_held_is_named() -> None:
    (port,) = brokers.free_ports(1)
    _, err = keep_cluster(70_000).communicate(timeout=60)
    assert err.startswith("PORT=70000 is not a port number")
    with socket.create_server((brokers.LOOPBACK, port + 1)):
        process = keep_cluster(port)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.startswith(f"Port {port + 1} is held by ")


# --- Its nodes -------------------------------------------------------------------

QUORUM = {"x-queue-type": "quorum"}


def run(cluster: Cluster, node: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Type a node's program."""
    program = str(cluster.bin / f"node{node}")
    return subprocess.run([program, *words], capture_output=True, text=True, timeout=300)


def leader(cluster: Cluster, at: int, queue: str) -> str:
    """Which node leads a queue, as another one says."""
    listed = run(cluster, at, "rabbitmqctl", "-q", "list_queues", "name", "leader").stdout
    return dict(line.split("\t") for line in listed.splitlines() if "\t" in line).get(queue, "")


def answers(url: str) -> bool:
    with suppress(AMQPError, OSError):
        return bool(brokers.handshake(url))
    return False


BACK = {"kill": "start", "pause": "resume", "cut": "heal"}


@pytest.mark.parametrize("act", BACK)
def test_another_node_leads_when_the_leader_is_gone(cluster: Cluster, act: str) -> None:
    with connected(cluster.urls[0]) as channel:
        channel.queue_declare("led", durable=True, arguments=QUORUM)
    poll(lambda: leader(cluster, 2, "led"), "node1@host1")
    assert run(cluster, 1, act).returncode == 0
    if act != "cut":
        assert not answers(cluster.urls[0])
    poll(lambda: leader(cluster, 2, "led") in ("node2@host2", "node3@host3"), True)
    with connected(cluster.urls[1]) as channel:
        channel.basic_publish("", "led", b"while it is gone", mandatory=True)
    again = run(cluster, 1, act)
    assert (again.returncode, again.stderr[:8]) == (1, "node1 is")
    assert run(cluster, 1, BACK[act]).returncode == 0
    cluster.repair()
    with connected(cluster.urls[1]) as channel:
        assert channel.basic_get("led", auto_ack=True)[2] == b"while it is gone"


def test_what_a_node_cannot_do_is_said(cluster: Cluster) -> None:
    for words, status, says in (
        (("resume",), 1, "node2 is not frozen"),
        (("heal",), 1, "node2 is not cut off"),
        (("start",), 1, "node2 is up"),
        (("explode",), 2, "Usage: node2 kill|"),
        ((), 2, "Usage: node2 kill|"),
    ):
        done = run(cluster, 2, *words)
        assert (done.returncode, done.stdout) == (status, "")
        assert done.stderr.startswith(says)
    with pytest.raises(BrokerError, match="none of kill"):
        cluster.act(1, "explode")


# --- What the page says of clients ---------------------------------------------------

BOOKED = re.compile(r" \[x\] Booked: (\w+) has (\d+)")


def url_list(cluster: Cluster, *numbers: int) -> str:
    return ",".join(cluster.node(number).url for number in numbers)


def booked(worker: Script) -> list[str]:
    return [found[1] for line in worker.stdout if (found := BOOKED.match(line))]


def declared(start: Starter, cluster: Cluster, client: str) -> None:
    one = start("cluster", client, "declare.py", url=cluster.urls[0])
    assert one.wait() == 0
    assert one.stdout == [" [x] Declared bookings", " [x] Declared bookings.ordered"]


def publish(start: Starter, cluster: Cluster, client: str, lines: str, *nodes: int) -> Script:
    """Publish lines, each of which is confirmed."""
    with tempfile.TemporaryFile("w+") as file:
        file.write(lines)
        file.seek(0)
        urls = url_list(cluster, *nodes)
        one = start("cluster", client, "publisher.py", url="", AMQP_URLS=urls, stdin=file)
        assert one.wait() == 0, one
    confirmed = [line for line in one.stdout if "Confirmed" in line]
    assert confirmed == [f" [x] Confirmed '{line.split()[0]}'" for line in lines.splitlines()]
    return one


def test_a_drained_node_sends_its_clients_away(
    start: Starter, cluster: Cluster, client: str, tmp_path: Path
) -> None:
    """One with a list of nodes goes on elsewhere; one with a single URL ends."""
    declared(start, cluster, client)
    naive = start("2-work-queues", client, "tasks_worker.py", url=cluster.urls[0])
    naive.wait_for("Waiting")
    worker = start(
        "cluster",
        client,
        "worker.py",
        url="",
        AMQP_URLS=url_list(cluster, 1, 2),
        DATABASE=str(tmp_path / "accounts"),
    )
    worker.wait_for("Waiting")
    waited = run(cluster, 1, "rabbitmq-upgrade", "await_online_quorum_plus_one")
    assert waited.returncode == 0
    assert "maintenance mode" in run(cluster, 1, "rabbitmq-upgrade", "drain").stdout
    try:
        assert naive.wait() == 1
        if client == "pika":
            assert "(320)" in naive.stderr[0]
        late = start("2-work-queues", client, "tasks_worker.py", url=cluster.urls[0])
        assert late.wait() == 1
        others = ("node2@host2", "node3@host3")
        poll(lambda: leader(cluster, 2, "bookings") in others, True)
        publish(start, cluster, client, "1 ann 5\n1 ann 5\n2 bob 5\n", 2, 3)
        worker.wait_for("Booked: bob")
        assert booked(worker) == ["ann", "bob"]
        assert sum("Booked before: '1'" in line for line in worker.stdout) == 1
    finally:
        assert run(cluster, 1, "rabbitmq-upgrade", "revive").returncode == 0
    assert brokers.handshake(cluster.urls[0]) == cluster.version


def test_a_classic_queue_is_gone_with_its_node(cluster: Cluster) -> None:
    code = int(said("cluster", r"told ``(\d+) NOT_FOUND``"))
    with connected(cluster.urls[0]) as channel:
        channel.queue_declare("classic", durable=True, arguments={"x-queue-type": "classic"})
    cluster.act(1, "stop")  # after a kill the answer takes minutes, in containers
    declarations: list[Any] = [
        {"passive": True},
        {"durable": True, "arguments": {"x-queue-type": "classic"}},
    ]
    for more in declarations:
        with pytest.raises(ChannelClosedByBroker) as error, connected(cluster.urls[1]) as channel:
            channel.queue_declare("classic", **more)
        assert error.value.reply_code == code
        assert error.value.reply_text.startswith("NOT_FOUND")


def test_the_time_limits_that_the_page_names() -> None:
    ticks = figure("cluster", r"``make cluster`` sets (\d+) s")
    conf = Place("a-tag", 1, 3, 4369).configuration
    assert ("net_ticktime", str(ticks)) in {tuple(x.split(" = ")) for x in conf.splitlines()}
    assert "cluster_partition_handling = pause_minority\n" in conf
    beat = figure("cluster", r"heartbeats of (\d+) s")
    confirm = figure("cluster", r"(?:no confirm has come for|waits) (\d+) s")
    kept = figure("cluster", r"``declare.py`` sets (\d+) s")
    patience = figure("cluster", r"waits \d+ s for a confirm rather than (\d+)")
    assert patience == figure("production-worker", r"After (\d+) s without an answer")
    said("cluster", r"gives the node up after (twice) as long")  # as AMQP 0-9-1 has it
    for name in CLIENTS:
        folder = EXAMPLES / "cluster" / name
        assert re.search(rf"heartbeat ?= ?{beat}\b", (folder / "worker.py").read_text())
        publisher = (folder / "publisher.py").read_text()
        assert re.search(rf"(alarm|timeout)\({confirm}\)", publisher)
        timeout = f'"x-consumer-disconnected-timeout": {kept}_000,'
        assert timeout in (folder / "declare.py").read_text()


@pytest.mark.parametrize("line", ["17", "", "x" * 256 + " alice 5"])
def test_a_line_that_is_none(start: Starter, broker: Broker, client: str, line: str) -> None:
    with broker.vhost() as url, tempfile.TemporaryFile("w+") as file:
        one = start("cluster", client, "declare.py", url=url)
        assert one.wait() == 0
        file.write(f"1 alice 5\n{line}\n2 alice 5\n")
        file.seek(0)
        one = start("cluster", client, "publisher.py", url=url, stdin=file)
        assert_one_line(one, "Refused: ", "KEY ACCOUNT AMOUNT")
        assert one.stdout == [" [*] Connected", " [x] Confirmed '1'"]


def test_what_cannot_be_booked_is_set_aside(
    start: Starter, url: str, client: str, other: str, tmp_path: Path
) -> None:
    start("cluster", other, "declare.py", url=url).wait()
    worker = start("cluster", client, "worker.py", url=url, DATABASE=str(tmp_path / "db"))
    worker.wait_for("Waiting")
    with connected(url) as channel:
        for key, body in ((None, b"ann 5"), ("1", b"ann"), ("2", b"ann 5"), ("2", b"ann 5")):
            channel.basic_publish("", "bookings", body, pika.BasicProperties(message_id=key))
        worker.wait_for("Booked before: '2'")
        poll(lambda: ready(channel, "bookings"), 0)
    assert worker.interrupt() == INTERRUPTED
    with connected(url) as channel:
        poll(lambda: subscribers(channel, "bookings"), 0)
        assert ready(channel, "bookings") == 0  # nothing was left without its ack
    aside = [line[:16] for line in worker.stdout[1:3]]
    assert (aside, worker.stdout[3:4]) == ([" [x] Set aside: "] * 2, [" [x] Booked: ann has 5"])


@pytest.mark.parametrize("script", ["publisher.py", "worker.py"])
def test_a_queue_that_nobody_declared(
    start: Starter, url: str, client: str, script: str, tmp_path: Path
) -> None:
    with tempfile.TemporaryFile("w+") as file:
        file.write("1 alice 5\n")
        file.seek(0)
        one = start("cluster", client, script, url=url, stdin=file, DATABASE=str(tmp_path / "db"))
        assert_one_line(one, "Refused: ", "NOT_FOUND", "declare.py")


@pytest.mark.parametrize("script", ["declare.py", "publisher.py", "worker.py"])
def test_mistakes_that_the_reader_can_mend(
    start: Starter, broker: Broker, client: str, script: str, tmp_path: Path
) -> None:
    where = broker.url.rpartition("@")[2]
    for url in ("amqp://alice:s3cr#et@localhost/", f"amqp://guest:s3cret@{where}"):
        with tempfile.TemporaryFile("w+") as file:
            file.write("1 alice 5\n")
            file.seek(0)
            more = {"stdin": file, "DATABASE": str(tmp_path / "db")}
            one = start("cluster", client, script, url=url, **more)
            assert_one_line(one)
            assert not re.search("s3cr|et@", one.stderr[0])


def test_a_database_that_is_none(start: Starter, url: str, client: str, tmp_path: Path) -> None:
    one = start("cluster", client, "worker.py", url=url, DATABASE=str(tmp_path))
    assert_one_line(one, "Failed: ", "DATABASE is ")


# --- The scripts, where one broker is enough -------------------------------------------


def test_a_lost_connection_is_not_the_end(
    start: Starter, broker: Broker, url: str, client: str, tmp_path: Path
) -> None:
    """Nor is a node that does not answer; it is named in the list, too."""
    (nobody,) = brokers.free_ports(1)
    urls = f"{url},amqp://guest:guest@localhost:{nobody}/"
    start("cluster", client, "declare.py", url="", AMQP_URLS=urls).wait()
    worker = start("cluster", client, "worker.py", AMQP_URLS=urls, DATABASE=str(tmp_path / "db"))
    worker.wait_for("Waiting")
    sender = start("cluster", client, "publisher.py", AMQP_URLS=urls, stdin=subprocess.PIPE)
    assert sender.process.stdin
    for number in (1, 2):
        sender.process.stdin.write(f"{number} ann 5\n")
        sender.process.stdin.flush()
        sender.wait_for(f"Confirmed '{number}'")
        worker.wait_for("Booked: ann has", number)
        if number == 1:
            close_connections(broker, url, "maintenance at noon", 2)
            poll(lambda: sum("noon" in line for line in worker.stderr), 1)
            worker.wait_for("Waiting", 2)
    sender.process.stdin.close()
    assert sender.wait() == 0
    assert [line for line in sender.stdout if "Confirmed" in line] == [
        " [x] Confirmed '1'",
        " [x] Confirmed '2'",
    ]


def test_a_nack_is_no_confirm(start: Starter, broker: Broker, url: str, client: str) -> None:
    start("cluster", client, "declare.py", url=url).wait()
    vhost = url.rpartition("/")[2]
    full = {"pattern": "^bookings$", "apply-to": "queues", "priority": 1}
    full["definition"] = {"max-length": 0, "overflow": "reject-publish"}
    broker.call_api("PUT", f"policies/{vhost}/full", full)
    with connected(url) as channel:
        poll(lambda: refused(channel), True)
        before = ready(channel, "bookings")
    with tempfile.TemporaryFile("w+") as file:
        file.write("1 ann 5\n")
        file.seek(0)
        one = start("cluster", client, "publisher.py", url=url, stdin=file)
        poll(lambda: sum("Trying again" in line for line in one.stderr), 1)
        assert not [line for line in one.stdout if "Confirmed" in line]
        broker.call_api("DELETE", f"policies/{vhost}/full")
        assert one.wait() == 0
    assert one.stdout[-1] == " [x] Confirmed '1'"
    with connected(url) as channel:
        poll(lambda: ready(channel, "bookings"), before + 1)


def refused(channel: BlockingChannel) -> bool:
    try:
        channel.basic_publish("", "bookings", b"", mandatory=True)
    except NackError:
        return True
    return False


def test_a_task_is_acked_when_it_is_in_the_database(
    start: Starter, url: str, client: str, tmp_path: Path
) -> None:
    start("cluster", client, "declare.py", url=url).wait()
    database = tmp_path / "db"
    worker = start("cluster", client, "worker.py", url=url, DATABASE=str(database))
    worker.wait_for("Waiting")
    with closing(sqlite3.connect(database)) as opened:
        opened.execute(
            "CREATE TRIGGER no BEFORE INSERT ON account BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
    with connected(url) as channel:
        channel.basic_publish("", "bookings", b"ann 5", pika.BasicProperties(message_id="1"))
        assert_one_line(worker, "Failed: ", "full")
        poll(lambda: ready(channel, "bookings"), 1)


def test_the_key_is_noted_with_the_work_or_not_at_all(
    start: Starter, url: str, client: str, tmp_path: Path
) -> None:
    start("cluster", client, "declare.py", url=url).wait()
    with connected(url) as channel:
        for amount in (10**30, 5):  # the first is more than the database can hold
            body = f"ann {amount}".encode()
            channel.basic_publish("", "bookings", body, pika.BasicProperties(message_id="1"))
    worker = start("cluster", client, "worker.py", url=url, DATABASE=str(tmp_path / "db"))
    worker.wait_for("Booked: ann has 5")
    assert "Set aside: OverflowError" in worker.stdout[1]


# --- What was recorded ----------------------------------------------------------------------

RECORD = json.loads((DOCS / "figures/cluster.json").read_text())


def test_the_tables_are_those_of_the_record(tmp_path: Path) -> None:
    """And in it nothing is lost by the whole scripts, and something by all others."""
    wrong = ("lost", "twice", "unsent", "unexplained", "reordered")
    for name, run in RECORD["losses"].items():
        assert any(run[each] for each in wrong) == bool(run["without"]), name
        assert run["tasks"] == figure("cluster", r"one run of ([\d,]+) tasks")
    assert RECORD["run"]["wrong"] == {}
    rows = (DOCS / "figures/cluster-losses.csv").read_text().splitlines()[1:]
    assert len(rows) == len(RECORD["losses"])
    for row, (name, run) in zip(csv.reader(rows), RECORD["losses"].items(), strict=True):
        assert row == [name, f"{run['confirmed']:,}", *(str(run[x]) for x in wrong[:3])]
    rows = (DOCS / "figures/cluster-large.csv").read_text().splitlines()[1:]
    for row, (name, run) in zip(csv.reader(rows), sorted(RECORD["large"].items()), strict=True):
        assert not any(run.get(each) for each in wrong), name
        found = [f"{run['confirmed']:,}", *(run[x] for x in ("faults", "lost", "twice", "again"))]
        assert row[:-1] == [name, *map(str, found)]
    rows = (DOCS / "figures/cluster-waits.csv").read_text().splitlines()[1:]
    for what, times, *seconds in csv.reader(rows):
        waits = RECORD["run"]["waits"][what.removeprefix("A ")]
        assert int(times) == len(waits) >= 5
        found = [f"{median(each):.1f} s" for each in zip(*waits, strict=True)]
        assert found == seconds


def test_the_costs_are_those_of_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_cluster, "FIGURES", tmp_path)
    record_cluster.cost_tables(RECORD["costs"])
    for name in ("cluster-costs.csv", "cluster-sizing.csv"):
        assert (tmp_path / name).read_text() == (DOCS / "figures" / name).read_text()
    assert figure("cluster", r"Messages of ([\d,]+) bytes") == record_cluster.BODY
    rounds = {len(each) for costs in RECORD["costs"].values() for each in costs.values()}
    assert rounds == {figure("cluster", r"median of (\w+) rounds")}
    costs = {name: median(each["publish_ms"]) for name, each in RECORD["costs"].items()}
    assert costs["quorum, three copies"] > costs["quorum, one copy"]
