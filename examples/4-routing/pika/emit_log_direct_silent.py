"""The first draft: python emit_log_direct_silent.py error Disk full"""

import os
import signal
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


def main(severity: str, text: str) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.confirm_delivery()
    channel.exchange_declare("direct_logs", "direct")
    body = os.fsencode(text)
    channel.basic_publish("direct_logs", severity, body)
    print(f" [x] Sent {severity!r}:{text!r}")
    connection.close()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("Usage: python emit_log_direct_silent.py SEVERITY MESSAGE...")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main(sys.argv[1], " ".join(sys.argv[2:]))
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
