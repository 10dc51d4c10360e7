"""Do payments, and say if all is well at HTTP_PORT: python worker_probed.py"""

import asyncio
import logging
import os
import random
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
HTTP_PORT = os.environ.get("HTTP_PORT") or "8000"
TURNS_WITHIN = 60.0  # seconds, more than an attempt to connect may take
LOST = (aio_pika.AMQPException, OSError, RuntimeError, asyncio.CancelledError)
state: dict[str, Any] = {"turned": time.monotonic(), "consuming": None}


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        live = time.monotonic() - state["turned"] < TURNS_WITHIN
        ready = bool(state["consuming"])
        yes = {"/live": live, "/ready": ready}.get(self.path)
        self.send_response_only(404 if yes is None else 200 if yes else 503)
        self.end_headers()
        self.wfile.write(b"yes\n" if yes else b"no\n")


async def deal_with(message: Any) -> None:
    """The work, faked: the payments of sleeper take an hour."""
    await asyncio.sleep(3600 if message.body.startswith(b"sleeper") else 0)
    await message.ack()


async def work() -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=1)
        amqp: Any = await channel.get_underlay_channel()  # knows how it ends
        amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
        await (await channel.get_queue("payments")).consume(deal_with)
        state["consuming"] = True
        print(" [*] Waiting for messages. To exit press CTRL+C")
        end = await asyncio.gather(amqp.closing, return_exceptions=True)
    raise ConnectionError(end[0].args or "the broker ended the consumer")


def turn() -> None:
    state["turned"] = time.monotonic()  # as long as nothing holds the loop up
    asyncio.get_running_loop().call_later(1, turn)


async def main() -> None:
    turn()
    while True:
        try:
            await work()
        except LOST as why:  # Cancelled, where the broker was silent too long
            if state["consuming"] is not False:  # not a line for each attempt
                print(f" [!] Trying again: {why!r}", file=sys.stderr)
            state["consuming"] = False
        await asyncio.sleep(random.uniform(0, 5))  # else all come at once


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        server = ThreadingHTTPServer(("", int(HTTP_PORT)), Answers)
    except (OSError, ValueError, OverflowError) as why:
        sys.exit(f"HTTP_PORT {HTTP_PORT!r} cannot be used: {why}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        asyncio.run(main())
    except (KeyError, ValueError) as why:
        sys.exit(f"Failed: {why!r}. Try make doctor")
