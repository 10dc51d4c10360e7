"""Make the queues of the bookings, a copy on each node: python declare.py

Start it when all nodes are there: a queue stays on those that it was made on.
"""

import asyncio
import logging
import os
import random
import signal
import sys
from typing import Any

import aio_pika
from aio_pika.connection import make_url

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
AMQP_URLS = os.environ.get("AMQP_URLS") or AMQP_URL  # url,url,…: the nodes
KEPT = {
    "x-queue-type": "quorum",
    "x-quorum-initial-group-size": 3,  # of more nodes, these many have it
    # Who is silent has lost its tasks after 3 s, not 60 (RabbitMQ 4.3).
    "x-consumer-disconnected-timeout": 3_000,
}
QUEUES = {
    "bookings": KEPT,
    # For one worker at a time; the next takes over when it is gone.
    "bookings.ordered": {**KEPT, "x-single-active-consumer": True},
}
LOST = (aio_pika.AMQPException, KeyError, OSError, ValueError)


async def connect(nodes: list[Any]) -> Any:
    *others, last = random.sample(nodes, len(nodes))
    for node in others:
        try:
            return await aio_pika.connect(node, timeout=15)
        except LOST:
            continue  # what the last one says is what will be shown
    return await aio_pika.connect(last, timeout=15)


async def main(nodes: list[Any]) -> None:
    async with await connect(nodes) as connection:
        channel = await connection.channel()
        for name, kept in QUEUES.items():
            await channel.declare_queue(name, durable=True, arguments=kept)
            print(f" [x] Declared {name}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        found = [make_url(url) for url in AMQP_URLS.split(",")]
        nodes = [node for node in found if node.origin()]
    except ValueError:  # origin(), too. Its text may hold a password
        sys.exit("AMQP_URLS wants amqp://user:password@host:5672/vhost,…")
    try:
        asyncio.run(main(nodes))
    except LOST as why:  # a TimeoutError is an OSError
        sys.exit(f"Failed: {why!r}. Try make doctor")
