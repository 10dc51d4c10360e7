"""Send a log message to all who listen: python emit_log.py Disk full"""

import os
import signal
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


def main(text: str) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.confirm_delivery()  # Sent: every queue that is bound by now has it
    channel.exchange_declare("logs", "fanout")
    # Not mandatory: that nobody listens is no failure of the sender's.
    channel.basic_publish("logs", routing_key="", body=os.fsencode(text))
    print(f" [x] Sent {text!r}")
    connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main(" ".join(sys.argv[1:]) or "info: Hello World!")
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
