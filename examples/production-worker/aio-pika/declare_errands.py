"""Make the queues of the errands, once for all: python declare_errands.py"""

import asyncio
import logging
import os
import signal
import sys

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
QUORUM = {"x-queue-type": "quorum"}
QUEUES = {
    "errands": QUORUM,
    # 9 is the most urgent. Before RabbitMQ 4.0 only a classic queue can.
    "errands.urgent": {"x-queue-type": "classic", "x-max-priority": 9},
    # Nobody wants them after two seconds; what is too late is set aside.
    "errands.fresh": {
        **QUORUM,
        "x-message-ttl": 2_000,  # milliseconds
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "errands.late",
    },
    "errands.late": QUORUM,
    # One worker at a time gets all; the others wait to take over.
    "errands.in_turn": {**QUORUM, "x-single-active-consumer": True},
}


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel()
        for name, arguments in QUEUES.items():
            await channel.declare_queue(
                name, durable=True, arguments=arguments
            )
            print(f" [x] Declared {name}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        asyncio.run(main())
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        sys.exit(f"Failed: {why!r}. Try make doctor")
