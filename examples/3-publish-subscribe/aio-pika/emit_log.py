"""Send a log message to all who listen: python emit_log.py Disk full"""

import asyncio
import logging
import os
import signal
import sys

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


async def main(text: str) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        # publish waits: then every queue that is bound by now has its copy.
        channel = await connection.channel(publisher_confirms=True)
        logs = await channel.declare_exchange("logs", "fanout")
        message = aio_pika.Message(os.fsencode(text), priority=4)  # normal
        # Not mandatory: that nobody listens is no failure of the sender's.
        await logs.publish(message, routing_key="", mandatory=False)
        print(f" [x] Sent {text!r}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        asyncio.run(main(" ".join(sys.argv[1:]) or "info: Hello World!"))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
