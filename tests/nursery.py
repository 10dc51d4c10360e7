"""An interpreter that has imported the clients already, and forks the scripts.

Importing a client takes a script more processor time than all that it does, and
the tests start scripts by the thousand. A script that comes from here is still a
process of its own, with its own arguments, environment, terminal and signals.

    python tests/nursery.py LISTENER LIFE

LISTENER is the number of a Unix socket that listens, in a folder of its own; when
the pipe LIFE is closed, all is over and the folder goes. A request is a
connection: four bytes with the size of what follows, and with the descriptors of
stdin, stdout and stderr; then, as of marshal, the script's path, arguments,
environment and directory. The answer is the script's process id on a line and,
when it has ended, its status as of os.waitpid(). What comes meanwhile are signals
for it, a byte each; at the end of the connection it is killed.
"""

from __future__ import annotations

import io
import marshal
import os
import random
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
import time
from contextlib import suppress

Request = tuple[str, tuple[str, ...], dict[str, str], str]


def serve(listener: socket.socket, life: int) -> socket.socket:
    """Fork for every request; return in the new process, with its connection."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those below
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while life not in select.select([listener, life], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            os.close(life)
            return connection
        connection.close()
    shutil.rmtree(os.path.dirname(listener.getsockname()))  # noqa: PTH120
    os._exit(0)


def take(connection: socket.socket) -> tuple[Request, list[int]]:
    """A request, and the descriptors that came with it."""
    head, files, _, _ = socket.recv_fds(connection, 4, 3)
    size = int.from_bytes(head, "big")
    data = b""
    while len(data) < size:
        if not (more := connection.recv(size - len(data))):
            os._exit(1)  # they are gone
        data += more
    return marshal.loads(data), files


def watch(connection: socket.socket, files: list[int]) -> None:
    """Fork once more: return in the script's process, report from this one."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if (pid := os.fork()) == 0:
        connection.close()
        return
    for each in (0, 1, 2, *files):
        os.close(each)

    ended = False

    def obey() -> None:
        with suppress(ConnectionResetError):  # they are gone, and have not read all
            while wanted := connection.recv(1):
                tell(wanted[0])
        tell(signal.SIGKILL)

    def tell(number: int) -> None:
        if not ended:
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    threading.Thread(target=obey, daemon=True).start()
    with suppress(OSError):  # nobody listens any more
        connection.sendall(b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    ended = True
    with suppress(OSError):
        connection.sendall(b"%d\n" % status)
    os._exit(0)


def become(request: Request, files: list[int]) -> None:
    """Make this process what `python -u PATH ARGUMENTS` would be."""
    path, arguments, environment, directory = request
    for number, each in enumerate(files):
        os.dup2(each, number)
        os.close(each)

    def text(file: int, errors: str) -> io.TextIOWrapper:
        raw = io.FileIO(file, "w", closefd=False)
        return io.TextIOWrapper(raw, "utf-8", errors, write_through=True)  # type: ignore[arg-type]

    sys.stdout = text(1, "surrogateescape")
    sys.stderr = text(2, "backslashreplace")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    random.seed()
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.argv = [path, *arguments]
    sys.path[0] = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120


if __name__ == "__main__":
    import aio_pika  # noqa: F401  # pyright: ignore[reportUnusedImport]
    import pika.adapters.select_connection  # noqa: F401  # pyright: ignore[reportUnusedImport]

    caller = serve(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
    script, streams = take(caller)
    watch(caller, streams)
    become(script, streams)
    runpy.run_path(os.path.abspath(script[0]), run_name="__main__")  # noqa: PTH100
