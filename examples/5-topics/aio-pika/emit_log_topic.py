"""Send logs by key: python emit_log_topic.py kern.critical Disk full"""

import asyncio
import logging
import os
import signal
import sys

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


async def main(routing_key: str, text: str) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        # Raise if no queue is bound with such a key; by default, say nothing.
        channel = await connection.channel(on_return_raises=True)
        logs = await channel.declare_exchange("topic_logs", "topic")
        message = aio_pika.Message(os.fsencode(text))
        try:
            await logs.publish(message, routing_key=routing_key)
        except aio_pika.exceptions.PublishError:
            sys.exit(f" [!] Lost {routing_key!r}:{text!r}: no queue takes it")
        print(f" [x] Sent {routing_key!r}:{text!r}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("Usage: python emit_log_topic.py ROUTING_KEY MESSAGE...")
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        asyncio.run(main(sys.argv[1], " ".join(sys.argv[2:])))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
