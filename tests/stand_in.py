"""What `python` is in the shells of a transcript: it asks nursery.py for the script.

    python -IS tests/stand_in.py SOCKET SCRIPT ARGUMENTS

To the shell it is the script: it passes on what signals come, ends when the
script has ended, and as it has. Killed, it takes the script with it. Of the
standard library it imports what is compiled in, else it would take as long to
start as what it is there to spare.
"""

import _signal as signal  # pyright: ignore[reportMissingImports]
import _socket as socket
import marshal
import os
import sys

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)


def main(address: str, path: str, *arguments: str) -> int:
    """Return the script's status as of os.waitpid()."""
    request = marshal.dumps((path, arguments, dict(os.environ), os.getcwd()))  # noqa: PTH109
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(address)
    streams = b"".join(each.to_bytes(4, sys.byteorder) for each in (0, 1, 2))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams)]
    connection.sendmsg([len(request).to_bytes(4, "big")], rights)
    connection.sendall(request)

    def forward(number: int, _: object) -> None:
        try:  # noqa: SIM105 (contextlib takes time to import)
            connection.send(bytes([number]))
        except OSError:
            pass  # the script has just ended

    for number in FORWARDED:
        signal.signal(number, forward)
    answer = b""
    while answer.count(b"\n") < 2:
        if not (more := connection.recv(100)):
            sys.exit("nursery.py is gone")
        answer += more
    return int(answer.split()[1])


if __name__ == "__main__":
    # What tells Python itself something needs an interpreter of its own.
    if len(sys.argv) < 3 or sys.argv[2].startswith("-"):
        os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
    status = main(*sys.argv[1:])
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    sys.exit(os.WEXITSTATUS(status))
