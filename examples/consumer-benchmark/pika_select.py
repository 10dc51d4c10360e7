#!/usr/bin/env python3
"""Consume with pika, asynchronously, on pika's own loop.

python pika_select.py bench 1000 --prefetch 500 --ack-every 1

Here an ack is some bytes in a buffer. They leave when the loop has its turn.
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


def main(given: argparse.Namespace) -> None:
    done, first = 0, 0.0
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
        nonlocal done, first
        first = first or time.monotonic()
        if work:
            time.sleep(work)
        write(body[:8])
        done += 1
        last = done == count
        if ack_every and (last or done % ack_every == 0):
            channel.basic_ack(method.delivery_tag, multiple=ack_every > 1)
        if last:
            channel.basic_cancel(method.consumer_tag, on_cancel_ok)

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
