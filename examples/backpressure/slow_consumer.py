#!/usr/bin/env python3
"""Take messages from a queue, one at a time, so many seconds each.

    python slow_consumer.py limited_tasks 0.02

The queue is the sender's: start that first. Ends when no message has come
for two seconds.
"""

import os
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main(queue: str, seconds: float) -> None:
    done: dict[bytes, int] = {}
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=1)
        print(" [*] Waiting for messages. To exit press CTRL+C", flush=True)
        try:
            for method, _, body in channel.consume(
                queue, inactivity_timeout=2
            ):
                if not method or body is None:
                    break
                connection.sleep(seconds)  # the work
                channel.basic_ack(method.delivery_tag)
                done[body] = done.get(body, 0) + 1
        finally:
            first, last = [*done, b""][0], [b"", *done][-1]
            told = f"from {first.decode()!r} to {last.decode()!r}"
            print(f" [x] Done {len(done)} messages, {told}")


if __name__ == "__main__":
    try:
        queue, seconds = sys.argv[1], float(sys.argv[2])
    except (IndexError, ValueError):
        print("Usage: python slow_consumer.py QUEUE SECONDS", file=sys.stderr)
        sys.exit(2)
    try:
        main(queue, seconds)
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
