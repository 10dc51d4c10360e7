"""What worker.py does with a payment. Here begins your own code: handler.py"""

import sqlite3

TABLES = """
    CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, balance INT);
"""
BOOK = """
    INSERT INTO account VALUES (?, ?)
    ON CONFLICT DO UPDATE SET balance = balance + excluded.balance
"""


def handle(database: sqlite3.Connection, body: bytes) -> None:
    """Do it. If this raises, nothing of it stays in the database.

    Do slow work before the first write: after it, other workers wait.
    """
    name, amount = body.decode().split()
    database.execute(BOOK, (name, int(amount)))
