"""Make the queues of the errands, once for all: python declare_errands.py"""

import os
import signal
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
QUORUM = {"x-queue-type": "quorum"}
QUEUES = {
    "errands": QUORUM,
    # 9 is the most urgent. Before RabbitMQ 4.0 only a classic queue can.
    "errands.urgent": {"x-queue-type": "classic", "x-max-priority": 9},
    # Nobody wants them after two seconds; what is too late is set aside.
    "errands.fresh": {
        **QUORUM,
        "x-message-ttl": 2_000,  # milliseconds
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "errands.late",
    },
    "errands.late": QUORUM,
    # One worker at a time gets all; the others wait to take over.
    "errands.in_turn": {**QUORUM, "x-single-active-consumer": True},
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
