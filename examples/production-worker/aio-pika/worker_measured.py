"""Do payments, and count them at HTTP_PORT: python worker_measured.py"""

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from typing import Any

import aio_pika
import prometheus_client as prometheus

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
HTTP_PORT = os.environ.get("HTTP_PORT") or "8000"
ACCOUNTS = {"alice": 0, "sleeper": 3600}  # seconds that a payment takes


def measure(kind: Any, name: str, what: str) -> Any:
    metric = kind(f"worker_{name}", what, ["queue"])
    return metric.labels("payments")  # at 0, now


CONSUMED = measure(prometheus.Counter, "consumed", "Messages taken")
RETRIED = measure(prometheus.Counter, "retried", "Failed, to be tried again")
FAILED = measure(prometheus.Counter, "failed", "Failed, and set aside")
IN_HAND = measure(prometheus.Gauge, "in_hand", "Messages in hand")
SECONDS = measure(prometheus.Histogram, "duration_seconds", "Time of a task")
READY = measure(prometheus.Gauge, "ready", "1 if connected, and consuming")


async def handle(body: bytes) -> None:
    """The work, faked. Some payments fail, and some are worse."""
    account, _ = body.decode().split()
    await asyncio.sleep(ACCOUNTS[account])


async def deal_with(message: Any) -> None:
    CONSUMED.inc()
    try:
        with SECONDS.time(), IN_HAND.track_inprogress():
            await handle(message.body)
    except Exception:
        again = not message.redelivered
        await message.nack(requeue=again)
        (RETRIED if again else FAILED).inc()
    else:
        await message.ack()


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel()
        amqp = await channel.get_underlay_channel()  # knows how it ends
        amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
        await channel.set_qos(prefetch_count=1)
        queue = await channel.get_queue("payments")
        READY.set(1)
        print(" [*] Waiting for messages. To exit press CTRL+C")
        with suppress(aio_pika.exceptions.ChannelInvalidStateError):
            async for message in queue.iterator():
                await deal_with(message)
        end = await asyncio.gather(amqp.closing, return_exceptions=True)
        raise SystemExit(f"Failed: {end[0].args or 'the queue is gone'}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        prometheus.start_http_server(int(HTTP_PORT))
    except (OSError, ValueError, OverflowError) as why:
        sys.exit(f"HTTP_PORT {HTTP_PORT!r} cannot be used: {why}")
    try:
        asyncio.run(main())
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        sys.exit(f"Failed: {why!r}. Try make doctor, declare_queues.py")
