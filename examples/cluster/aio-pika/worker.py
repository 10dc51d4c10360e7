"""Book each line once, whatever becomes of the nodes: python worker.py

QUEUE names the queue, if it isn't bookings; DATABASE is a file of SQLite.
"""

import asyncio
import itertools
import logging
import os
import random
import re
import signal
import sqlite3
import sys
import time
from typing import Any

import aio_pika
from aio_pika.connection import make_url
from aio_pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
AMQP_URLS = os.environ.get("AMQP_URLS") or AMQP_URL  # url,url,…: the nodes
QUEUE = os.environ.get("QUEUE") or "bookings"
DATABASE = os.environ.get("DATABASE") or "accounts.sqlite3"
TABLES = """
    CREATE TABLE IF NOT EXISTS booked (key TEXT PRIMARY KEY, at TEXT);
    CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, balance INT);
"""
BOOK = """
    INSERT INTO account VALUES (?, ?)
    ON CONFLICT DO UPDATE SET balance = balance + excluded.balance
    RETURNING name || ' has ' || balance
"""
LONGEST = 10.0  # seconds from one attempt to the next
LOST = (AMQPError, OSError, RuntimeError, asyncio.CancelledError)


def pause(failures: int) -> float:  # by chance, else all come back at once
    return random.uniform(0, min(LONGEST, 0.5 * 2 ** min(failures, 10)))


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


async def work(connection: Any, channel: Any, database: Any) -> None:
    queue = await channel.get_queue(QUEUE)
    amqp = await channel.get_underlay_channel()  # knows how it ends
    amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
    async for message in queue.iterator():
        try:
            outcome = book(database, message.message_id, message.body)
            settled = message.ack()  # after the commit
        except (ValueError, OverflowError) as error:
            outcome = f"Set aside: {error!r}"
            settled = message.nack(requeue=False)
        # What is too late fails; how the channel ended tells why.
        await asyncio.gather(settled, return_exceptions=True)
        again = " (redelivered)" if message.redelivered else ""
        print(f" [x] {outcome}{again}")
    end = await asyncio.gather(amqp.closing, return_exceptions=True)
    raise ConnectionError(end[0].args or "the broker ended the consumer")


async def main(nodes: list[Any]) -> None:
    failures, known, lost = 0, False, False
    database = sqlite3.connect(DATABASE, timeout=60)  # others write, too
    database.executescript(TABLES)
    for node in itertools.cycle(random.sample(nodes, len(nodes))):
        begun = time.monotonic()
        try:
            async with await aio_pika.connect(node, timeout=15) as connection:
                channel: Any = await connection.channel()
                await channel.set_qos(prefetch_count=10)
                await channel.get_queue(QUEUE, ensure=True)
                print(" [*] Waiting for messages. To exit press CTRL+C")
                known, lost = True, False
                await work(connection, channel, database)
        except LOST as why:  # Cancelled, where the broker was silent too long
            if not known and re.search("REFUSED|OpenOk|NOT_F", repr(why)):
                sys.exit(f"Refused: {why!r}. Try declare.py, make doctor")
            if not lost:
                print(f" [!] Trying again: {why!r}", file=sys.stderr)
            lost = True
        failures = 0 if time.monotonic() - begun > LONGEST else failures + 1
        await asyncio.sleep(pause(failures))


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        found = [make_url(url, heartbeat=5) for url in AMQP_URLS.split(",")]
        asyncio.run(main([node for node in found if node.origin()]))
    except sqlite3.Error as error:
        sys.exit(f"Failed: {error!r}. DATABASE is {DATABASE!r}: is it right?")
    except ValueError:  # origin(), too. Its text may hold a password
        sys.exit("AMQP_URLS wants amqp://user:password@host:5672/vhost,…")
