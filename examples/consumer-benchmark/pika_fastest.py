#!/usr/bin/env python3
"""Consume with pika as fast as is safe: many acks in one, and none for long.

python pika_fastest.py bench 1000 --prefetch 500 --ack-every 100

On pika's own loop. It does one message after the other, so an ack of several
says what is true: all up to this one have been done. When messages come slowly
their acks don't wait for more of them.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

import pika
from pika.channel import Channel
from pika.exceptions import AMQPError
from pika.spec import Basic, BasicProperties

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
PATIENCE = 0.01  # seconds that an ack waits for others


def main(given: argparse.Namespace) -> None:
    done = unacked = upto = 0
    first = 0.0
    error: object = None
    write = Path(given.seen).open("wb", buffering=0).write  # noqa: SIM115
    # Names of the function's own: this is the fast one.
    count, ack_every, work = given.count, given.ack_every, given.work

    def on_message(
        channel: Channel,
        method: Basic.Deliver,
        properties: BasicProperties,
        body: bytes,
    ) -> None:
        nonlocal done, unacked, upto, first
        first = first or time.monotonic()
        if work:
            time.sleep(work)
        write(body[:8])
        done += 1
        upto = method.delivery_tag
        unacked += 1
        if unacked == ack_every or done == count:
            ack(channel)
        elif unacked == 1 and ack_every:
            connection.ioloop.call_later(PATIENCE, lambda: ack(channel))
        if done == count:
            channel.basic_cancel(method.consumer_tag, on_cancel_ok)

    def ack(channel: Channel) -> None:
        nonlocal unacked
        if unacked and ack_every and channel.is_open:
            channel.basic_ack(upto, multiple=True)
        unacked = 0

    def on_cancel_ok(_: object) -> None:  # by now the broker has had all acks
        print(json.dumps({"first": first, "last": time.monotonic()}))
        connection.close()

    def on_channel(channel: Channel) -> None:
        channel.add_on_close_callback(on_end)
        channel.basic_qos(prefetch_count=given.prefetch)
        channel.basic_consume(given.queue, on_message, auto_ack=not ack_every)

    def on_end(_: object, why: BaseException) -> None:
        nonlocal error
        error = error or why
        if connection.is_open:
            connection.close()  # it was the channel
        elif connection.is_closed:
            connection.ioloop.stop()

    connection = pika.SelectConnection(
        pika.URLParameters(AMQP_URL),
        on_open_callback=lambda it: it.channel(on_open_callback=on_channel),
        on_open_error_callback=on_end,
        on_close_callback=on_end,
    )
    connection.ioloop.start()
    if done < count:
        raise RuntimeError(error)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("queue")
    parser.add_argument("count", type=int)
    parser.add_argument("--prefetch", type=int, default=500)
    parser.add_argument("--ack-every", type=int, default=100)
    parser.add_argument("--work", type=float, default=0)
    parser.add_argument("--seen", default=os.devnull)
    try:
        main(parser.parse_args())
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
