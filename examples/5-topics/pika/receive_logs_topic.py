"""Print logs by pattern: python receive_logs_topic.py 'kern.*' '*.critical'"""

import os
import signal
import sys
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


def main(binding_keys: list[str]) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.exchange_declare("topic_logs", "topic")
    queue = channel.queue_declare("", exclusive=True).method.queue
    for key in binding_keys:  # each is one more reason to get a message
        channel.queue_bind(queue, "topic_logs", key)
    print(" [*] Waiting for logs. To exit press CTRL+C")
    messages: Any = channel.consume(queue, auto_ack=True)
    for method, _, body in messages:
        text = body.decode(errors="replace")
        print(f" [x] Received {method.routing_key!r}:{text!r}")
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("Usage: python receive_logs_topic.py BINDING_KEY...")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main(sys.argv[1:])
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
