#!/usr/bin/env python3
"""The same with kombu: python peer_kombu.py bench 1000 --prefetch 500"""
# pyright: reportMissingImports=false, reportFunctionMemberAccess=false

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from kombu import Connection, Consumer, Queue

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main(given: argparse.Namespace) -> None:
    done, first = 0, 0.0
    with (
        Path(given.seen).open("wb", buffering=0) as seen,
        Connection(AMQP_URL) as connection,
    ):

        def on_message(message: Any) -> None:
            nonlocal done, first
            first = first or time.monotonic()
            seen.write(bytes(message.body[:8]))
            done += 1
            if done % given.ack_every == 0 or done == given.count:
                message.ack(multiple=given.ack_every > 1)

        queue = Queue(given.queue, no_declare=True)
        with Consumer(
            connection.channel(),
            [queue],
            on_message=on_message,
            prefetch_count=given.prefetch,
        ):
            while done < given.count:
                connection.drain_events()
        # It has waited for cancel-ok.
        print(json.dumps({"first": first, "last": time.monotonic()}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("queue")
    parser.add_argument("count", type=int)
    parser.add_argument("--prefetch", type=int, default=500)
    parser.add_argument("--ack-every", type=int, default=1)
    parser.add_argument("--seen", default=os.devnull)
    main(parser.parse_args())
