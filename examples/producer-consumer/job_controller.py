"""job_controller.py: a job of many tasks, 25 at a time. See job_demo.py."""

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

NUM_WORKERS = 25
WORK_QUEUE_MAX_SIZE = 100

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkTask:
    number: int
    exec: Callable[..., Any]  # `await exec(*args)` does it
    args: tuple[Any, ...] = ()
    id: UUID = field(default_factory=uuid4)


@dataclass(frozen=True, slots=True)
class WorkTaskResult:
    id: UUID
    number: int
    exec: Callable[..., Any]
    time_secs: float
    error: BaseException | None = None  # what it raised, if it did


@dataclass(slots=True)
class JobResult:
    elapsed_secs: float = 0.0
    queued: int = 0
    done: int = 0
    failed: int = 0
    callbacks_failed: int = 0
    error: BaseException | None = None  # what ended it early, if anything

    @property
    def not_done(self) -> int:
        return self.queued - self.done - self.failed

    @property
    def trouble(self) -> dict[str, Any]:
        """What went wrong, and how often; empty if nothing did."""
        found = {
            "failed": self.failed,
            "not_done": self.not_done,
            "callbacks_failed": self.callbacks_failed,
            "error": self.error and repr(self.error),
        }
        return {name: value for name, value in found.items() if value}


async def attempt(call: Callable[..., Any], *args: Any) -> Any:
    """Call somebody else's function, and return what it raises."""
    try:
        outcome = call(*args)
        if inspect.isawaitable(outcome):
            await outcome
    except (KeyboardInterrupt, SystemExit):
        raise  # these end the program
    except BaseException as error:
        # Are we being cancelled, or is it only something that it awaited?
        if isinstance(error, asyncio.CancelledError) and being_cancelled():
            raise
        return error


def being_cancelled() -> bool:
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0


@dataclass
class Producer:
    tasks_batch: Iterable[WorkTask]
    work_queue: asyncio.Queue[WorkTask]
    producer_completed: asyncio.Event
    queued: int = 0

    async def produce(self) -> None:
        try:
            for task in self.tasks_batch:
                await self.work_queue.put(task)  # waits while it is full
                self.queued += 1
        finally:
            # No more will come, for whatever reason: nobody may wait for it.
            self.producer_completed.set()


@dataclass
class Consumer:
    work_queue: asyncio.Queue[WorkTask]
    callback: Callable[[WorkTaskResult], Awaitable[None]]

    async def consume(self) -> None:
        # Asked again, since a task can swallow the cancellation meant for us.
        while not being_cancelled():
            task = await self.work_queue.get()
            try:
                await self.perform(task)
            finally:
                # Whatever happened, or join() waits for this task for ever.
                self.work_queue.task_done()

    async def perform(self, task: WorkTask) -> None:
        started = time.monotonic()
        error = await attempt(task.exec, *task.args)
        secs = time.monotonic() - started
        result = WorkTaskResult(task.id, task.number, task.exec, secs, error)
        await self.callback(result)


@dataclass
class JobController:
    """One producer and 25 consumers; `result` has the counts at any time."""

    tasks_batch: Iterable[WorkTask]
    task_completed_callback: Callable[[str, WorkTaskResult], Any]
    job_completed_callback: Callable[[str, dict[str, Any]], Any]
    job_id: str = field(default_factory=lambda: str(uuid4()))
    result: JobResult = field(default_factory=JobResult)

    async def _task_completed(self, task: WorkTaskResult) -> None:
        self.result.failed += task.error is not None
        self.result.done += task.error is None
        await self._tell(self.task_completed_callback, task)

    async def _tell(self, callback: Callable[..., Any], news: Any) -> None:
        if error := await attempt(callback, self.job_id, news):
            self.result.callbacks_failed += 1
            log.error("%s: told %s, it failed: %r", self.job_id, news, error)

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
            message = {"elapsed_secs": round(result.elapsed_secs, 4)}
            if result.trouble:
                message |= {"done": result.done, **result.trouble}
            await self._tell(self.job_completed_callback, message)
        return result

    async def _produce_and_consume(self) -> None:
        work_queue = asyncio.Queue[WorkTask](WORK_QUEUE_MAX_SIZE)
        completed = asyncio.Event()
        producer = Producer(self.tasks_batch, work_queue, completed)
        consumer = Consumer(work_queue, self._task_completed)
        # Kept, because the event loop's own references to tasks are weak.
        producing = asyncio.create_task(producer.produce())
        tasks = [producing]
        for _ in range(NUM_WORKERS):
            tasks.append(asyncio.create_task(consumer.consume()))
        try:
            await completed.wait()  # before, the queue may be empty
            await work_queue.join()
        finally:
            for task in tasks:
                task.cancel()
            # cancel() only asks. When gather() returns they have ended.
            await asyncio.gather(*tasks, return_exceptions=True)
            self.result.queued = producer.queued
        if not producing.cancelled():
            self.result.error = producing.exception()

    def run(self) -> JobResult:
        """Run the job to its end, and return what became of it."""
        return asyncio.run(self._run_job())
