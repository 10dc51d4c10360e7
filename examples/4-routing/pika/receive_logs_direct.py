"""Print logs of severities: python receive_logs_direct.py warning error"""

import os
import signal
import sys
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


def main(severities: list[str]) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.exchange_declare("direct_logs", "direct")
    queue = channel.queue_declare("", exclusive=True).method.queue
    for severity in severities:  # each is one more reason to get a message
        channel.queue_bind(queue, "direct_logs", severity)
    print(" [*] Waiting for logs. To exit press CTRL+C")
    messages: Any = channel.consume(queue, auto_ack=True)
    for method, _, body in messages:
        text = body.decode(errors="replace")
        print(f" [x] Received {method.routing_key!r}:{text!r}")
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("Usage: python receive_logs_direct.py SEVERITY...")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main(sys.argv[1:])
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
