"""Do payments, and log them, a line of JSON each: python worker_logged.py"""

import asyncio
import json
import logging
import os
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
ACCOUNTS = {"alice": 0}  # what each has, faked


class OneLine(logging.Formatter):
    """Whatever is logged, by whomever, as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        now = datetime.fromtimestamp(record.created, UTC)
        fields = {"time": now.isoformat(timespec="milliseconds")}
        fields |= {"level": record.levelname, "message": record.getMessage()}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields | getattr(record, "fields", {}), default=repr)


def log(message: str, level: int = logging.INFO, **fields: Any) -> None:
    logging.getLogger("worker").log(level, message, extra={"fields": fields})


async def handle(body: bytes) -> None:
    """The work, faked: payments of nobody fail."""
    account, amount = body.decode().split()
    ACCOUNTS[account] -= int(amount)


async def deal_with(message: Any) -> None:
    key = message.message_id
    try:
        await handle(message.body)
    except Exception as error:
        again = not message.redelivered
        await message.nack(requeue=again)
        level = logging.WARNING if again else logging.ERROR
        word = "retried" if again else "failed"
        log(word, level, key=key, error=repr(error))
    else:
        await message.ack()
        log("done", key=key)


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel()
        amqp = await channel.get_underlay_channel()  # knows how it ends
        amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
        await channel.set_qos(prefetch_count=1)
        queue = await channel.get_queue("payments")
        log("consuming", queue="payments")
        with suppress(aio_pika.exceptions.ChannelInvalidStateError):
            async for message in queue.iterator():
                await deal_with(message)
        end = await asyncio.gather(amqp.closing, return_exceptions=True)
        raise SystemExit(f"Failed: {end[0].args or 'the queue is gone'}")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    logging.basicConfig(stream=sys.stdout, level=logging.INFO)
    logging.getLogger().handlers[0].setFormatter(OneLine())
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    try:
        asyncio.run(main())
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        sys.exit(f"Failed: {why!r}. Try make doctor, declare_queues.py")
