#!/usr/bin/env python3
"""Consume with pika, blocking, a callback for each message.

python pika_callback.py bench 1000 --prefetch 500 --ack-every 1

--ack-every 100 acks a hundred at once, --ack-every 0 none: the broker counts
as done what it has sent. SEEN takes the first 8 bytes of each message.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main(given: argparse.Namespace) -> None:
    done, first = 0, 0.0
    # Unbuffered, so that it is true even when this process is killed.
    with (
        Path(given.seen).open("wb", buffering=0) as seen,
        pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection,
    ):
        channel = connection.channel()
        channel.basic_qos(prefetch_count=given.prefetch)

        def on_message(
            channel: BlockingChannel,
            method: Basic.Deliver,
            properties: BasicProperties,
            body: bytes,
        ) -> None:
            nonlocal done, first
            first = first or time.monotonic()
            if given.work:
                time.sleep(given.work)
            seen.write(body[:8])
            done += 1
            last = done == given.count
            if given.ack_every and (last or done % given.ack_every == 0):
                several = given.ack_every > 1
                channel.basic_ack(method.delivery_tag, multiple=several)
            if last:
                # Waits for cancel-ok: by then the broker has had all acks.
                channel.stop_consuming()

        channel.basic_consume(
            given.queue, on_message, auto_ack=not given.ack_every
        )
        channel.start_consuming()
        print(json.dumps({"first": first, "last": time.monotonic()}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("queue")
    parser.add_argument("count", type=int)
    parser.add_argument("--prefetch", type=int, default=500)
    parser.add_argument("--ack-every", type=int, default=1)
    parser.add_argument("--work", type=float, default=0)
    parser.add_argument("--seen", default=os.devnull)
    try:
        main(parser.parse_args())
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
