"""Publish, also to a broker with an alarm: python blocked_aio_pika.py"""

import asyncio
import logging
import os
import signal

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
COUNT = 50


class Listener(logging.Handler):
    """aio-pika has no callback for this; what it has is a line in its log."""

    def emit(self, record: logging.LogRecord) -> None:
        if "was blocked by" in str(record.msg) and record.args:
            print(f" [!] Blocked by the broker: {[*record.args][-1]}")
        elif "was unblocked" in str(record.msg):
            print(" [x] Unblocked")


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel(on_return_raises=True)
        amqp = await channel.get_underlay_channel()  # knows how it ends
        await channel.declare_queue(
            "event_store", durable=True, arguments={"x-queue-type": "quorum"}
        )
        for number in range(1, COUNT + 1):
            body = f"event {number}".encode()
            message = aio_pika.Message(body, delivery_mode=2, priority=4)
            # Waits for the confirm, and so for the end of the alarm.
            await channel.default_exchange.publish(message, "event_store")
            await asyncio.wait([amqp.closing], timeout=0.1)
            if amqp.closing.done():
                amqp.closing.result()  # raises what ended it
        print(f" [x] Confirmed {COUNT} events")


if __name__ == "__main__":
    log = logging.getLogger("aiormq")
    log.handlers, log.propagate = [Listener()], False
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        asyncio.run(main())
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
