"""Take what was dropped, and count it by the reason: python count_dropped.py

Ends when no message has come for two seconds.
"""

import os
import signal
import sys
from collections import Counter
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


def main() -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.queue_declare(
        "dropped_readings", durable=True, arguments={"x-queue-type": "quorum"}
    )
    channel.basic_qos(prefetch_count=100)
    reasons: Counter[str] = Counter()
    dropped: Any = channel.consume("dropped_readings", inactivity_timeout=2)
    for method, properties, _ in dropped:
        if not method:  # none has come
            break
        # The broker's own account of where it was, and why no longer.
        told = properties.headers
        where, why = told["x-first-death-queue"], told["x-first-death-reason"]
        reasons[f"{where}: {why}"] += 1
        channel.basic_ack(method.delivery_tag)
    else:
        sys.exit("Failed: the queue is gone")
    print(f" [x] {reasons.total()} dropped")
    for reason, count in sorted(reasons.items()):
        print(f"     {count} from {reason}")
    connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        main()
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
