"""The promises of docs/producer-consumer.rst, each with a test that can break it."""

from __future__ import annotations

import ast
import asyncio
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pexpect
import pytest
import rich
from conftest import Starter
from plotting import FIGURES
from record_producer_consumer import BOUNDED, peak_memory
from shells.chapters import EXAMPLES, figure, reader_environment, said, version
from shells.running import Script

CHAPTER = "producer-consumer"
FOLDER = EXAMPLES / CHAPTER
FINAL = ("job_controller.py", "job_taskgroup.py")
DEMOS = ("job_demo.py", "job_taskgroup.py")  # one for each
NO_BROKER = "amqp://unused/"
# As the page has them, wherever it does.
WORKERS = figure(
    CHAPTER,
    r"(?m)(?:from which|be more\),|After|and then|stops all|Why|only waits,|does in"
    r"|Never more than|cancelling\(\)``,|^-|little more than a) (\d+)(?:th)?\b",
)
QUEUE = figure(CHAPTER, r"(?:queue of at most|never more than) (\d+)(?:,| items| in| the)")
Run = Callable[..., Script]


@pytest.fixture
def run(start: Starter) -> Run:
    return lambda name, *arguments, **more: start(
        CHAPTER, "", name, *arguments, url=NO_BROKER, **more
    )


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield importlib.import_module("job_controller")
    for name in ("job_controller", "job_demo", "job_taskgroup", "job_naive"):
        sys.modules.pop(name, None)


@pytest.fixture(params=["JobController", "TaskGroupController"])
def controller(request: pytest.FixtureRequest, module: ModuleType) -> Callable[..., Any]:
    """Each of the two, with callbacks that note what they are told."""
    of = {"JobController": "job_controller", "TaskGroupController": "job_taskgroup"}
    return getattr(importlib.import_module(of[request.param]), request.param)


def open_tasks() -> set[str]:
    """Tasks that have not ended; not the job's own, and those of the test."""
    names = {str(task.get_coro()) for task in asyncio.all_tasks()}
    return {name for name in names if "consume" in name or "produce" in name}


class Told:
    """Callbacks that note what they are told, and how many tasks are left then."""

    def __init__(self) -> None:
        self.tasks: list[Any] = []
        self.jobs: list[dict[str, Any]] = []
        self.ids: set[str] = set()
        self.left: set[str] = set()

    def task(self, job_id: str, result: Any) -> None:
        self.ids.add(job_id)
        self.tasks.append(result)

    def job(self, job_id: str, message: dict[str, Any]) -> None:
        self.ids.add(job_id)
        self.jobs.append(message)
        self.left = open_tasks()

    @property
    def numbers(self) -> list[int]:
        return sorted(result.number for result in self.tasks)


@pytest.fixture
def told() -> Told:
    return Told()


async def soon(job: Any) -> Any:
    """A job's result; fails, instead of hanging."""
    return await asyncio.wait_for(job._run_job(), 10)


def finish(job: Any) -> Any:
    return asyncio.run(soon(job))


async def nothing() -> None:
    pass


def many(module: ModuleType, count: int, function: Any = nothing, *args: Any) -> Iterator[Any]:
    return (module.WorkTask(number, function, args) for number in range(1, count + 1))


# --- What the seed of this lesson asks for ----------------------------------


@pytest.mark.parametrize("count", [0, 1, 24, 25, 26, 500])
def test_every_task_once_and_the_job_once(
    controller: Any, module: ModuleType, told: Told, count: int
) -> None:
    batch = list(many(module, count, asyncio.sleep, 0.001))
    job = controller(batch, told.task, told.job)
    result = job.run()
    assert told.numbers == list(range(1, count + 1))
    assert {task.id for task in told.tasks} == {task.id for task in batch}
    assert [list(message) for message in told.jobs] == [["elapsed_secs"]]
    assert told.ids == {job.job_id}
    assert (result.queued, result.done, result.failed, result.not_done) == (count, count, 0, 0)
    assert not result.trouble
    assert not told.left


def test_25_at_a_time_and_100_in_the_queue(
    controller: Any, module: ModuleType, told: Told
) -> None:
    produced, begun, now = 0, 0, 0
    waiting, at_once = [], []

    async def work() -> None:
        nonlocal begun, now
        begun, now = begun + 1, now + 1
        at_once.append(now)
        await asyncio.sleep(0.01)
        now -= 1

    def batch() -> Iterator[Any]:
        nonlocal produced
        for task in many(module, 400, work):
            waiting.append(produced - begun)
            produced += 1
            yield task

    assert not finish(controller(batch(), told.task, told.job)).trouble
    assert max(at_once) == WORKERS
    # The one more is in the producer's hand.
    assert QUEUE <= max(waiting) <= QUEUE + 1


def test_25_workers_are_25_times_as_fast(controller: Any, module: ModuleType, told: Told) -> None:
    ideal = 0.2 * 100 / WORKERS
    measured = []
    for _ in range(4):  # the machine may be busy
        job = controller(many(module, 100, asyncio.sleep, 0.2), told.task, told.job)
        measured.append(finish(job).elapsed_secs)
        if ideal / measured[-1] >= 0.5:  # one worker would reach 0.04
            return
    pytest.fail(f"{measured} s, where {ideal} would be ideal")


def test_the_clock_may_be_set(
    controller: Any, module: ModuleType, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", iter(range(10**9, 0, -(10**6))).__next__)
    started = time.monotonic()
    finish(controller(many(module, 1, asyncio.sleep, 0.1), told.task, told.job))
    took = time.monotonic() - started
    assert 0.05 < told.tasks[0].time_secs <= told.jobs[0]["elapsed_secs"] + 0.001 <= took + 0.002


def test_callbacks_may_be_coroutine_functions(
    controller: Any, module: ModuleType, told: Told
) -> None:
    """A slow one occupies the worker whose task it was, and no other."""

    async def task(job_id: str, result: Any) -> None:
        await asyncio.sleep(0.1)
        told.task(job_id, result)

    async def job(job_id: str, message: Any) -> None:
        await asyncio.sleep(0)
        told.job(job_id, message)

    result = finish(controller(many(module, 50), task, job))
    assert not result.trouble
    assert told.numbers == list(range(1, 51))
    assert len(told.jobs) == 1
    assert result.elapsed_secs < 2.5  # one after the other: 5


# --- What raises is reported, and hangs nothing ------------------------------


class Odd(BaseException):
    """What no `except Exception` catches."""


def oops(error: BaseException) -> Callable[..., Any]:
    def function(*_: Any) -> None:
        raise error

    return function


def oops_later(error: BaseException) -> Callable[..., Any]:
    async def function(*_: Any) -> None:
        await asyncio.sleep(0)
        raise error

    return function


def trouble() -> list[Any]:
    errors = (ValueError("oops"), asyncio.CancelledError("oops"), TimeoutError("oops"))
    return [kind(error) for kind in (oops, oops_later) for error in (*errors, Odd("oops"))]


every_trouble = pytest.mark.parametrize("raises", trouble())


@every_trouble
def test_a_task_that_raises(controller: Any, module: ModuleType, told: Told, raises: Any) -> None:
    """More of them than there are workers, in turn with tasks that are done."""
    batch = [module.WorkTask(n, raises if n % 2 else nothing) for n in range(1, 201)]
    result = finish(controller(batch, told.task, told.job))
    assert (result.done, result.failed, result.not_done) == (100, 100, 0)
    assert result.trouble
    failed = [task for task in told.tasks if task.error]
    assert sorted(task.number for task in failed) == list(range(1, 201, 2))
    assert all(task.error.args == ("oops",) for task in failed)
    (message,) = told.jobs
    assert (message["done"], message["failed"]) == (100, 100)
    assert not told.left


@every_trouble
def test_a_callback_that_raises(
    controller: Any,
    module: ModuleType,
    told: Told,
    raises: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    result = finish(controller(many(module, 60), raises, told.job))
    assert (result.done, result.failed, result.callbacks_failed) == (60, 0, 60)
    assert told.jobs[0]["callbacks_failed"] == 60
    assert result.trouble
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 60
    assert all("oops" in text for text in texts)
    assert any("number=60," in text for text in texts)


@every_trouble
def test_a_callback_of_the_job_that_raises(
    controller: Any,
    module: ModuleType,
    told: Told,
    raises: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    result = finish(controller(many(module, 3), told.task, raises, job_id="mine"))
    assert (result.done, result.callbacks_failed) == (3, 1)
    assert result.trouble
    assert "mine" in caplog.text
    assert "oops" in caplog.text


@pytest.mark.parametrize("before", [0, 10, 300])
def test_a_producer_that_raises(
    controller: Any, module: ModuleType, told: Told, before: int
) -> None:
    """What it has queued is done, and then the job ends and says why."""

    def batch() -> Iterator[Any]:
        yield from many(module, before, asyncio.sleep, 0.001)
        raise ValueError("no more")

    result = finish(controller(batch(), told.task, told.job))
    assert (result.queued, result.done, result.not_done) == (before, before, 0)
    assert told.jobs[0]["error"] == "ValueError('no more')"
    assert not told.left


# --- Cancelled: all end, and what was done is said ---------------------------


async def turns() -> None:
    """Let the loop go round until nothing but timers is left to wait for."""
    for _ in range(1000):
        await asyncio.sleep(0)


def test_a_cancelled_job_ends_all_its_tasks(
    controller: Any, module: ModuleType, told: Told
) -> None:
    ended = []

    async def work(number: int) -> None:
        if number <= 10:
            return
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.05)  # such as closing a connection
            ended.append(number)

    async def main() -> None:
        batch = (module.WorkTask(number, work, (number,)) for number in range(1, 1000))
        job = controller(batch, told.task, told.job)
        running = asyncio.create_task(job._run_job())
        await turns()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert sorted(ended) == list(range(11, 36))
        assert not open_tasks()
        assert (job.result.done, job.result.queued) == (10, 135)

    asyncio.run(asyncio.wait_for(main(), 15))
    assert told.numbers == list(range(1, 11))
    (message,) = told.jobs
    assert (message["done"], message["not_done"]) == (10, 125)
    assert "CancelledError" in message["error"]
    assert not told.left  # already when the callback said that the job has ended


def test_tasks_that_swallow_cancellation(controller: Any, module: ModuleType, told: Told) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    async def main() -> None:
        running = asyncio.create_task(
            controller(many(module, 1000, stubborn), told.task, told.job)._run_job()
        )
        await turns()
        running.cancel()
        await asyncio.wait([running], timeout=10)
        assert running.cancelled()

    asyncio.run(main())
    assert told.jobs[0]["done"] == WORKERS


@pytest.mark.parametrize("name", DEMOS)
def test_ctrl_c(run: Run, name: str) -> None:
    script = run(name, "0.1", "40x60").wait_for("Task 1 done")
    assert script.interrupt() == 130
    assert script.stderr == []
    numbers = re.findall(r"'(\w+)': (\d+)[,}]", script.stdout[-1])
    assert script.stdout[-1].startswith("Job demo ended: {'elapsed_secs': ")
    # Those in hand and 15 in the queue.
    assert dict(numbers) == {"done": "1", "not_done": "40"}


# --- A million tasks ----------------------------------------------------------


@pytest.mark.parametrize("name", FINAL)
def test_memory_does_not_grow_with_the_number_of_tasks(name: str) -> None:
    few, many = (peak_memory(FOLDER / name, count)["peak_mib"] for count in (5_000, 50_000))
    assert many < few * 1.1


def test_the_figure_shows_what_the_page_says_of_it() -> None:
    runs = json.loads((FIGURES / f"{CHAPTER}.json").read_text())["runs"]
    bounded, unbounded = ([each["peak_mib"] for each in runs[name]] for name in runs)
    counts = ", ".join(f"{each['tasks']:,}" for each in runs[BOUNDED][:-1])
    assert counts == said(CHAPTER, r"Peak memory of jobs of ([\d, ]+) and")
    assert runs[BOUNDED][-1]["tasks"] == figure(CHAPTER, r"and ([\d,]+) tasks\. With")
    assert max(bounded) < min(bounded) * 1.05
    assert round(bounded[-1]) == figure(CHAPTER, r"the line is flat at (\d+) MiB")
    assert unbounded[-1] > 200


@pytest.mark.parametrize("name", DEMOS)
def test_progress_in_a_pipe_is_plain_lines(run: Run, name: str) -> None:
    script = run(name, "2000x0", "oops")
    assert script.wait() == 1
    assert script.stderr == [
        *(f" [*] {count:,} of 2,001 tasks" for count in range(200, 2001, 200)),
        " [*] 2,001 of 2,001 tasks",
    ]
    assert [line for line in script.stdout if "[!]" in line] == [
        " [!] Task 2001 failed: ValueError(\"could not convert string to float: 'oops'\")"
    ]


@pytest.mark.parametrize("more", [0, 1])
def test_from_so_many_tasks_on_it_shows_progress(run: Run, more: int) -> None:
    most = figure(CHAPTER, r"On a job of more than (\d+) tasks")
    script = run("job_demo.py", f"{most + more}x0")
    assert script.wait() == 0
    assert (len(script.stdout), bool(script.stderr)) == ((2, True) if more else (2 + most, False))


def on_a_terminal(*arguments: str, term: str = "xterm") -> str:
    """What the demonstration shows there."""
    terminal = pexpect.spawn(
        sys.executable,
        [str(FOLDER / DEMOS[0]), *arguments],
        env={**reader_environment(NO_BROKER), "TERM": term},  # type: ignore[arg-type]
        encoding="utf-8",
        timeout=20,
        echo=False,
    )
    terminal.expect(pexpect.EOF)
    return str(terminal.before)


def test_progress_on_a_terminal_is_a_bar() -> None:
    """What is printed meanwhile stands above it, in one piece."""
    shown = on_a_terminal("500x0.1", "oops")
    done = [int(count) for count in re.findall(r"(\d+)/501", shown)]
    assert done == sorted(done)
    assert done[-1] == 501
    assert any(0 < count < 500 for count in done)
    assert " tasks" not in shown
    assert " [!] Task 501 failed: " in shown
    assert "Job demo ended: " in shown


def test_no_bar_where_none_can_be_moved_or_each_task_is_told() -> None:
    assert "[*] 2,000 of 2,000 tasks" in on_a_terminal("2000x0", term="dumb")
    assert on_a_terminal("50x0").count("\r\n") == 52  # and nothing else


# --- The naive ones fail as the page shows -----------------------------------


def test_the_naive_end_when_the_queue_is_empty(run: Run) -> None:
    script = run("job_naive_empty.py", "0.3", "0.2")
    assert script.wait() == 0
    assert len(script.stdout) == 2
    assert "Job demo completed" in script.stdout[1]


def test_the_naive_one_hangs(run: Run) -> None:
    patience = figure(CHAPTER, r"draft gives up after (\w+) seconds")
    script = run("job_naive.py", "0.2", "oops", "0.1")
    assert script.wait() == 0
    assert script.stdout[1:] == [
        " [x] Task 3 done in 0.1 s",
        " [x] Task 1 done in 0.2 s",
        f" [!] It hangs: join() has not returned for {patience} s",
        " [!] After cancel(), 24 tasks are still open",
    ]
    since = version(said(CHAPTER, r"(?:shutdown\(\)`` \(|Before Python )(3\.\d+)"))
    assert hasattr(asyncio.Queue, "shutdown") == (sys.version_info >= since)
    well = run("job_naive.py", "0.1")
    assert well.wait() == 0
    assert "Job demo completed" in well.stdout[2]
    assert well.stdout[3:] == [" [!] After cancel(), 25 tasks are still open"]


@pytest.mark.usefixtures("module")
def test_a_callback_that_raises_hangs_the_naive_one_too() -> None:
    naive = importlib.import_module("job_naive")

    async def main() -> None:
        work_queue: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        work_queue.put_nowait((1, "0"))
        with pytest.raises(ValueError, match="oops"):
            await naive.Consumer(work_queue, oops(ValueError("oops"))).consume()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(work_queue.join(), 0.1)

    asyncio.run(main())


@pytest.mark.usefixtures("module")
def test_the_naive_producer_leaves_the_job_waiting() -> None:
    naive = importlib.import_module("job_naive")

    async def main() -> None:
        completed = asyncio.Event()

        def batch() -> Iterator[tuple[int, str]]:
            yield 1, "0.1"
            raise ValueError("no more")

        with pytest.raises(ValueError, match="no more"):
            await naive.Producer(batch(), asyncio.Queue(), completed).produce()
        assert not completed.is_set()

    asyncio.run(main())


# --- Scripts ------------------------------------------------------------------


def pythons() -> list[str]:
    """This Python, and others that are there."""
    this = f"python3.{sys.version_info[1]}"
    names = {f"python3.{minor}" for minor in range(11, 16)} - {this}
    return [sys.executable, *filter(None, map(shutil.which, sorted(names)))]


@pytest.mark.parametrize("python", pythons(), ids=lambda path: Path(path).name)
def test_same_output_of_both_on_every_python(python: str) -> None:
    """With queue shutdown and, before Python 3.13, without."""
    if subprocess.call([python, "-c", ""], stderr=subprocess.DEVNULL):
        pytest.skip("a shim of pyenv's is there, and no Python behind it")
    site = str(Path(rich.__file__).parents[1])  # the other ones need not have it
    cases = (["0.3", "oops", "0.1", "20x0.2"], ["0.1", "manyx1"], ["60xoops"], ["0x1"])
    running = [
        subprocess.Popen(
            [python, "-B", str(FOLDER / name), *arguments],
            env={**reader_environment(NO_BROKER), "PYTHONPATH": site},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for arguments in cases
        for name in DEMOS
    ]
    printed = []
    for each in running:
        out, err = each.communicate(timeout=60)
        lines = re.sub(r"(?<='elapsed_secs': )[\d.]+|[\d.]+(?= s$)", "…", out, flags=re.M)
        printed.append((each.returncode, sorted(lines.splitlines()), err))
    assert printed[::2] == printed[1::2]
    assert [status for status, _, _ in printed[::2]] == [1, 1, 1, 0]


every_script = pytest.mark.parametrize(
    "script", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name
)
every_program = pytest.mark.parametrize(
    "script", sorted({*FOLDER.glob("*.py")} - {FOLDER / FINAL[0]}), ids=lambda path: path.name
)


@every_program
def test_it_runs_as_its_docstring_says(run: Run, script: Path) -> None:
    docstring = ast.get_docstring(ast.parse(script.read_text())) or ""
    found = re.search(rf"python {script.name}(?P<arguments>.*)$", docstring, re.MULTILINE)
    assert found
    ended = run(script.name, *shlex.split(found["arguments"]))
    assert (ended.wait(), ended.stderr) == (0, []), ended
    missing = run(script.name)
    assert missing.wait() != 0
    assert [line.startswith(f"Usage: python {script.name} ") for line in missing.stderr] == [True]


@every_script
def test_it_needs_only_the_standard_library(script: Path) -> None:
    """But for what is beside it; and the demonstration has its bar from rich."""
    more = {"job_controller", "job_demo"} if script.name in DEMOS else set()
    more |= {"rich"} if script.name == DEMOS[0] else set()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        else:
            continue
        for module in modules:
            assert module.partition(".")[0] in {*more, *sys.stdlib_module_names}


def test_a_program_that_is_told_to_exit_does(module: ModuleType, told: Told) -> None:
    """SystemExit in a task is no failure of the task."""
    with pytest.raises(SystemExit):
        module.JobController(many(module, 3, sys.exit, 3), told.task, told.job).run()
    assert len(told.jobs) == 1
