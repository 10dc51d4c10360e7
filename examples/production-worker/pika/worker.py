"""A worker to copy, which gives messages to handler.py: python worker.py"""

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
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from http.server import ThreadingHTTPServer
from typing import Any

import pika
import prometheus_client as prometheus
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPConnectionError, AMQPError

try:
    from handler import TABLES, handle

    if inspect.iscoroutinefunction(handle):
        raise ImportError("handle is async, which is for aio-pika")
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
HOPELESS = "REFUSED|NOT_ALLOWED|NOT_FOUND|CERTIFICATE"
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


def on_signal(number: int, _: object) -> None:
    signals.append(number)
    if not in_hand or len(signals) > 2:
        os._exit(0)
    signal.alarm(STOP_WITHIN if len(signals) == 1 else 2)  # counts, too


def attempt(database: sqlite3.Connection, old: Any, body: bytes) -> str:
    """Do the work and note its key, both or neither, and once."""
    if not old.message_id:
        raise ValueError("no message_id")
    with database:  # a transaction, from the first write on
        known = "SELECT 1 FROM done WHERE key = ?"
        if database.execute(known, (old.message_id,)).fetchone():
            return "done before"
        if (old.headers or {}).get("x-delivery-count"):  # don't die of it, too
            raise RuntimeError("its worker died, or the time was up")
        handle(database, body)
        note = "INSERT INTO done VALUES (?, datetime())"
        database.execute(note, (old.message_id,))
    return "done"


def onward(old: Any, failure: str) -> tuple[str, Any]:
    """Where to, after the dead anew; and what may be kept in the copy."""
    headers = old.headers or {}
    own = {k: v for k, v in headers.items() if not re.match("x-|B?CC$", k)}
    own["failures"] = [*headers.get("failures", []), failure]
    names = "content_type", "correlation_id", "message_id", "priority", "type"
    kept = {name: getattr(old, name) for name in names}
    copy = pika.BasicProperties(delivery_mode=2, headers=own, **kept)
    return NEXT[(len(own["failures"]) - 1) % len(NEXT)], copy


def deal_with(channel: Any, tag: int, old: Any, body: Any, task: Any) -> None:
    """Wait for a task, and tell the broker how it went."""
    with SECONDS.time(), IN_HAND.track_inprogress():
        while not wait([task], 0.1).done and len(signals) < 2:
            channel.connection.process_data_events()  # heartbeats go on
            state["turned"] = time.monotonic()
            if signals and state["consuming"]:
                state["consuming"] = False
                log("stopping", within=STOP_WITHIN)
    if signals:
        channel.cancel()  # before the ack, which would bring another task
    if not task.done():
        channel.basic_nack(tag)
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
        channel.basic_publish("", target, body, copy, mandatory=True)
        dead = target == NEXT[-1]
        (FAILED if dead else RETRIED).inc()
        level = logging.ERROR if dead else logging.WARNING
        log("failed" if dead else "retried", level, **more, error=failure)
    else:
        log(task.result(), **more)
    channel.basic_ack(tag)


def work(channel: Any, pool: Any, database: sqlite3.Connection) -> None:
    for method, old, body in channel.consume(QUEUE, inactivity_timeout=1):
        state["turned"] = time.monotonic()
        if not state["consuming"]:
            state["consuming"] = True
            log("consuming", queue=QUEUE)
        if not method:
            continue
        in_hand.append(body)
        CONSUMED.inc()
        faulthandler.dump_traceback_later(TIME_LIMIT, exit=True)
        try:
            task = pool.submit(attempt, database, old, body)
            deal_with(channel, method.delivery_tag, old, body, task)
        finally:
            faulthandler.cancel_dump_traceback_later()
            in_hand.clear()
        if signals:
            return
    raise AMQPConnectionError("the broker ended the consumer")


def nodes() -> list[pika.URLParameters]:
    found = [pika.URLParameters(u or "no") for u in AMQP_URLS.split(",")]
    for node in found:
        node.heartbeat = 5  # who is silent for twice as long is lost
        if node.ssl_options:
            context = ssl.create_default_context(cafile=AMQP_CA)
            node.ssl_options = pika.SSLOptions(context, node.host)
    return random.sample(found, len(found))


def main(nodes: list[pika.URLParameters], database: Any) -> None:
    failures, known, told, pool = 0, False, set(), ThreadPoolExecutor(1)
    for node in itertools.cycle(nodes):
        begun = state["turned"] = time.monotonic()
        try:
            with pika.BlockingConnection(node) as connection:
                channel = connection.channel()
                channel.confirm_delivery()  # no ack before its copy is stored
                channel.basic_qos(prefetch_count=1)
                channel.queue_declare(QUEUE, passive=True)
                known, told = True, set()
                work(channel, pool, database)
        except (AMQPError, AMQPConnectorException, OSError) as why:
            if not known and re.search(HOPELESS, repr(why)):
                sys.exit(f"Refused: {why!r}. No queue? Run declare_queues.py")
            missing = "NOT_FOUND" in repr(why)  # it is back, without our queue
            if missing not in told and not signals:
                log("disconnected", logging.WARNING, reason=repr(why))
            told.add(missing)
        if signals:
            os._exit(0)  # the task that was given back would keep us
        state["consuming"], state["turned"] = False, time.monotonic()
        failures = 0 if time.monotonic() - begun > LONGEST else failures + 1
        bound = min(LONGEST, 0.5 * 2 ** min(failures, 10))
        time.sleep(random.uniform(0, bound))  # else all come back at once


if __name__ == "__main__":
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
        signal.signal(each, on_signal)
    logging.basicConfig(stream=sys.stdout, level=logging.INFO)
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # we say it
    logging.getLogger().handlers[0].setFormatter(OneLine())
    try:
        found = nodes()
    except OSError as why:
        sys.exit(f"AMQP_CA {AMQP_CA!r} cannot be used: {why}")
    except Exception:  # whose text may hold a password
        sys.exit("AMQP_URLS wants amqp://user:password@host:5672/vhost,…")
    try:
        server = ThreadingHTTPServer(("", HTTP_PORT), Answers)
    except OSError as why:
        sys.exit(f"HTTP_PORT '{HTTP_PORT}' cannot be used: {why}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        database = sqlite3.connect(
            DATABASE, timeout=30, check_same_thread=False
        )
        # It writes at each start: a full disk shows before a task is taken.
        database.executescript("PRAGMA user_version = 1;" + DONE + TABLES)
        main(found, database)
    except sqlite3.Error as error:
        sys.exit(f"Failed: {error!r}. DATABASE is {DATABASE!r}: is it right?")
