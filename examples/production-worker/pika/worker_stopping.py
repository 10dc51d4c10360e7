"""Do tasks, and stop in good order: python worker_stopping.py"""

import os
import re
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
STOP_WITHIN = os.environ.get("STOP_WITHIN", "20")  # seconds
QUORUM = {"x-queue-type": "quorum"}
in_hand: list[bytes] = []
signals: list[int] = []


def on_signal(number: int, _: object) -> None:
    signals.append(number)
    if not in_hand or len(signals) > 2:  # in the end, whatever hangs
        os._exit(0)
    if len(signals) == 1:
        os.write(1, b" [*] Stopping. Once more gives the task back\n")
    signal.alarm(int(STOP_WITHIN) if len(signals) == 1 else 2)  # counts, too


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
        if task.done():
            task.result()  # or what it has raised
            print(" [x] Done")
            channel.basic_ack(method.delivery_tag)
        else:
            channel.basic_nack(method.delivery_tag)
            print(" [x] Given back")
        in_hand.clear()
        if signals:
            return
    sys.exit("Failed: the broker ended the consumer")


def main() -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(each, on_signal)
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1)
    channel.queue_declare("orders", durable=True, arguments=QUORUM)
    print(" [*] Waiting for messages. To exit press CTRL+C")
    work(channel, ThreadPoolExecutor(1))
    connection.close()
    os._exit(0)  # the task that was given back would keep us


if __name__ == "__main__":
    out: Any = sys.stdout
    out.reconfigure(errors="backslashreplace", line_buffering=True)
    if not STOP_WITHIN.isdecimal() or STOP_WITHIN == "0":
        sys.exit("STOP_WITHIN wants a whole number of seconds, from 1 on")
    try:
        main()
    except AMQPError as error:
        print(f"Failed: {error!r}. Try make doctor", file=sys.stderr)
        os._exit(1)  # now, and not when the task has ended
