"""Do tasks, and stay connected: python worker_reconnecting.py"""

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
from pika.exceptions import AMQPConnectionError, AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
AMQP_URLS = os.environ.get("AMQP_URLS") or AMQP_URL  # url,url,…: the nodes
QUORUM = {"x-queue-type": "quorum"}
LONGEST = 10.0  # seconds from one attempt to the next


def pause(failures: int) -> float:  # by chance, else all come back at once
    return random.uniform(0, min(LONGEST, 0.5 * 2 ** min(failures, 10)))


def do(text: str) -> None:
    print(f" [x] Received {text!r}")
    number = re.fullmatch(r"\d+\.\d\d", text)  # of seconds; else a dot is one
    time.sleep(float(text) if number else text.count("."))
    print(" [x] Done")


def connect(node: pika.URLParameters) -> pika.BlockingConnection:
    node.heartbeat = 5  # who is silent for twice as long is lost
    try:
        return pika.BlockingConnection(node)
    except (AMQPConnectorException, OSError) as why:  # which are no AMQPError
        raise AMQPConnectionError(why) from None


def work(channel: Any) -> None:
    for method, _, body in channel.consume("orders"):
        do(os.fsdecode(body))
        channel.basic_ack(method.delivery_tag)
    raise AMQPConnectionError("the broker ended the consumer")


def main(nodes: list[pika.URLParameters]) -> None:
    failures, known, lost = 0, False, False
    for node in itertools.cycle(random.sample(nodes, len(nodes))):
        begun = time.monotonic()
        try:
            with connect(node) as connection:
                channel = connection.channel()
                channel.basic_qos(prefetch_count=1)
                channel.queue_declare("orders", durable=True, arguments=QUORUM)
                print(" [*] Waiting for messages. To exit press CTRL+C")
                known, lost = True, False
                work(channel)
        except AMQPError as why:
            if not known and re.search("REFUSED|NOT_ALL|PRECOND", repr(why)):
                sys.exit(f"Refused: {why!r}. Fix AMQP_URLS, try make doctor")
            if not lost:
                print(f" [!] Trying again: {why!r}", file=sys.stderr)
            lost = True
        failures = 0 if time.monotonic() - begun > LONGEST else failures + 1
        time.sleep(pause(failures))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        urls = [url or "no" for url in AMQP_URLS.split(",")]
        found = [pika.URLParameters(url) for url in urls]
    except Exception:  # whose text may hold a password
        sys.exit("AMQP_URLS wants amqp://user:password@host:5672/vhost,…")
    main(found)
