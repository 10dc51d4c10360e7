#!/usr/bin/env python3
"""Take what was dropped, and count it by the reason: python count_dropped.py

Ends when no message has come for two seconds.
"""

import os
import sys
from collections import Counter

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main() -> None:
    reasons: Counter[str] = Counter()
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=100)
        channel.queue_declare(
            "dropped_readings",
            durable=True,
            arguments={"x-queue-type": "quorum"},
        )
        for method, properties, _ in channel.consume(
            "dropped_readings", inactivity_timeout=2
        ):
            if not method or not properties:
                break
            # The broker's own account of where it was, and why no longer.
            told = properties.headers or {}
            where, why = "x-first-death-queue", "x-first-death-reason"
            reasons[f"{told[where]}: {told[why]}"] += 1
            channel.basic_ack(method.delivery_tag)
    print(f" [x] {reasons.total()} dropped")
    for reason, count in sorted(reasons.items()):
        print(f"     {count} from {reason}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
