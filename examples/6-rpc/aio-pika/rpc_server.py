#!/usr/bin/env python3
"""Compute Fibonacci numbers for those who ask: python rpc_server.py

Start one or several, then ask with rpc_client.py.
"""

import asyncio
import logging
import os
import sys

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
LIMIT = 35  # takes seconds; every 5 more take 11 times as long


def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def answer(request: bytes) -> tuple[str, str]:
    try:
        if not request.isdigit() or int(request) > LIMIT:
            raise ValueError(f"fib takes a number from 0 to {LIMIT}")
        print(f" [.] fib({int(request)})")
        return "result", str(fib(int(request)))
    except Exception as error:  # is the client's, and must not end the server
        print(f" [!] {error}")
        return "error", str(error)


async def on_request(
    channel: AbstractChannel, request: AbstractIncomingMessage
) -> None:
    # Acks at its end, not before the reply: a server that dies must leave
    # the request behind.
    async with request.process(requeue=True):
        # Another thread computes, so that the loop can answer heartbeats.
        kind, text = await asyncio.to_thread(answer, request.body)
        if request.reply_to:
            reply = aio_pika.Message(
                text.encode(), type=kind, correlation_id=request.correlation_id
            )
            await channel.default_exchange.publish(
                reply, request.reply_to, mandatory=False
            )


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel(publisher_confirms=False)
        await channel.set_qos(prefetch_count=1)
        queue = await channel.declare_queue(
            "rpc_queue", durable=True, arguments={"x-queue-type": "quorum"}
        )
        requests: asyncio.Queue[AbstractIncomingMessage | None]
        requests = asyncio.Queue()
        # None: the channel has closed, or the queue has been deleted.
        channel.close_callbacks.add(lambda *_: requests.put_nowait(None))
        amqp = await channel.get_underlay_channel()
        amqp.on_consumer_cancel_callbacks.add(
            lambda _: requests.put_nowait(None)
        )
        await queue.consume(requests.put)
        print(" [*] Waiting for requests. To exit press CTRL+C")
        while request := await requests.get():
            await on_request(channel, request)
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
