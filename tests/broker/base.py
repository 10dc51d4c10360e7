"""What a broker is, and what all kinds of throwaway brokers share."""

from __future__ import annotations

import atexit
import json
import random
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pika
import pika.exceptions
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from broker import certificates, reaper
from broker.urls import handshake

LOOPBACK = "127.0.0.1"
PREFIX = "rabbitmq-by-example"
START_SECONDS = 90
# Erlang's schedulers spin when idle, which starves two cores of everything else.
NO_BUSY_WAIT = "+sbwt none +sbwtdcpu none +sbwtdio none"

# For the management API: one connection for many calls, which no proxy has to see.
API = requests.Session()
atexit.register(API.close)
API.trust_env = False
# The broker closes a connection that was idle for long, maybe just when we use it.
API.mount("http://", HTTPAdapter(max_retries=Retry(connect=0, read=1, redirect=0)))


class BrokerError(Exception):
    """No broker, or not this one; the text says why and how to fix it."""


def say(text: str) -> None:
    """Report progress to the person at the terminal."""
    print(text, file=sys.stderr, flush=True)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody holds, and that nobody else is given.

    They are below those that systems give to outgoing connections, any of which
    could take one before the broker does.
    """
    found: list[int] = []
    # Not `random` itself: pytest-randomly starts every test with the same seed, so all
    # that run side by side would choose the same ports.
    for port in random.SystemRandom().sample(range(20_000, 32_000), 1_000):
        if len(found) == count:
            break
        if reserve(port):
            found.append(port)
    return found


def reserve(port: int) -> bool:
    """Keep a port for a server to come, until this process ends, if it is free.

    Linux lets a server have it all the same: every server here sets SO_REUSEADDR.
    """
    with socket.socket() as keeper:
        try:
            keeper.bind((LOOPBACK, port))  # without SO_REUSEADDR, so another's is seen
        except OSError:
            return False
        if sys.platform == "linux":
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            keeper.detach()
    return True


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    with socket.socket() as probe:
        # A server on all addresses need not stop us from binding to one.
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) != 0


@dataclass
class Broker:
    """A broker that is up. What another process needs to use it.

    `rabbitmqctl` is the command that reaches this broker's own, as a list of
    arguments; it is empty for a broker that we did not start. `tls_url` is its URL over
    TLS, where it has that, and `ca_file` what verifies its certificate.
    """

    title: str
    url: str
    version: str
    api: str = ""
    rabbitmqctl: tuple[str, ...] = ()
    tls_url: str = ""
    ca_file: str = ""

    @property
    def can_restart(self) -> bool:
        return False

    def vhost_url(self, vhost: str) -> str:
        """The URL of a virtual host of this broker."""
        return f"{self.url.rpartition('/')[0]}/{quote(vhost, safe='')}"

    def over_tls(self, url: str) -> str:
        """The same for a URL of it, over TLS."""
        return f"{self.tls_url.rpartition('/')[0]}/{url.rpartition('/')[2]}"

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl and return what it printed.

        Raises BrokerError with its output where it fails.
        """
        if not self.rabbitmqctl:
            raise BrokerError(f"rabbitmqctl cannot reach {self.title}")
        done = subprocess.run(
            [*self.rabbitmqctl, *arguments],
            capture_output=True,
            text=True,
            timeout=300,  # two seconds when the machine is idle
        )
        if done.returncode:
            raise BrokerError(f"rabbitmqctl failed: {done.stdout}{done.stderr}")
        return done.stdout

    def call_api(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Any:
        """Call the management API and return its JSON, if any.

        Raises BrokerError when the broker refuses, or has no such API.
        """
        parts = urlsplit(self.url)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        try:
            answer = API.request(
                method,
                f"{self.api}/api/{path}",
                json=body,
                headers=headers,
                auth=(user, password),
                timeout=30,
            )
            answer.raise_for_status()
        except requests.RequestException as error:
            raise BrokerError(
                f"The management API of {self.title} fails: {error}. "
                "The tests make their virtual hosts through it. Enable it "
                "(rabbitmq-plugins enable rabbitmq_management), or unset AMQP_URL to use "
                "a throwaway broker."
            ) from None
        return answer.json() if answer.content else None

    @contextmanager
    def vhost(self) -> Iterator[str]:
        """Make a virtual host, yield its URL, and delete it."""
        name = f"{PREFIX}-{uuid.uuid4().hex[:12]}"
        self.call_api("PUT", f"vhosts/{name}")  # whoever makes one may do all there
        try:
            yield self.vhost_url(name)
        finally:
            self.call_api("DELETE", f"vhosts/{name}")

    def to_json(self) -> str:
        """The handle, for another process of the same machine."""
        fields = ("title", "url", "version", "api", "rabbitmqctl", "tls_url", "ca_file")
        return json.dumps({name: getattr(self, name) for name in fields})

    @staticmethod
    def from_json(text: str) -> Broker:
        fields = json.loads(text)
        return Broker(**{**fields, "rabbitmqctl": tuple(fields["rabbitmqctl"])})

    def close(self) -> None:
        """Stop the broker and remove what it left, if it is ours."""

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Place:
    """A node's place in a cluster: which of how many it is, and what they share."""

    tag: str
    number: int
    size: int
    epmd_port: int

    @property
    def host(self) -> str:
        return f"host{self.number}"

    @property
    def node(self) -> str:
        return f"node{self.number}@{self.host}"

    @property
    def all(self) -> list[Place]:
        return [replace(self, number=number) for number in range(1, self.size + 1)]

    @property
    def configuration(self) -> str:
        """What each node's rabbitmq.conf says of the others."""
        return (
            "cluster_formation.peer_discovery_backend = classic_config\n"
            # Before 4.3, a node in the minority stops rather than go its own way.
            "cluster_partition_handling = pause_minority\n"
            # To notice in a quarter of a minute that a node is silent, not in a whole one.
            "net_ticktime = 15\n"
        ) + "".join(
            f"cluster_formation.classic_config.nodes.{place.number} = {place.node}\n"
            for place in self.all
        )


class OwnedBroker(Broker):
    """A broker that this process started, on ports that stay when it restarts."""

    def __init__(
        self,
        title: str,
        port: int | None,
        container: bool,
        tls: bool = False,
        place: Place | None = None,
    ) -> None:
        self.tag = f"{PREFIX}-{uuid.uuid4().hex[:8]}"
        self.port, self.api_port, self.tls_port, *self.more_ports = free_ports(5)
        if port:
            self.port = port
            if tls and port_is_free(port - 1):  # 5671, which is amqps
                self.tls_port = port - 1
            if port + 10000 < 65536 and port_is_free(port + 10000):
                self.api_port = port + 10000
        url = f"amqp://guest:guest@localhost:{self.port}/"
        super().__init__(title, url, "?", f"http://{LOOPBACK}:{self.api_port}")
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.tag}-"))
        self._reaper = subprocess.Popen(
            [
                sys.executable,
                str(Path(reaper.__file__)),
                self.tag,
                str(self.folder),
                *([self.tag] if container else []),
                *([place.tag] if container and place else []),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us, not for it
        )
        assert self._reaper.stdout
        self._reaper.stdout.readline()  # it ignores signals from here on
        if tls:
            self.tls_url = f"amqps://guest:guest@localhost:{self.tls_port}/"
            self.ca_file = str(certificates.make(self.folder / "tls"))

    @property
    def can_restart(self) -> bool:
        return True

    def launch(self) -> None:
        """Start the node, the first time or again."""
        raise NotImplementedError

    def kill(self) -> None:
        """End the node without a warning, as a power cut would."""
        raise NotImplementedError

    def pause(self) -> None:
        """Freeze the node, as a machine that hangs; it keeps its connections."""
        raise NotImplementedError

    def resume(self) -> None:
        """Let a frozen node go on."""
        raise NotImplementedError

    def cut(self) -> None:
        """Cut a node off from the others of its cluster, not from its clients."""
        raise NotImplementedError

    def heal(self) -> None:
        """Let a node that was cut off reach the others again."""
        raise NotImplementedError

    def program(self, name: str) -> str:
        """The shell command for one of RabbitMQ's own that is to reach this node."""
        raise NotImplementedError

    def check_alive(self) -> None:
        """Raise BrokerError when the node has ended."""
        raise NotImplementedError

    def wait_stopped(self) -> None:
        """Wait until the node has ended."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the node and wait until it answers, its management API too.

        Raises BrokerError when it ends, or does not answer in time.
        """
        self.launch()
        deadline = time.monotonic() + START_SECONDS
        while True:
            self.check_alive()
            try:
                self.version = handshake(self.url)
                if self.tls_url:
                    handshake(self.tls_url, self.ca_file)
                break
            except (pika.exceptions.AMQPError, OSError) as error:
                if time.monotonic() > deadline:
                    raise BrokerError(
                        f"{self.title} did not answer in {START_SECONDS} s: {error!r}"
                    ) from None
                time.sleep(0.1)
        self.wait_for_api()

    def wait_for_api(self) -> None:
        """Wait for the management API; forget it where it is not available."""
        for _ in range(100):
            try:
                self.call_api("GET", "overview")
                return
            except BrokerError:
                self.check_alive()
                time.sleep(0.1)
        self.api = ""

    def stop(self) -> None:
        """End the node in good order, so that `start` finds its messages."""
        # In a container the node's end may be rabbitmqctl's end, too.
        with suppress(BrokerError):
            self.ctl("stop")
        self.wait_stopped()

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        assert self._reaper.stdin
        assert self._reaper.stdout
        self._reaper.stdin.close()
        self._reaper.wait()
        self._reaper.stdout.close()
