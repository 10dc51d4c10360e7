"""See job_controller.py at work, on tasks that sleep.

    python job_demo.py 0.3 0.1 0.2

Each argument is a task that takes so many seconds; 500x0.1 is five hundred of
them. A word in place of the number is a task that fails. Ctrl-C ends the job.
"""

import asyncio
import itertools
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from job_controller import JobController, WorkTask, WorkTaskResult
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress


async def work(secs: str) -> None:
    await asyncio.sleep(float(secs))


def parse(arguments: list[str]) -> Iterator[tuple[int, str]]:
    for argument in arguments:
        count, _, secs = argument.rpartition("x")
        yield int(count or 1), secs


def tasks_of(arguments: list[str]) -> Iterator[WorkTask]:
    """One at a time: a million tasks are never all there at once."""
    numbers = itertools.count(1)
    for count, secs in parse(arguments):
        for _ in range(count):
            yield WorkTask(next(numbers), work, (secs,))


def task_completed(job_id: str, task: WorkTaskResult) -> None:
    if task.error:
        print(f" [!] Task {task.number} failed: {task.error!r}")
    else:
        print(f" [x] Task {task.number} done in {task.time_secs:.1f} s")


def job_completed(job_id: str, message: dict[str, Any]) -> None:
    how = "ended" if "done" in message else "completed"
    print(f"Job {job_id} {how}: {message}")


class Shown:
    """A task callback for long jobs, which shows how far the job is.

    On a terminal that is rich's bar, else a line for every tenth.
    """

    def __init__(self, total: int) -> None:
        console = Console(stderr=True)
        self._moves = sys.stderr.isatty() and not console.is_dumb_terminal
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            console=console,
            # What is printed meanwhile goes above the bar, on a terminal only.
            redirect_stdout=sys.stdout.isatty(),
            disable=not self._moves,
        )
        self._task = self._bar.add_task("", total=total)
        self._done, self._total = 0, total
        self._step = max(1, total // (500 if self._moves else 10))

    def __enter__(self) -> "Shown":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, job_id: str, task: WorkTaskResult) -> None:
        self._done += 1
        if task.error:
            task_completed(job_id, task)
        if self._done % self._step == 0 or self._done == self._total:
            self._bar.update(self._task, completed=self._done)
            if not self._moves:
                line = f" [*] {self._done:,} of {self._total:,} tasks"
                print(line, file=sys.stderr, flush=True)


def main(controller: type[JobController] = JobController) -> None:
    arguments = sys.argv[1:]
    if not arguments:
        sys.exit(f"Usage: python {Path(sys.argv[0]).name} TASK...")
    try:
        total = sum(count for count, _ in parse(arguments))
    except ValueError:
        total = 0  # the producer will stumble over it, and tell
    shown = Shown(total) if total > 50 else nullcontext(task_completed)
    with shown as callback:
        job = controller(tasks_of(arguments), callback, job_completed, "demo")
        print(f"Starting job {job.job_id}")
        try:
            sys.exit(1 if job.run().trouble else 0)
        except KeyboardInterrupt:
            sys.exit(130)  # as a shell puts it; job_completed told the rest


if __name__ == "__main__":
    main()
