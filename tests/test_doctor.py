"""`make doctor` names the trouble; `make reset` deletes what is ours alone."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys

import broker as brokers
import pytest
from broker import Broker
from broker.__main__ import holder
from conftest import TESTS, connected
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ConnectionClosed
from shells.chapters import ROOT


def run(url: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "AMQP_URL": url, **more}
    return subprocess.run(
        [sys.executable, "-m", "shells.doctor", *arguments],
        cwd=TESTS,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def refuses_nothing(url: str) -> bool:
    """Whether the broker still takes the queues that tutorials used to declare."""
    try:
        with connected(url) as channel:
            channel.queue_declare("old_style")
            channel.queue_delete("old_style")
    except ConnectionClosed:  # 541, since RabbitMQ 4.3.0 unless it is told otherwise
        return False
    return True


def test_a_broker_in_good_order(url: str, broker: Broker) -> None:
    done = run(url)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert f"RabbitMQ {broker.version}" in done.stdout
    assert "guest:guest" not in done.stdout
    assert "Left over" not in done.stdout
    assert ("accepts all" in done.stdout) == refuses_nothing(url)


def test_looking_changes_nothing(url: str, broker: Broker) -> None:
    run(url)
    assert broker.call_api("GET", f"queues/{url.rpartition('/')[2]}") == []


def test_a_queue_left_over_is_named_and_reset_deletes_it(
    url: str, channel: BlockingChannel, broker: Broker
) -> None:
    channel.queue_declare("task_queue", durable=True, arguments={"x-queue-type": "classic"})
    channel.basic_publish("", "task_queue", b"old")
    channel.exchange_declare("logs", "fanout")  # as the scripts do it, and deleted, too
    channel.queue_declare("somebody_elses", durable=True)
    done = run(url)
    assert done.returncode == 1
    assert "queue task_queue: PRECONDITION_FAILED" in done.stdout
    deletes = done.stdout.rpartition("make reset  (deletes ")[2].rstrip(")\n").split(", ")
    task_queue = "queue task_queue with 1 waiting message"
    assert sorted(deletes) == ["exchange logs", task_queue]
    done = run(url, "reset")
    assert (done.returncode, done.stderr) == (0, ""), done
    assert sorted(done.stdout.splitlines()) == [f"Deleted {each}." for each in sorted(deletes)]
    left = broker.call_api("GET", f"queues/{url.rpartition('/')[2]}")
    assert [queue["name"] for queue in left] == ["somebody_elses"]
    assert run(url).returncode == 0


def test_who_consumes_is_told(url: str, channel: BlockingChannel) -> None:
    channel.queue_declare("task_queue", durable=True, arguments={"x-queue-type": "quorum"})
    for _ in range(2):
        channel.basic_consume("task_queue", lambda *_: None)
    done = run(url)
    assert "Consumers  queue task_queue: 2; several of a queue share its messages" in done.stdout


def test_a_policy_left_over_is_named_with_what_clears_it(url: str, broker: Broker) -> None:
    vhost = url.rpartition("/")[2]
    policy = {"pattern": "^task_q", "definition": {"max-length": 1}, "apply-to": "queues"}
    others = {"pattern": "^theirs$", "definition": {"max-length": 1}, "apply-to": "queues"}
    exchanges = {"pattern": "task_queue", "definition": {"alternate-exchange": "x"}}
    broker.call_api("PUT", f"policies/{vhost}/full", policy)
    broker.call_api("PUT", f"policies/{vhost}/theirs", others)
    broker.call_api("PUT", f"policies/{vhost}/x", {**exchanges, "apply-to": "exchanges"})
    done = run(url, RABBITMQ_API=broker.api)
    assert (done.returncode, done.stderr) == (1, ""), done
    (left,) = [line for line in done.stdout.splitlines() if line.startswith("Left over")]
    assert left == "Left over  policy full: max-length=1 for task_queue"
    cure = done.stdout.rpartition("Next ")[2].strip()
    assert cure == f"rabbitmqctl clear_policy -p {vhost} full"
    broker.ctl(*shlex.split(cure)[1:])
    assert run(url, RABBITMQ_API=broker.api).returncode == 0


@pytest.mark.parametrize("target", ["doctor", "reset"])
def test_the_port_that_make_is_given_is_looked_at(target: str) -> None:
    """Instead of AMQP_URL; a PORT of the environment isn't."""
    (port,) = brokers.free_ports(1)
    for given, expected in ((["PORT=5673"], True), ([], False)):
        environment = {**os.environ, "PORT": "5673"}
        command = ["make", "-n", target, *given]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert ("--port=5673" in done.stdout) == expected, done
    done = run("amqp://nowhere.invalid/", *["reset"][: target == "reset"], f"--port={port}")
    assert f"amqp://guest@localhost:{port}/: No broker answers" in done.stdout + done.stderr


@pytest.mark.long
def test_each_trouble_has_its_words(broker: Broker) -> None:
    where = broker.url.rpartition("@")[2]
    (port,) = brokers.free_ports(1)
    api_port = broker.api.rpartition(":")[2]
    for url, words in {
        f"amqp://guest:secret@{where}": "refuses user guest, or the password",
        f"amqp://guest:guest@{where}nowhere": "no virtual host 'nowhere'",
        f"amqp://guest:guest@{where}/": "a virtual host without a name",
        f"amqps://guest:guest@localhost:{port}/x": "make broker TLS=1",
        f"amqp://guest:guest@localhost:{port}/": "No broker answers",
        f"amqp://guest:guest@localhost:{api_port}/": "does not speak AMQP",
        "localhost:5672": "not an AMQP URL",
        "amqp://localhost:port/": "not an AMQP URL",
        "amqp://[::1/": "not an AMQP URL",
        "amqp://guest:guest@nowhere.invalid/": "No broker answers",
        # An empty one, and passwords that are not quoted or have no host after them.
        "": "not an AMQP URL",
        "amqp://alice:secret#et@localhost/": "not an AMQP URL",
        "amqp://alice:12#secret@localhost/": "not an AMQP URL",
        "amqp://alice:secret/word@localhost/": "not an AMQP URL",
        "amqp://alice:secret": "not an AMQP URL",
    }.items():
        done = run(url)
        assert done.returncode == 1
        assert words in done.stdout, url
        assert "Traceback" not in done.stderr
        assert "secret" not in done.stdout + done.stderr
        off = url.endswith(f":{port}/")
        assert (f"make broker PORT={port} " in done.stdout) == off


def test_a_server_that_accepts_and_says_nothing_is_named() -> None:
    """As `docker pause` leaves one; also just when one asks what holds the port."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        port = silent.getsockname()[1]
        done = run(f"amqp://guest:secret@127.0.0.1:{port}/", "reset")
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done
        assert "says nothing" in done.stderr
        assert "secret" not in done.stderr
        assert holder(port)


def test_reset_names_the_trouble_too(broker: Broker) -> None:
    done = run(f"amqp://guest:secret@{broker.url.rpartition('@')[2]}", "reset")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done
    assert "refuses user guest, or the password" in done.stderr
    assert "secret" not in done.stderr
