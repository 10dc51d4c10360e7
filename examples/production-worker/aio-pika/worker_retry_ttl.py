"""Try again later what fails, or set it aside: python worker_retry_ttl.py"""

import asyncio
import faulthandler
import logging
import os
import re
import signal
import sys
from contextlib import suppress
from typing import Any

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
TIME_LIMIT = 30  # seconds
NEXT = [*(f"payments.retry.{delay}" for delay in (1, 2, 4)), "payments.dead"]
ACCOUNTS = {"alice": 0, "sleeper": 3600}  # seconds that a payment takes


async def handle(body: bytes) -> None:
    """The work, faked. Some payments fail, and some are worse."""
    account, _ = body.decode().split()
    if account == "killer":
        os._exit(1)
    await asyncio.sleep(ACCOUNTS[account])


def onward(old: Any, failure: str) -> tuple[str, Any]:
    """Where to, after the dead anew; and what may be kept in the copy."""
    own = {k: v for k, v in old.headers.items() if not re.match("x-|B?CC$", k)}
    own["failures"] = [*own.get("failures", []), failure]
    names = "body", "content_type", "correlation_id", "message_id", "type"
    kept = {name: getattr(old, name) for name in names}
    kept["priority"] = old.priority or 4  # as without one
    copy = aio_pika.Message(delivery_mode=2, headers=own, **kept)
    return NEXT[(len(own["failures"]) - 1) % len(NEXT)], copy


async def deal_with(channel: Any, old: Any) -> str:
    """Do the work, or store a copy for later; return what has been done."""
    print(f" [x] Received {old.body.decode(errors='backslashreplace')!r}")
    faulthandler.dump_traceback_later(TIME_LIMIT, exit=True)
    try:
        if old.headers.get("x-delivery-count"):  # don't die of it, too
            raise RuntimeError("its worker died, or the time was up")
        await handle(old.body)
        return "Done"
    except Exception as error:
        target, copy = onward(old, failure := repr(error)[:200])
        await channel.default_exchange.publish(copy, target)
        return f"Failed: {failure}, now in {target}"


async def main() -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel(on_return_raises=True)  # confirms
        amqp = await channel.get_underlay_channel()  # knows how it ends
        amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
        await channel.set_qos(prefetch_count=1)
        queue = await channel.get_queue("payments")
        print(" [*] Waiting for messages. To exit press CTRL+C")
        with suppress(aio_pika.exceptions.ChannelInvalidStateError):
            async for message in queue.iterator():
                outcome = await deal_with(channel, message)
                faulthandler.cancel_dump_traceback_later()  # it was in time
                await message.ack()
                print(f" [x] {outcome}")
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
