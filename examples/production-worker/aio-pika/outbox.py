"""Store an order with its payment, both or neither; then send the payment.

python outbox.py alice 5    store them, and send all that is not sent yet
python outbox.py            only send
"""

import asyncio
import logging
import os
import signal
import sqlite3
import sys
import uuid

import aio_pika

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
DATABASE = os.environ.get("DATABASE") or "orders.sqlite3"
TABLES = """
    CREATE TABLE IF NOT EXISTS orders (account TEXT, amount INT);
    CREATE TABLE IF NOT EXISTS outbox (key TEXT PRIMARY KEY, body TEXT);
"""


def store(database: sqlite3.Connection, account: str, amount: int) -> None:
    """The order, and the message that it needs, in one transaction."""
    message = (str(uuid.uuid4()), f"{account} {amount}")
    with database:
        database.execute("INSERT INTO orders VALUES (?, ?)", (account, amount))
        database.execute("INSERT INTO outbox VALUES (?, ?)", message)
    print(f" [x] Stored '{account} {amount}'")


async def relay(database: sqlite3.Connection) -> None:
    """Send what is in the outbox; each leaves it when the broker has it."""
    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:
        channel = await connection.channel(on_return_raises=True)
        rows = "SELECT key, body FROM outbox ORDER BY rowid"
        for key, body in database.execute(rows).fetchall():
            message = aio_pika.Message(
                body.encode(), message_id=key, delivery_mode=2, priority=4
            )
            await channel.default_exchange.publish(message, "payments")
            with database:  # killed before this, it is sent again: same key
                database.execute("DELETE FROM outbox WHERE key = ?", (key,))
            print(f" [x] Sent {body!r}")


async def main(order: list[str]) -> None:
    database = sqlite3.connect(DATABASE, timeout=30)
    database.executescript(TABLES)
    if order:
        store(database, order[0], int(order[1]))
    await relay(database)


if __name__ == "__main__":
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    words = sys.argv[1:]
    if words and not (len(words) == 2 and words[1].isdecimal()):
        sys.exit("Usage: python outbox.py [ACCOUNT AMOUNT]")
    try:
        asyncio.run(main(words))
    except sqlite3.Error as error:
        sys.exit(f"Failed: {error!r}. DATABASE is {DATABASE!r}: is it right?")
    except (aio_pika.AMQPException, KeyError, TimeoutError, ValueError) as why:
        sys.exit(f"Failed: {why!r}. Try make doctor, declare_queues.py")
