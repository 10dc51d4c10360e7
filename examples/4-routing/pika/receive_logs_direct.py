#!/usr/bin/env python3
"""Print log messages of the severities that you ask for.

    python receive_logs_direct.py warning error

Then, in another shell, send some with emit_log_direct.py.
"""

import os
import sys

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def on_message(
    channel: BlockingChannel,
    method: Basic.Deliver,
    properties: BasicProperties,
    body: bytes,
) -> None:
    text = body.decode(errors="replace")
    print(f" [x] Received {method.routing_key!r}:{text!r}")


def main(severities: list[str]) -> None:
    # Not closed: after a Ctrl-C in pika's own work, close() might hang.
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.exchange_declare("direct_logs", "direct")
    # The broker makes up a name, and deletes the queue when we disconnect.
    queue = channel.queue_declare("", exclusive=True).method.queue
    for severity in severities:
        channel.queue_bind(queue, "direct_logs", routing_key=severity)
    # An ack would save nothing: without us there is no queue to go back to.
    channel.basic_consume(queue, on_message, auto_ack=True)
    print(" [*] Waiting for logs. To exit press CTRL+C")
    channel.start_consuming()  # returns when the queue is deleted
    raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        usage = "Usage: python receive_logs_direct.py SEVERITY..."
        print(usage, file=sys.stderr)
        sys.exit(2)
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
