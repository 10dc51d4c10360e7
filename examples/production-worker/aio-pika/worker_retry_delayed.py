"""Let RabbitMQ 4.3 try again what fails: python worker_retry_delayed.py"""

import asyncio
import faulthandler
import logging
import os
import signal
import sys
from contextlib import suppress
from typing import Any

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
TIME_LIMIT = 30  # seconds
ACCOUNTS = {"alice": 0, "sleeper": 3600}  # seconds that a payment takes


async def handle(body: bytes) -> None:
    """The work, faked. Some payments fail, and some are worse."""
    account, _ = body.decode().split()
    if account == "killer":
        os._exit(1)
    await asyncio.sleep(ACCOUNTS[account])


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        transport: Any = connection.transport
        version = transport.connection.server_properties["version"]
        if [int(number) for number in version.split(".")[:2]] < [4, 3]:
            raise SystemExit(f"RabbitMQ {version} can't: worker_retry_ttl.py")
        channel = await connection.channel()
        amqp = await channel.get_underlay_channel()  # knows how it ends
        amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
        await channel.set_qos(prefetch_count=1)
        queue = await channel.get_queue("payments.delayed")
        print(" [*] Waiting for messages. To exit press CTRL+C")
        with suppress(aio_pika.exceptions.ChannelInvalidStateError):
            async for message in queue.iterator():
                text = message.body.decode(errors="backslashreplace")
                print(f" [x] Received {text!r}")
                faulthandler.dump_traceback_later(TIME_LIMIT, exit=True)
                try:
                    await handle(message.body)
                except Exception as error:
                    await message.reject(requeue=True)  # a nack doesn't count
                    print(f" [x] Failed: {error!r}")
                else:
                    await message.ack()
                    print(" [x] Done")
                faulthandler.cancel_dump_traceback_later()
        end = await asyncio.gather(amqp.closing, return_exceptions=True)
        raise SystemExit(f"Failed: {end[0].args or 'the queue is gone'}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        asyncio.run(main())
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        sys.exit(f"Failed: {why!r}. Try make doctor, declare_queues.py")
