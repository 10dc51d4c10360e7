"""Publish each line of input, KEY ACCOUNT AMOUNT: … | python publisher.py

QUEUE names the queue, if it isn't bookings. Lines of a publisher that died are
put in again, with the keys that they had.
"""

import itertools
import os
import random
import re
import signal
import sys
import time
from typing import Any

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
AMQP_URLS = os.environ.get("AMQP_URLS") or AMQP_URL  # url,url,…: the nodes
QUEUE = os.environ.get("QUEUE") or "bookings"
LONGEST = 10.0  # seconds from one attempt to the next
LOST = (AMQPError, AMQPConnectorException, OSError)


def pause(failures: int) -> float:  # by chance, else all come back at once
    return random.uniform(0, min(LONGEST, 0.5 * 2 ** min(failures, 10)))


def too_late(*_: object) -> None:
    raise TimeoutError("no answer from the broker")


def connect(node: pika.URLParameters) -> Any:
    node.heartbeat = 0  # nobody serves it while we wait for the next line
    channel = pika.BlockingConnection(node).channel()
    channel.confirm_delivery()
    channel.queue_declare(QUEUE, passive=True)
    print(" [*] Connected")
    return channel


def main(nodes: list[pika.URLParameters]) -> None:
    node = itertools.cycle(random.sample(nodes, len(nodes)))
    channel, known = None, False
    for line in sys.stdin.buffer:  # no further one until this one is stored
        key, _, task = line.decode(errors="replace").strip().partition(" ")
        if not task or len(os.fsencode(key)) > 255:
            sys.exit(f"Refused: {key[:99]!r} {task!r}: KEY ACCOUNT AMOUNT")
        kept = pika.BasicProperties(delivery_mode=2, message_id=key)
        for failures in itertools.count(1):
            try:
                signal.alarm(10)  # a confirm may never come
                try:
                    channel = channel or connect(next(node))
                    channel.basic_publish("", QUEUE, task.encode(), kept, True)
                finally:
                    signal.alarm(0)
                break
            except LOST as why:
                if not known and re.search("REFUSED|NOT_[AF]", repr(why)):
                    sys.exit(f"Refused: {why!r}. Try declare.py, make doctor")
                if failures == 1:
                    print(f" [!] Trying again: {why!r}", file=sys.stderr)
                channel = None  # not closed: that would wait for the broker
            time.sleep(pause(failures))
        known = True
        print(f" [x] Confirmed {key!r}")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    signal.signal(signal.SIGALRM, too_late)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        urls = [url or "no" for url in AMQP_URLS.split(",")]
        found = [pika.URLParameters(url) for url in urls]
    except Exception:  # whose text may hold a password
        sys.exit("AMQP_URLS wants amqp://user:password@host:5672/vhost,…")
    main(found)
