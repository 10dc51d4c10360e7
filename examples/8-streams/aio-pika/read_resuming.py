#!/usr/bin/env python3
"""Do what the stream `events` says, and after a restart go on from there.

    python read_resuming.py billing

keeps its place in the file billing.offset. A dot in an event is a second.
"""

import asyncio
import logging
import os
import re
import sys
from pathlib import Path
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from aio_pika.exceptions import AMQPError, InvalidFrameError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
STREAM = {"x-queue-type": "stream", "x-max-length-bytes": 1_000_000_000}


def load(place: Path) -> int | None:
    if not place.exists():
        return None
    text = place.read_text(errors="replace")
    if not re.fullmatch(r"\d{1,18}\n", text):
        sys.exit(f" [!] {place} holds no offset, but {text[:40]!r}")
    return int(text)


async def work(event: str, offset: int) -> None:
    print(f" [x] Received {event!r} at offset {offset}")
    await asyncio.sleep(event.count("."))
    print(" [x] Done")


def save(place: Path, offset: int) -> None:
    # Replaced as a whole: a kill leaves the old offset or the new one.
    draft = place.with_name(f"{place.name}.new")
    draft.write_text(f"{offset}\n")
    draft.replace(place)


async def main(place: Path) -> None:
    done = load(place)
    async with await aio_pika.connect(AMQP_URL) as connection:
        channel = await connection.channel()
        await channel.set_qos(prefetch_count=100)
        queue = await channel.declare_queue(
            "events", durable=True, arguments=STREAM
        )
        inbox: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
        channel.close_callbacks.add(lambda *_: inbox.put_nowait(None))
        amqp = await channel.get_underlay_channel()  # told of a deleted queue
        amqp.on_consumer_cancel_callbacks.add(lambda _: inbox.put_nowait(None))
        # Again from the event done last, to see that it is still there.
        where: Any = {"x-stream-offset": "first" if done is None else done}
        await queue.consume(inbox.put, arguments=where)
        print(" [*] Waiting for events. To exit press CTRL+C")
        resuming = done is not None
        while True:
            try:
                async with asyncio.timeout(10 if resuming else None):
                    message = await inbox.get()
            except TimeoutError:
                sys.exit(f" [!] {place} is of another stream")
            if not message:
                raise ConnectionError("the broker ended the consumer")
            offset: Any = message.headers["x-stream-offset"]
            if resuming and offset != done:
                print(f" [!] Gone since {done}: all before {offset}")
            if not resuming or offset != done:
                await work(os.fsdecode(message.body), offset)
                save(place, offset)  # not before the work is done
            resuming = False
            await message.ack()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("Usage: python read_resuming.py NAME", file=sys.stderr)
        sys.exit(2)
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("aiormq.connection").disabled = True  # exit says it
    try:
        asyncio.run(main(Path(f"{sys.argv[1]}.offset")))
    except KeyboardInterrupt:
        pass
    except (AMQPError, OSError, RuntimeError, ValueError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        if isinstance(why, InvalidFrameError):  # aiormq loses the reason
            why = "the broker refuses this virtual host"
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
