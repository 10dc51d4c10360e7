"""Compute Fibonacci numbers for those who ask: python rpc_server.py"""

import asyncio
import logging
import os
import signal
from contextlib import suppress

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
LIMIT = 35  # takes seconds; every 5 more take 11 times as long


def fib(n: int) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def answer(request: bytes) -> tuple[str, str]:
    if not request.isdigit() or len(request) > 9 or int(request) > LIMIT:
        return "error", f"fib takes a whole number from 0 to {LIMIT}"
    print(f" [.] fib({int(request)})")
    return "result", str(fib(int(request)))


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel(publisher_confirms=False)
        amqp = await channel.get_underlay_channel()  # knows how it ends
        amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
        await channel.set_qos(prefetch_count=1)  # the rest is for others
        queue = await channel.declare_queue(
            "rpc_queue", durable=True, arguments={"x-queue-type": "quorum"}
        )
        exchange = channel.default_exchange
        print(" [*] Waiting for requests. To exit press CTRL+C")
        with suppress(aio_pika.exceptions.ChannelInvalidStateError):
            async for request in queue.iterator():
                async with request.process(requeue=True):
                    async with asyncio.TaskGroup():
                        kind, text = answer(request.body)
                    reply = aio_pika.Message(text.encode(), type=kind)
                    reply.correlation_id = request.correlation_id
                    await exchange.publish(reply, request.reply_to or "")
        end = await asyncio.gather(amqp.closing, return_exceptions=True)
        raise SystemExit(f"Failed: {end[0].args or 'the queue is gone'}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        asyncio.run(main())
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
