#!/usr/bin/env python3
"""A fast producer, a slow consumer, and room for ten items between.

So many items of 100 kB: python bounded_buffer.py 500
"""

import asyncio
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
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    if not given.isdecimal() or not int(given):
        print("Usage: python bounded_buffer.py N", file=sys.stderr)
        sys.exit(2)
    try:
        asyncio.run(main(int(given)))
    except KeyboardInterrupt:
        sys.exit(130)
