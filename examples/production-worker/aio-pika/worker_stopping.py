"""Do tasks, and stop in good order: python worker_stopping.py"""

import asyncio
import itertools
import logging
import os
import random
import re
import signal
import sys
import time
from contextlib import suppress
from typing import Any

import aio_pika
from aio_pika.connection import make_url
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
AMQP_URLS = os.environ.get("AMQP_URLS") or AMQP_URL  # url,url,…: the nodes
STOP_WITHIN = os.environ.get("STOP_WITHIN", "20")  # seconds
QUORUM = {"x-queue-type": "quorum"}
LONGEST = 10.0  # seconds from one attempt to the next
LOST = (AMQPError, OSError, RuntimeError, asyncio.CancelledError)
in_hand: list[bytes] = []
signals: list[int] = []


def pause(failures: int) -> float:  # by chance, else all come back at once
    return random.uniform(0, min(LONGEST, 0.5 * 2 ** min(failures, 10)))


def on_signal() -> None:
    signals.append(1)
    if not in_hand or len(signals) > 2:
        os._exit(0)
    patience = 2  # until it ends, whatever hangs
    if len(signals) == 1:
        print(" [*] Stopping. Once more gives the task back")
        patience = int(STOP_WITHIN)
    asyncio.get_running_loop().call_later(patience, on_signal)  # counts, too


async def do(text: str) -> None:
    number = re.fullmatch(r"\d+\.\d\d", text)  # of seconds; else a dot is one
    await asyncio.sleep(float(text) if number else text.count("."))


async def work(connection: Any, channel: Any, queue: Any) -> None:
    amqp = await channel.get_underlay_channel()  # knows how it ends
    amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
    messages = queue.iterator()
    async for message in messages:
        in_hand.append(message.body)
        print(f" [x] Received {os.fsdecode(message.body)!r}")
        task = asyncio.create_task(do(os.fsdecode(message.body)))
        while not task.done() and len(signals) < 2:
            await asyncio.wait([task], timeout=0.1)
        if signals:
            await messages.close()  # before an ack that brings another task
        with suppress(ChannelInvalidStateError):  # an ack too late
            if not task.done():
                task.cancel()
                await message.nack()
                print(" [x] Given back")
            elif error := task.exception():
                raise BaseExceptionGroup("the task has failed", [error])
            else:
                print(" [x] Done")
                await message.ack()
        in_hand.clear()
        if signals:
            return
    end = await asyncio.gather(amqp.closing, return_exceptions=True)
    raise ConnectionError(end[0].args or "the broker ended the consumer")


async def main(nodes: list[Any]) -> None:
    failures, known, lost = 0, False, False
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
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
            if not lost and not signals:
                print(f" [!] Trying again: {why!r}", file=sys.stderr)
            lost = True
        if signals:
            os._exit(0)
        in_hand.clear()
        failures = 0 if time.monotonic() - begun > LONGEST else failures + 1
        await asyncio.sleep(pause(failures))


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    out: Any = sys.stdout
    out.reconfigure(errors="backslashreplace", line_buffering=True)
    if not STOP_WITHIN.isdecimal() or STOP_WITHIN == "0":
        sys.exit("STOP_WITHIN wants a whole number of seconds, from 1 on")
    try:
        found = [make_url(url, heartbeat=5) for url in AMQP_URLS.split(",")]
        asyncio.run(main([node for node in found if node.origin()]))
    except ValueError:  # origin(), too. Its text may hold a password
        sys.exit("AMQP_URLS wants amqp://user:password@host:5672/vhost,…")
