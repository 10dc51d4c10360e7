"""The transcript player finds what is missing, wrong and too much."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text
from shells.chapters import reader_environment
from shells.demo import Screen
from shells.player import Player, Shell, TranscriptError, scenarios

Play = Callable[..., None]

# Gets a tenth of one processor, and needs a quarter of a second of it after "Done".
STARVED = """
import os, time
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
if not os.fork():
    while time.process_time() < 10:
        pass
    os._exit(0)
os.nice(10)
print("Done", flush=True)
while time.process_time() < 0.25:
    pass
open("acked", "w").write("yes\\n")
time.sleep(60)
"""


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Play a page that consists of this transcript."""

    def play(*lines: str, update: bool = False, option: str = "") -> None:
        page = tmp_path / "page.rst"
        rows = ["Title", "=====", "", ".. code-block:: console", option, ""]
        page.write_text("\n".join([*rows, *(f"   {line}" for line in lines), ""]))
        (scenario,) = scenarios(page, "pika")
        with Player(tmp_path, reader_environment("amqp://unused/")) as player:
            (player.update if update else player.play)(scenario)

    return play


def test_what_is_right_passes(play: Play) -> None:
    play(
        "shell1$ cd /tmp",
        "shell1$ echo one; echo two",
        "one",
        "two",
        "shell2$ printf 'no newline'",
        "no newline",
        "shell1$ pwd",
        "/tmp",
    )


@pytest.mark.parametrize(
    ("shown", "line", "mark"),
    [
        (["one", "two", "three"], 7, "! three  |  (nothing more)"),
        (["one"], 7, "! (nothing more)  |  two"),
        (["one", "zwei"], 7, "! zwei  |  two"),
        ([], 7, "! (nothing more)  |  one"),
    ],
    ids=["missing", "extra", "wrong", "none shown"],
)
def test_what_differs_fails_with_page_and_line(
    play: Play, shown: list[str], line: int, mark: str
) -> None:
    with pytest.raises(TranscriptError) as error:
        play("shell1$ echo one; echo two", *shown)
    assert f"page.rst:{line}: (pika) shell1$ echo one" in str(error.value)
    assert mark in str(error.value)


def test_extra_output_of_a_command_that_still_runs_fails(play: Play) -> None:
    with pytest.raises(TranscriptError, match=r"\(nothing more\)  \|  two"):
        play("shell1$ echo one; echo two; sleep 60", "one")


def test_extra_output_on_ctrl_c_fails(play: Play) -> None:
    with pytest.raises(TranscriptError, match="bye"):
        play("""shell1$ sh -c 'trap "echo bye; exit 0" INT; echo hi; sleep 60'""", "hi")


def test_the_same_command_on_a_running_shell_is_the_transcript_so_far(play: Play) -> None:
    command = "echo one; read line < fifo; echo $line; sleep 60"
    play(
        "shell2$ mkfifo fifo",
        f"shell1$ {command}",
        "one",
        "shell2$ echo two > fifo",
        f"shell1$ {command}",
        "one",
        "two",
    )


def test_the_rest_of_a_command_that_has_ended_meanwhile(play: Play) -> None:
    command = "echo one; sleep 1; echo two"
    play(f"shell1$ {command}", "one", "shell2$ sleep 3", f"shell1$ {command}", "one", "two")


def test_the_same_command_at_a_prompt_is_run_again(play: Play) -> None:
    play("shell1$ echo x >> log; wc -l < log", "1", "shell1$ echo x >> log; wc -l < log", "2")


def test_ctrl_c_is_pressed_when_all_before_it_is_there(play: Play) -> None:
    play(
        "shell2$ echo now > log",
        "shell1$ tail -f log",
        "now",
        "^C",
        "shell1$ echo $?",
        "130",
    )


def test_a_failure_must_be_shown(play: Play) -> None:
    play("shell1$ false", "shell1$ echo $?", "1")
    with pytest.raises(TranscriptError, match="ended with status 1"):
        play("shell1$ false", "shell1$ echo done", "done")
    with pytest.raises(TranscriptError, match="ended with status 3"):
        play("shell1$ (exit 3)")


def test_in_a_measured_block_numbers_may_differ_and_nothing_else(play: Play) -> None:
    measured = ":class: measured"
    play("shell1$ echo 1,234 in 5.67 s", "88 in 1 s", option=f"   {measured}")
    with pytest.raises(TranscriptError, match=r"0\.5 s"):
        play("shell1$ echo 20 in 0.5 s", "20 after 0.5 s", option=f"   {measured}")
    with pytest.raises(TranscriptError, match="1,234"):
        play("shell1$ echo 1,234 in 5.67 s", "88 in 1 s")


def test_output_without_a_prompt_is_refused(play: Play) -> None:
    with pytest.raises(TranscriptError, match=r"page.rst:7: no shell prompt before 'lost'"):
        play("lost", "shell1$ echo")


def test_update_writes_what_was_printed(play: Play, tmp_path: Path) -> None:
    play("shell1$ echo one; echo two", "zwei", "shell2$ echo three", update=True)
    assert (tmp_path / "page.rst").read_text().splitlines()[6:] == [
        "   shell1$ echo one; echo two",
        "   one",
        "   two",
        "   shell2$ echo three",
        "   three",
    ]


def test_tabs_and_sections_decide_who_plays_what(tmp_path: Path) -> None:
    page = tmp_path / "page.rst"
    page.write_text(
        """\
First
=====

.. tab-set::

   .. tab-item:: pika

      .. code-block:: console

         shell1$ echo pika

   .. tab-item:: aio-pika

      .. code-block:: console

         shell1$ echo aio-pika

.. code-block:: shell

   not a transcript

Second
------

.. code-block:: console

   shell1$ echo both
"""
    )
    for client in ("pika", "aio-pika"):
        first, second = scenarios(page, client)
        assert [step.command for step in first.steps] == [f"echo {client}"]
        assert [(step.command, step.line) for step in second.steps] == [("echo both", 27)]
        assert (first.title, second.title) == ("First", "Second")


# --- The demo -------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(114, 18), (120, 40), (152, 40), (200, 45)])
def test_the_demo_shows_the_last_line_of_each_shell(width: int, height: int) -> None:
    """However many lines before it are wrapped."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height)
    screen = Screen(console, ["shell1", "shell2", "shell3"])
    screen.lines["shell1"] = [Text("a task of some words " * 5) for _ in range(12)]
    screen.lines["shell2"] = [Text(f"line {number}") for number in range(12)]
    for lines in screen.lines.values():
        lines.append(Text("the end"))
    with console.capture() as captured:
        console.print(screen.panels())
    shown = captured.get()
    assert shown.count("the end") == 3
    assert len(shown.splitlines()) <= height


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="of Linux")
def test_ctrl_c_comes_after_what_a_starved_process_does_next(play: Play, tmp_path: Path) -> None:
    (tmp_path / "starved.py").write_text(STARVED)
    play("shell1$ python starved.py 2>/dev/null", "Done", "^C", "shell1$ cat acked", "yes")


def test_ctrl_c_comes_where_a_process_computes_without_end(play: Play, tmp_path: Path) -> None:
    (tmp_path / "busy.py").write_text("print('Busy', flush=True)\nwhile True: pass\n")
    play("shell1$ python busy.py 2>/dev/null", "Busy", "^C")


def test_a_command_whose_work_is_done_elsewhere_is_waited_for(play: Play) -> None:
    play(
        "shell1$ rabbitmqctl() { sleep 2; echo yes >cleared; }",
        "shell1$ rabbitmqctl clear_policy full",
        "shell2$ cat cleared",
        "yes",
    )


def test_ctrl_c_that_comes_as_the_command_has_just_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives the shell a second prompt, in the same breath."""
    shell = Shell("shell1", tmp_path, reader_environment("amqp://unused/"))
    with closing(shell):
        prompts = "\x1e0\x1f\r\n\x1e130\x1f"
        monkeypatch.setattr(shell.child, "read_nonblocking", lambda *_, **__: prompts)
        shell.pump()
        assert (shell.texts, shell.status) == ([""], 130)
