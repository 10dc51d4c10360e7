"""Book each payment once, however often it comes: python worker_once.py"""

import os
import signal
import sqlite3
import sys
from typing import Any

import pika
from pika.exceptions import AMQPError

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


def main() -> None:
    database = sqlite3.connect(DATABASE, timeout=30)  # others write, too
    database.executescript(TABLES)
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1)
    messages: Any = channel.consume("payments")
    print(" [*] Waiting for messages. To exit press CTRL+C")
    for method, properties, body in messages:
        try:
            outcome = book(database, properties.message_id, body)
            channel.basic_ack(method.delivery_tag)  # after the commit
        except (ValueError, OverflowError) as error:
            outcome = f"Set aside: {error!r}"
            channel.basic_nack(method.delivery_tag, requeue=False)
        print(f" [x] {outcome}")
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main()
    except sqlite3.Error as error:
        sys.exit(f"Failed: {error!r}. DATABASE is {DATABASE!r}: is it right?")
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor, declare_queues.py")
