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
from http.server import ThreadingHTTPServer
from typing import Any

import pika
import prometheus_client as prometheus
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPConnectionError, AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
HTTP_PORT = os.environ.get("HTTP_PORT") or "8000"
QUEUE = "payments"
HOPELESS = "REFUSED|NOT_ALLOWED|NOT_FOUND"
ACCOUNTS = {"alice": 0, "sleeper": 3600}  # seconds that a payment takes
TURNS_WITHIN = 60.0  # seconds, more than an attempt to connect may take
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


def handle(body: bytes) -> None:
    """The work, faked. Some payments fail, and some are worse."""
    account, _ = body.decode().split()
    time.sleep(ACCOUNTS[account])


def deal_with(channel: Any, method: Any, key: str | None, body: bytes) -> None:
    CONSUMED.inc()
    try:
        with SECONDS.time(), IN_HAND.track_inprogress():
            handle(body)
    except Exception as error:
        again = not method.redelivered
        channel.basic_nack(method.delivery_tag, requeue=again)
        (RETRIED if again else FAILED).inc()
        level = logging.WARNING if again else logging.ERROR
        word = "retried" if again else "failed"
        log(word, level, key=key, error=repr(error))
    else:
        channel.basic_ack(method.delivery_tag)
        log("done", key=key)


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
    while True:
        state["turned"] = time.monotonic()
        try:
            with pika.BlockingConnection(node) as connection:
                channel = connection.channel()
                channel.basic_qos(prefetch_count=1)
                work(channel)
        except (AMQPError, AMQPConnectorException, OSError) as why:
            if state["consuming"] is None and re.search(HOPELESS, repr(why)):
                sys.exit(f"Refused: {why!r}. make doctor, declare_queues.py")
            if state["consuming"] is not False:  # not a line for each attempt
                log("disconnected", logging.WARNING, reason=repr(why))
            state["consuming"] = False
        time.sleep(random.uniform(0, 5))  # else all come at once


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
