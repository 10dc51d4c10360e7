#!/usr/bin/env python3
"""First draft of emit_log_direct.py: it does not hear of a lost message.

Nobody has to be there: python emit_log_direct_silent.py error Disk full
"""

import os
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main(severity: str, text: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        # Both sides declare the exchange, so it does not matter who is first.
        channel.exchange_declare("direct_logs", "direct")
        channel.basic_publish(
            exchange="direct_logs",
            routing_key=severity,
            body=os.fsencode(text),
        )
        print(f" [x] Sent {severity!r}:{text!r}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        usage = "Usage: python emit_log_direct_silent.py SEVERITY MESSAGE..."
        print(usage, file=sys.stderr)
        sys.exit(2)
    try:
        main(sys.argv[1], " ".join(sys.argv[2:]))
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
