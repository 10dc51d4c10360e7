#!/usr/bin/env python3
"""Publish numbered messages, each confirmed, so many in flight at a time.

python produce.py bench 1000 --window 500 --size 10

A body is its number in seven digits, a space, and what makes it so long.
"""

import argparse
import json
import os
import sys
import time

import pika
from pika.channel import Channel
from pika.exceptions import AMQPError
from pika.frame import Method
from pika.spec import Basic

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main(given: argparse.Namespace) -> None:
    sent = confirmed = 0
    first = 0.0
    error: object = None
    channel: Channel
    padding = b"." * (given.size - 8)

    def fill() -> None:
        nonlocal sent
        while sent < min(given.count, confirmed + given.window):
            body = b"%07d " % (given.start + sent) + padding
            channel.basic_publish("", given.queue, body, mandatory=True)
            sent += 1

    def on_confirm(frame: Method) -> None:
        nonlocal confirmed
        if error:  # of what came back, too, the broker sends an ack
            return
        if isinstance(frame.method, Basic.Nack):
            return on_end(None, RuntimeError("the broker refused a message"))
        # All before it are confirmed, too: one channel, one queue, in order.
        confirmed = max(confirmed, frame.method.delivery_tag)
        if confirmed == given.count:
            print(json.dumps({"first": first, "last": time.monotonic()}))
            connection.close()
        elif sent - confirmed <= given.window // 2:
            fill()

    def on_channel(opened: Channel) -> None:
        nonlocal channel, first
        channel = opened
        channel.add_on_close_callback(on_end)
        channel.add_on_return_callback(
            lambda *_: on_end(None, RuntimeError("there is no such queue"))
        )
        channel.confirm_delivery(on_confirm)
        first = time.monotonic()
        fill()

    def on_end(_: object, why: BaseException) -> None:
        nonlocal error
        error = error or why
        if connection.is_open:
            connection.close()
        elif connection.is_closed:
            connection.ioloop.stop()

    connection = pika.SelectConnection(
        pika.URLParameters(AMQP_URL),
        on_open_callback=lambda it: it.channel(on_open_callback=on_channel),
        on_open_error_callback=on_end,
        on_close_callback=on_end,
    )
    connection.ioloop.start()
    if confirmed < given.count:
        raise RuntimeError(error)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("queue")
    parser.add_argument("count", type=int)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--window", type=int, default=500)
    parser.add_argument("--size", type=int, default=10)
    try:
        main(parser.parse_args())
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
