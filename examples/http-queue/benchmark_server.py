"""benchmark_server.py: a serve.py to measure, and what it is given."""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from client import Api

HERE = Path(__file__).parent
LETTER = {"recipient": "ann@example.com", "text": "Hello", "copies": 1}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(script: str, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / script), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        **more,
    )


class Server:
    """A serve.py, and its URL, the same after a restart."""

    def __init__(self, *options: str) -> None:
        self._options = (f"--port={free_port()}", *options)
        self.start()

    def start(self) -> None:
        self.process = start("serve.py", *self._options)
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not (found := re.search(r"http://\S+", line)):
            raise RuntimeError(f"serve.py did not start: {line}")
        self.url = found[0]

    def cpu(self) -> float:
        """Seconds of the processor that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().split()
        return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")

    def memory(self, what: str = "VmHWM") -> float:
        """The most that it has had, in MiB; or, with VmRSS, what it has."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(rf"{what}:\s+(\d+)", status)[0]) / 1024

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate()


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    server = Server(*options)
    try:
        yield server
    finally:
        server.close()


def options_of(given: argparse.Namespace) -> list[str]:
    queue = [f"--queue={given.queue}"] if given.queue else []
    return queue or [f"--database={given.database}"]


async def opened(database: str) -> Any:
    """A table, without an API."""
    # Only here, as workers, who are started often, need none of it.
    from queues import Policy
    from table_queue import TableQueue

    queue = TableQueue(database, Policy())
    await queue.start()
    return queue


async def fill(database: str, count: int) -> None:
    """Put messages into a table."""
    from queues import Row

    queue = await opened(database)
    try:
        async with queue.intake("benchmark") as intake:
            body = json.dumps(LETTER)
            await intake.store([Row(n, body) for n in range(count)])
    finally:
        await queue.close()


async def send(url: str, path: Path) -> dict[str, Any]:
    files = [(path.name, path.read_bytes())]
    async with Api(url, "", 30) as api:
        return await api.call("POST", "v1/uploads", files=files, again=False)
