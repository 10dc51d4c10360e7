"""What the client does by itself: python publish_by_default.py QUEUE TEXT"""

import os
import signal
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


def main(queue: str, text: str) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.basic_publish("", queue, os.fsencode(text))
    print(f" [x] Sent {text!r}")
    connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    if len(sys.argv) < 3:
        sys.exit("Usage: python publish_by_default.py QUEUE MESSAGE...")
    try:
        main(sys.argv[1], " ".join(sys.argv[2:]))
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
