#!/usr/bin/env python3
"""Do jobs in asyncio's tasks, so many at a time: python asyncio_tasks.py 10

All of it is on one thread: a job must await, and neither block nor compute.
"""

import asyncio
import logging
import os
import signal
import sys
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


async def work(job: str) -> None:
    verb, number, *_ = job.split()
    if verb == "count":
        for _ in range(int(number)):
            pass
    else:
        await asyncio.sleep(float(number))


async def main(workers: int) -> None:
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        # Twice, so that whoever has done a job finds the next already here.
        await channel.set_qos(prefetch_count=2 * workers)
        await channel.declare_queue(
            "failed_jobs", durable=True, arguments={"x-queue-type": "quorum"}
        )
        queue = await channel.declare_queue(
            "jobs",
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                # Rejected jobs go to failed_jobs, and surely arrive.
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": "failed_jobs",
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        )
        slots = asyncio.Semaphore(workers)
        end = asyncio.Event()
        in_hand: set[Any] = set()
        stopped = False

        async def on_message(message: AbstractIncomingMessage) -> None:
            # In a task for each message, which aio-pika has started.
            in_hand.add(task := asyncio.current_task())
            job = os.fsdecode(message.body)
            print(f" [x] Received {job!r}")
            try:
                async with slots:
                    await work(job)
            except Exception as error:
                print(f" [!] Failed {job!r}: {error}")
                await message.reject(requeue=False)
            else:
                print(f" [x] Done {job!r}")
                await message.ack()
            finally:
                in_hand.remove(task)

        def stop() -> None:
            nonlocal stopped
            stopped = True
            end.set()
            for each in signal.SIGINT, signal.SIGTERM:
                signal.signal(each, signal.SIG_DFL)  # the next ends us at once

        for each in signal.SIGINT, signal.SIGTERM:
            asyncio.get_running_loop().add_signal_handler(each, stop)
        channel.close_callbacks.add(lambda *_: end.set())
        amqp = await channel.get_underlay_channel()  # told of a deleted queue
        amqp.on_consumer_cancel_callbacks.add(lambda _: end.set())
        consumer = await queue.consume(on_message)
        print(" [*] Waiting for messages. To exit press CTRL+C")
        await end.wait()
        if stopped:
            await queue.cancel(consumer)
            left = len(in_hand)
            print(f" [*] Finishing {left} jobs. To leave them press CTRL+C")
            await asyncio.gather(*in_hand, return_exceptions=True)
        if not stopped or channel.is_closed:
            raise ConnectionError("the broker ended the consumer")


if __name__ == "__main__":
    given = sys.argv[1] if len(sys.argv) > 1 else "10"
    if not given.isdecimal() or not int(given):
        print("Usage: python asyncio_tasks.py [WORKERS]", file=sys.stderr)
        sys.exit(2)
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main(int(given)))
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
