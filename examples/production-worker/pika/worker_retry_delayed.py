"""Let RabbitMQ 4.3 try again what fails: python worker_retry_delayed.py"""

import faulthandler
import os
import signal
import sys
import time
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
TIME_LIMIT = 30  # seconds
ACCOUNTS = {"alice": 0, "sleeper": 3600}  # seconds that a payment takes


def handle(body: bytes) -> None:
    """The work, faked. Some payments fail, and some are worse."""
    account, _ = body.decode().split()
    if account == "killer":
        os._exit(1)
    time.sleep(ACCOUNTS[account])


def main() -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    version = connection._impl.server_properties["version"]  # type: ignore
    if [int(number) for number in version.split(".")[:2]] < [4, 3]:
        sys.exit(f"RabbitMQ {version} can't: worker_retry_ttl.py")
    channel: Any = connection.channel()
    channel.basic_qos(prefetch_count=1)
    print(" [*] Waiting for messages. To exit press CTRL+C")
    for method, _, body in channel.consume("payments.delayed"):
        print(f" [x] Received {body.decode(errors='backslashreplace')!r}")
        faulthandler.dump_traceback_later(TIME_LIMIT, exit=True)
        try:
            handle(body)
        except Exception as error:
            channel.basic_reject(method.delivery_tag)  # a nack doesn't count
            print(f" [x] Failed: {error!r}")
        else:
            channel.basic_ack(method.delivery_tag)
            print(" [x] Done")
        faulthandler.cancel_dump_traceback_later()
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main()
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor, declare_queues.py")
