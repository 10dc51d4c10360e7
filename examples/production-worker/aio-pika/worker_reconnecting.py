"""Do tasks, and stay connected: python worker_reconnecting.py"""

import asyncio
import itertools
import logging
import os
import random
import re
import signal
import sys
import time
from typing import Any

import aio_pika
from aio_pika.connection import make_url
from aio_pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
AMQP_URLS = os.environ.get("AMQP_URLS") or AMQP_URL  # url,url,…: the nodes
QUORUM = {"x-queue-type": "quorum"}
LONGEST = 10.0  # seconds from one attempt to the next
LOST = (AMQPError, OSError, RuntimeError, asyncio.CancelledError)


def pause(failures: int) -> float:  # by chance, else all come back at once
    return random.uniform(0, min(LONGEST, 0.5 * 2 ** min(failures, 10)))


async def do(text: str) -> None:
    print(f" [x] Received {text!r}")
    number = re.fullmatch(r"\d+\.\d\d", text)  # of seconds; else a dot is one
    await asyncio.sleep(float(text) if number else text.count("."))
    print(" [x] Done")


async def work(connection: Any, channel: Any, queue: Any) -> None:
    amqp = await channel.get_underlay_channel()  # knows how it ends
    amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
    async for message in queue.iterator():
        async with asyncio.TaskGroup():  # whose errors are not the broker's
            await do(os.fsdecode(message.body))
        # An ack too late fails; how the channel ended tells why.
        await asyncio.gather(message.ack(), return_exceptions=True)
    end = await asyncio.gather(amqp.closing, return_exceptions=True)
    raise ConnectionError(end[0].args or "the broker ended the consumer")


async def main(nodes: list[Any]) -> None:
    failures, known, lost = 0, False, False
    for node in itertools.cycle(random.sample(nodes, len(nodes))):
        begun = time.monotonic()
        try:
            async with await aio_pika.connect(node, timeout=15) as connection:
                channel: Any = await connection.channel()
                await channel.set_qos(prefetch_count=1)
                queue = await channel.declare_queue(
                    "orders", durable=True, arguments=QUORUM
                )
                print(" [*] Waiting for messages. To exit press CTRL+C")
                known, lost = True, False
                await work(connection, channel, queue)
        except LOST as why:  # Cancelled, where the broker was silent too long
            if not known and re.search("REFUSED|OpenOk|PRECOND", repr(why)):
                sys.exit(f"Refused: {why!r}. Fix AMQP_URLS, try make doctor")
            if not lost:
                print(f" [!] Trying again: {why!r}", file=sys.stderr)
            lost = True
        failures = 0 if time.monotonic() - begun > LONGEST else failures + 1
        await asyncio.sleep(pause(failures))


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        found = [make_url(url, heartbeat=5) for url in AMQP_URLS.split(",")]
        asyncio.run(main([node for node in found if node.origin()]))
    except ValueError:  # origin(), too. Its text may hold a password
        sys.exit("AMQP_URLS wants amqp://user:password@host:5672/vhost,…")
