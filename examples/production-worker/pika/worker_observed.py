"""Do payments, and show how it goes: python worker_observed.py

It logs one JSON object a line. On HTTP_PORT (8000) it answers at /metrics,
/live and /ready.
"""

import json
import logging
import os
import random
import re
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pika
import prometheus_client as prometheus
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPConnectionError, AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
HTTP_PORT = os.environ.get("HTTP_PORT") or "8000"
QUEUE = "payments"
ACCOUNTS = {"alice": 0, "sleeper": 3600}  # seconds that a payment takes
LONGEST = 5.0  # seconds from one attempt to the next
TURNS_WITHIN = 60.0  # seconds, more than an attempt to connect may take
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


def handle(body: bytes) -> None:
    """The work, faked. Some payments fail, and some are worse."""
    account, _ = body.decode().split()
    time.sleep(ACCOUNTS[account])


def deal_with(channel: Any, method: Any, key: str | None, body: bytes) -> None:
    begun, failure = time.monotonic(), None
    CONSUMED.inc()
    with IN_HAND.track_inprogress():
        try:
            handle(body)
        except Exception as error:
            failure = repr(error)
        seconds = round(time.monotonic() - begun, 3)
        SECONDS.observe(seconds)
        if not failure:
            channel.basic_ack(method.delivery_tag)
            log("done", key=key, seconds=seconds)
        elif not method.redelivered:
            channel.basic_nack(method.delivery_tag)
            RETRIED.inc()
            log("retried", logging.WARNING, key=key, error=failure)
        else:
            channel.basic_nack(method.delivery_tag, requeue=False)
            FAILED.inc()
            log("failed", logging.ERROR, key=key, error=failure)


def work(channel: Any) -> None:
    for method, properties, body in channel.consume(
        QUEUE, inactivity_timeout=1
    ):
        state["turned"] = time.monotonic()
        if not state["consuming"]:
            state["consuming"] = True
            log("consuming", queue=QUEUE)
        if method:
            deal_with(channel, method, properties.message_id, body)
    raise AMQPConnectionError("the broker ended the consumer")


def main(node: pika.URLParameters) -> None:
    known = missed = False
    while True:
        state["turned"] = time.monotonic()
        try:
            with pika.BlockingConnection(node) as connection:
                channel = connection.channel()
                channel.basic_qos(prefetch_count=1)
                channel.queue_declare(QUEUE, passive=True)
                known = True
                work(channel)
        except (AMQPError, AMQPConnectorException, OSError) as why:
            if not known and re.search("REFUSED|NOT_ALL|NOT_FOU", repr(why)):
                sys.exit(f"Refused: {why!r}. make doctor, declare_queues.py")
            if state["consuming"] or not missed:
                log("disconnected", logging.WARNING, reason=repr(why))
            state["consuming"], missed = False, True
        state["turned"] = time.monotonic()
        time.sleep(random.uniform(0, LONGEST))  # else all come at once


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    logging.basicConfig(stream=sys.stdout, level=logging.INFO)
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # we say it
    logging.getLogger().handlers[0].setFormatter(OneLine())
    try:
        found = pika.URLParameters(AMQP_URL)
    except Exception:  # whose text may hold a password
        sys.exit("AMQP_URL wants amqp://user:password@host:5672/vhost")
    serve()
    main(found)
