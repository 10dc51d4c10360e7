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

import atexit
import gc
import importlib
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

# What scripts import, and what that and runpy import when they are first used.
PRELOADED = (
    "aio_pika",
    "pika.adapters.select_connection",
    "concurrent.futures.thread",
    "encodings.idna",
    "pkgutil",
)
Request = tuple[str, tuple[str, ...], dict[str, str], str]


class Nursery:
    """Forks for every request, until the pipe `life` is closed.

    It has one thread, so that a fork is a copy of all there is.
    """

    def __init__(self, listener: socket.socket, life: int) -> None:
        self.listener = listener
        self.life = life
        # By their script's process id; None for one who has gone.
        self.callers: dict[int, socket.socket | None] = {}
        # Gets a byte with every signal: so the end of a script wakes select().
        self.woken, self.waker = os.pipe()
        for each in (self.woken, self.waker):
            os.set_blocking(each, False)

    def serve(self) -> tuple[Request, list[int]]:
        """Return in each new process, with what is requested and its streams."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self.waker, warn_on_full_buffer=False)
        while True:
            callers = {caller: pid for pid, caller in self.callers.items() if caller}
            watched = [self.life, self.woken, self.listener, *callers]
            ready = set(select.select(watched, [], [])[0])
            if self.life in ready:
                break
            for caller in ready & callers.keys():
                self.obey(caller, callers[caller])
            if self.woken in ready:
                os.read(self.woken, 1000)
                self.reap()
            if self.listener in ready:
                caller, _ = self.listener.accept()
                taken = take(caller)
                if taken and self.fork(caller, taken[1]) == 0:
                    return taken
        for pid in self.callers:
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(os.path.dirname(self.listener.getsockname()))  # noqa: PTH120
        os._exit(0)

    def obey(self, caller: socket.socket, pid: int) -> None:
        """Send a script the signals that its caller wants; kill it when he has gone."""
        wanted = b""
        with suppress(ConnectionResetError):  # gone, and has not read all
            wanted = caller.recv(100)
        for number in wanted or [signal.SIGKILL]:
            os.kill(pid, number)  # nobody else has this id before reap()
        if not wanted:
            caller.close()
            self.callers[pid] = None

    def reap(self) -> None:
        """Tell the callers of the scripts that have ended."""
        with suppress(ChildProcessError):  # there are no others
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if caller := self.callers.pop(ended[0]):
                    with caller, suppress(OSError):  # gone meanwhile
                        caller.sendall(b"%d\n" % ended[1])

    def fork(self, caller: socket.socket, files: list[int]) -> int:
        """Return twice, as os.fork() does; in the new process without what is ours."""
        if pid := os.fork():
            self.callers[pid] = caller
            for each in files:
                os.close(each)
            with suppress(OSError):  # gone meanwhile
                caller.sendall(b"%d\n" % pid)
            return pid
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for each in (self.listener, caller, *self.callers.values()):
            if each:
                each.close()
        for each in (self.life, self.woken, self.waker):
            os.close(each)
        return 0


def take(caller: socket.socket) -> tuple[Request, list[int]] | None:
    """A request, and the descriptors that came with it; None when the caller has gone."""
    with suppress(OSError):
        head, files, _, _ = socket.recv_fds(caller, 4, 3)
        size = int.from_bytes(head, "big")
        data = caller.recv(size, socket.MSG_WAITALL)
        if data and len(data) == size:
            return marshal.loads(data), files
        for each in files:
            os.close(each)
    caller.close()
    return None


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


def run(path: str) -> int:
    """Run the script and return its status, where it ends by itself."""
    try:
        runpy.run_path(os.path.abspath(path), run_name="__main__")  # noqa: PTH100
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        raise
    return 0


def finish(status: int) -> None:
    """End as Python does, but without destroying, and so copying, each thing there is.

    The script's own have gone with its namespace.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()
    os._exit(status & 0xFF)


if __name__ == "__main__":
    for each in PRELOADED:
        importlib.import_module(each)
    gc.freeze()  # the collector would touch all that, and so copy it
    script, streams = Nursery(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])).serve()
    become(script, streams)
    finish(run(script[0]))
