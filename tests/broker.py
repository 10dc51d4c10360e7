"""A throwaway RabbitMQ broker for the tests, the demo and the reader.

Which one, in this order:

1. the one that AMQP_URL names, which is used and never stopped or restarted;
2. a container, where a Docker engine answers and has, or can pull, the image
   RABBITMQ_IMAGE (default: `DEFAULT_IMAGE`);
3. an installed `rabbitmq-server`, run as a private node of this user: its own
   folder, ports, name and cookie;
4. on Debian and Ubuntu, as root: Debian's `rabbitmq-server` is installed, and
   then run the same way.

`BROKER=docker` or `BROKER=private` in the environment leaves out the others.
Everything listens on loopback only, and everything is gone when its owner is:
see reaper.py.

Run as a program (`make broker`) it keeps one on port 5672, or $PORT.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote, unquote, urlsplit

import pika
import pika.exceptions
import psutil
import reaper
import requests
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

DEFAULT_IMAGE = "rabbitmq:4.3-management"
DEFAULT_URL = "amqp://guest:guest@localhost/"
LOOPBACK = "127.0.0.1"
PREFIX = "rabbitmq-by-example"
ENABLED_PLUGINS = "/etc/rabbitmq/enabled_plugins"  # both in official and Debian's images
START_SECONDS = 90
ATTEMPTS = 3
REMEDIES = """\
There is no RabbitMQ broker to use here. Any one of these fixes it:
  1. start Docker, and let this user use it (docker info must answer), or
  2. install a broker:  sudo apt-get install rabbitmq-server
                        (elsewhere: https://www.rabbitmq.com/docs/download), or
  3. name a running one: export AMQP_URL=amqp://user:password@host/"""
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
    """Ports of the loopback interface that nobody holds at the moment.

    They are below those that systems give to outgoing connections, any of which
    could take one before the broker does.
    """
    found: list[int] = []
    for port in random.sample(range(20_000, 32_000), 1_000):
        if len(found) == count:
            break
        if port_is_free(port):
            found.append(port)
    return found


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
    arguments; it is empty for a broker that we did not start.
    """

    title: str
    url: str
    version: str
    api: str = ""
    rabbitmqctl: tuple[str, ...] = ()

    @property
    def can_restart(self) -> bool:
        return False

    def vhost_url(self, vhost: str) -> str:
        """The URL of a virtual host of this broker."""
        return f"{self.url.rpartition('/')[0]}/{quote(vhost, safe='')}"

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
            timeout=60,
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
        fields = ("title", "url", "version", "api", "rabbitmqctl")
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


def handshake(url: str) -> str:
    """Connect and return the broker's version.

    Raises pika's exceptions, or OSError, where that fails.
    """
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.blocked_connection_timeout = 5
    parameters.stack_timeout = 10
    try:
        opened = pika.BlockingConnection(parameters)
    except AMQPConnectorException:  # which is neither AMQPError nor OSError
        raise TimeoutError("it accepts connections and says nothing") from None
    with closing(opened) as connection:
        implementation: Any = getattr(connection, "_impl")  # noqa: B009 (not public)
        properties = implementation.server_properties
        return str((properties or {}).get("version", "?"))


class OwnedBroker(Broker):
    """A broker that this process started, on ports that stay when it restarts."""

    def __init__(self, title: str, port: int | None, container: bool) -> None:
        self.tag = f"{PREFIX}-{uuid.uuid4().hex[:8]}"
        self.port, self.api_port, *self.more_ports = free_ports(4)
        if port:
            self.port = port
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
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for us, not for it
        )
        assert self._reaper.stdout
        self._reaper.stdout.readline()  # it ignores signals from here on

    @property
    def can_restart(self) -> bool:
        return True

    def launch(self) -> None:
        """Start the node, the first time or again."""
        raise NotImplementedError

    def kill(self) -> None:
        """End the node without a warning, as a power cut would."""
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


class PrivateNode(OwnedBroker):
    """An installed rabbitmq-server, run as this user in a folder of its own."""

    def __init__(self, port: int | None = None) -> None:
        super().__init__("a private node of the installed rabbitmq-server", port, False)
        programs = installed_programs()
        assert programs
        epmd_port, distribution_port = self.more_ports
        node = f"{self.tag}@localhost"
        conf = self.folder / "rabbitmq.conf"
        conf.write_text(
            f"listeners.tcp.1 = {LOOPBACK}:{self.port}\n"
            f"management.tcp.ip = {LOOPBACK}\n"
            f"management.tcp.port = {self.api_port}\n"
            # The default of 50 MB can exceed what a small /tmp has left.
            "disk_free_limit.absolute = 1MB\n"
        )
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (self.folder / "empty.conf").touch()
        private = {
            "HOME": str(self.folder),  # the Erlang cookie is made there
            "ERL_EPMD_PORT": str(epmd_port),
            "ERL_EPMD_ADDRESS": LOOPBACK,
        }
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("RABBITMQ_")},
            **private,
            reaper.TAG_VARIABLE: self.tag,
            "RABBITMQ_NODENAME": node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution_port),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "empty.conf"),
            "RABBITMQ_CONFIG_FILE": str(conf),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                f"{NO_BUSY_WAIT} -kernel inet_dist_use_interface {{127,0,0,1}}"
            ),
        }
        self._server = programs["rabbitmq-server"]
        settings = [f"{name}={value}" for name, value in private.items()]
        command = shlex.join(["env", *settings, programs["rabbitmqctl"], "-n", node])
        program = self.folder / "rabbitmqctl"
        # Without its standard input, as in Docker: it would swallow what the
        # reader types meanwhile.
        program.write_text(f'#!/bin/sh\nexec {command} "$@" </dev/null\n')
        program.chmod(0o755)
        self.rabbitmqctl = (str(program),)
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [self._server],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def check_alive(self) -> None:
        if self._process and self._process.poll() is not None:
            output = (self.folder / "output").read_text(errors="replace")
            raise BrokerError(
                f"rabbitmq-server ended with status {self._process.returncode}:\n"
                + "\n".join(output.splitlines()[-15:])
            )

    def kill(self) -> None:
        reaper.kill_processes(self.tag)
        self.wait_stopped()

    def wait_stopped(self) -> None:
        if self._process:
            self._process.wait(timeout=60)

    def close(self) -> None:
        super().close()
        self.wait_stopped()


class DockerBroker(OwnedBroker):
    """A container, through testcontainers."""

    def __init__(self, image: str, port: int | None = None, lean: bool = False) -> None:
        super().__init__(f"{image} in Docker", port, True)
        # Set before the import, which reads them. Loopback, not the bridge's
        # address; our own reaper, not an image that may not be had.
        os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
        os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", LOOPBACK)
        os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
        from testcontainers.community.rabbitmq import RabbitMqContainer

        self._container = RabbitMqContainer(image).with_name(self.tag)
        self._container.with_env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", NO_BUSY_WAIT)
        if lean:
            self._container.with_tmpfs_mount("/in-memory", "mode=1777")
            self._container.with_env("RABBITMQ_MNESIA_BASE", "/in-memory")
            self._container.with_env("RABBITMQ_LOG", "error")
        # A fixed port is the same after a restart, which a random one is not.
        ports: dict[str, Any] = self._container.ports
        ports.clear()
        ports["5672/tcp"] = (LOOPBACK, self.port)
        ports["15672/tcp"] = (LOOPBACK, self.api_port)
        self.rabbitmqctl = ("docker", "exec", self.tag, "rabbitmqctl")

    def launch(self) -> None:
        # RabbitMqContainer.start() would wait in its own way; `start` here
        # waits for the first start and for every restart alike.
        from docker.errors import APIError
        from testcontainers.core.container import DockerContainer

        try:
            if self._container._container:
                self._container.get_wrapped_container().start()
            else:
                DockerContainer.start(self._container)
        except APIError as error:
            raise BrokerError(f"Docker cannot start {self.title}: {error.explanation}") from None

    def check_alive(self) -> None:
        container = self._container.get_wrapped_container()
        container.reload()
        if container.status not in ("created", "running", "restarting"):
            tail = container.logs(tail=15).decode(errors="replace")
            raise BrokerError(f"{self.title} ended ({container.status}):\n{tail}")

    def wait_for_api(self) -> None:
        container = self._container.get_wrapped_container()
        # Both the official and Debian's packages ship the plugin. Where it is on, it
        # may be a moment behind AMQP, and to enable it again is long work.
        enable = "rabbitmq-plugins enable rabbitmq_management"
        container.exec_run(["sh", "-c", f"grep -q management {ENABLED_PLUGINS} || {enable}"])
        super().wait_for_api()

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()
        self.wait_stopped()

    def wait_stopped(self) -> None:
        self._container.get_wrapped_container().wait(timeout=60)


def docker_trouble(image: str, pull: bool = True) -> str:
    """Why no container of that image can be started; empty when one can."""
    import docker
    import docker.errors

    try:
        client = docker.from_env(timeout=300)
        client.ping()
    except (docker.errors.DockerException, OSError):
        return "no Docker engine answers"
    with closing(client):
        try:
            client.images.get(image)
            return ""
        except docker.errors.ImageNotFound:
            if not pull:
                return f"Docker has no image {image} yet"
        say(f"Pulling {image} …")
        try:
            client.images.pull(image)
        except (docker.errors.DockerException, requests.RequestException) as error:
            reason = getattr(error, "explanation", None) or error
            return f"Docker cannot get the image {image} ({reason})"
    return ""


def installed_programs() -> dict[str, str] | None:
    """Where rabbitmq-server and rabbitmqctl are; None where they aren't.

    Debian's /usr/sbin/rabbitmq-server is a wrapper that only root and the user
    rabbitmq may run; the programs behind it work for everybody.
    """
    behind = "/usr/lib/rabbitmq/bin"
    path = os.pathsep.join([behind, os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin"])
    found = {name: shutil.which(name, path=path) for name in ("rabbitmq-server", "rabbitmqctl")}
    return {name: place for name, place in found.items() if place} if all(found.values()) else None


def can_install() -> bool:
    return os.geteuid() == 0 and bool(shutil.which("apt-get"))


def install_from_debian(*packages: str) -> None:
    """Install Debian's packages without starting their services.

    Raises BrokerError where apt-get fails.
    """
    say(f"Installing Debian's {' '.join(packages)} with apt-get (services stay off) …")
    policy = Path("/usr/sbin/policy-rc.d")  # Debian's way to say "start nothing"
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        install = ["apt-get", "install", "-y", "-q", "--no-install-recommends"]
        for command in (["apt-get", "update", "-q"], [*install, *packages]):
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
            )
            if done.returncode:
                tail = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
                raise BrokerError(f"{shlex.join(command)} failed:\n{tail}")
    finally:
        if ours:
            policy.unlink(missing_ok=True)


def start(port: int | None = None, kind: str | None = None, lean: bool = False) -> OwnedBroker:
    """Start a throwaway broker and wait until it answers.

    `kind` is "docker", "private", or None for the first that works; it comes
    from the environment's BROKER when it isn't given. A container may be `lean`,
    for a thousand tests: it logs errors only, and has its files in memory, which
    forgets them when it stops. Raises BrokerError.
    """
    kind = kind or os.environ.get("BROKER") or None
    if kind not in (None, "docker", "private"):
        raise BrokerError(f"BROKER={kind} means nothing here: docker, private, or unset.")
    image = os.environ.get("RABBITMQ_IMAGE") or DEFAULT_IMAGE
    reason = ""
    if kind != "private":
        reason = docker_trouble(image)
        if reason and kind == "docker":
            raise BrokerError(f"BROKER=docker was asked for, but {reason}.")
    in_docker = kind != "private" and not reason
    if not in_docker and not installed_programs():
        if not can_install():
            raise BrokerError(f"{reason and reason + '. '}{REMEDIES}")
        try:
            install_from_debian("rabbitmq-server")
        except BrokerError as error:
            raise BrokerError(f"{error}\n\n{REMEDIES}") from None
    if reason:
        say(f"Using the installed rabbitmq-server, because {reason}.")
    for attempt in range(ATTEMPTS):
        broker = DockerBroker(image, port, lean) if in_docker else PrivateNode(port)
        try:
            broker.start()
            return broker
        except BaseException as error:
            broker.close()
            # Somebody else may have taken one of its ports meanwhile.
            if attempt == ATTEMPTS - 1 or not isinstance(error, Exception):
                raise
    raise AssertionError("unreachable")


def shown(url: str) -> str:
    """A URL without its password: where that is in doubt, nothing of it."""
    return re.sub(r"(//[^:@]*):.*@", r"\1@", url) if is_amqp(url) else "not shown"


def is_amqp(url: str) -> bool:
    """Whether it is a URL that both clients understand."""
    try:
        parts = urlsplit(url)
        pika.URLParameters(url)
        stray = "@" in parts.path + parts.query + parts.fragment  # a part of the password
        good = parts.scheme in ("amqp", "amqps") and parts.hostname and parts.port != 0
        return bool(good) and not stray
    except (ValueError, LookupError, TypeError):
        return False


def diagnose(url: str) -> str:
    """Why the broker at `url` cannot be used, and what to do; "" when it can."""
    if not is_amqp(url):
        return (
            "AMQP_URL is not an AMQP URL. It looks like amqp://user:password@host:5672/vhost "
            "(in user, password and vhost, write / as %2F and @ as %40)."
        )
    parts = urlsplit(url)
    vhost = unquote(parts.path[1:]) or "/"
    try:
        handshake(url)
    except pika.exceptions.ProbableAuthenticationError:
        return f"It refuses user {parts.username or 'guest'}, or the password. Fix AMQP_URL."
    except pika.exceptions.ProbableAccessDeniedError:
        return (
            f"It has no virtual host {vhost!r} for user {parts.username or 'guest'}. Fix "
            f"AMQP_URL, or create it: rabbitmqctl add_vhost {vhost}"
        )
    except pika.exceptions.IncompatibleProtocolError:
        return "Something answers there that does not speak AMQP 0-9-1: is that the right port?"
    except (pika.exceptions.AMQPError, OSError) as error:
        hint = "Fix AMQP_URL." if os.environ.get("AMQP_URL") else "Start one: make broker"
        reason = f" ({error})" if isinstance(error, OSError) else ""
        return f"No broker answers there{reason}. {hint}"
    return ""


def named(url: str) -> Broker:
    """The running broker at `url`. Raises BrokerError when it cannot be used."""
    if problem := diagnose(url):
        raise BrokerError(
            f"AMQP_URL is {shown(url)}. {problem} Or unset it to use a throwaway broker."
        )
    parts = urlsplit(url)
    api = f"http://{parts.hostname}:{(parts.port or 5672) + 10000}"
    return Broker(shown(url), url, handshake(url), os.environ.get("RABBITMQ_API", api))


def get(lean: bool = False) -> Broker:
    """The broker to use, as the text at the top of this file says.

    Where it is started, `lean` is as for `start`.
    """
    url = os.environ.get("AMQP_URL")
    return start(lean=lean) if url is None else named(url)


def holder(port: int) -> str:
    """Who listens on that port, in words."""
    name = "another program"
    try:
        for connection in psutil.net_connections("tcp"):
            address: Any = connection.laddr
            if connection.status == psutil.CONN_LISTEN and address.port == port:
                if connection.pid:
                    name = f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
                break
    except (psutil.Error, OSError):
        pass
    try:
        return f"{name}: RabbitMQ {handshake(f'amqp://guest:guest@localhost:{port}/')}"
    except pika.exceptions.ProbableAuthenticationError:
        return f"{name}: an AMQP broker that refuses guest"
    except (pika.exceptions.AMQPError, OSError):
        return name


def keep(port: int, out: TextIO) -> None:
    """Keep a broker in the foreground until Ctrl-C, SIGTERM or our parent's end.

    Or until the terminal is closed. Where `make` is the first program in it, only
    `make` gets the SIGHUP, and waits for us.
    """
    if not port_is_free(port):
        raise BrokerError(
            f"Port {port} is held by {holder(port)}. If that is a broker you want to use, "
            f"the scripts reach it as it is; else choose another port: make broker PORT={port + 1}"
        )
    parent, on_terminal = os.getppid(), os.isatty(0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(0))
    with start(port) as broker:
        lines = [f"RabbitMQ {broker.version} is up: {broker.title}, port {port}."]
        if broker.api:
            lines += [f"Management UI: {broker.api}/ (guest / guest)"]
        # Commands alone on their lines, to be copied.
        lines += ["In each shell:"]
        if port != 5672:
            lines += [f"export AMQP_URL={broker.url}"]
        lines += [f"alias rabbitmqctl={shlex.quote(shlex.join(broker.rabbitmqctl))}"]
        lines += ["Ctrl-C here ends it, and nothing of it is kept."]
        print("\n".join(lines), file=out, flush=True)
        try:
            while os.getppid() == parent and os.isatty(0) == on_terminal:
                time.sleep(0.5)
                assert isinstance(broker, OwnedBroker)
                broker.check_alive()
        except KeyboardInterrupt:
            pass
    with suppress(OSError):  # the terminal may be gone, too
        print("The broker is gone.", file=out, flush=True)


def main() -> None:
    text = os.environ.get("PORT") or "5672"
    if not text.isdecimal() or not 0 < int(text) < 65536:
        sys.exit(f"PORT={text} is not a port number: make broker PORT=5673")
    try:
        keep(int(text), sys.stdout)
    except BrokerError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        say("Interrupted; nothing is left.")
        sys.exit(130)


if __name__ == "__main__":
    main()
