"""Run example scripts as a reader does: as processes, watched from outside."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from shells.chapters import reader_environment

PATIENCE = 100.0  # seconds; only a failure takes so long
# What a lesson's process ends with at Ctrl-C: a shell calls it 130.
INTERRUPTED = -signal.SIGINT


class Script:
    """A running script, its output line by line with the time of each.

    `stdout` and `stderr` are lists of lines that grow while it runs; `times`
    are those of stdout's, in seconds of time.monotonic(). Its standard input is
    empty, or what subprocess.Popen is told of it: a file, or PIPE.
    """

    def __init__(
        self,
        path: Path,
        *arguments: str | bytes,
        url: str,
        stdin: Any = subprocess.DEVNULL,
        **environment: str,
    ) -> None:
        self.name = f"{path.parent.name}/{path.name}"
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self.times: list[float] = []
        self._changed = threading.Condition()
        whole = {**reader_environment(url), **environment}
        self.process = subprocess.Popen(
            [sys.executable, str(path), *arguments],
            env=whole,
            stdin=stdin,
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
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
