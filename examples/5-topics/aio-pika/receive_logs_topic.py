#!/usr/bin/env python3
"""Print log messages whose keys match the patterns that you ask for.

    python receive_logs_topic.py "kern.*" "*.critical"

Then, in another shell, send some with emit_log_topic.py.
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
    text = message.body.decode(errors="replace")
    print(f" [x] Received {message.routing_key!r}:{text!r}")


async def main(binding_keys: list[str]) -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        exchange = await channel.declare_exchange("topic_logs", "topic")
        # The broker makes up a name, and deletes the queue when we disconnect.
        queue = await channel.declare_queue(exclusive=True)
        for key in binding_keys:
            await queue.bind(exchange, routing_key=key)
        ended = asyncio.Event()
        channel.close_callbacks.add(lambda *_: ended.set())
        amqp = await channel.get_underlay_channel()  # told of a deleted queue
        amqp.on_consumer_cancel_callbacks.add(lambda _: ended.set())
        # An ack would save nothing: without us, no queue for it to go back to.
        await queue.consume(on_message, no_ack=True)
        print(" [*] Waiting for logs. To exit press CTRL+C")
        await ended.wait()
        raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        usage = "Usage: python receive_logs_topic.py BINDING_KEY..."
        print(usage, file=sys.stderr)
        sys.exit(2)
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main(sys.argv[1:]))
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, RuntimeError, TypeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
