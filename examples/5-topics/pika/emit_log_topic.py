"""Send logs by key: python emit_log_topic.py kern.critical Disk full"""

import os
import signal
import sys

import pika
from pika.exceptions import AMQPError, UnroutableError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


def main(routing_key: str, text: str) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.confirm_delivery()
    channel.exchange_declare("topic_logs", "topic")
    body = os.fsencode(text)
    try:  # mandatory: raise if no queue is bound with such a key
        channel.basic_publish("topic_logs", routing_key, body, mandatory=True)
    except UnroutableError:
        sys.exit(f" [!] Lost {routing_key!r}:{text!r}: no queue takes it")
    print(f" [x] Sent {routing_key!r}:{text!r}")
    connection.close()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("Usage: python emit_log_topic.py ROUTING_KEY MESSAGE...")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main(sys.argv[1], " ".join(sys.argv[2:]))
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
