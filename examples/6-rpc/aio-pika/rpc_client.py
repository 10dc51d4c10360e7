"""Ask rpc_server.py for a Fibonacci number: python rpc_client.py 30"""

import asyncio
import logging
import os
import signal
import sys
import uuid
from typing import Any

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
TIMEOUT = 15  # seconds


async def main(n: str) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel(publisher_confirms=False)
        amqp = await channel.get_underlay_channel()  # knows how it ends
        await channel.declare_queue(
            "rpc_queue", durable=True, arguments={"x-queue-type": "quorum"}
        )
        reply_queue = await channel.declare_queue(exclusive=True)
        wanted, got = str(uuid.uuid4()), asyncio.Future[Any]()

        async def on_reply(reply: Any) -> None:
            if reply.correlation_id == wanted and not got.done():
                got.set_result(reply)  # all else answers something else

        await reply_queue.consume(on_reply, no_ack=True)
        request = aio_pika.Message(os.fsencode(n), priority=4)  # 4 is normal
        request.reply_to, request.correlation_id = reply_queue.name, wanted
        request.expiration = TIMEOUT  # later it is of no use
        print(f" [x] Requesting fib({n})")
        await channel.default_exchange.publish(request, "rpc_queue")
        ends = asyncio.as_completed([got, amqp.closing], timeout=TIMEOUT)
        try:
            reply = await next(ends)  # or raises why the connection ended
        except TimeoutError:
            sys.exit(f" [!] No reply in {TIMEOUT} s: start rpc_server.py")
        if reply.type == "error":
            sys.exit(f" [!] Error: {reply.body.decode()}")
        print(f" [.] Got {reply.body.decode()}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        asyncio.run(main(" ".join(sys.argv[1:]) or "30"))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        raise SystemExit(f"Failed: {why!r}. Check URL, vhost: make doctor")
