"""Play a page's console transcripts in real shells, and compare.

A transcript is a `.. code-block:: console` whose prompts say which shell it
happens in:

    shell1$ python tasks_worker.py
     [*] Waiting for messages. To exit press CTRL+C
    shell2$ python new_task.py First message.
     [x] Sent 'First message.'

- Every shell is a bash of its own on a terminal of its own. What follows a
  prompt, up to the next prompt, is everything that the command prints.
- The blocks of one section of the page are one scenario: they are played from
  top to bottom in the same shells.
- A command shown again on a shell where it still runs is the transcript so
  far, not a second start.
- `^C` on a line of its own is that key, pressed when all before it is there.
- A block inside `.. tab-item:: pika` is for that client only.
- In a block with `:class: measured` the numbers are those of one run: any
  number is as good as any other there.
- A command must end with status 0 (or be killed by Ctrl-C), or the page must
  show it: `echo $?`.

Output that is missing, wrong or too much raises TranscriptError, which names
the page and the line.
"""

from __future__ import annotations

import os
import re
import selectors
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import pexpect
import psutil
import sybil
from shells.running import PATIENCE
from sybil.parsers.rest.lexers import DirectiveLexer

PROMPT = re.compile(r"(?P<shell>shell\d)\$ (?P<command>.+)")
# In a block marked `:class: measured` any number is as good as any other.
NUMBER = re.compile(r"\d[\d,]*(\.\d+)?")
# What bash prints as its prompt: the last status between two control characters.
SENTINEL = re.compile("\x1e(\\d+)\x1f")
BREAK = "^C"
# The section of every numbered chapter that plays its final scripts.
FINAL = "Putting it all together"
# A shell's status for a command that Ctrl-C has killed.
KILLED = 130
# Seconds of silence after which nothing more is expected.
SETTLE = 0.4
# Seconds of silence after which --update-transcripts takes output for complete.
QUIET = 7.0
# Seconds in which a command that is about to end, ends.
GRACE = 1.0
# Commands whose work is done elsewhere, so that they look idle, and that end by themselves.
AWAITED = re.compile(r"(rabbitmqctl|node\d) ")
# How long a reader takes to press Ctrl-C; what another shell sent has arrived.
REACTION = 0.5


class TranscriptError(AssertionError):
    """The page and the shells differ; the text says where and how."""


@dataclass(frozen=True)
class Step:
    """A command in a shell, and what the page says it has printed by then."""

    shell: str
    command: str
    line: int
    output: tuple[str, ...]
    measured: bool = False

    def same(self, lines: list[str]) -> list[str]:
        """Lines in the form in which page and shell are compared."""
        return [NUMBER.sub("0", line) for line in lines] if self.measured else lines


@dataclass(frozen=True)
class Scenario:
    """The transcripts of one section of a page."""

    page: Path
    title: str
    client: str
    steps: tuple[Step, ...]

    @property
    def shells(self) -> list[str]:
        return sorted({step.shell for step in self.steps})

    @property
    def uses_rabbitmqctl(self) -> bool:
        return any("rabbitmqctl" in step.command for step in self.steps)

    @property
    def over_tls(self) -> bool:
        """Whether the page has its reader keep a broker with TLS."""
        return "make broker TLS=1" in self.page.read_text(encoding="utf-8")

    @property
    def users(self) -> set[str]:
        """Whom it makes, on a broker that may have other guests."""
        found = (
            re.search(r"rabbitmqctl add_user (?:--\S+ )*(\w+)", x.command) for x in self.steps
        )
        return {user[1] for user in found if user}

    @property
    def uses_cluster(self) -> bool:
        return any(re.search(r"\bnode\d ", step.command) for step in self.steps)

    @property
    def restarts_broker(self) -> bool:
        return any("rabbitmqctl stop" in step.command for step in self.steps)


def headings(text: str) -> list[tuple[int, str]]:
    """Offset and title of every section heading of a page."""
    pattern = re.compile(r"^(?P<title>\S.*)\n(?P<rule>([=+\-~^\"'*#])\3*)$", re.MULTILINE)
    return [
        (found.start(), found["title"])
        for found in pattern.finditer(text)
        if len(found["rule"]) >= len(found["title"])
    ]


def tab_of(text: str, offset: int) -> str:
    """The name of the tab that the block at `offset` is in; "" for none."""
    start = text.rfind("\n", 0, offset) + 1
    indent = len(text[start:]) - len(text[start:].lstrip(" "))
    for line in reversed(text[:start].splitlines()):
        own = len(line) - len(line.lstrip(" "))
        if line.strip() and own < indent:
            if found := re.match(r"\s*\.\. tab-item:: (.+)", line):
                return found[1].strip()
            indent = own
    return ""


def block_steps(
    page: Path, source: str, first_line: int, measured: bool = False
) -> Iterator[Step]:
    """The steps of one console block."""
    rows = [*enumerate(source.splitlines(), first_line)]
    while rows and not rows[-1][1].strip():
        rows.pop()

    def made(prompt: re.Match[str], line: int, output: list[str]) -> Step:
        return Step(prompt["shell"], prompt["command"], line, tuple(output), measured)

    current: tuple[re.Match[str], int] | None = None
    output: list[str] = []
    for number, row in rows:
        if not (prompt := PROMPT.fullmatch(row)):
            if not current:
                raise TranscriptError(f"{page}:{number}: no shell prompt before {row!r}")
            output.append(row.rstrip())
            continue
        if current:
            yield made(*current, output)
        current, output = (prompt, number), []
    if current:
        yield made(*current, output)


def scenarios(page: Path, client: str) -> list[Scenario]:
    """The scenarios of a page as the reader of that client's tabs sees them."""
    text = page.read_text(encoding="utf-8")
    titles = headings(text)
    found: dict[str, list[Step]] = {}
    for region in DirectiveLexer("code-block")(sybil.Document(text, str(page))):
        if region.lexemes["arguments"] != "console":
            continue
        if tab_of(text, region.start) not in ("", client):
            continue
        source = region.lexemes["source"]
        offset = text.index(source.text.splitlines()[0].strip(), region.start)
        line = text.count("\n", 0, offset) + 1
        title = next((name for at, name in reversed(titles) if at < region.start), "")
        found.setdefault(title, []).extend(
            block_steps(
                page, source.text, line, "measured" in region.lexemes["options"].get("class", "")
            )
        )
    return [Scenario(page, title, client, tuple(steps)) for title, steps in found.items()]


def final_scenario(page: Path, client: str) -> Scenario:
    """The transcript of a chapter's final scripts."""
    return next(each for each in scenarios(page, client) if each.title == FINAL)


@dataclass
class Printed:
    """A line of output and when it came, in seconds of time.monotonic()."""

    text: str
    when: float


@dataclass(eq=False)
class Shell:
    """A bash on a terminal of its own."""

    name: str
    directory: Path
    environment: dict[str, str]
    command: str = ""
    status: int | None = None
    lines: list[Printed] = field(default_factory=list)
    _rest: str = ""

    def __post_init__(self) -> None:
        self.child: pexpect.spawn[str] = pexpect.spawn(
            "/bin/bash",
            ["--norc", "--noprofile", "--noediting", "-i"],
            cwd=str(self.directory),
            env={**self.environment, "PS1": "\x1e$?\x1f", "PS2": "", "TERM": "dumb"},  # type: ignore[arg-type]
            encoding="utf-8",
            codec_errors="replace",
            echo=False,
            dimensions=(50, 500),
        )
        self.child.delaybeforesend = None  # type: ignore[assignment]

    @property
    def running(self) -> bool:
        return self.status is None

    @property
    def texts(self) -> list[str]:
        rest = [self._rest] if self._rest else []
        return [line.text for line in self.lines] + rest

    def turn(self) -> tuple[bool, float]:
        """Whether what runs here wants a processor; for how many seconds it has had one.

        Of a pipe that is the first process, the leader of the terminal's group.
        """
        with suppress(psutil.NoSuchProcess, OSError):
            process = psutil.Process(os.tcgetpgrp(self.child.fileno()))
            wants = process.status() == psutil.STATUS_RUNNING
            return wants, sum(process.cpu_times()[:2])
        return False, 0.0

    def start(self, command: str) -> None:
        """Type a command. Its output replaces that of the one before."""
        self.pump()  # a second prompt, for a Ctrl-C that came as it had just ended
        self.command, self.status, self.lines, self._rest = command, None, [], ""
        self.child.sendline(command)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self.child.sendintr()

    def pump(self) -> list[str]:
        """Take in what the terminal holds; return the lines that are complete."""
        try:
            text = self.child.read_nonblocking(65536, timeout=0)
        except pexpect.TIMEOUT:
            return []
        except pexpect.EOF:
            self.status = self.status if self.status is not None else -1
            return []
        self._rest += text.replace("\r\n", "\n")
        while prompt := SENTINEL.search(self._rest):
            self.status = int(prompt[1])
            # A last line without its end is a line all the same.
            before = self._rest[: prompt.start()]
            self._rest = (before if before.endswith("\n") or not before else before + "\n") + (
                self._rest[prompt.end() :]
            )
        *complete, self._rest = self._rest.split("\n")
        fresh = [line.expandtabs().rstrip() for line in complete]
        now = time.monotonic()
        self.lines += [Printed(line, now) for line in fresh]
        return fresh

    def close(self) -> None:
        """Hang up, which ends what runs there."""
        self.child.close(force=True)


Listener = Callable[[Shell, str, bool], None]


class Player:
    """Plays scenarios in shells that start in `directory`.

    `listener` is called with the shell, a line and whether it was typed, as
    things happen.
    """

    def __init__(
        self, directory: Path, environment: dict[str, str], listener: Listener | None = None
    ) -> None:
        self.directory = directory
        self.environment = environment
        self.listener = listener or (lambda *_: None)
        self.shells: dict[str, Shell] = {}
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Player:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for shell in self.shells.values():
            shell.close()
        self._selector.close()

    def shell(self, name: str) -> Shell:
        """The shell of that name, at its prompt when it is new."""
        if name not in self.shells:
            shell = self.shells[name] = Shell(name, self.directory, self.environment)
            self._selector.register(shell.child.fileno(), selectors.EVENT_READ, shell)
            self.wait(lambda: not shell.running, PATIENCE)
        return self.shells[name]

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Take in output until the condition holds; return whether it does."""
        deadline = time.monotonic() + seconds
        while not condition():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            for key, _ in self._selector.select(min(left, 0.2)):
                for line in key.data.pump():
                    self.listener(key.data, line, False)
        return True

    def rest(self, seconds: float, *shells: Shell) -> None:
        """Wait until nothing that runs there has wanted a processor for so long.

        On a busy machine a process may have printed its last line, and not have had its
        turn yet to do what comes after it. One that has computed for so long has had it.
        """
        quiet_since = time.monotonic()
        before = {shell: shell.turn()[1] for shell in shells}
        while running := [shell for shell in shells if shell.running]:
            for shell in running:
                wants, computed = shell.turn()
                if wants and computed - before[shell] < seconds:
                    quiet_since = time.monotonic()
            if time.monotonic() - quiet_since >= seconds:
                return
            self.wait(lambda: not any(shell.running for shell in running), 0.05)

    def run(self, name: str, command: str) -> Shell:
        """Type a command in a shell."""
        shell = self.shell(name)
        self.listener(shell, command, True)
        shell.start(command)
        return shell

    def press_break(self, shell: Shell) -> None:
        """Press Ctrl-C and wait for the prompt."""
        self.listener(shell, BREAK, False)
        shell.interrupt()
        count = len(shell.lines)
        if not self.wait(lambda: not shell.running, PATIENCE):
            raise TranscriptError(f"{shell.name}: Ctrl-C did not end {shell.command!r}")
        if shell.status == KILLED and [line.text for line in shell.lines[count:]] == [""]:
            shell.lines.pop()  # bash's own newline, which ends the line of the ^C

    def report(self) -> str:
        """What every shell has printed, for a failure's message."""
        parts = []
        for shell in self.shells.values():
            state = "running" if shell.running else f"status {shell.status}"
            parts += [f"--- {shell.name}$ {shell.command}  ({state})", *shell.texts]
        return "\n".join(parts)

    def play(self, scenario: Scenario) -> None:
        """Play one scenario; raise TranscriptError where the page is not right."""
        Playing(self, scenario).play()

    def update(self, scenario: Scenario) -> None:
        """Play one scenario and write what it printed into the page."""
        playing = Playing(self, scenario, lenient=True)
        playing.play()
        rewrite(scenario.page, playing.printed)


class Playing:
    """One scenario on its way through the shells.

    A lenient one does not compare, but waits until each shell is quiet and
    notes in `printed` what the page should say.
    """

    def __init__(self, player: Player, scenario: Scenario, lenient: bool = False) -> None:
        self.player = player
        self.lenient = lenient
        self.printed: dict[Step, list[str]] = {}
        self.scenario = scenario
        self.steps = scenario.steps
        self.last: dict[str, Step] = {}  # by shell
        self.breaks: dict[str, list[int]] = {}  # by shell: after how many lines ^C was pressed

    def fail(self, step: Step, message: str) -> TranscriptError:
        page = self.scenario.page
        return TranscriptError(
            f"{page}:{step.line}: ({self.scenario.client}) {step.shell}$ {step.command}\n"
            f"{message}\n{self.player.report()}"
        )

    def play(self) -> None:
        for index, step in enumerate(self.steps):
            shell = self.player.shell(step.shell)
            before = self.last.get(step.shell)
            if before and not self.goes_on(shell, before, step):
                self.finish(shell, before, self.steps[index:])
                before = None
            if not before:
                self.player.run(step.shell, step.command)
                self.breaks[step.shell] = []
            self.last[step.shell] = step
            self.expect(shell, step)
        self.player.wait(lambda: False, SETTLE)
        self.player.rest(SETTLE, *map(self.player.shell, self.last))
        for name, step in self.last.items():
            self.finish(self.player.shell(name), step, ())

    def goes_on(self, shell: Shell, before: Step, step: Step) -> bool:
        """Whether this step is the transcript so far of a running command."""
        if step.command != before.command:
            return False
        if shell.running and BREAK in step.output:
            return True  # to be interrupted, and maybe soon through
        self.player.rest(GRACE, shell)
        if shell.running:
            return True
        # It has ended meanwhile. If it printed more than the page has shown so
        # far, this step is the rest of it; a second start comes after the whole.
        return len(shell.texts) > sum(line != BREAK for line in before.output)

    def finish(self, shell: Shell, step: Step, coming: tuple[Step, ...]) -> None:
        """A command is through: it printed just this, and ended well."""
        if coming and not self.player.wait(lambda: not shell.running, PATIENCE):
            raise self.fail(step, f"still runs when the page types {coming[0].command!r}")
        interrupted = shell.running or bool(self.breaks[step.shell])
        if shell.running:
            self.player.press_break(shell)
        expected = [line for line in step.output if line != BREAK]
        if self.lenient:
            return
        if step.same(shell.texts) != step.same(expected):
            raise self.fail(step, difference(expected, shell.texts))
        shown = any(after.shell == step.shell and "$?" in after.command for after in coming[:1])
        ended_well = shell.status == 0 or (interrupted and shell.status == KILLED)
        if not ended_well and not shown:
            how = " on Ctrl-C" if interrupted else ""
            raise self.fail(
                step, f"ended with status {shell.status}{how}; a page shows that with: echo $?"
            )

    def expect(self, shell: Shell, step: Step) -> None:
        """Wait until the shell has printed what the page shows."""
        expected: list[str] = []
        breaks = 0
        # Fake work in the lines is a second a dot.
        patience = PATIENCE + sum(line.count(".") for line in step.output)
        for line in step.output:
            if line != BREAK:
                expected.append(line)
                continue
            breaks += 1
            if breaks > len(self.breaks[step.shell]):
                self.await_lines(shell, step, expected, patience)
                self.player.rest(REACTION, shell)
                self.breaks[step.shell].append(len(shell.texts))
                self.player.press_break(shell)
        self.await_lines(shell, step, expected, patience)
        if AWAITED.match(step.command):
            self.player.wait(lambda: not shell.running, PATIENCE)
        elif not step.output:
            # Nothing shows that it is through; another shell may build on it.
            self.player.rest(GRACE, shell)

    def await_lines(self, shell: Shell, step: Step, expected: list[str], patience: float) -> None:
        if self.lenient:
            self.await_silence(shell)
            self.printed[step] = shell.texts
            for position in reversed(self.breaks[step.shell]):
                self.printed[step].insert(position, BREAK)
            return

        def settled() -> bool:
            texts = shell.texts[: len(expected)]
            wrong = step.same(texts) != step.same(expected[: len(texts)]) and not shell._rest
            return len(shell.lines) >= len(expected) or wrong or not shell.running

        self.player.wait(settled, patience)
        if step.same(shell.texts[: len(expected)]) != step.same(expected):
            raise self.fail(step, difference(expected, shell.texts))

    def await_silence(self, shell: Shell) -> None:
        """Wait until a shell has printed nothing for longer than a task takes."""
        count = -1
        while count != len(shell.lines) and shell.running:
            count = len(shell.lines)
            self.player.wait(lambda: not shell.running, QUIET)


def rewrite(page: Path, printed: dict[Step, list[str]]) -> None:
    """Replace the output of these steps in the page; from the last to the first."""
    rows = page.read_text(encoding="utf-8").split("\n")
    for step, output in sorted(printed.items(), key=lambda item: -item[0].line):
        prompt = rows[step.line - 1]
        indent = prompt[: len(prompt) - len(prompt.lstrip())]
        rows[step.line : step.line + len(step.output)] = [indent + line for line in output]
    page.write_text("\n".join(rows), encoding="utf-8")


def difference(expected: list[str], actual: list[str]) -> str:
    """Both sides, line by line, with a mark where they differ."""
    rows = ["the page says | the shell printed:"]
    for index in range(max(len(expected), len(actual))):
        left = expected[index] if index < len(expected) else "(nothing more)"
        right = actual[index] if index < len(actual) else "(nothing more)"
        rows.append(f"{'  ' if left == right else '! '}{left}  |  {right}")
    return "\n".join(rows)


def write_program(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/sh\n{text}")
    file.chmod(0o755)


def write_rabbitmqctl(folder: Path, rabbitmqctl: tuple[str, ...], vhost: str) -> None:
    """Put a `rabbitmqctl` into a folder that reaches our broker and vhost."""
    write_program(
        folder / "rabbitmqctl",
        "# The reader's rabbitmqctl, for this broker and virtual host.\n"
        "command=$1\nshift\n"
        "case $command in *_user);; list_*|set_*|clear_*|delete_*|purge_*)\n"
        f'  set -- -p {shlex.quote(vhost)} "$@";;\n'
        "esac\n"
        f'exec {shlex.join(rabbitmqctl)} "$command" "$@"\n',
    )
