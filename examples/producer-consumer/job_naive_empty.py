"""First draft of job_controller.py: it ends when the queue is empty.

Each argument is a task of so many seconds: python job_naive_empty.py 0.2 0.1
"""

import asyncio
import sys
import time

NUM_WORKERS = 25


async def consume(work_queue: asyncio.Queue[tuple[int, str]]) -> None:
    while True:
        number, secs = await work_queue.get()
        await asyncio.sleep(float(secs))
        print(f" [x] Task {number} done in {float(secs):.1f} s")


async def run_job(arguments: list[str]) -> None:
    started = time.time()
    work_queue: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
    consumers = [
        asyncio.create_task(consume(work_queue)) for _ in range(NUM_WORKERS)
    ]
    for item in enumerate(arguments, 1):
        work_queue.put_nowait(item)
    # An empty queue means that every task has been begun, not that it is done.
    while not work_queue.empty():
        await asyncio.sleep(0.01)
    elapsed_secs = round(time.time() - started, 4)
    print(f"Job demo completed: {{'elapsed_secs': {elapsed_secs}}}")
    for consumer in consumers:
        consumer.cancel()


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.stderr.write("Usage: python job_naive_empty.py SECS...\n")
        sys.exit(2)
    print("Starting job demo")
    asyncio.run(run_job(sys.argv[1:]))
