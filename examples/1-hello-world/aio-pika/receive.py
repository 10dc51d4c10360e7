#!/usr/bin/env python3
"""Print the messages from the queue hello: python receive.py

Start it, then run send.py in another shell; or the other way round.
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
    # To the broker a body is bytes; that these are text is our agreement.
    print(f" [x] Received {message.body.decode(errors='replace')!r}")


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(
            "hello", durable=True, arguments={"x-queue-type": "quorum"}
        )
        ended = asyncio.Event()
        channel.close_callbacks.add(lambda *_: ended.set())
        amqp = await channel.get_underlay_channel()  # told of a deleted queue
        amqp.on_consumer_cancel_callbacks.add(lambda _: ended.set())
        # no_ack: the broker forgets a message as soon as it has sent it here.
        await queue.consume(on_message, no_ack=True)
        print(" [*] Waiting for messages. To exit press CTRL+C")
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
