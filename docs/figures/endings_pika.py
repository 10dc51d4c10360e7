"""A worker in pika, whose message ends in one of these ways.

    python endings_pika.py ENDING FILE

It takes messages from the queue `tasks` until it is killed. What it does with
the first is the function ENDING; those that take time go on when FILE exists.
For fates.py, which watches what becomes of the message. It catches nothing, so
that what pika raises ends it, and can be seen.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic, BasicProperties

QUEUE = "tasks"
ENDING, FILE = sys.argv[1], Path(sys.argv[2])
DELIVERIES = 30
deliveries = 0


def in_hand(channel: BlockingChannel, tag: int) -> None:
    while not FILE.exists():
        time.sleep(0.02)
    channel.basic_ack(tag)


def ack(channel: BlockingChannel, tag: int) -> None:
    channel.basic_ack(tag)


def nack(channel: BlockingChannel, tag: int) -> None:
    channel.basic_nack(tag)


def nack_drop(channel: BlockingChannel, tag: int) -> None:
    channel.basic_nack(tag, requeue=False)


def reject(channel: BlockingChannel, tag: int) -> None:
    channel.basic_reject(tag)


def reject_requeue(channel: BlockingChannel, tag: int) -> None:
    channel.basic_reject(tag, requeue=True)


def reject_drop(channel: BlockingChannel, tag: int) -> None:
    channel.basic_reject(tag, requeue=False)


def nothing(channel: BlockingChannel, tag: int) -> None:
    """Forget the ack."""


def late_nack(channel: BlockingChannel, tag: int) -> None:
    time.sleep(1.5)
    channel.basic_nack(tag)


def raises(channel: BlockingChannel, tag: int) -> None:
    raise RuntimeError("the work fails")


def cancels(channel: BlockingChannel, tag: int) -> None:
    channel.basic_cancel(channel.consumer_tags[0])
    print("acted")
    channel.connection.sleep(60)


def closes_channel(channel: BlockingChannel, tag: int) -> None:
    channel.close()


def stops(channel: BlockingChannel, tag: int) -> None:
    """Leave start_consuming; main() closes the connection then."""
    channel.stop_consuming()


def unknown_tag(channel: BlockingChannel, tag: int) -> None:
    channel.basic_ack(tag + 100)


def crashes(channel: BlockingChannel, tag: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# Those whose message may come back for more of the same.
REPEATED = {"loop_nack": nack, "loop_reject": reject_requeue, "loop_crash": crashes}
ACTS: dict[str, Callable[[BlockingChannel, int], None]] = {
    act.__name__: act
    for act in (
        *(in_hand, ack, nack, nack_drop, reject, reject_requeue, reject_drop, nothing),
        *(late_nack, raises, cancels, closes_channel, stops, unknown_tag),
    )
} | {"auto_ack": in_hand, "blocks": in_hand, **REPEATED}


def on_message(
    channel: BlockingChannel, method: Basic.Deliver, properties: BasicProperties, body: bytes
) -> None:
    global deliveries
    if body == b"next":
        print("next")
        channel.basic_ack(method.delivery_tag)
        return
    deliveries += 1
    if method.redelivered and (ENDING not in REPEATED or deliveries > DELIVERIES):
        print("again")  # and hold it
        return
    print("received")
    ACTS[ENDING](channel, method.delivery_tag)
    print("acted")


def main(patience: int = 0) -> None:
    """With patience it is ended (SIGALRM) when nothing comes for so many seconds."""
    with pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=10)
        channel.basic_consume(QUEUE, on_message, auto_ack=ENDING == "auto_ack")
        print("waiting")
        signal.alarm(patience)
        channel.start_consuming()


if __name__ == "__main__":
    # A shell's background job ignores Ctrl-C, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if ENDING == "loop_crash":  # each time in a process of its own, which is killed
        for nth in range(DELIVERIES):
            if not (child := os.fork()):
                main(patience=5 if nth else 0)
            _, status = os.waitpid(child, 0)
            if os.WTERMSIG(status) != signal.SIGKILL:
                break
        print("acted")
        time.sleep(60)
    main()
