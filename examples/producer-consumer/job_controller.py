#!/usr/bin/env python3
"""Run a job of many tasks, 25 at a time, in bounded memory.

    python job_controller.py 0.3 0.1 0.2

Each argument is a task that takes so many seconds; 500x0.1 is five hundred of
them. A word in place of the number is a task that fails. Ctrl-C ends the job.
"""

import asyncio
import inspect
import itertools
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

NUM_WORKERS = 25
WORK_QUEUE_MAX_SIZE = 100

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkTask:
    """A work item: `await exec(*args)` does it."""

    number: int
    exec: Callable[..., Any]
    args: tuple[Any, ...] = ()
    id: UUID = field(default_factory=uuid4)


@dataclass(frozen=True, slots=True)
class WorkTaskResult:
    """What became of a task; `error` is what it raised, if it did."""

    id: UUID
    number: int
    exec: Callable[..., Any]
    time_secs: float
    error: BaseException | None = None


@dataclass(slots=True)
class JobResult:
    """What became of a job; `error` is what ended it early, if anything."""

    queued: int = 0
    done: int = 0
    failed: int = 0
    callbacks_failed: int = 0
    error: BaseException | None = None
    elapsed_secs: float = 0.0

    @property
    def not_done(self) -> int:
        return self.queued - self.done - self.failed

    @property
    def well(self) -> bool:
        """Every task was done, and nothing went wrong beside."""
        trouble = self.failed or self.not_done or self.callbacks_failed
        return not trouble and self.error is None

    def message(self) -> dict[str, Any]:
        """The time it took; and what became of it, unless all went well."""
        time_only = {"elapsed_secs": round(self.elapsed_secs, 4)}
        if self.well:
            return time_only
        trouble = {
            "failed": self.failed,
            "not_done": self.not_done,
            "callbacks_failed": self.callbacks_failed,
            "error": repr(self.error) if self.error else None,
        }
        trouble = {name: value for name, value in trouble.items() if value}
        return {**time_only, "done": self.done, **trouble}


# Both may be functions or coroutine functions: (job_id, message).
TaskCallback = Callable[[str, WorkTaskResult], Any]
JobCallback = Callable[[str, dict[str, Any]], Any]


async def attempt(
    function: Callable[..., Any], *args: Any
) -> BaseException | None:
    """Call somebody else's function, and return what it raises."""
    try:
        outcome = function(*args)
        if inspect.isawaitable(outcome):
            await outcome
    except (KeyboardInterrupt, SystemExit):
        raise  # these end the program
    except asyncio.CancelledError as error:
        # Are we being cancelled, or is it only something that it awaited?
        if being_cancelled():
            raise
        return error
    except BaseException as error:
        return error
    return None


def being_cancelled() -> bool:
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0


class Producer:
    """Puts the tasks into the queue, as fast as the queue has room."""

    def __init__(
        self,
        tasks_batch: Iterable[WorkTask],
        work_queue: asyncio.Queue[WorkTask],
        producer_completed: asyncio.Event,
    ) -> None:
        self.queued = 0
        self._tasks_batch = tasks_batch
        self._work_queue = work_queue
        self._producer_completed = producer_completed

    async def produce(self) -> None:
        try:
            for task in self._tasks_batch:
                await self._work_queue.put(task)  # waits while it is full
                self.queued += 1
        finally:
            # No more will come, for whatever reason: nobody may wait for it.
            self._producer_completed.set()


class Consumer:
    """Does one task after the other, until it is cancelled."""

    def __init__(
        self,
        work_queue: asyncio.Queue[WorkTask],
        callback: Callable[[WorkTaskResult], Awaitable[None]],
    ) -> None:
        self._work_queue = work_queue
        self._callback = callback

    async def consume(self) -> None:
        # Asked again, since a task can swallow the cancellation meant for us.
        while not being_cancelled():
            task = await self._work_queue.get()
            try:
                await self.perform(task)
            finally:
                # Whatever happened, or join() waits for this task for ever.
                self._work_queue.task_done()

    async def perform(self, task: WorkTask) -> None:
        started = time.monotonic()
        error = await attempt(task.exec, *task.args)
        secs = time.monotonic() - started
        await self._callback(
            WorkTaskResult(task.id, task.number, task.exec, secs, error)
        )


class JobController:
    """Runs one producer and 25 consumers until all the work is done.

    `tasks_batch` may be a generator. The callbacks, functions or coroutine
    functions, are called with the job's id and a WorkTaskResult after every
    task, and with the job's id and {'elapsed_secs': …} after the job.
    `result` holds the counts, also when run() is interrupted.
    """

    def __init__(
        self,
        tasks_batch: Iterable[WorkTask],
        task_completed_callback: TaskCallback,
        job_completed_callback: JobCallback,
        job_id: str = "",
    ) -> None:
        self.job_id = job_id or str(uuid4())
        self.result = JobResult()
        self._tasks_batch = tasks_batch
        self._task_completed_callback = task_completed_callback
        self._job_completed_callback = job_completed_callback

    async def _task_completed(self, task: WorkTaskResult) -> None:
        if task.error:
            self.result.failed += 1
        else:
            self.result.done += 1
        if error := await attempt(
            self._task_completed_callback, self.job_id, task
        ):
            self.result.callbacks_failed += 1
            log.error("Callback of task %s failed: %r", task.number, error)

    async def _run_job(self) -> JobResult:
        result = self.result = JobResult()
        started = time.monotonic()  # time.time() can be set, and so can jump
        try:
            await self._produce_and_consume()
        except BaseException as error:
            result.error = error
            raise
        finally:
            result.elapsed_secs = time.monotonic() - started
            if error := await attempt(
                self._job_completed_callback, self.job_id, result.message()
            ):
                result.callbacks_failed += 1
                log.error("Callback of job %s failed: %r", self.job_id, error)
        return result

    async def _produce_and_consume(self) -> None:
        work_queue = asyncio.Queue[WorkTask](WORK_QUEUE_MAX_SIZE)
        producer_completed = asyncio.Event()
        producer = Producer(self._tasks_batch, work_queue, producer_completed)
        # Kept, because the event loop's own references to tasks are weak.
        producing = asyncio.create_task(producer.produce())
        consumers = [
            asyncio.create_task(
                Consumer(work_queue, self._task_completed).consume()
            )
            for _ in range(NUM_WORKERS)
        ]
        try:
            await producer_completed.wait()  # before, the queue may be empty
            await work_queue.join()
        finally:
            for consumer in consumers:
                consumer.cancel()
            producing.cancel()
            # cancel() only asks. When gather() returns they have ended.
            await asyncio.gather(producing, *consumers, return_exceptions=True)
            self.result.queued = producer.queued
        if not producing.cancelled():
            self.result.error = producing.exception()

    def run(self) -> JobResult:
        """Run the job to its end, and return what became of it."""
        return asyncio.run(self._run_job())


# --- A demonstration: tasks that sleep --------------------------------------


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


class Progress:
    """A task callback for long jobs, which shows how far the job is.

    On a terminal that is one line that changes, else a line for every tenth.
    """

    def __init__(self, total: int) -> None:
        self._done, self._total = 0, total
        self._moves = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._step = max(1, total // (500 if self._moves else 10))

    def __call__(self, job_id: str, task: WorkTaskResult) -> None:
        self._done += 1
        if task.error:
            self._show("\r\x1b[K" if self._moves else "")
            task_completed(job_id, task)
        if self._done % self._step == 0 or self._done == self._total:
            line = f"{self._done:,} of {self._total:,} tasks"
            if self._moves:
                bar = "#" * (30 * self._done // self._total)
                last = self._done == self._total
                self._show(f"\r [{bar:.<30}] {line}" + "\n" * last)
            else:
                self._show(f" [*] {line}\n")

    def _show(self, text: str) -> None:
        print(text, end="", file=sys.stderr, flush=True)


def main(
    arguments: list[str], controller: type[JobController] = JobController
) -> int:
    try:
        total = sum(count for count, _ in parse(arguments))
    except ValueError:
        total = 0  # the producer will stumble over it, and tell
    job = controller(
        tasks_of(arguments),
        Progress(total) if total > 50 else task_completed,
        job_completed,
        job_id="demo",
    )
    print(f"Starting job {job.job_id}")
    try:
        return 0 if job.run().well else 1
    except KeyboardInterrupt:
        return 130  # as a shell puts it; job_completed has told the rest


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.stderr.write("Usage: python job_controller.py TASK...\n")
        sys.exit(2)
    sys.exit(main(sys.argv[1:]))
