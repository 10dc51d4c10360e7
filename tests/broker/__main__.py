"""Keep a throwaway broker on port 5672, or $PORT, with $TLS over TLS too: `make broker`."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

import pika.exceptions
import psutil

from broker import BrokerError, OwnedBroker, handshake, port_is_free, say, start


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


def permitted(port: int) -> bool:
    """Whether this user may listen there at all."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            return False
        except OSError:
            pass
    return True


def stay() -> Callable[[Callable[[], object]], None]:
    """What waits, checking now and then, until Ctrl-C, SIGTERM or our parent's end.

    Or until the terminal is closed. Where `make` is the first program in it, only
    `make` gets the SIGHUP, and waits for us.
    """
    parent, on_terminal = os.getppid(), os.isatty(0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(0))

    def while_wanted(check: Callable[[], object]) -> None:
        try:
            while os.getppid() == parent and os.isatty(0) == on_terminal:
                time.sleep(0.5)
                check()
        except KeyboardInterrupt:
            pass

    return while_wanted


def keep(port: int, out: TextIO) -> None:
    """Keep a broker in the foreground, as long as `stay` says."""
    if not permitted(port):
        raise BrokerError(f"Port {port} is not permitted to this user: make broker PORT=5673")
    if not port_is_free(port):
        raise BrokerError(
            f"Port {port} is held by {holder(port)}. Is that a broker you want to use? "
            f"export AMQP_URL=amqp://guest:guest@localhost:{port}/ "
            f"Else choose another port: make broker PORT={port + 1}"
        )
    while_wanted = stay()
    with start(port, tls=bool(os.environ.get("TLS"))) as broker:
        lines = [f"RabbitMQ {broker.version} is up: {broker.title}, port {port}."]
        if broker.api:
            lines += [f"Management UI: {broker.api}/ (guest / guest)"]
        # Commands alone on their lines, to be copied.
        lines += ["In each shell:"]
        if broker.tls_url:
            lines += [f"export AMQP_URL={broker.tls_url}", f"export CA_FILE={broker.ca_file}"]
        elif port != 5672:
            lines += [f"export AMQP_URL={broker.url}"]
        tool = shlex.join(broker.rabbitmqctl)
        if broker.rabbitmqctl[0] == "docker":  # of the next broker on this port, too
            tool = f"docker exec $(docker ps -qf publish={port}) rabbitmqctl"
        lines += [f"alias rabbitmqctl={shlex.quote(tool)}"]
        lines += ["Ctrl-C here ends it, and nothing of it is kept."]
        print("\n".join(lines), file=out, flush=True)
        assert isinstance(broker, OwnedBroker)
        while_wanted(broker.check_alive)
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
