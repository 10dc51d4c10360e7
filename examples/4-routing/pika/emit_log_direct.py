#!/usr/bin/env python3
"""Send a log message to whoever has asked for its severity.

    python emit_log_direct.py error Disk full

It is lost if nobody has: run receive_logs_direct.py first.
"""

import os
import sys

import pika
from pika.exceptions import AMQPError, UnroutableError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main(severity: str, text: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.exchange_declare("direct_logs", "direct")
        try:
            channel.basic_publish(
                exchange="direct_logs",
                routing_key=severity,
                body=os.fsencode(text),
                mandatory=True,  # raise if no queue is bound with this key
            )
        except UnroutableError:
            sys.exit(f" [!] Lost {severity!r}:{text!r}: no queue takes it")
        print(f" [x] Sent {severity!r}:{text!r}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        usage = "Usage: python emit_log_direct.py SEVERITY MESSAGE..."
        print(usage, file=sys.stderr)
        sys.exit(2)
    try:
        main(sys.argv[1], " ".join(sys.argv[2:]))
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
