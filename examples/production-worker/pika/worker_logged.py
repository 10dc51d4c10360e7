"""Do payments, and log them, a line of JSON each: python worker_logged.py"""

import json
import logging
import os
import signal
import sys
from datetime import UTC, datetime
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
ACCOUNTS = {"alice": 0}  # what each has, faked


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


def handle(body: bytes) -> None:
    """The work, faked: payments of nobody fail."""
    account, amount = body.decode().split()
    ACCOUNTS[account] -= int(amount)


def deal_with(channel: Any, method: Any, key: str | None, body: bytes) -> None:
    try:
        handle(body)
    except Exception as error:
        again = not method.redelivered
        channel.basic_nack(method.delivery_tag, requeue=again)
        level = logging.WARNING if again else logging.ERROR
        word = "retried" if again else "failed"
        log(word, level, key=key, error=repr(error))
    else:
        channel.basic_ack(method.delivery_tag)
        log("done", key=key)


def main() -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel: Any = connection.channel()
    channel.basic_qos(prefetch_count=1)
    channel.queue_declare("payments", passive=True)  # or 404, before we say
    log("consuming", queue="payments")
    for method, properties, body in channel.consume("payments"):
        deal_with(channel, method, properties.message_id, body)
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    logging.basicConfig(stream=sys.stdout, level=logging.INFO)
    logging.getLogger().handlers[0].setFormatter(OneLine())
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # we say it
    try:
        main()
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor, declare_queues.py")
