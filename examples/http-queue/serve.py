#!/usr/bin/env python3
"""serve.py: the queue's API and its page, on http://127.0.0.1:8000/

    python serve.py

Without more it keeps the messages in SQLite, in ./queue.sqlite3. See --help.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from api import create_app
from broker_queue import BrokerQueue
from desk import LOOPBACK, Settings
from fastapi import FastAPI
from intake import Readers
from models import DATABASE
from queues import Policy, QueueDown
from table_queue import TableQueue

# uvloop, where there is one.
LOOP = uvicorn.Config("", log_config=None).get_loop_factory()
PORT = os.environ.get("HTTP_QUEUE_PORT", "8000")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A queue behind HTTP.")
    add = parser.add_argument
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on; one that others reach needs --token "
        "(default: %(default)s)",
    )
    add(
        "--port",
        type=int,
        default=PORT,
        help="port to listen on, 0 for any that is free; "
        "$HTTP_QUEUE_PORT (default: %(default)s)",
    )
    add(
        "--name",
        action="append",
        default=[],
        help="a host name by which clients may call the server, or * for any; "
        "can be given several times",
    )
    add(
        "--database",
        default=DATABASE,
        help="where to keep the messages: sqlite://FILE, sqlite://:memory: "
        "or postgres://user:password@host/name; $HTTP_QUEUE_DATABASE "
        "(default: %(default)s)",
    )
    add(
        "--queue",
        help="keep the messages in RabbitMQ instead of a database: "
        "amqp://user:password@host/",
    )
    add(
        "--token",
        default="",
        help="the secret that every client must send; without one, clients "
        "need none; $HTTP_QUEUE_TOKEN",
    )
    add(
        "--processes",
        type=int,
        default=1,
        help="how many processes answer requests, 1 to 64; more than 1 "
        "needs PostgreSQL or RabbitMQ (default: %(default)s)",
    )
    add(
        "--keep",
        type=float,
        metavar="SECONDS",
        help="how long a completed message stays in the table; without this "
        "option, for ever",
    )
    add(
        "--max-attempts",
        type=int,
        default=5,
        help="how many times a message may fail before it is dead, 1 to 20 "
        "(default: %(default)s)",
    )
    add(
        "--backoff",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="how long a message waits after its first failure; each "
        "further failure doubles the time (default: %(default)s)",
    )
    add(
        "--intake-size",
        type=int,
        default=400,
        help="how many rows of an upload are in work at the same time "
        "(default: %(default)s)",
    )
    add(
        "--max-wait",
        type=float,
        default=60,
        metavar="SECONDS",
        help="how long a claim may wait for a message at most "
        "(default: %(default)s)",
    )
    add(
        "--simulate-create",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="for measurements: pretend that creating a message takes so long "
        "(default: %(default)s)",
    )
    given = parser.parse_args()
    given.token = given.token or os.environ.get("HTTP_QUEUE_TOKEN", "")
    if not 0 <= given.port <= 65535:
        parser.error("--port is from 0 to 65535")
    if not 1 <= given.max_attempts <= 20:
        parser.error("--max-attempts is from 1 to 20")
    if not 1 <= given.processes <= 64:
        parser.error("--processes is from 1 to 64")
    sqlite = not given.queue and given.database.startswith("sqlite:")
    if given.processes > 1 and sqlite:
        parser.error(
            "--processes is for PostgreSQL and RabbitMQ; "
            "SQLite has one writer at a time, and so gets one process"
        )
    if given.intake_size < 1:
        parser.error("--intake-size is 1 or more")
    if given.queue is not None and "://" not in given.queue:
        parser.error("--queue is a URL: amqp://user:password@host/")
    if not 0 <= given.backoff <= 3600:
        parser.error("--backoff is from 0 to 3600")
    if given.host not in LOOPBACK and not given.token:
        parser.error(f"--host {given.host} is open to others; add --token")
    return given


class Server(uvicorn.Server):
    """Says so when it is ready."""

    kind = ""
    desk: Any = None

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        self.desk.end()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn would raise them again, amid the closing of the queue."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started and self.servers:
            say_ready(self.kind, self.servers[0].sockets[0])


def say_ready(kind: str, listening: Any) -> None:
    host, port, *_ = listening.getsockname()
    where = f"http://{host}:{port}/"
    print(
        f" [*] A queue in {kind} on {where} To exit press CTRL+C", flush=True
    )


@contextmanager
def careful(given: argparse.Namespace) -> Iterator[None]:
    """Say what is wrong with a URL, and not its password."""
    try:
        yield
    except QueueDown:
        raise
    except Exception as error:  # only its kind
        option = "--database" if given.queue is None else "--queue"
        kind = type(error).__name__
        raise QueueDown(f"Cannot use the URL of {option}: {kind}") from None


def queue_of(given: argparse.Namespace) -> TableQueue | BrokerQueue:
    policy = Policy(given.max_attempts, given.backoff)
    with careful(given):
        if given.queue is not None:
            return BrokerQueue(given.queue, policy)
        return TableQueue(given.database, policy, given.keep)


def app_of(
    queue: TableQueue | BrokerQueue, given: argparse.Namespace
) -> tuple[FastAPI, Readers]:
    settings = Settings(
        token=given.token,
        hosts=(*LOOPBACK, given.host, *given.name),
        intake_size=given.intake_size,
        simulate_create=given.simulate_create,
        max_wait=given.max_wait,
    )
    readers = Readers(spare=True)
    return create_app(queue, settings, readers), readers


async def serve(given: argparse.Namespace) -> None:
    queue = queue_of(given)
    with careful(given):
        await queue.start()
    app, readers = app_of(queue, given)
    config = uvicorn.Config(
        app,
        given.host,
        given.port,
        log_level="warning",
        access_log=False,
        # An upload, say, doesn't keep us from ending.
        timeout_graceful_shutdown=3,
    )
    server = Server(config)
    server.kind, server.desk = queue.kind, app.state.desk
    try:
        await readers.prepare()
        await server.serve()
    finally:
        await readers.close()
        await queue.close()


def main() -> None:
    given = arguments()
    try:
        if given.processes > 1:
            from processes import run

            run(given)
            return
        with asyncio.Runner(loop_factory=LOOP) as runner:
            runner.run(serve(given))
    except QueueDown as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
