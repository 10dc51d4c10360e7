"""Run example scripts as a reader does: as processes, watched from outside."""

from __future__ import annotations

import marshal
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

import nursery
from chapters import CLIENTS, reader_environment

PATIENCE = 30.0  # seconds
TESTS = Path(__file__).parent


class Nursery:
    """The process of nursery.py, one for each process of the tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._address = ""

    @property
    def address(self) -> str:
        """The Unix socket where it takes requests; the first to ask starts it."""
        with self._lock:
            if not self._address:
                folder = tempfile.mkdtemp(prefix="rabbitmq-by-example-nursery-")
                self._start(f"{folder}/socket")
            return self._address

    def _start(self, address: str) -> None:
        listener = socket.socket(socket.AF_UNIX)
        life, self._life = os.pipe()
        with listener:
            listener.bind(address)
            listener.listen(100)
            # Ends by itself, with its folder, when this process and so our end of `life`
            # is gone.
            subprocess.Popen(
                [sys.executable, nursery.__file__, str(listener.fileno()), str(life)],
                pass_fds=[listener.fileno(), life],
                start_new_session=True,
            ).returncode = 0  # nobody will wait for it
        os.close(life)
        self._address = address

    def request(self, request: nursery.Request, files: list[int]) -> socket.socket:
        """Have a script forked; return the connection that says how it is."""
        data = marshal.dumps(request)
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.address)
        socket.send_fds(connection, [len(data).to_bytes(4, "big")], files)
        connection.sendall(data)
        return connection


NURSERY = Nursery()


class Forked:
    """A script's process that nursery.py has forked: as much of a Popen as is needed."""

    def __init__(self, path: Path, arguments: Iterable[str | bytes], environment: dict[str, str]):
        out, their_out = os.pipe()
        err, their_err = os.pipe()
        files = [os.open(os.devnull, os.O_RDONLY), their_out, their_err]
        given = tuple(os.fsdecode(each) for each in arguments)
        try:
            self._status = NURSERY.request((str(path), given, environment, str(Path.cwd())), files)
        finally:
            for each in files:
                os.close(each)
        self.stdout: TextIO = os.fdopen(out, encoding="utf-8", errors="replace")
        self.stderr: TextIO = os.fdopen(err, encoding="utf-8", errors="replace")
        self._told = b""
        self._tell(PATIENCE, lines=1)
        self.pid = int(self._told.split()[0])
        self.returncode: int | None = None

    def _tell(self, seconds: float | None, lines: int) -> bool:
        """Take in so many lines from the status pipe; return whether they came."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while self._told.count(b"\n") < lines:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._status], [], [], left)[0]:
                return False
            if not (data := self._status.recv(100)):
                raise RuntimeError("nursery.py is gone")
            self._told += data
        return True

    def poll(self) -> int | None:
        if self.returncode is None and self._tell(0, lines=2):
            self.returncode = os.waitstatus_to_exitcode(int(self._told.split()[1]))
            self._status.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not self._tell(timeout, lines=2):
            raise subprocess.TimeoutExpired("script", timeout or 0)
        found = self.poll()
        assert found is not None
        return found

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Script:
    """A running script, its output line by line with the time of each.

    `stdout` and `stderr` are lists of lines that grow while it runs; `times`
    are those of stdout's, in seconds of time.monotonic().
    """

    def __init__(self, path: Path, *arguments: str | bytes, url: str, **environment: str) -> None:
        self.name = f"{path.parent.name}/{path.name}"
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self.times: list[float] = []
        self._changed = threading.Condition()
        whole = {**reader_environment(url), **environment}
        # What tells Python itself something needs an interpreter of its own.
        forked = not any(name.startswith("PYTHON") for name in environment)
        self.process: Forked | subprocess.Popen[str]
        if forked and (path.parent.name in CLIENTS or path.parent == TESTS):
            self.process = Forked(path, arguments, whole)
        else:
            self.process = subprocess.Popen(
                [sys.executable, str(path), *arguments],
                env=whole,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                errors="replace",
            )
        streams = (
            (self.process.stdout, self.stdout, self.times),
            (self.process.stderr, self.stderr, []),
        )
        self._readers = [
            threading.Thread(target=self._read, args=each, daemon=True) for each in streams
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Iterable[str], lines: list[str], times: list[float]) -> None:
        for line in stream:
            with self._changed:
                times.append(time.monotonic())
                lines.append(line.rstrip("\n"))
                self._changed.notify_all()

    def __repr__(self) -> str:
        status = self.process.poll()
        state = "running" if status is None else f"status {status}"
        output = "\n".join(f"  {line}" for line in [*self.stdout, *self.stderr])
        return f"{self.name} ({state})\n{output}"

    def wait_for(self, text: str, count: int = 1, seconds: float = PATIENCE) -> Script:
        """Wait until `count` lines of stdout contain the text."""

        def there() -> bool:
            return sum(text in line for line in self.stdout) >= count

        with self._changed:
            if not self._changed.wait_for(there, seconds):
                raise AssertionError(f"no {count} × {text!r} within {seconds} s from {self}")
        return self

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait for its end and return its exit status."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s: {self}") from None
        for reader in self._readers:
            reader.join(PATIENCE)
        return status

    def signal(self, number: signal.Signals) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.wait()

    def interrupt(self) -> int:
        """Press Ctrl-C and return the exit status."""
        return self.signal(signal.SIGINT)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
