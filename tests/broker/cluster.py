"""Three nodes that are one broker, any of which can be stopped, killed, frozen, cut off.

`make cluster` (`python -m broker.cluster`) keeps such a cluster on ports 5672 to 5674,
or from $PORT on. Tests take `Cluster` as a context manager. By containers or by
private nodes, as for one broker: see __init__.py. The nodes are node1@host1 to
node3@host3 in either case.

Its folder `bin` has a program for each node, for readers and for transcripts:

    node2 kill                       end it without a warning; also stop, start
    node2 pause                      freeze it; resume lets it go on
    node2 cut                        cut it off from the other nodes; heal ends that
    node2 rabbitmqctl list_queues    any of RabbitMQ's own programs, at this node
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import broker as brokers
from broker.base import (
    PREFIX,
    START_SECONDS,
    BrokerError,
    OwnedBroker,
    Place,
    free_ports,
    port_is_free,
    say,
)
from broker.container import DockerBroker, docker_engine
from broker.node import MORE_PROGRAMS, PrivateNode

PROGRAMS = ("rabbitmqctl", *MORE_PROGRAMS)  # RabbitMQ's own
ACTS = ("kill", "stop", "start", "pause", "resume", "cut", "heal")
# What a node's program does with an act: asks the process that owns the cluster.
ASK = """\
import socket, sys
with socket.socket(socket.AF_UNIX) as owner:
    owner.connect(sys.argv[1])
    owner.sendall(f"{sys.argv[2]} {sys.argv[3]}\\n".encode())
    answer = b""
    while piece := owner.recv(4096):
        answer += piece
sys.exit(answer.decode() or 0)
"""


class Cluster:
    """Some nodes, all of them up and of one cluster once it has been entered.

    `kind` is "docker", "private", or None as for brokers.start. `ports` are those
    of AMQP.
    """

    def __init__(
        self, kind: str | None = None, size: int = 3, ports: list[int] | None = None
    ) -> None:
        self.image = brokers.in_docker(kind)
        tag = f"{PREFIX}-{uuid.uuid4().hex[:8]}"
        (epmd_port,) = free_ports(1)
        self.down: set[int] = set()  # the numbers of nodes that are killed or stopped
        self.frozen: set[int] = set()
        self.alone: set[int] = set()
        self.whole = True  # nothing was done to a node since it was last looked at
        self.nodes: list[OwnedBroker] = []
        self._control = socket.socket(socket.AF_UNIX)
        self._network = tag if self.image else ""
        try:
            for number in range(1, size + 1):
                place = Place(tag, number, size, epmd_port)
                port = ports[number - 1] if ports else None
                self.nodes.append(
                    DockerBroker(self.image, port, place=place)
                    if self.image
                    else PrivateNode(port, place=place)
                )
            self.folder = self.nodes[0].folder
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        if self._network:
            with self._engine() as engine:
                # Nothing but the nodes' own traffic; clients come through the bridge.
                engine.networks.create(self._network, internal=True)
        self._all(lambda node: node.start())
        self._all(self._await_others)
        self._write_programs()
        self._control.bind(str(self.folder / "control"))
        self._control.listen(20)
        threading.Thread(target=self._serve, daemon=True).start()

    def _await_others(self, node: OwnedBroker, seconds: int = START_SECONDS) -> None:
        """Wait until a node sees all of them; it may still be at its own start."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                node.ctl("await_online_nodes", str(len(self.nodes)), "-t", "20")
                return
            except BrokerError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    @staticmethod
    def _engine() -> Any:
        return closing(docker_engine())

    def _all(self, act: Callable[[OwnedBroker], Any]) -> None:
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(act, self.nodes))

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all nodes; nothing is left of them."""
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)
        self._control.close()
        if self.nodes:
            self._all(lambda node: node.close())

    @property
    def urls(self) -> list[str]:
        return [node.url for node in self.nodes]

    @property
    def environment(self) -> dict[str, str]:
        """What a reader's shell is to know: AMQP_URLS, all nodes; NODE1, NODE2, …, one."""
        each = {f"NODE{number}": url for number, url in enumerate(self.urls, 1)}
        return {"AMQP_URLS": ",".join(self.urls), **each}

    @property
    def version(self) -> str:
        return self.nodes[0].version

    @property
    def bin(self) -> Path:
        """The folder of the programs node1, node2, …"""
        return self.folder / "bin"

    def node(self, number: int) -> OwnedBroker:
        return self.nodes[number - 1]

    def act(self, number: int, act: str) -> None:
        """Do to a node what an act of ACTS says. Raises BrokerError."""
        node, name = self.node(number), f"node{number}"
        is_down, frozen, alone = (number in each for each in (self.down, self.frozen, self.alone))
        if act not in ACTS:
            raise BrokerError(f"{act!r} is none of {', '.join(ACTS)}")
        if is_down != (act == "start"):
            raise BrokerError(f"{name} is {'down: ' + name + ' start' if is_down else 'up'}")
        if frozen and act not in ("resume", "kill"):
            raise BrokerError(f"{name} is frozen: {name} resume")
        if (act == "resume" and not frozen) or (act == "cut" and alone):
            raise BrokerError(f"{name} is {'not frozen' if act == 'resume' else 'cut off'}")
        if act == "heal" and not alone:
            raise BrokerError(f"{name} is not cut off")
        if act == "kill" and frozen:  # an engine won't kill what is frozen
            node.resume()
        self.whole = False
        getattr(node, act)()
        for numbers, there, back in (
            (self.down, ("kill", "stop"), "start"),
            (self.frozen, ("pause",), "resume"),
            (self.alone, ("cut",), "heal"),
        ):
            if act in there:
                numbers.add(number)
            elif act == back:
                numbers.discard(number)
        if act == "kill":
            self.frozen.discard(number)

    def repair(self) -> None:
        """Have all nodes up, running and together again."""
        if self.whole:
            return
        parted = self.frozen | self.alone
        for number in sorted(self.frozen):
            self.act(number, "resume")
        for number in sorted(self.alone - self.down):
            self.act(number, "heal")
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(lambda number: self.act(number, "start"), sorted(self.down)))
        for number in sorted(self.alone):
            self.act(number, "heal")
        try:
            self._all(lambda node: self._await_others(node, 20))
            parted = self._minority()
        except BrokerError:
            parted = parted or set(range(1, len(self.nodes) + 1))
        for number in parted:
            self.act(number, "kill")
            self.act(number, "start")
        if parted:
            self._all(self._await_others)
        self.whole = True

    def _minority(self) -> set[int]:
        """Those that stay apart, as before 4.3 a node does that was for long; it says it is up."""
        if [int(part) for part in self.version.split(".")[:2]] >= [4, 3]:
            return set()
        seen = [
            json.loads(node.ctl("cluster_status", "--formatter", "json"))["running_nodes"]
            for node in self.nodes
        ]
        return {n for n, others in enumerate(seen, 1) if 2 * len(others) < len(self.nodes)}

    def _write_programs(self) -> None:
        self.bin.mkdir()
        ask = self.folder / "ask.py"
        ask.write_text(ASK)
        for number, node in enumerate(self.nodes, 1):
            file = self.bin / f"node{number}"
            rabbit = "\n".join(
                f'{name}) shift; exec {node.program(name)} "$@" </dev/null;;' for name in PROGRAMS
            )
            file.write_text(
                f"#!/bin/sh\ncase $1 in\n{rabbit}\n"
                f"{'|'.join(ACTS)}) exec {sys.executable} -SE {ask} {self.folder}/control "
                f'{number} "$1";;\n'
                f'*) echo "Usage: node{number} {"|".join(ACTS)}, or: '
                f'node{number} {"|".join(PROGRAMS)} …" >&2; exit 2;;\n'
                "esac\n"
            )
            file.chmod(0o755)

    def _serve(self) -> None:
        while True:
            try:
                asked, _ = self._control.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(asked,), daemon=True).start()

    def _answer(self, asked: socket.socket) -> None:
        """Do what a node's program asks; say nothing, or why not."""
        with asked, suppress(OSError):
            number, act = asked.makefile().readline().split()
            try:
                self.act(int(number), act)
            except Exception as error:
                asked.sendall(str(error).encode())


def keep(port: int, out: TextIO) -> None:
    """Keep a cluster in the foreground, as `make broker` keeps a broker."""
    from broker.__main__ import holder, stay

    ports = [port, port + 1, port + 2]
    for each in ports:
        if not port_is_free(each):
            raise BrokerError(
                f"Port {each} is held by {holder(each)}. Choose others: "
                f"make cluster PORT={port + 1000}"
            )
    while_wanted = stay()
    with Cluster(ports=ports) as cluster:
        lines = [f"RabbitMQ {cluster.version} is up: three nodes, {cluster.nodes[0].title}."]
        for number, node in enumerate(cluster.nodes, 1):
            at = f"  {node.api}/ (guest / guest)" if node.api else ""
            lines += [f"node{number}  {node.url}{at}"]
        lines += ["In each shell:"]
        lines += [f"export {name}={value}" for name, value in cluster.environment.items()]
        lines += [f"export PATH={cluster.bin}:$PATH"]
        lines += [
            "Then, for example (a node is node1, node2 or node3):",
            "node1 rabbitmqctl list_queues name leader online   look who leads",
            "node2 kill      without a warning; also: stop, start",
            "node2 pause     freezes it; resume lets it go on",
            "node2 cut       off from the other nodes; heal ends that",
            "Ctrl-C here ends them, and nothing of them is kept.",
        ]
        print("\n".join(lines), file=out, flush=True)
        while_wanted(lambda: None)
    with suppress(OSError):  # the terminal may be gone, too
        print("The cluster is gone.", file=out, flush=True)


def main() -> None:
    text = os.environ.get("PORT") or "5672"
    if not text.isdecimal() or not 0 < int(text) < 65534:
        sys.exit(f"PORT={text} is not a port number: make cluster PORT=5682")
    try:
        keep(int(text), sys.stdout)
    except BrokerError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        say("Interrupted; nothing is left.")
        sys.exit(130)


if __name__ == "__main__":
    main()
