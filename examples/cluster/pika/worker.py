"""Book each line once, whatever becomes of the nodes: python worker.py

QUEUE names the queue, if it isn't bookings; DATABASE is a file of SQLite.
"""

import itertools
import os
import random
import re
import signal
import sqlite3
import sys
import time
from typing import Any

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPConnectionError, AMQPError

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


def connect(node: pika.URLParameters) -> pika.BlockingConnection:
    node.heartbeat = 5  # who is silent for twice as long is lost
    try:
        return pika.BlockingConnection(node)
    except (AMQPConnectorException, OSError) as why:  # which are no AMQPError
        raise AMQPConnectionError(why) from None


def work(channel: Any, database: sqlite3.Connection) -> None:
    for method, properties, body in channel.consume(QUEUE):
        try:
            outcome = book(database, properties.message_id, body)
            channel.basic_ack(method.delivery_tag)  # after the commit
        except (ValueError, OverflowError) as error:
            outcome = f"Set aside: {error!r}"
            channel.basic_nack(method.delivery_tag, requeue=False)
        again = " (redelivered)" if method.redelivered else ""
        print(f" [x] {outcome}{again}")
    raise AMQPConnectionError("the broker ended the consumer")


def main(nodes: list[pika.URLParameters]) -> None:
    failures, known, lost = 0, False, False
    database = sqlite3.connect(DATABASE, timeout=60)  # others write, too
    database.executescript(TABLES)
    for node in itertools.cycle(random.sample(nodes, len(nodes))):
        begun = time.monotonic()
        try:
            with connect(node) as connection:
                channel = connection.channel()
                channel.basic_qos(prefetch_count=10)
                channel.queue_declare(QUEUE, passive=True)
                print(" [*] Waiting for messages. To exit press CTRL+C")
                known, lost = True, False
                work(channel, database)
        except AMQPError as why:
            if not known and re.search("REFUSED|NOT_[AF]", repr(why)):
                sys.exit(f"Refused: {why!r}. Try declare.py, make doctor")
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
    try:
        main(found)
    except sqlite3.Error as error:
        sys.exit(f"Failed: {error!r}. DATABASE is {DATABASE!r}: is it right?")
