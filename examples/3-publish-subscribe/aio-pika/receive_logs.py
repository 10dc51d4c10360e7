#!/usr/bin/env python3
"""Print every log message from now on: python receive_logs.py

Run it in two shells or more, then emit_log.py in another: each prints all.
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def on_message(message: AbstractIncomingMessage) -> None:
    print(f" [x] Received {message.body.decode(errors='replace')!r}")


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        logs = await channel.declare_exchange("logs", "fanout")
        # Our own queue: the broker names it, and deletes it when we leave.
        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(logs)
        ended = asyncio.Event()
        channel.close_callbacks.add(lambda *_: ended.set())
        amqp = await channel.get_underlay_channel()  # told of a deleted queue
        amqp.on_consumer_cancel_callbacks.add(lambda _: ended.set())
        # No acks: nobody else could have what we leave behind.
        await queue.consume(on_message, no_ack=True)
        print(" [*] Waiting for logs. To exit press CTRL+C")
        await ended.wait()
        raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
