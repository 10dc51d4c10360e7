"""Make the queue and exchange of the orders, once: python declare_orders.py"""

import asyncio
import logging
import os
import signal
import ssl
import sys
from typing import Any

import aio_pika
from aio_pika.connection import make_url
from aio_pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqps://guest:guest@localhost/") or "no"
CA_FILE = os.environ.get("CA_FILE") or None
WANTED = "AMQP_URL wants amqps://user:password@host:5671/vhost"
QUORUM = {"x-queue-type": "quorum"}


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
        exchange = await channel.declare_exchange(
            "orders", "direct", durable=True
        )
        queue = await channel.declare_queue(
            "orders", durable=True, arguments=QUORUM
        )
        await queue.bind(exchange, "task")
        print(" [x] Declared orders")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        asyncio.run(main())
    except (AMQPError, OSError, KeyError) as why:
        sys.exit(f"Failed: {why!r}")
