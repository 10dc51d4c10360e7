#!/usr/bin/env python3
"""The same with amqpstorm: python peer_amqpstorm.py bench 1000"""
# pyright: reportMissingImports=false, reportFunctionMemberAccess=false

import argparse
import json
import os
import time
from pathlib import Path

from amqpstorm import Message, UriConnection

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main(given: argparse.Namespace) -> None:
    done, first = 0, 0.0
    with (
        Path(given.seen).open("wb", buffering=0) as seen,
        UriConnection(AMQP_URL) as connection,
        connection.channel() as channel,
    ):

        def on_message(message: Message) -> None:
            nonlocal done, first
            first = first or time.monotonic()
            seen.write(message.body[:8].encode())
            done += 1
            if done % given.ack_every == 0 or done == given.count:
                several = given.ack_every > 1
                channel.basic.ack(message.delivery_tag, multiple=several)
            if done == given.count:
                channel.stop_consuming()

        channel.basic.qos(given.prefetch)
        channel.basic.consume(on_message, given.queue)
        channel.start_consuming()
        print(json.dumps({"first": first, "last": time.monotonic()}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("queue")
    parser.add_argument("count", type=int)
    parser.add_argument("--prefetch", type=int, default=500)
    parser.add_argument("--ack-every", type=int, default=1)
    parser.add_argument("--seen", default=os.devnull)
    main(parser.parse_args())
