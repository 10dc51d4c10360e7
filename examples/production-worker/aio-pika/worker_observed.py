"""Do payments, and show how it goes: python worker_observed.py

It logs one JSON object a line. On HTTP_PORT (8000) it answers at /metrics,
/live and /ready.
"""

import asyncio
import json
import logging
import os
import random
import re
import signal
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from typing import Any

import aio_pika
import prometheus_client as prometheus
from aio_pika.connection import make_url
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
HTTP_PORT = os.environ.get("HTTP_PORT") or "8000"
QUEUE = "payments"
HOPELESS = "REFUSED|OpenOk|NOT_FOUND"
ACCOUNTS = {"alice": 0, "sleeper": 3600}  # seconds that a payment takes
TURNS_WITHIN = 60.0  # seconds, more than an attempt to connect may take
LOST = (AMQPError, OSError, RuntimeError, asyncio.CancelledError)
state: dict[str, Any] = {"turned": time.monotonic(), "consuming": None}


def measure(kind: Any, name: str, what: str) -> Any:
    return kind(f"worker_{name}", what, ["queue"]).labels(QUEUE)  # at 0, now


CONSUMED = measure(prometheus.Counter, "consumed", "Messages taken")
RETRIED = measure(prometheus.Counter, "retried", "Failed, to be tried again")
FAILED = measure(prometheus.Counter, "failed", "Failed, and set aside")
IN_HAND = measure(prometheus.Gauge, "in_hand", "Messages in hand")
SECONDS = measure(prometheus.Histogram, "duration_seconds", "Time of a task")
READY = measure(prometheus.Gauge, "ready", "1 if connected, and consuming")
READY.set_function(lambda: bool(state["consuming"]))


class OneLine(logging.Formatter):
    """Whatever is logged, by whomever, as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        now = datetime.fromtimestamp(record.created, UTC)
        fields = {"time": now.isoformat(timespec="milliseconds")}
        fields |= {"level": record.levelname, "message": record.getMessage()}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields | getattr(record, "fields", {}), default=repr)


def log(message: str, level: int = logging.INFO, **fields: Any) -> None:
    logging.getLogger("worker").log(level, message, extra={"fields": fields})


class Answers(prometheus.MetricsHandler):
    """For Prometheus, and for who asks whether the worker is well."""

    def do_GET(self) -> None:
        if self.path == "/metrics":
            return super().do_GET()
        live = time.monotonic() - state["turned"] < TURNS_WITHIN
        ready = bool(state["consuming"])
        yes = {"/live": live, "/ready": ready}.get(self.path)
        self.send_response(404 if yes is None else 200 if yes else 503)
        self.end_headers()
        self.wfile.write(b"yes\n" if yes else b"no\n")


def serve() -> None:
    try:
        server = ThreadingHTTPServer(("", int(HTTP_PORT)), Answers)
    except (OSError, ValueError, OverflowError) as why:
        sys.exit(f"HTTP_PORT {HTTP_PORT!r} cannot be used: {why}")
    threading.Thread(target=server.serve_forever, daemon=True).start()


async def handle(body: bytes) -> None:
    """The work, faked. Some payments fail, and some are worse."""
    account, _ = body.decode().split()
    await asyncio.sleep(ACCOUNTS[account])


async def deal_with(message: Any) -> None:
    key = message.message_id
    CONSUMED.inc()
    try:
        with SECONDS.time(), IN_HAND.track_inprogress():
            await handle(message.body)
    except Exception as error:
        again = not message.redelivered
        await message.nack(requeue=again)
        (RETRIED if again else FAILED).inc()
        level = logging.WARNING if again else logging.ERROR
        word = "retried" if again else "failed"
        log(word, level, key=key, error=repr(error))
    else:
        await message.ack()
        log("done", key=key)


async def work(connection: Any) -> None:
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=1)
    amqp = await channel.get_underlay_channel()  # knows how it ends
    amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
    messages = (await channel.get_queue(QUEUE)).iterator()
    await messages.consume()
    state["consuming"] = True
    log("consuming", queue=QUEUE)
    with suppress(ChannelInvalidStateError):  # an ack too late
        async for message in messages:
            await deal_with(message)
    end = await asyncio.gather(amqp.closing, return_exceptions=True)
    raise ConnectionError(end[0].args or "the broker ended the consumer")


def turn() -> None:
    state["turned"] = time.monotonic()  # as long as nothing holds the loop up
    asyncio.get_running_loop().call_later(1, turn)


async def main(node: Any) -> None:
    turn()
    while True:
        try:
            async with aio_pika.Connection(node) as connection:
                await connection.connect(timeout=15)
                await work(connection)
        except LOST as why:  # Cancelled, where the broker was silent too long
            if state["consuming"] is None and re.search(HOPELESS, repr(why)):
                sys.exit(f"Refused: {why!r}. make doctor, declare_queues.py")
            if state["consuming"] is not False:  # not a line for each attempt
                log("disconnected", logging.WARNING, reason=repr(why))
            state["consuming"] = False
        await asyncio.sleep(random.uniform(0, 5))  # else all come at once


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    logging.basicConfig(stream=sys.stdout, level=logging.INFO)
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    logging.getLogger().handlers[0].setFormatter(OneLine())
    try:
        found = make_url(AMQP_URL)
        found.origin()
    except ValueError:  # whose text may hold a password
        sys.exit("AMQP_URL wants amqp://user:password@host:5672/vhost")
    serve()
    asyncio.run(main(found))
