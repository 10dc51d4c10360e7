#!/usr/bin/env python3
"""Consume with pika, blocking, in a loop over a generator.

python pika_generator.py bench 1000 --prefetch 500 --ack-every 1
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main(given: argparse.Namespace) -> None:
    done, first = 0, 0.0
    with (
        Path(given.seen).open("wb", buffering=0) as seen,
        pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection,
    ):
        channel = connection.channel()
        channel.basic_qos(prefetch_count=given.prefetch)
        for method, _, body in channel.consume(
            given.queue, auto_ack=not given.ack_every
        ):
            if method is None or body is None:  # that is, after a timeout
                continue
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
                break
        # Waits for cancel-ok: by then the broker has had all acks.
        channel.cancel()
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
