"""Book each payment once, however often it comes: python worker_once.py"""

import asyncio
import logging
import os
import signal
import sqlite3
import sys
from contextlib import suppress

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
DATABASE = os.environ.get("DATABASE") or "accounts.sqlite3"
# The first line writes at every start: a full disk shows before a task does.
TABLES = """
    PRAGMA user_version = 1;
    CREATE TABLE IF NOT EXISTS booked (key TEXT PRIMARY KEY, at TEXT);
    CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, balance INT);
"""
BOOK = """
    INSERT INTO account VALUES (?, ?)
    ON CONFLICT DO UPDATE SET balance = balance + excluded.balance
    RETURNING name || ' has ' || balance
"""


def book(database: sqlite3.Connection, key: str | None, body: bytes) -> str:
    """Note the key and do the work, both or neither; say what was done."""
    if not key:
        raise ValueError("no message_id")
    name, amount = body.decode().split()
    with database:  # a transaction: committed at its end, or rolled back
        note = "INSERT OR IGNORE INTO booked VALUES (?, datetime())"
        if not database.execute(note, (key,)).rowcount:
            return f"Booked before: {key!r}"
        ((now,),) = database.execute(BOOK, (name, int(amount))).fetchall()
        return f"Booked: {now}"


async def main() -> None:
    database = sqlite3.connect(DATABASE, timeout=30)  # others write, too
    database.executescript(TABLES)
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel()
        amqp = await channel.get_underlay_channel()  # knows how it ends
        amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
        await channel.set_qos(prefetch_count=1)
        queue = await channel.get_queue("payments")
        print(" [*] Waiting for messages. To exit press CTRL+C")
        with suppress(aio_pika.exceptions.ChannelInvalidStateError):
            async for message in queue.iterator():
                try:
                    outcome = book(database, message.message_id, message.body)
                    await message.ack()  # after the commit
                except (ValueError, OverflowError) as error:
                    outcome = f"Set aside: {error!r}"
                    await message.nack(requeue=False)
                print(f" [x] {outcome}")
        end = await asyncio.gather(amqp.closing, return_exceptions=True)
        raise SystemExit(f"Failed: {end[0].args or 'the queue is gone'}")


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        asyncio.run(main())
    except sqlite3.Error as error:
        sys.exit(f"Failed: {error!r}. DATABASE is {DATABASE!r}: is it right?")
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        sys.exit(f"Failed: {why!r}. Try make doctor, declare_queues.py")
