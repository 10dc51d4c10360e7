"""Make the queues of the bookings, a copy on each node: python declare.py

Start it when all nodes are there: a queue stays on those that it was made on.
"""

import os
import random
import signal
import sys

import pika
from pika.adapters.utils.connection_workflow import AMQPConnectorException
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
AMQP_URLS = os.environ.get("AMQP_URLS") or AMQP_URL  # url,url,…: the nodes
KEPT = {
    "x-queue-type": "quorum",
    "x-quorum-initial-group-size": 3,  # of more nodes, these many have it
    # Who is silent has lost its tasks after 3 s, not 60 (RabbitMQ 4.3).
    "x-consumer-disconnected-timeout": 3_000,
}
QUEUES = {
    "bookings": KEPT,
    # For one worker at a time; the next takes over when it is gone.
    "bookings.ordered": {**KEPT, "x-single-active-consumer": True},
}


def main(nodes: list[pika.URLParameters]) -> None:
    connection = pika.BlockingConnection(random.sample(nodes, len(nodes)))
    channel = connection.channel()
    for name, arguments in QUEUES.items():
        channel.queue_declare(name, durable=True, arguments=arguments)
        print(f" [x] Declared {name}")
    connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    try:
        urls = [url or "no" for url in AMQP_URLS.split(",")]
        found = [pika.URLParameters(url) for url in urls]
    except Exception:  # whose text may hold a password
        sys.exit("AMQP_URLS wants amqp://user:password@host:5672/vhost,…")
    try:
        main(found)
    except (AMQPError, AMQPConnectorException, OSError) as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
