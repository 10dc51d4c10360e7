"""What `python` is in a transcript's shells behaves like Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from player import write_python
from running import NURSERY

SCRIPT = """
import os, signal, sys, time
def is_open(file):
    try:
        return os.fstat(file)
    except OSError:
        return False
print(sys.argv[1:], os.getcwd(), sys.path[0], os.environ["MARK"], sys.stdout.isatty())
print([each for each in range(30) if is_open(each)], signal.getsignal(signal.SIGCHLD))
print(sys.stdin.readline(), end="")
print("on stderr", file=sys.stderr)
signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
if len(sys.argv) > 1:
    sys.exit(int(sys.argv[1]))
try:
    while True:
        print("tick")
        time.sleep(0.05)
except KeyboardInterrupt:
    print("interrupted")
    sys.exit(7)
"""

ENDING = """
import atexit, gc, sys, threading, time
class Thing:
    def __del__(self):
        print("destroyed")
def later():
    time.sleep(0.2)
    print("the thread has ended")
atexit.register(print, "at exit")
threading.Thread(target=later).start()
thing = Thing()
thing.itself = thing
print("last line", end="")
{}
"""


@pytest.fixture(params=["python", "stand-in"])
def python(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    (tmp_path / "script.py").write_text(SCRIPT)
    if request.param == "python":
        return sys.executable
    write_python(tmp_path)
    return str(tmp_path / "python")


def begin(python: str, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [python, "script.py", *arguments],
        cwd=folder,
        env={**os.environ, "MARK": "ü", "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def test_it_passes_on_what_a_script_is_given(python: str, tmp_path: Path) -> None:
    out, err = begin(python, tmp_path, "3", "two words", "ü").communicate("typed\n", timeout=30)
    at = tmp_path.resolve()
    given = f"['3', 'two words', 'ü'] {at} {at} ü False"
    assert out.splitlines() == [given, "[0, 1, 2] 0", "typed"]
    assert err == "on stderr\n"


def test_it_ends_as_the_script_has(python: str, tmp_path: Path) -> None:
    for status in (0, 3):
        process = begin(python, tmp_path, str(status))
        process.communicate("\n", timeout=30)
        assert process.returncode == status


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("", 0),
        ("sys.exit()", 0),
        ("sys.exit(True)", 1),
        ("sys.exit(258)", 2),
        ("sys.exit('no')", 1),
        ("exit(3)", 3),
        ("1 / 0", 1),
        ("raise KeyboardInterrupt", -2),
    ],
)
def test_all_that_python_does_at_the_end(
    python: str, tmp_path: Path, how: str, status: int
) -> None:
    (tmp_path / "script.py").write_text(ENDING.format(how))
    process = begin(python, tmp_path)
    out, err = process.communicate("", timeout=30)
    assert out.splitlines() == ["last linethe thread has ended", "at exit", "destroyed"]
    words = {"1 / 0": "ZeroDivisionError: division by zero\n", "sys.exit('no')": "no\n"}
    assert err.endswith(words.get(how, "KeyboardInterrupt\n" if status < 0 else ""))
    assert process.returncode == status


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 7), (signal.SIGTERM, 1), (signal.SIGKILL, -9)]
)
def test_a_signal_is_for_the_script(
    python: str, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    process = begin(python, tmp_path)
    assert process.stdin
    assert process.stdout
    print(file=process.stdin, flush=True)
    while process.stdout.readline() != "tick\n":
        pass
    process.send_signal(number)
    out, err = process.communicate(timeout=30)  # the script's end is the pipe's
    assert out.endswith("interrupted\n") == (number == signal.SIGINT)
    assert err.endswith("terminated\n") == (number == signal.SIGTERM)
    assert process.returncode == status


def test_a_caller_that_goes_takes_the_script_with_it(tmp_path: Path) -> None:
    """One that has not even read the script's process id."""
    (tmp_path / "script.py").write_text(SCRIPT)
    out, theirs = os.pipe()
    stdin, typed = os.pipe()
    os.write(typed, b"\n")
    given = ("script.py", (), {**os.environ, "MARK": ""}, str(tmp_path))
    connection = NURSERY.request(given, [stdin, theirs, theirs])
    for each in (stdin, typed, theirs):
        os.close(each)
    with os.fdopen(out) as printed:
        while printed.readline() != "tick\n":
            pass
        connection.close()
        assert set(printed) <= {"tick\n"}  # and its end, at the script's


def test_options_are_for_python_itself(python: str) -> None:
    done = subprocess.run([python, "-c", "print(6 * 7)"], capture_output=True, timeout=30)
    assert done.stdout == b"42\n"
