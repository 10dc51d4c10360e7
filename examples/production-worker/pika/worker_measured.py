"""Do payments, and count them at HTTP_PORT: python worker_measured.py"""

import os
import signal
import sys
import time
from typing import Any

import pika
import prometheus_client as prometheus
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
HTTP_PORT = os.environ.get("HTTP_PORT") or "8000"
ACCOUNTS = {"alice": 0, "sleeper": 3600}  # seconds that a payment takes


def measure(kind: Any, name: str, what: str) -> Any:
    metric = kind(f"worker_{name}", what, ["queue"])
    return metric.labels("payments")  # at 0, now


CONSUMED = measure(prometheus.Counter, "consumed", "Messages taken")
RETRIED = measure(prometheus.Counter, "retried", "Failed, to be tried again")
FAILED = measure(prometheus.Counter, "failed", "Failed, and set aside")
IN_HAND = measure(prometheus.Gauge, "in_hand", "Messages in hand")
SECONDS = measure(prometheus.Histogram, "duration_seconds", "Time of a task")
READY = measure(prometheus.Gauge, "ready", "1 if connected, and consuming")


def handle(body: bytes) -> None:
    """The work, faked. Some payments fail, and some are worse."""
    account, _ = body.decode().split()
    time.sleep(ACCOUNTS[account])


def deal_with(channel: Any, method: Any, body: bytes) -> None:
    CONSUMED.inc()
    try:
        with SECONDS.time(), IN_HAND.track_inprogress():
            handle(body)
    except Exception:
        again = not method.redelivered
        channel.basic_nack(method.delivery_tag, requeue=again)
        (RETRIED if again else FAILED).inc()
    else:
        channel.basic_ack(method.delivery_tag)


def main() -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel: Any = connection.channel()
    channel.basic_qos(prefetch_count=1)
    channel.queue_declare("payments", passive=True)  # or 404, before we say
    READY.set(1)
    print(" [*] Waiting for messages. To exit press CTRL+C")
    for method, _, body in channel.consume("payments"):
        deal_with(channel, method, body)
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        prometheus.start_http_server(int(HTTP_PORT))
    except (OSError, ValueError, OverflowError) as why:
        sys.exit(f"HTTP_PORT {HTTP_PORT!r} cannot be used: {why}")
    try:
        main()
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor, declare_queues.py")
