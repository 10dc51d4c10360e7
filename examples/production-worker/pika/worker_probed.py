"""Do payments, and say if all is well at HTTP_PORT: python worker_probed.py"""

import os
import random
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPConnectionError, AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
HTTP_PORT = os.environ.get("HTTP_PORT") or "8000"
TURNS_WITHIN = 60.0  # seconds, more than an attempt to connect may take
state: dict[str, Any] = {"turned": time.monotonic(), "consuming": None}


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        live = time.monotonic() - state["turned"] < TURNS_WITHIN
        ready = bool(state["consuming"])
        yes = {"/live": live, "/ready": ready}.get(self.path)
        self.send_response_only(404 if yes is None else 200 if yes else 503)
        self.end_headers()
        self.wfile.write(b"yes\n" if yes else b"no\n")


def handle(body: bytes) -> None:
    """The work, faked: the payments of sleeper take an hour."""
    time.sleep(3600 if body.startswith(b"sleeper") else 0)


def work(channel: Any) -> None:
    for method, _, body in channel.consume("payments", inactivity_timeout=1):
        state["turned"] = time.monotonic()
        if not state["consuming"]:
            state["consuming"] = True
            print(" [*] Waiting for messages. To exit press CTRL+C")
        if method:
            handle(body)
            channel.basic_ack(method.delivery_tag)
    raise AMQPConnectionError("the broker ended the consumer")


def main(node: pika.URLParameters) -> None:
    while True:
        state["turned"] = time.monotonic()
        try:
            with pika.BlockingConnection(node) as connection:
                channel = connection.channel()
                channel.basic_qos(prefetch_count=1)
                work(channel)
        except (AMQPError, AMQPConnectorException, OSError) as why:
            if state["consuming"] is not False:  # not a line for each attempt
                print(f" [!] Trying again: {why!r}", file=sys.stderr)
            state["consuming"] = False
        time.sleep(random.uniform(0, 5))  # else all come at once


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        found = pika.URLParameters(AMQP_URL)
    except Exception:  # whose text may hold a password
        sys.exit("AMQP_URL wants amqp://user:password@host:5672/vhost")
    try:
        server = ThreadingHTTPServer(("", int(HTTP_PORT)), Answers)
    except (OSError, ValueError, OverflowError) as why:
        sys.exit(f"HTTP_PORT {HTTP_PORT!r} cannot be used: {why}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    main(found)
