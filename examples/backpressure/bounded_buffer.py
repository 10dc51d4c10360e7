"""A fast producer, a slow consumer, and room for ten items between.

So many items of 100 kB: python bounded_buffer.py 500
"""

import asyncio
import signal
import sys
import time

SIZE = 100_000  # bytes


async def produce(queue: asyncio.Queue[bytes], count: int) -> None:
    started = time.monotonic()
    for number in range(count):
        await asyncio.sleep(0)  # as if it were read from somewhere fast
        await queue.put(number.to_bytes(8, "big") * (SIZE // 8))
    seconds = time.monotonic() - started
    print(f" [x] Produced {count} items in {seconds:.2f} s")


async def consume(queue: asyncio.Queue[bytes], count: int) -> None:
    started, most = time.monotonic(), 0
    for _ in range(count):
        most = max(most, queue.qsize())
        await queue.get()
        await asyncio.sleep(0.002)  # as if it were written somewhere slow
    seconds = time.monotonic() - started
    print(f" [x] Consumed {count} items in {seconds:.2f} s")
    print(f" [*] At most {most} waited: {most * SIZE / 1e6:.0f} MB")


async def main(count: int) -> None:
    queue: asyncio.Queue[bytes] = asyncio.Queue(maxsize=10)
    await asyncio.gather(produce(queue, count), consume(queue, count))


if __name__ == "__main__":
    if len(sys.argv) < 2 or not sys.argv[1].isdecimal():
        sys.exit("Usage: python bounded_buffer.py N")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    asyncio.run(main(int(sys.argv[1])))
