"""Print logs of severities: python receive_logs_direct.py warning error"""

import asyncio
import logging
import os
import signal
import sys

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


async def main(severities: list[str]) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel()
        amqp = await channel.get_underlay_channel()  # knows how it ends
        amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
        logs = await channel.declare_exchange("direct_logs", "direct")
        queue = await channel.declare_queue(exclusive=True)
        for severity in severities:  # each is one more reason to get a message
            await queue.bind(logs, severity)
        print(" [*] Waiting for logs. To exit press CTRL+C")
        async for message in queue.iterator(no_ack=True):
            text = message.body.decode(errors="replace")
            print(f" [x] Received {message.routing_key!r}:{text!r}")
        end = await asyncio.gather(amqp.closing, return_exceptions=True)
        raise SystemExit(f"Failed: {end[0].args or 'the queue is gone'}")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("Usage: python receive_logs_direct.py SEVERITY...")
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        asyncio.run(main(sys.argv[1:]))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
