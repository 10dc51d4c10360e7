"""Publish each line of input, KEY ACCOUNT AMOUNT: … | python publisher.py

QUEUE names the queue, if it isn't bookings. Lines of a publisher that died are
put in again, with the keys that they had.
"""

import asyncio
import itertools
import logging
import os
import random
import re
import signal
import sys
from contextlib import suppress
from typing import Any

import aio_pika
from aio_pika.connection import make_url

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
AMQP_URLS = os.environ.get("AMQP_URLS") or AMQP_URL  # url,url,…: the nodes
QUEUE = os.environ.get("QUEUE") or "bookings"
LONGEST = 10.0  # seconds from one attempt to the next
LOST = (Exception, asyncio.CancelledError)  # aiormq has bare ones


def pause(failures: int) -> float:  # by chance, else all come back at once
    return random.uniform(0, min(LONGEST, 0.5 * 2 ** min(failures, 10)))


async def declare(connection: Any) -> Any:
    channel = await connection.channel(on_return_raises=True)
    amqp = await channel.get_underlay_channel()  # knows how it ends
    await channel.declare_queue(QUEUE, passive=True)
    print(" [*] Connected")
    return channel, amqp.closing


async def main(nodes: list[Any]) -> None:
    node = itertools.cycle(random.sample(nodes, len(nodes)))
    connection: Any = None
    channel: Any = None
    end: Any = None
    known = False
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        key, _, task = line.decode(errors="replace").strip().partition(" ")
        if not task or len(os.fsencode(key)) > 255:
            sys.exit(f"Refused: {key[:99]!r} {task!r}: KEY ACCOUNT AMOUNT")
        kept = aio_pika.Message(
            task.encode(), delivery_mode=2, message_id=key, priority=4
        )
        for failures in itertools.count(1):
            try:
                async with asyncio.timeout(10):  # a confirm may never come
                    if not channel:
                        connection = await aio_pika.connect(next(node))
                        channel, end = await declare(connection)
                    if end.done():
                        await end  # which raises the reason
                    await channel.default_exchange.publish(kept, QUEUE)
                break
            except LOST as why:  # Cancelled, where the broker was silent
                with suppress(*LOST):  # it may be none yet
                    await asyncio.wait_for(connection.close(), 2)
                connection = channel = None
                if not known and re.search("REFUSED|OpenOk|NOT_F", repr(why)):
                    sys.exit(f"Refused: {why!r}. Try declare.py, make doctor")
                if failures == 1:
                    print(f" [!] Trying again: {why!r}", file=sys.stderr)
            await asyncio.sleep(pause(failures))
        known = True
        print(f" [x] Confirmed {key!r}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        found = [make_url(url, heartbeat=5) for url in AMQP_URLS.split(",")]
        asyncio.run(main([node for node in found if node.origin()]))
    except ValueError:  # origin(), too. Its text may hold a password
        sys.exit("AMQP_URLS wants amqp://user:password@host:5672/vhost,…")
