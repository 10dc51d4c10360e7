"""A worker in aio-pika, whose message ends in one of these ways.

    python endings_aio_pika.py ENDING FILE

The same as endings_pika.py, in the other client, and with the ways that only
this one has. ROBUST=1 in the environment: with connect_robust. ITERATOR=1: with
queue.iterator(), not queue.consume().
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage, AbstractQueue

QUEUE = "tasks"
ENDING, FILE = sys.argv[1], Path(sys.argv[2])
ROBUST, ITERATOR = "ROBUST" in os.environ, "ITERATOR" in os.environ
DELIVERIES = 30
deliveries = 0

channel: AbstractChannel
queue: AbstractQueue
stop: asyncio.Event


async def work() -> None:
    while not FILE.exists():
        await asyncio.sleep(0.02)


async def in_hand(message: AbstractIncomingMessage) -> None:
    await work()
    await message.ack()


async def in_hand_process(message: AbstractIncomingMessage) -> None:
    async with message.process():
        await work()


async def in_hand_process_requeue(message: AbstractIncomingMessage) -> None:
    async with message.process(requeue=True):
        await work()


async def blocks(message: AbstractIncomingMessage) -> None:
    while not FILE.exists():
        time.sleep(0.02)
    await message.ack()


async def ack(message: AbstractIncomingMessage) -> None:
    await message.ack()


async def nack(message: AbstractIncomingMessage) -> None:
    await message.nack()


async def nack_drop(message: AbstractIncomingMessage) -> None:
    await message.nack(requeue=False)


async def reject(message: AbstractIncomingMessage) -> None:
    await message.reject()


async def reject_requeue(message: AbstractIncomingMessage) -> None:
    await message.reject(requeue=True)


async def reject_drop(message: AbstractIncomingMessage) -> None:
    await message.reject(requeue=False)


async def nothing(message: AbstractIncomingMessage) -> None:
    """Forget the ack."""


async def late_nack(message: AbstractIncomingMessage) -> None:
    await asyncio.sleep(1.5)
    await message.nack()


async def raises(message: AbstractIncomingMessage) -> None:
    raise RuntimeError("the work fails")


async def process_raises(message: AbstractIncomingMessage) -> None:
    async with message.process():
        raise RuntimeError("the work fails")


async def process_requeue_raises(message: AbstractIncomingMessage) -> None:
    async with message.process(requeue=True):
        raise RuntimeError("the work fails")


async def process_redelivered_raises(message: AbstractIncomingMessage) -> None:
    async with message.process(requeue=True, reject_on_redelivered=True):
        raise RuntimeError("the work fails")


async def cancels(message: AbstractIncomingMessage) -> None:
    assert message.consumer_tag
    await queue.cancel(message.consumer_tag)


async def closes_channel(message: AbstractIncomingMessage) -> None:
    await channel.close()


async def stops(message: AbstractIncomingMessage) -> None:
    """Leave main(), which closes the connection then."""
    stop.set()


async def unknown_tag(message: AbstractIncomingMessage) -> None:
    amqp = await channel.get_underlay_channel()
    assert message.delivery_tag
    await amqp.basic_ack(message.delivery_tag + 100)


async def crashes(message: AbstractIncomingMessage) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


Act = Callable[[AbstractIncomingMessage], Awaitable[None]]
# Those whose message may come back for more of the same.
REPEATED: Mapping[str, Act] = {
    "loop_nack": nack,
    "loop_reject": reject_requeue,
    "loop_process": process_requeue_raises,
    "loop_crash": crashes,
    "process_redelivered_raises": process_redelivered_raises,
}
ACTS: Mapping[str, Act] = {
    act.__name__: act
    for act in (
        *(in_hand, in_hand_process, in_hand_process_requeue, blocks),
        *(ack, nack, nack_drop, reject, reject_requeue, reject_drop, nothing, late_nack),
        *(raises, process_raises, process_requeue_raises),
        *(cancels, closes_channel, stops, unknown_tag),
    )
} | {"auto_ack": in_hand, **REPEATED}


async def on_message(message: AbstractIncomingMessage) -> None:
    global deliveries
    if message.body == b"next":
        print("next")
        await message.ack()
        return
    deliveries += 1
    if message.redelivered and (ENDING not in REPEATED or deliveries > DELIVERIES):
        print("again")  # and hold it
        return
    print("received")
    try:
        await ACTS[ENDING](message)
    finally:
        print("acted")


async def main(patience: int = 0) -> None:
    """With patience it is ended (SIGALRM) when nothing comes for so many seconds."""
    global channel, queue, stop
    stop = asyncio.Event()
    # It would wait five seconds before it connects again, and so would the tests.
    connect = partial(aio_pika.connect_robust, reconnect_interval=0.2)
    url = os.environ["AMQP_URL"]
    async with await (connect(url) if ROBUST else aio_pika.connect(url)) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=10)
        queue = await channel.get_queue(QUEUE)
        if ITERATOR:
            async with queue.iterator() as messages:
                print("waiting")
                async for message in messages:
                    await on_message(message)
        else:
            await queue.consume(on_message, no_ack=ENDING == "auto_ack")
            print("waiting")
            signal.alarm(patience)
            await stop.wait()


if __name__ == "__main__":
    # A shell's background job ignores Ctrl-C, and so would all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if ENDING == "loop_crash":  # each time in a process of its own, which is killed
        for nth in range(DELIVERIES):
            if not (child := os.fork()):
                asyncio.run(main(patience=5 if nth else 0))
            _, status = os.waitpid(child, 0)
            if os.WTERMSIG(status) != signal.SIGKILL:
                break
        print("acted")
        time.sleep(60)
    asyncio.run(main())
