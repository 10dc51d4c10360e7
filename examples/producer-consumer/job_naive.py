"""Second draft of job_controller.py: all is well while nothing goes wrong.

Each argument is a task of so many seconds: python job_naive.py 0.2 oops 0.1
"""

import asyncio
import sys
import time
from collections.abc import Callable

NUM_WORKERS = 25
WORK_QUEUE_MAX_SIZE = 100
PATIENCE = 2  # seconds; a program of your own would wait for ever

WorkTask = tuple[int, str]


class Producer:
    def __init__(
        self,
        tasks_batch: list[WorkTask],
        work_queue: asyncio.Queue[WorkTask],
        producer_completed: asyncio.Event,
    ) -> None:
        self.tasks_batch = tasks_batch
        self.work_queue = work_queue
        self.producer_completed = producer_completed

    async def produce(self) -> None:
        for task in self.tasks_batch:
            await self.work_queue.put(task)
        self.producer_completed.set()  # not if the loop raises


class Consumer:
    def __init__(
        self,
        work_queue: asyncio.Queue[WorkTask],
        callback: Callable[[str], None],
    ) -> None:
        self.work_queue = work_queue
        self.callback = callback

    async def consume(self) -> None:
        while True:
            number, secs = await self.work_queue.get()
            await asyncio.sleep(float(secs))
            self.callback(f"Task {number} done in {float(secs):.1f} s")
            self.work_queue.task_done()  # not if one of these two raises


async def run_job(arguments: list[str]) -> None:
    started = time.time()
    work_queue: asyncio.Queue[WorkTask] = asyncio.Queue(WORK_QUEUE_MAX_SIZE)
    completed = asyncio.Event()
    batch = list(enumerate(arguments, 1))
    producer = Producer(batch, work_queue, completed)
    consumer = Consumer(work_queue, lambda message: print(f" [x] {message}"))
    tasks = [asyncio.create_task(producer.produce())]
    for _ in range(NUM_WORKERS):
        tasks.append(asyncio.create_task(consumer.consume()))
    await completed.wait()
    try:
        await asyncio.wait_for(work_queue.join(), PATIENCE)
        elapsed_secs = round(time.time() - started, 4)
        print(f"Job demo completed: {{'elapsed_secs': {elapsed_secs}}}")
    except TimeoutError:
        print(f" [!] It hangs: join() has not returned for {PATIENCE} s")
    for task in tasks:
        task.cancel()
    still_open = sum(not task.done() for task in tasks)
    print(f" [!] After cancel(), {still_open} tasks are still open")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.stderr.write("Usage: python job_naive.py SECS...\n")
        sys.exit(2)
    print("Starting job demo")
    asyncio.run(run_job(sys.argv[1:]))
