"""Ask without a queue for replies: python rpc_client_direct.py 30"""

import os
import signal
import sys
import uuid
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
TIMEOUT = 15  # seconds
DIRECT = "amq.rabbitmq.reply-to"  # not a queue: there is nothing to declare


def main(n: str) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.queue_declare(
        "rpc_queue", durable=True, arguments={"x-queue-type": "quorum"}
    )
    wanted = str(uuid.uuid4())

    def on_reply(_: Any, __: Any, properties: Any, body: bytes) -> None:
        if properties.correlation_id != wanted:
            return  # the answer to something else
        if properties.type == "error":
            sys.exit(f" [!] Error: {body.decode()}")
        print(f" [.] Got {body.decode()}")
        sys.exit()

    channel.basic_consume(DIRECT, on_reply, auto_ack=True)
    request = pika.BasicProperties(reply_to=DIRECT, correlation_id=wanted)
    request.expiration = str(TIMEOUT * 1000)  # later it is of no use
    print(f" [x] Requesting fib({n})")
    channel.basic_publish("", "rpc_queue", os.fsencode(n), request)
    late = f" [!] No reply in {TIMEOUT} s: start rpc_server.py"
    connection.call_later(TIMEOUT, lambda: sys.exit(late))
    channel.start_consuming()
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main(" ".join(sys.argv[1:]) or "30")
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
