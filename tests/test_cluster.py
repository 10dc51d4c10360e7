"""The cluster of `make cluster`, and what its page promises of one that loses a node."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import closing, suppress
from pathlib import Path

import broker as brokers
import psutil
import pytest
from broker import BrokerError, reaper
from broker.cluster import ACTS, Cluster
from conftest import TESTS, connected, poll
from pika.exceptions import AMQPError

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
    free = brokers.port_is_free
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
    port = next(
        x for x in brokers.free_ports(50) if all(map(brokers.port_is_free, (x + 1, x + 2)))
    )
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
    port = next(
        x for x in brokers.free_ports(50) if all(map(brokers.port_is_free, (x + 1, x + 2)))
    )
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
