#!/usr/bin/env python3
"""Ask for a Fibonacci number: python rpc_client.py 30

Run rpc_server.py in another shell; it has fifteen seconds to answer.
"""

import os
import sys
import time
import uuid

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
TIMEOUT = 15  # seconds


def main(n: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    channel = connection.channel()
    channel.queue_declare(
        "rpc_queue", durable=True, arguments={"x-queue-type": "quorum"}
    )
    reply_queue = channel.queue_declare("", exclusive=True).method.queue
    request = pika.BasicProperties(
        reply_to=reply_queue,
        correlation_id=str(uuid.uuid4()),
        expiration=str(TIMEOUT * 1000),  # of no use to anybody after that
    )
    replies: list[tuple[pika.BasicProperties, bytes]] = []
    channel.basic_consume(
        reply_queue, lambda *got: replies.append(got[2:]), auto_ack=True
    )
    print(f" [x] Requesting fib({n})")
    channel.basic_publish("", "rpc_queue", os.fsencode(n), request)
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        connection.process_data_events(time_limit=1)  # or until it gets some
        for reply, body in replies:
            if reply.correlation_id != request.correlation_id:
                continue  # the answer to something else
            if reply.type == "error":
                sys.exit(f" [!] Error: {body.decode()}")
            print(f" [.] Got {body.decode()}")
            return
    sys.exit(f" [!] No reply in {TIMEOUT} s: start python rpc_server.py")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print("Usage: python rpc_client.py N", file=sys.stderr)
        sys.exit(2)
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        sys.exit(130)
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
