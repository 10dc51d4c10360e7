"""An interpreter that has imported the clients already, and forks the scripts.

Importing a client takes a script more processor time than all that it does, and
the tests start scripts by the thousand. A script that comes from here is still a
process of its own, with its own arguments, environment, output and signals.
(The transcripts of the pages run in real shells, with `python`.)

    python tests/nursery.py FD

FD is a Unix socket. A request is a JSON object with `path`, `arguments` and
`environment`, and three file descriptors: stdout, stderr, and a pipe for the
script's process id and, when it has ended, its status as of os.waitpid().
"""

from __future__ import annotations

import io
import json
import os
import random
import runpy
import signal
import socket
import sys
import time
from typing import Any


def serve(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork for every request; return in the new process, with what it has to run."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those below
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        size = int.from_bytes(channel.recv(4, socket.MSG_WAITALL), "big")
        if not size:
            os._exit(0)  # the tests are over
        data, files, _, _ = socket.recv_fds(channel, 1, 3)
        while len(data) < size:
            data += channel.recv(size - len(data))
        if os.fork() == 0:
            channel.close()
            return json.loads(data), files
        for each in files:
            os.close(each)


def watch(status: int) -> None:
    """Fork once more: return in the script's process, report from this one."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if pid := os.fork():
        os.write(status, f"{pid}\n".encode())
        for file in (0, 1, 2):
            os.close(file)
        _, ended = os.waitpid(pid, 0)
        os.write(status, f"{ended}\n".encode())
        os._exit(0)
    os.close(status)


def become(request: dict[str, Any], stdout: int, stderr: int) -> None:
    """Make this process what `python -u PATH ARGUMENTS` would be."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    for each in (stdout, stderr):
        os.close(each)

    def text(file: int, errors: str) -> io.TextIOWrapper:
        raw = io.FileIO(file, "w", closefd=False)
        return io.TextIOWrapper(raw, "utf-8", errors, write_through=True)  # type: ignore[arg-type]

    sys.stdout = text(1, "surrogateescape")
    sys.stderr = text(2, "backslashreplace")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.argv = [request["path"], *request["arguments"]]
    sys.path[0] = os.path.dirname(request["path"])  # noqa: PTH120


if __name__ == "__main__":
    import aio_pika  # noqa: F401  # pyright: ignore[reportUnusedImport]
    import pika.adapters.select_connection  # noqa: F401  # pyright: ignore[reportUnusedImport]

    script, descriptors = serve(socket.socket(fileno=int(sys.argv[1])))
    watch(descriptors.pop())
    become(script, *descriptors)
    runpy.run_path(script["path"], run_name="__main__")
