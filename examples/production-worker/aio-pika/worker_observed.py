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
import warnings
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import aio_pika
import prometheus_client as prometheus
from aio_pika.connection import make_url
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
HTTP_PORT = os.environ.get("HTTP_PORT") or "8000"
QUEUE = "payments"
ACCOUNTS = {"alice": 0, "sleeper": 3600}  # seconds that a payment takes
LONGEST = 5.0  # seconds from one attempt to the next
TURNS_WITHIN = 60.0  # seconds, more than an attempt to connect may take
LOST = (AMQPError, OSError, RuntimeError, asyncio.CancelledError)
state = {"turned": time.monotonic(), "consuming": False}


def measure(kind: Any, name: str, what: str) -> Any:
    return kind(f"worker_{name}", what, ["queue"]).labels(QUEUE)  # at 0, now


CONSUMED = measure(prometheus.Counter, "consumed", "Messages taken")
RETRIED = measure(prometheus.Counter, "retried", "Failed, to be tried again")
FAILED = measure(prometheus.Counter, "failed", "Failed, and set aside")
IN_HAND = measure(prometheus.Gauge, "in_hand", "Messages in hand")
SECONDS = measure(prometheus.Histogram, "duration_seconds", "Time of a task")
READY = measure(prometheus.Gauge, "ready", "1 if connected, and consuming")
READY.set_function(lambda: state["consuming"])


class OneLine(logging.Formatter):
    """Whatever is logged, by whomever, as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        now = datetime.fromtimestamp(record.created, UTC)
        fields = {
            "time": now.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=repr)


def log(message: str, level: int = logging.INFO, **fields: Any) -> None:
    logging.getLogger("worker").log(level, message, extra={"fields": fields})


class Answers(BaseHTTPRequestHandler):
    """For Prometheus, and for who asks whether the worker is well."""

    def do_GET(self) -> None:
        live = time.monotonic() - state["turned"] < TURNS_WITHIN
        yes, no = (200, b"yes\n"), (503, b"no\n")
        status, body = {
            "/metrics": (200, prometheus.generate_latest()),
            "/live": yes if live else no,
            "/ready": yes if state["consuming"] else no,
        }.get(self.path, (404, b"/metrics, /live, /ready\n"))
        self.send_response(status)
        self.send_header("Content-Type", prometheus.CONTENT_TYPE_LATEST)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not a line for each question."""


def serve() -> None:
    try:
        server = ThreadingHTTPServer(("", int(HTTP_PORT)), Answers)
    except (OSError, ValueError, OverflowError) as why:
        sys.exit(f"HTTP_PORT {HTTP_PORT!r} is not to be had: {why}")
    threading.Thread(target=server.serve_forever, daemon=True).start()


async def handle(body: bytes) -> None:
    """The work, faked. Some payments fail, and some are worse."""
    account, _ = body.decode().split()
    await asyncio.sleep(ACCOUNTS[account])


async def deal_with(message: Any) -> None:
    begun, failure, key = time.monotonic(), None, message.message_id
    CONSUMED.inc()
    with IN_HAND.track_inprogress():
        try:
            await handle(message.body)
        except Exception as error:
            failure = repr(error)
        seconds = round(time.monotonic() - begun, 3)
        SECONDS.observe(seconds)
        if not failure:
            await message.ack()
            log("done", key=key, seconds=seconds)
        elif not message.redelivered:
            await message.nack()
            RETRIED.inc()
            log("retried", logging.WARNING, key=key, error=failure)
        else:
            await message.nack(requeue=False)
            FAILED.inc()
            log("failed", logging.ERROR, key=key, error=failure)


async def work(connection: Any, channel: Any) -> None:
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


async def turn() -> None:
    while True:  # as long as nothing holds the loop up
        state["turned"] = time.monotonic()
        await asyncio.sleep(1)


async def main(node: Any) -> None:
    turning, known, missed = asyncio.create_task(turn()), False, False
    while not turning.done():
        try:
            async with await aio_pika.connect(node, timeout=15) as connection:
                channel: Any = await connection.channel()
                await channel.set_qos(prefetch_count=1)
                await channel.get_queue(QUEUE)
                known = True
                await work(connection, channel)
        except LOST as why:  # Cancelled, where the broker was silent too long
            if not known and re.search("REFUSED|OpenOk|NOT_FOU", repr(why)):
                sys.exit(f"Refused: {why!r}. make doctor, declare_queues.py")
            if state["consuming"] or not missed:
                log("disconnected", logging.WARNING, reason=repr(why))
            state["consuming"], missed = False, True
        await asyncio.sleep(random.uniform(0, LONGEST))  # else all at once


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    logging.basicConfig(stream=sys.stdout, level=logging.INFO)
    # aio-pika's, of a connection that was never made, and is cleared away.
    warnings.filterwarnings("ignore", "coroutine 'Connection.close'")
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    logging.getLogger().handlers[0].setFormatter(OneLine())
    try:
        found = make_url(AMQP_URL)
        found.origin()
    except ValueError:  # whose text may hold a password
        sys.exit("AMQP_URL wants amqp://user:password@host:5672/vhost")
    serve()
    asyncio.run(main(found))
