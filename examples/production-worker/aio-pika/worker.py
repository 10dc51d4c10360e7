"""A worker to copy, which gives messages to handler.py: python worker.py"""

import asyncio
import faulthandler
import inspect
import itertools
import json
import logging
import os
import random
import re
import signal
import sqlite3
import ssl
import sys
import threading
import time
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from typing import Any

import aio_pika
import prometheus_client as prometheus
from aio_pika.connection import make_url
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError

try:
    from handler import TABLES, handle

    if not inspect.iscoroutinefunction(handle):
        raise ImportError("handle is not async, which is for pika")
except Exception as why:  # it may do anything at its import
    print(f"handler.py cannot be used: {why!r}", file=sys.stderr)
    sys.exit(2)


def number(name: str, default: int) -> int:
    text = os.environ.get(name) or f"{default}"
    if not text.isdecimal() or not 0 < int(text) < 65536:
        sys.exit(f"{name} wants a number from 1 to 65535, and is {text!r}")
    return int(text)


AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
AMQP_URLS = os.environ.get("AMQP_URLS") or AMQP_URL  # url,url,…: the nodes
AMQP_CA = os.environ.get("AMQP_CA")  # for amqps: a file, or the system's own
DATABASE = os.environ.get("DATABASE") or "worker.sqlite3"
HTTP_PORT = number("HTTP_PORT", 8000)
QUEUE = os.environ.get("QUEUE") or "payments"
STOP_WITHIN = number("STOP_WITHIN", 20)  # seconds for what is in hand
TIME_LIMIT = number("TIME_LIMIT", 30)  # seconds for a task
NEXT = [*(f"{QUEUE}.retry.{delay}" for delay in (1, 2, 4)), f"{QUEUE}.dead"]
HOPELESS = "REFUSED|OpenOk|NOT_FOUND|CERTIFICATE"
LOST = (AMQPError, OSError, RuntimeError, asyncio.CancelledError)
LONGEST = 10.0  # seconds from one attempt to connect to the next
DONE = "CREATE TABLE IF NOT EXISTS done (key TEXT PRIMARY KEY, at TEXT);"
state = {"turned": time.monotonic(), "consuming": False}
in_hand: list[bytes] = []
signals: list[int] = []


def measure(kind: Any, name: str, what: str) -> Any:
    return kind(f"worker_{name}", what, ["queue"]).labels(QUEUE)


CONSUMED = measure(prometheus.Counter, "consumed", "Messages taken")
RETRIED = measure(prometheus.Counter, "retried", "Failed, to be tried again")
FAILED = measure(prometheus.Counter, "failed", "Failed, and set aside")
IN_HAND = measure(prometheus.Gauge, "in_hand", "Messages in hand")
SECONDS = measure(prometheus.Histogram, "duration_seconds", "Time of a task")
READY = measure(prometheus.Gauge, "ready", "1 if connected, and consuming")
READY.set_function(lambda: state["consuming"])


class OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        now = datetime.fromtimestamp(record.created, UTC)
        fields = {"time": now.isoformat(timespec="milliseconds")}
        fields |= {"level": record.levelname, "message": record.getMessage()}
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields | getattr(record, "fields", {}), default=repr)


def log(message: str, level: int = logging.INFO, **fields: Any) -> None:
    logging.getLogger("worker").log(level, message, extra={"fields": fields})


class Answers(prometheus.MetricsHandler):
    def do_GET(self) -> None:
        if self.path == "/metrics":
            return super().do_GET()
        live = time.monotonic() - state["turned"] < 60  # seconds for a turn
        yes = {"/live": live, "/ready": state["consuming"]}.get(self.path)
        self.send_response(404 if yes is None else 200 if yes else 503)
        self.end_headers()
        self.wfile.write(b"yes\n" if yes else b"no\n")


def on_signal() -> None:
    signals.append(1)
    if not in_hand or len(signals) > 2:
        os._exit(0)
    patience = STOP_WITHIN if len(signals) == 1 else 2
    asyncio.get_running_loop().call_later(patience, on_signal)  # counts, too


async def attempt(database: sqlite3.Connection, old: Any) -> str:
    """Do the work and note its key, both or neither, and once."""
    if not old.message_id:
        raise ValueError("no message_id")
    with database:  # a transaction, from the first write on
        known = "SELECT 1 FROM done WHERE key = ?"
        if database.execute(known, (old.message_id,)).fetchone():
            return "done before"
        if old.headers.get("x-delivery-count"):  # don't die of it, too
            raise RuntimeError("its worker died, or the time was up")
        await handle(database, old.body)
        note = "INSERT INTO done VALUES (?, datetime())"
        database.execute(note, (old.message_id,))
    return "done"


def onward(old: Any, failure: str) -> tuple[str, Any]:
    """Where to, after the dead anew; and what may be kept in the copy."""
    own = {k: v for k, v in old.headers.items() if not re.match("x-|B?CC$", k)}
    own["failures"] = [*own.get("failures", []), failure]
    names = "body", "content_type", "correlation_id", "message_id", "type"
    kept = {name: getattr(old, name) for name in names}
    kept["priority"] = old.priority or 4  # as without one
    copy = aio_pika.Message(delivery_mode=2, headers=own, **kept)
    return NEXT[(len(own["failures"]) - 1) % len(NEXT)], copy


async def deal_with(channel: Any, messages: Any, old: Any, task: Any) -> None:
    """Wait for a task, and tell the broker how it went."""
    with SECONDS.time(), IN_HAND.track_inprogress():
        while not task.done() and len(signals) < 2:
            await asyncio.wait([task], timeout=0.1)
            if signals and state["consuming"]:
                state["consuming"] = False
                log("stopping", within=STOP_WITHIN)
    if signals:
        await messages.close()  # before an ack that brings another task
    if not task.done():
        task.cancel()
        await asyncio.gather(old.nack(), return_exceptions=True)
        return log("given back", logging.WARNING, key=old.message_id)
    faulthandler.cancel_dump_traceback_later()  # the rest may take longer
    error, more = task.exception(), {"key": old.message_id}
    code = getattr(error, "sqlite_errorcode", 1)  # 1: what it asks is wrong
    if isinstance(error, sqlite3.OperationalError) and code != 1:
        raise error  # a full disk, say: the task is not to blame
    if error:  # a copy goes on, and only when it is stored the task is acked
        at = inspect.getinnerframes(error.__traceback__)[-1]  # type: ignore
        failure = f"{error!r:.200} in {at.function}, line {at.lineno}"
        target, copy = onward(old, failure)
        await channel.default_exchange.publish(copy, target)
        dead = target == NEXT[-1]
        (FAILED if dead else RETRIED).inc()
        level = logging.ERROR if dead else logging.WARNING
        log("failed" if dead else "retried", level, **more, error=failure)
    else:
        log(task.result(), **more)
    await asyncio.gather(old.ack(), return_exceptions=True)  # or too late


async def work(connection: Any, channel: Any, queue: Any, db: Any) -> None:
    amqp = await channel.get_underlay_channel()  # knows how it ends
    amqp.on_consumer_cancel_callbacks.add(lambda _: connection.close())
    await (messages := queue.iterator()).consume()
    state["consuming"] = True
    log("consuming", queue=QUEUE)
    async for message in messages:
        in_hand.append(message.body)
        CONSUMED.inc()
        faulthandler.dump_traceback_later(TIME_LIMIT, exit=True)
        try:
            task = asyncio.create_task(attempt(db, message))
            await deal_with(channel, messages, message, task)
        except ChannelInvalidStateError:
            pass  # an ack too late: how the channel ended tells why
        finally:
            faulthandler.cancel_dump_traceback_later()
            in_hand.clear()
        if signals:
            return
    end = await asyncio.gather(amqp.closing, return_exceptions=True)
    raise ConnectionError(end[0].args or "the broker ended the consumer")


def turn() -> None:
    state["turned"] = time.monotonic()  # as long as nothing holds the loop up
    asyncio.get_running_loop().call_later(1, turn)


async def main(nodes: list[Any], database: Any, context: Any) -> None:
    failures, known, told = 0, False, set()
    turn()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    for node in itertools.cycle(random.sample(nodes, len(nodes))):
        begun = time.monotonic()
        try:
            async with aio_pika.Connection(node, None, context) as connection:
                await connection.connect(timeout=15)
                channel: Any = await connection.channel(on_return_raises=True)
                await channel.set_qos(prefetch_count=1)
                queue = await channel.get_queue(QUEUE)
                known, told = True, set()
                await work(connection, channel, queue, database)
        except LOST as why:  # Cancelled, where the broker was silent too long
            if not known and re.search(HOPELESS, repr(why)):
                sys.exit(f"Refused: {why!r}. No queue? Run declare_queues.py")
            missing = "NOT_FOUND" in repr(why)  # it is back, without our queue
            if missing not in told and not signals:
                log("disconnected", logging.WARNING, reason=repr(why))
            told.add(missing)
        if signals:
            os._exit(0)
        state["consuming"] = False
        failures = 0 if time.monotonic() - begun > LONGEST else failures + 1
        bound = min(LONGEST, 0.5 * 2 ** min(failures, 10))
        await asyncio.sleep(random.uniform(0, bound))  # else all come at once


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stdout, level=logging.INFO)
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # we say it
    logging.getLogger().handlers[0].setFormatter(OneLine())
    try:
        urls = [make_url(url, heartbeat=5) for url in AMQP_URLS.split(",")]
        found = [url for url in urls if url.origin()]
        tls = ssl.create_default_context(cafile=AMQP_CA)
    except OSError as why:
        sys.exit(f"AMQP_CA {AMQP_CA!r} cannot be used: {why}")
    except ValueError:  # whose text may hold a password
        sys.exit("AMQP_URLS wants amqp://user:password@host:5672/vhost,…")
    try:
        server = ThreadingHTTPServer(("", HTTP_PORT), Answers)
    except OSError as why:
        sys.exit(f"HTTP_PORT '{HTTP_PORT}' cannot be used: {why}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        database = sqlite3.connect(DATABASE, timeout=30)
        # It writes at each start: a full disk shows before a task is taken.
        database.executescript("PRAGMA user_version = 1;" + DONE + TABLES)
        asyncio.run(main(found, database, tls))
    except sqlite3.Error as error:
        sys.exit(f"Failed: {error!r}. DATABASE is {DATABASE!r}: is it right?")
