#!/usr/bin/env python3
"""Count what a slow consumer holds that it cannot work on yet.

With a prefetch of so many (0: no limit): python prefetch_holds.py 10
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
COUNT = 1000


async def main(prefetch: int) -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=prefetch)
        # Private, so that each run begins with an empty queue.
        queue = await channel.declare_queue(exclusive=True)
        name, publish = queue.name, channel.default_exchange.publish
        sending = (publish(aio_pika.Message(b"?"), name) for _ in range(COUNT))
        await asyncio.gather(*sending)
        print(f" [x] Sent {COUNT} messages")
        async with queue.iterator() as messages:
            await anext(messages)
            await asyncio.sleep(1)  # the work; meanwhile more come in
            counted = (await channel.get_queue(name)).declaration_result
        there = counted.message_count or 0
        here = COUNT - there - 1
        print(f" [x] Working on 1; {here} more wait here, {there} there")


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else ""
    if not given.isdecimal() or int(given) > 65535:
        print("Usage: python prefetch_holds.py PREFETCH", file=sys.stderr)
        sys.exit(2)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main(int(given)))
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
