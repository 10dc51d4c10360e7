"""Store an order with its payment, both or neither; then send the payment.

python outbox.py alice 5    store them, and send all that is not sent yet
python outbox.py            only send
"""

import os
import signal
import sqlite3
import sys
import uuid

import pika
from pika.exceptions import AMQPError

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


def relay(database: sqlite3.Connection) -> None:
    """Send what is in the outbox; each leaves it when the broker has it."""
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.confirm_delivery()
    rows = "SELECT key, body FROM outbox ORDER BY rowid"
    for key, body in database.execute(rows).fetchall():
        keyed = pika.BasicProperties(delivery_mode=2, message_id=key)
        channel.basic_publish("", "payments", body, keyed, mandatory=True)
        with database:  # killed before this, it is sent again: same key
            database.execute("DELETE FROM outbox WHERE key = ?", (key,))
        print(f" [x] Sent {body!r}")
    connection.close()


def main(order: list[str]) -> None:
    database = sqlite3.connect(DATABASE, timeout=30)
    database.executescript(TABLES)
    if order:
        store(database, order[0], int(order[1]))
    relay(database)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    words = sys.argv[1:]
    if words and not (len(words) == 2 and words[1].isdecimal()):
        sys.exit("Usage: python outbox.py [ACCOUNT AMOUNT]")
    try:
        main(words)
    except sqlite3.Error as error:
        sys.exit(f"Failed: {error!r}. DATABASE is {DATABASE!r}: is it right?")
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor, declare_queues.py")
