"""Make the queues of the payments, once for all: python declare_queues.py

Afterwards neither workers nor senders have to be allowed to make any.
"""

import os
import signal
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
# All of this, or a dead letter is forgotten before it has arrived.
SAFE = {
    "x-queue-type": "quorum",
    "x-overflow": "reject-publish",
    "x-dead-letter-strategy": "at-least-once",
    "x-dead-letter-exchange": "",
}
TO_DEAD = {**SAFE, "x-dead-letter-routing-key": "payments.dead"}
TO_WORK = {**SAFE, "x-dead-letter-routing-key": "payments"}
QUEUES = {
    "payments": {**TO_DEAD, "x-delivery-limit": 5},
    "payments.retry.1": {**TO_WORK, "x-message-ttl": 1_000},  # milliseconds
    "payments.retry.2": {**TO_WORK, "x-message-ttl": 2_000},
    "payments.retry.4": {**TO_WORK, "x-message-ttl": 4_000},
    # To look at a message counts as a delivery: no limit, or it is gone.
    "payments.dead": {**TO_WORK, "x-delivery-limit": 1_000_000_000},
    "payments.delayed": {  # RabbitMQ 4.3 waits by itself; others, not at all
        **SAFE,
        "x-dead-letter-routing-key": "payments.delayed.dead",
        "x-delivery-limit": 3,
        "x-delayed-retry-type": "failed",  # rejected, or with a dead worker
        "x-delayed-retry-min": 1_000,  # times the number of failures
        "x-delayed-retry-max": 60_000,
    },
    "payments.delayed.dead": {
        **SAFE,
        "x-dead-letter-routing-key": "payments.delayed",
        "x-delivery-limit": 1_000_000_000,
    },
}


def main() -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    for name, arguments in QUEUES.items():
        channel.queue_declare(name, durable=True, arguments=arguments)
        print(f" [x] Declared {name}")
    connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        main()
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
