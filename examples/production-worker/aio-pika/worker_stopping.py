"""Do tasks, and stop in good order: python worker_stopping.py"""

import asyncio
import logging
import os
import re
import signal
import sys
from contextlib import suppress
from typing import Any

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
STOP_WITHIN = os.environ.get("STOP_WITHIN", "20")  # seconds
QUORUM = {"x-queue-type": "quorum"}
in_hand: list[bytes] = []
signals: list[int] = []


def on_signal() -> None:
    signals.append(1)
    if not in_hand or len(signals) > 2:  # in the end, whatever hangs
        os._exit(0)
    if len(signals) == 1:
        print(" [*] Stopping. Once more gives the task back")
    patience = int(STOP_WITHIN) if len(signals) == 1 else 2
    asyncio.get_running_loop().call_later(patience, on_signal)  # counts, too


async def do(text: str) -> None:
    number = re.fullmatch(r"\d+\.\d\d", text)  # of seconds; else a dot is one
    await asyncio.sleep(float(text) if number else text.count("."))


async def work(messages: Any) -> None:
    async for message in messages:
        in_hand.append(message.body)
        print(f" [x] Received {os.fsdecode(message.body)!r}")
        task = asyncio.create_task(do(os.fsdecode(message.body)))
        while not (task.done() or message.channel.is_closed or signals[1:]):
            await asyncio.wait([task], timeout=0.1)
        if signals:
            await messages.close()  # before an ack that brings another task
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


async def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel: Any = await connection.channel()
        amqp = await channel.get_underlay_channel()  # knows how it ends
        amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
        await channel.set_qos(prefetch_count=1)
        queue = await channel.declare_queue(
            "orders", durable=True, arguments=QUORUM
        )
        print(" [*] Waiting for messages. To exit press CTRL+C")
        with suppress(aio_pika.exceptions.ChannelInvalidStateError):
            await work(queue.iterator())
        if not signals:
            end = await asyncio.gather(amqp.closing, return_exceptions=True)
            why = end[0].args or "the broker ended the consumer"
            raise SystemExit(f"Failed: {why}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    out: Any = sys.stdout
    out.reconfigure(errors="backslashreplace", line_buffering=True)
    if not STOP_WITHIN.isdecimal() or STOP_WITHIN == "0":
        sys.exit("STOP_WITHIN wants a whole number of seconds, from 1 on")
    try:
        asyncio.run(main())
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        sys.exit(f"Failed: {why!r}. Try make doctor")
