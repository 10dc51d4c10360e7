"""The throwaway broker: it comes when called and leaves nothing behind."""

from __future__ import annotations

import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import broker as brokers
import psutil
import pytest
from broker import Broker, BrokerError, reaper
from conftest import TESTS, poll

PROGRAM = [sys.executable, "-m", "broker"]


def keep_broker(port: int, stdin: int = subprocess.DEVNULL, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PORT": str(port), **more}
    environment.pop("AMQP_URL", None)
    return subprocess.Popen(
        PROGRAM,
        cwd=TESTS,
        env=environment,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def banner(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a broker prints when it is up, and its tag."""
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            break
    text = "".join(lines)
    assert text, process.stderr and process.stderr.read()
    return text, tags(process)[0]


def tags(process: subprocess.Popen[str]) -> list[str]:
    """The tag of what it starts, once that has its reaper."""
    found = psutil.Process(process.pid).children(recursive=True)
    words = [child.cmdline() for child in found]
    return [each[each.index(reaper.__file__) + 1] for each in words if reaper.__file__ in each]


@pytest.fixture
def kept(broker: Broker, how: signal.Signals) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """`make broker` on a port of its own; what it printed; its tag."""
    (port,) = brokers.free_ports(1)
    process = keep_broker(port, TLS="1" if how == signal.SIGINT else "")
    text, tag = banner(process)
    assert f"port {port}." in text
    yield process, text, tag
    process.kill()
    process.communicate()


def remains(tag: str) -> list[str]:
    """Processes, containers and folders of a broker."""
    found = [repr(process) for process in reaper.processes(tag)]
    found += [str(path) for path in Path(tempfile.gettempdir()).glob(f"{tag}*")]
    if not brokers.docker_trouble(brokers.DEFAULT_IMAGE, pull=False).startswith("no "):
        import docker

        with closing(docker.from_env()) as client:
            containers = client.containers.list(
                all=True, filters={"name": tag}, ignore_removed=True
            )
            found += [str(container.name) for container in containers]
    return found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_behind(
    kept: tuple[subprocess.Popen[str], str, str], how: signal.Signals
) -> None:
    process, text, tag = kept
    assert remains(tag)
    url, *ca_file = re.findall(r"^export (?:AMQP_URL|CA_FILE)=(\S+)$", text, re.MULTILINE)
    assert url.startswith("amqps://" if ca_file else "amqp://")
    assert brokers.handshake(url, *ca_file)
    told = re.findall("^alias .*", text, re.MULTILINE)
    command = "\n".join(["shopt -s expand_aliases", *told, "rabbitmqctl -q ping"])
    assert subprocess.run(["bash", "-c", command], capture_output=True).returncode == 0
    process.send_signal(how)
    status = process.wait(30)
    assert status == (-signal.SIGKILL if how == signal.SIGKILL else 0)
    poll(lambda: remains(tag), [])


@pytest.mark.parametrize(
    ("how", "status"),
    {signal.SIGINT: 130, signal.SIGTERM: 0, signal.SIGHUP: 0, signal.SIGKILL: -9}.items(),
)
def test_nothing_is_left_of_one_that_only_starts(
    broker: Broker, how: signal.Signals, status: int
) -> None:
    process = keep_broker(*brokers.free_ports(1))
    known: list[str] = []

    def being_started() -> bool:
        known.extend(tags(process)[len(known) :])
        folder = known and [*map(str, Path(tempfile.gettempdir()).glob(f"{known[0]}*"))]
        return bool(known) and remains(known[0]) > folder

    poll(being_started, True)
    process.send_signal(how)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, "is up" in out) == (status, False)
    poll(lambda: remains(known[0]), [])


def test_it_ends_when_its_parent_is_killed(broker: Broker) -> None:
    """`make` may be killed, or the terminal closed."""
    (port,) = brokers.free_ports(1)
    script = f"import subprocess; subprocess.run({PROGRAM!r})"
    environment = {**os.environ, "PORT": str(port)}
    environment.pop("AMQP_URL", None)
    parent = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=TESTS,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _, tag = banner(parent)
    assert remains(tag)
    parent.kill()
    parent.communicate()
    poll(lambda: remains(tag), [])


def test_it_ends_when_its_terminal_is_closed() -> None:
    """Without a signal: where `make` is the terminal's first program, it keeps that."""
    (port,) = brokers.free_ports(1)
    ours, theirs = pty.openpty()
    with keep_broker(port, stdin=theirs) as process:
        os.close(theirs)
        _, tag = banner(process)
        assert remains(tag)
        os.close(ours)
        assert process.wait(30) == 0
    poll(lambda: remains(tag), [])


def test_a_port_that_is_held_is_named_with_its_holder(broker: Broker) -> None:
    port = int(broker.url.rpartition(":")[2].rstrip("/"))
    process = keep_broker(port)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (1, "")
    assert err.startswith(f"Port {port} is held by ")
    assert f"RabbitMQ {broker.version}" in err
    assert err.rstrip().endswith(f"make broker PORT={port + 1}")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("port", ["http", "0", "65536", "-1"])
def test_a_port_that_is_none(port: str) -> None:
    done = subprocess.run(
        PROGRAM, cwd=TESTS, env={**os.environ, "PORT": port}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == f"PORT={port} is not a port number: make broker PORT=5673\n"


UNPRIVILEGED = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@pytest.mark.skipif(
    not shutil.which("setpriv")
    or not UNPRIVILEGED.exists()
    or int(UNPRIVILEGED.read_text()) < 1024,
    reason="here any user may",
)
def test_a_port_that_is_not_permitted() -> None:
    without = ["setpriv", "--bounding-set", "-net_bind_service"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*without, *PROGRAM],
        cwd=TESTS,
        env={**os.environ, "PORT": "81"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == "Port 81 is not permitted to this user: make broker PORT=5673\n"


# --- Which one, and what it says -------------------------------------------


@pytest.fixture
def nothing_there(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with no Docker and no server, and a user who may not install."""
    for name in ("AMQP_URL", "BROKER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(brokers, "docker_trouble", lambda *_: "no Docker engine answers")
    monkeypatch.setattr(brokers, "installed_programs", lambda: None)
    monkeypatch.setattr(brokers, "can_install", lambda: False)
    return monkeypatch


def test_without_any_there_are_three_remedies(nothing_there: pytest.MonkeyPatch) -> None:
    with pytest.raises(BrokerError) as error:
        brokers.get()
    for remedy in ("no Docker engine answers", "apt-get install rabbitmq-server", "AMQP_URL="):
        assert remedy in str(error.value)


def test_docker_without_the_image_is_said_and_the_next_is_used(
    nothing_there: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Node:
        def __init__(self, port: int | None, tls: bool) -> None:
            self.port = port

        def start(self) -> None: ...

    trouble = "Docker cannot get the image rabbitmq:none (no such host)"
    nothing_there.setattr(brokers, "docker_trouble", lambda *_: trouble)
    nothing_there.setattr(brokers, "installed_programs", lambda: {"rabbitmq-server": "there"})
    nothing_there.setattr(brokers, "PrivateNode", Node)
    assert isinstance(brokers.get(), Node)
    assert f"Using the installed rabbitmq-server, because {trouble}." in capsys.readouterr().err
    nothing_there.setenv("BROKER", "docker")
    with pytest.raises(BrokerError, match="BROKER=docker was asked for, but Docker cannot get"):
        brokers.get()


def test_an_image_that_cannot_be_had_is_trouble_not_a_traceback() -> None:
    trouble = brokers.docker_trouble("rabbitmq-by-example/there-is-no-such-image:1")
    assert trouble == "no Docker engine answers" or trouble.startswith("Docker cannot get")


def test_a_registry_out_of_reach_is_a_few_calm_words() -> None:
    (port,) = brokers.free_ports(1)
    image = f"127.0.0.1:{port}/rabbitmq:none"
    trouble = brokers.docker_trouble(image)
    words = f"Docker cannot get the image {image} (no registry answers)"
    assert trouble in ("no Docker engine answers", words)


def test_amqp_url_comes_first(nothing_there: pytest.MonkeyPatch, broker: Broker) -> None:
    nothing_there.setenv("AMQP_URL", broker.url)
    with brokers.get() as found:
        assert (found.url, found.version) == (broker.url, broker.version)
        assert not found.can_restart
    assert brokers.handshake(broker.url)  # closing the handle has not touched it


def test_an_amqp_url_that_does_not_answer(nothing_there: pytest.MonkeyPatch) -> None:
    (port,) = brokers.free_ports(1)
    nothing_there.setenv("AMQP_URL", f"amqp://me:secret@localhost:{port}/")
    with pytest.raises(BrokerError) as error:
        brokers.get()
    assert f"AMQP_URL is amqp://me@localhost:{port}/. No broker" in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["", "garbage", "localhost", "amqp://[::1/", "amqp://h/?heartbeat=x"]
)
def test_an_amqp_url_that_is_none(nothing_there: pytest.MonkeyPatch, url: str) -> None:
    nothing_there.setenv("AMQP_URL", url)
    with pytest.raises(BrokerError, match="not an AMQP URL"):
        brokers.get()


def test_a_kind_that_is_none(nothing_there: pytest.MonkeyPatch) -> None:
    nothing_there.setenv("BROKER", "kafka")
    with pytest.raises(BrokerError, match="BROKER=kafka means nothing here"):
        brokers.get()
