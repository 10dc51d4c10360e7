"""Publish, hear what became of it: python publish_or_explain.py QUEUE TEXT"""

import os
import signal
import sys

import pika
from pika.exceptions import AMQPError, NackError, UnroutableError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


def main(queue: str, text: str) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.confirm_delivery()
    body, stored = os.fsencode(text), pika.BasicProperties(delivery_mode=2)
    try:  # mandatory, or it confirms what it throws away
        channel.basic_publish("", queue, body, stored, mandatory=True)
    except UnroutableError as error:
        reason = error.messages[0].method.reply_text
        sys.exit(f" [!] Returned {text!r}: {reason}")
    except NackError:  # its own text speaks of unroutable messages
        sys.exit(f" [!] Nacked {text!r}: {queue} refuses it")
    print(f" [x] Confirmed {text!r}")
    connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    if len(sys.argv) < 3:
        sys.exit("Usage: python publish_or_explain.py QUEUE MESSAGE...")
    try:
        main(sys.argv[1], " ".join(sys.argv[2:]))
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
