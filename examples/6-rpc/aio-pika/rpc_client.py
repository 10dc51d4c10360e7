#!/usr/bin/env python3
"""Ask for a Fibonacci number: python rpc_client.py 30

Run rpc_server.py in another shell; it has fifteen seconds to answer.
"""

import asyncio
import logging
import os
import sys
import uuid

import aio_pika
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
TIMEOUT = 15  # seconds


async def main(n: str) -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel(publisher_confirms=False)
        await channel.declare_queue(
            "rpc_queue", durable=True, arguments={"x-queue-type": "quorum"}
        )
        reply_queue = await channel.declare_queue(exclusive=True)
        request = aio_pika.Message(
            os.fsencode(n),
            reply_to=reply_queue.name,
            correlation_id=str(uuid.uuid4()),
            expiration=TIMEOUT,  # of no use to anybody after that
            priority=4,  # normal; aio-pika's own default is lowest
        )
        try:
            replies = reply_queue.iterator(no_ack=True)
            async with asyncio.timeout(TIMEOUT), replies:
                print(f" [x] Requesting fib({n})")
                await channel.default_exchange.publish(request, "rpc_queue")
                async for reply in replies:
                    if reply.correlation_id != request.correlation_id:
                        continue  # the answer to something else
                    if reply.type == "error":
                        sys.exit(f" [!] Error: {reply.body.decode()}")
                    print(f" [.] Got {reply.body.decode()}")
                    return
            raise ConnectionError("the broker ended the consumer")
        except TimeoutError:
            sys.exit(
                f" [!] No reply in {TIMEOUT} s: start python rpc_server.py"
            )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("Usage: python rpc_client.py N", file=sys.stderr)
        sys.exit(2)
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
