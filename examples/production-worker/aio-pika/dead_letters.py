"""See what was set aside; put it back when its cause is mended.

python dead_letters.py                  a table of all
python dead_letters.py show 17          the history of one
python dead_letters.py put-back 17      one of them, or with "all" each
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
QUEUE = os.environ.get("QUEUE") or "payments"  # its dead are in payments.dead


async def each(channel: Any) -> AsyncIterator[tuple[int, Any, str]]:
    """The dead, and how many are left; at 0 all those before are settled."""
    dead = await channel.get_queue(f"{QUEUE}.dead")
    count = dead.declaration_result.message_count
    for left in range(count, -1, -1):
        if message := await dead.get(fail=False):
            yield left, message, message.body.decode(errors="backslashreplace")


def history(headers: dict[str, Any]) -> list[str]:
    """Why each attempt failed: in the worker's words, then in the broker's."""
    noted = headers.get("failures")
    noted = [str(each) for each in noted] if isinstance(noted, list) else []
    deaths = [x for x in headers.get("x-death", []) if x["queue"] == QUEUE]
    return [*noted, *(x["reason"] for x in deaths)] or ["unknown"]


async def main(command: str, wanted: str) -> None:
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel()
        await channel.get_queue(QUEUE)  # it is there to go back to
        found, kept = 0, []
        if command == "list":
            print("KEY         PAYMENT             NOTED   LAST")
        async for left, message, text in each(channel):
            key, failures = message.message_id, history(message.headers)
            chosen = left > 0 and wanted in (key, "all")
            found += chosen
            if chosen and command == "put-back":
                # The broker moves it, in one step: whole, or not at all.
                await message.nack(requeue=False)
                print(f" [x] Put back {key!r}: {text!r}")
                continue
            kept.append(message)
            if chosen and command == "show":
                print(f" [x] {key!r}: {text!r}", *failures, sep="\n     ")
            elif command == "list":
                row = f"{key!r:<12}{text!r:<20.40}{len(failures):<8}"
                print(f"{row}{failures[-1]:.50}")
        for message in kept:
            await message.nack()
    if not found and command != "list":
        sys.exit(f"There is no {wanted!r} among the dead")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    words = sys.argv[1:] or ["list", ""]
    if len(words) != 2 or words[0] not in ("list", "show", "put-back"):
        sys.exit("Usage: python dead_letters.py [show KEY | put-back KEY]")
    try:
        asyncio.run(main(*words))
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        sys.exit(f"Failed: {why!r}. Try make doctor, declare_queues.py")
