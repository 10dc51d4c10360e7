"""Make the queue and exchange of the orders, once: python declare_orders.py"""

import os
import signal
import ssl
import sys
from typing import Any

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqps://guest:guest@localhost/") or "no"
CA_FILE = os.environ.get("CA_FILE") or None
WANTED = "AMQP_URL wants amqps://user:password@host:5671/vhost"
QUORUM = {"x-queue-type": "quorum"}


def trusted() -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=CA_FILE)
    except OSError as why:  # an SSLError is one, too
        sys.exit(f"CA_FILE={CA_FILE}: {why.strerror}")


def connect() -> Any:
    try:
        node = pika.URLParameters(AMQP_URL)
    except Exception:  # whose text may hold a password
        sys.exit(WANTED)
    if not node.ssl_options:  # never a password in plain text
        sys.exit(WANTED)
    node.ssl_options = pika.SSLOptions(trusted(), node.host)
    try:
        return pika.BlockingConnection(node)
    except ssl.SSLCertVerificationError as why:
        sys.exit(f"Not our broker: {why.verify_message}")
    except ssl.SSLError as why:
        sys.exit(f"No TLS there: {why.reason}")


def main() -> None:
    connection = connect()
    channel = connection.channel()
    channel.exchange_declare("orders", "direct", durable=True)
    channel.queue_declare("orders", durable=True, arguments=QUORUM)
    channel.queue_bind("orders", "orders", "task")
    print(" [x] Declared orders")
    connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main()
    except (AMQPError, AMQPConnectorException, OSError) as why:
        sys.exit(f"Failed: {why!r}")
