"""Do tasks over TLS, with few rights: python worker_secure.py

CA_FILE names the certificate of the authority to trust, else the system's are.
"""

import asyncio
import logging
import os
import signal
import ssl
import sys
from contextlib import suppress
from typing import Any

import aio_pika
from aio_pika.connection import make_url
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError

AMQP_URL = os.environ.get("AMQP_URL", "amqps://guest:guest@localhost/") or "no"
CA_FILE = os.environ.get("CA_FILE") or None
WANTED = "AMQP_URL wants amqps://user:password@host:5671/vhost"


def trusted() -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=CA_FILE)
    except OSError as why:  # an SSLError is one, too
        sys.exit(f"CA_FILE={CA_FILE}: {why.strerror}")


async def connect() -> Any:
    try:
        if make_url(AMQP_URL).origin().scheme != "amqps":
            sys.exit(WANTED)  # never a password in plain text
    except ValueError:  # whose text may hold a password
        sys.exit(WANTED)
    verified = trusted()
    try:
        return await aio_pika.connect(
            AMQP_URL, timeout=15, ssl_context=verified
        )
    except AMQPError as error:
        why = error.__cause__
        if isinstance(why, ssl.SSLCertVerificationError):
            sys.exit(f"Not our broker: {why.verify_message}")
        if isinstance(why, ssl.SSLError):
            sys.exit(f"No TLS there: {why.reason}")
        raise


async def main() -> None:
    async with await connect() as connection:
        channel = await connection.channel()
        amqp = await channel.get_underlay_channel()  # knows how it ends
        amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
        await channel.set_qos(prefetch_count=1)
        # It may not make the queue, just ask whether it is there.
        queue = await channel.get_queue("orders")
        print(" [*] Waiting for messages. To exit press CTRL+C")
        with suppress(ChannelInvalidStateError):  # an ack too late
            async for message in queue.iterator():
                print(f" [x] Received {os.fsdecode(message.body)!r}")
                await asyncio.sleep(message.body.count(b"."))
                print(" [x] Done")
                await message.ack()
        end = await asyncio.gather(amqp.closing, return_exceptions=True)
        sys.exit(f"Failed: {end[0].args or 'the queue is gone'}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        asyncio.run(main())
    except (AMQPError, OSError, KeyError) as why:
        sys.exit(f"Failed: {why!r}")
