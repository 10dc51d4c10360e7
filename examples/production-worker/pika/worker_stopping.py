"""Do tasks, and stop in good order: python worker_stopping.py"""

import itertools
import os
import random
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
AMQP_URLS = os.environ.get("AMQP_URLS") or AMQP_URL  # url,url,…: the nodes
STOP_WITHIN = os.environ.get("STOP_WITHIN", "20")  # seconds
QUORUM = {"x-queue-type": "quorum"}
LONGEST = 10.0  # seconds from one attempt to the next
in_hand: list[bytes] = []
signals: list[int] = []


def pause(failures: int) -> float:  # by chance, else all come back at once
    return random.uniform(0, min(LONGEST, 0.5 * 2 ** min(failures, 10)))


def on_signal(number: int, _: object) -> None:
    signals.append(number)
    if not in_hand or len(signals) > 2:
        os._exit(0)
    patience = 2  # until it ends, whatever hangs
    if len(signals) == 1:
        os.write(1, b" [*] Stopping. Once more gives the task back\n")
        patience = int(STOP_WITHIN)
    signal.alarm(patience)  # which counts as a signal, too


def do(text: str) -> None:
    number = re.fullmatch(r"\d+\.\d\d", text)  # of seconds; else a dot is one
    time.sleep(float(text) if number else text.count("."))


def work(channel: Any, pool: ThreadPoolExecutor) -> None:
    for method, _, body in channel.consume("orders"):
        in_hand.append(body)
        print(f" [x] Received {os.fsdecode(body)!r}")
        task = pool.submit(do, os.fsdecode(body))
        while not wait([task], 0.1).done and len(signals) < 2:
            channel.connection.process_data_events()  # heartbeats go on
        if signals:
            channel.cancel()  # before the ack, which would bring another task
        if not task.done():
            channel.basic_nack(method.delivery_tag)
            print(" [x] Given back")
        elif error := task.exception():
            raise BaseExceptionGroup("the task has failed", [error])
        else:
            print(" [x] Done")
            channel.basic_ack(method.delivery_tag)
        in_hand.clear()
        if signals:
            return
    raise ConnectionError("the broker ended the consumer")


def main(nodes: list[pika.URLParameters]) -> None:
    failures, known, lost, pool = 0, False, False, ThreadPoolExecutor(1)
    for node in itertools.cycle(random.sample(nodes, len(nodes))):
        begun = time.monotonic()
        node.heartbeat = 5  # who is silent for twice as long is lost
        try:
            with pika.BlockingConnection(node) as connection:
                channel = connection.channel()
                channel.basic_qos(prefetch_count=1)
                channel.queue_declare("orders", durable=True, arguments=QUORUM)
                print(" [*] Waiting for messages. To exit press CTRL+C")
                known, lost = True, False
                work(channel, pool)
        except (AMQPError, AMQPConnectorException, OSError) as why:
            if not known and re.search("REFUSED|NOT_ALL|PRECOND", repr(why)):
                sys.exit(f"Refused: {why!r}. Fix AMQP_URLS, try make doctor")
            if not lost and not signals:
                print(f" [!] Trying again: {why!r}", file=sys.stderr)
            lost = True
        if signals:
            os._exit(0)  # the task that was given back would keep us
        in_hand.clear()
        failures = 0 if time.monotonic() - begun > LONGEST else failures + 1
        time.sleep(pause(failures))


if __name__ == "__main__":
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(each, on_signal)
    out: Any = sys.stdout
    out.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        urls = [url or "no" for url in AMQP_URLS.split(",")]
        found = [pika.URLParameters(url) for url in urls]
    except Exception:  # whose text may hold a password
        sys.exit("AMQP_URLS wants amqp://user:password@host:5672/vhost,…")
    if not STOP_WITHIN.isdecimal() or STOP_WITHIN == "0":
        sys.exit("STOP_WITHIN wants a whole number of seconds, from 1 on")
    main(found)
