"""The job of job_controller.py, with asyncio.TaskGroup and queue shutdown.

    python job_taskgroup.py 0.3 0.1 0.2

Only what differs is here; the rest comes from the files beside it.
"""

import asyncio
import sys

from job_controller import (
    NUM_WORKERS,
    WORK_QUEUE_MAX_SIZE,
    Consumer,
    JobController,
    WorkTask,
    being_cancelled,
)

WorkQueue = asyncio.Queue[WorkTask]

if sys.version_info >= (3, 13):

    async def next_task(
        work_queue: asyncio.Queue[WorkTask],
    ) -> WorkTask | None:
        try:
            return await work_queue.get()
        except asyncio.QueueShutDown:  # and nothing is left in it
            return None

    async def close(work_queue: WorkQueue) -> None:
        work_queue.shutdown()

else:  # queues have no shutdown(): a last item that is no task says it
    END = WorkTask(0, print)

    async def next_task(
        work_queue: asyncio.Queue[WorkTask],
    ) -> WorkTask | None:
        task = await work_queue.get()
        if task is not END:
            return task
        work_queue.put_nowait(END)  # for the other consumers
        return None

    async def close(work_queue: WorkQueue) -> None:
        await work_queue.put(END)


class UntilClosed(Consumer):
    """A consumer that ends by itself, when there will be no more tasks."""

    async def consume(self) -> None:
        while not being_cancelled():
            task = await next_task(self.work_queue)
            if task is None:
                return
            await self.perform(task)


class TaskGroupController(JobController):
    """A JobController without event, join(), cancel() and gather()."""

    async def _produce_and_consume(self) -> None:
        work_queue = WorkQueue(WORK_QUEUE_MAX_SIZE)
        # At its end the group waits for its tasks. When one of them raises, or
        # we are cancelled, it cancels them, and still waits.
        async with asyncio.TaskGroup() as group:
            for _ in range(NUM_WORKERS):
                consumer = UntilClosed(work_queue, self._task_completed)
                group.create_task(consumer.consume())
            try:
                for task in self.tasks_batch:
                    await work_queue.put(task)
                    self.result.queued += 1
            except Exception as error:
                self.result.error = error  # what is in the queue will be done
            await close(work_queue)


if __name__ == "__main__":
    from job_demo import main

    main(TaskGroupController)
