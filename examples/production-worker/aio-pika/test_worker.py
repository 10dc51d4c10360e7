"""How to test a handler, and a worker with it: pytest test_worker.py

With a broker of its own in Docker (testcontainers), or the one of AMQP_URL.
"""

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from handler import TABLES, handle
from testcontainers.community.rabbitmq import RabbitMqContainer

HERE = Path(__file__).parent
IMAGE = os.environ.get("RABBITMQ_IMAGE", "rabbitmq:4.3-management")
BALANCE = "SELECT balance FROM account WHERE name = 'alice'"


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as opened:
        opened.executescript(TABLES)
        yield opened


def test_payments_add_up(database: sqlite3.Connection) -> None:
    asyncio.run(handle(database, b"alice 5"))
    asyncio.run(handle(database, b"alice 7"))
    assert database.execute(BALANCE).fetchone() == (12,)


@pytest.mark.parametrize("body", [b"", b"alice", b"alice five", b"caf\xe9 5"])
def test_what_is_no_payment_raises(
    database: sqlite3.Connection, body: bytes
) -> None:
    with pytest.raises(ValueError, match=r"unpack|invalid|decode"):
        asyncio.run(handle(database, body))


@pytest.fixture(scope="module")
def amqp_url() -> Iterator[str]:
    if url := os.environ.get("AMQP_URL"):
        yield url
        return
    with RabbitMqContainer(IMAGE) as broker:
        host = broker.get_container_host_ip()
        yield f"amqp://guest:guest@{host}:{broker.get_exposed_port(5672)}/"


def until(measure: Callable[[], object], wanted: object) -> None:
    """Wait for what comes in its own time; never sleep and hope."""
    deadline = time.monotonic() + 60
    while (found := measure()) != wanted:
        assert time.monotonic() < deadline, f"{found}, not {wanted}"
        time.sleep(0.1)


def test_the_worker_books_each_payment_once(
    amqp_url: str, tmp_path: Path
) -> None:
    """As it will run: a process, with a broker, stopped by SIGTERM."""
    with socket.create_server(("localhost", 0)) as free:
        port = str(free.getsockname()[1])
    file = tmp_path / "worker.sqlite3"
    settings = {"AMQP_URL": amqp_url, "DATABASE": str(file), "HTTP_PORT": port}
    environment = {**os.environ, **settings}

    def run(*command: str) -> subprocess.Popen[str]:
        words = [sys.executable, *command]
        return subprocess.Popen(words, cwd=HERE, env=environment, text=True)

    def balance() -> int:
        with closing(sqlite3.connect(file)) as opened:
            opened.executescript(TABLES)  # where the worker hasn't yet
            return (opened.execute(BALANCE).fetchone() or [0])[0]

    assert run("declare_queues.py").wait() == 0
    worker = run("worker.py")
    try:
        for key, amount in ("17", "5"), ("17", "5"), ("18", "7"):
            assert run("new_payment.py", key, "alice", amount).wait() == 0
        until(balance, 12)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    finally:
        worker.kill()
    assert balance() == 12
