"""Do tasks over TLS, with few rights: python worker_secure.py

CA_FILE names the certificate of the authority to trust, else the system's are.
"""

import os
import signal
import ssl
import sys
import time
from typing import Any

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqps://guest:guest@localhost/") or "no"
CA_FILE = os.environ.get("CA_FILE") or None
WANTED = "AMQP_URL wants amqps://user:password@host:5671/vhost"


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
    channel = connect().channel()
    channel.basic_qos(prefetch_count=1)
    # It may not make the queue, just ask whether it is there.
    channel.queue_declare("orders", passive=True)
    print(" [*] Waiting for messages. To exit press CTRL+C")
    for method, _, body in channel.consume("orders"):
        print(f" [x] Received {os.fsdecode(body)!r}")
        time.sleep(body.count(b"."))
        print(" [x] Done")
        channel.basic_ack(method.delivery_tag)
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main()
    except (AMQPError, AMQPConnectorException, OSError) as why:
        sys.exit(f"Failed: {why!r}")
