"""What a slow consumer holds, not done yet: python prefetch_holds.py 10

The argument is the prefetch; 0 means no limit.
"""

import asyncio
import logging
import os
import signal
import sys

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
COUNT = 1000


async def main(prefetch: int) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel()
        amqp = await channel.get_underlay_channel()  # knows how it ends
        await channel.set_qos(prefetch_count=prefetch)
        # Private, so that each run begins with an empty queue.
        queue = await channel.declare_queue(exclusive=True)
        name, publish = queue.name, channel.default_exchange.publish
        sending = (publish(aio_pika.Message(b"?"), name) for _ in range(COUNT))
        await asyncio.gather(*sending)
        print(f" [x] Sent {COUNT} messages")
        async with queue.iterator() as messages:
            await anext(messages)
            # A second of work; meanwhile more come in.
            await asyncio.wait([amqp.closing], timeout=1)
            if amqp.closing.done():
                amqp.closing.result()  # raises what ended it
            counted = (await channel.get_queue(name)).declaration_result
        there = counted.message_count or 0
        here = COUNT - there - 1
        print(f" [x] Working on 1; {here} more wait here, {there} there")


if __name__ == "__main__":
    if " ".join(sys.argv[1:]) not in map(str, range(65536)):
        sys.exit("Usage: python prefetch_holds.py PREFETCH, 0 to 65535")
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        asyncio.run(main(int(sys.argv[1])))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
