#!/usr/bin/env python3
"""Send COUNT jobs, numbered, and have each confirmed by the broker.

    python send_jobs.py 20 sleep 0.1

"sleep 0.1" waits, as for a database; "count 1000000" makes Python compute.
"""

import os
import sys

import pika
from pika.exceptions import AMQPError, NackError, UnroutableError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")


def main(count: int, job: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare(
            "failed_jobs", durable=True, arguments={"x-queue-type": "quorum"}
        )
        channel.queue_declare(
            "jobs",
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                # Rejected jobs go to failed_jobs, and surely arrive.
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": "failed_jobs",
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        )
        for number in range(1, count + 1):
            try:
                channel.basic_publish(
                    exchange="",
                    routing_key="jobs",
                    body=os.fsencode(f"{job} #{number}"),
                    properties=pika.BasicProperties(
                        delivery_mode=pika.DeliveryMode.Persistent
                    ),
                    mandatory=True,
                )
            except (NackError, UnroutableError):
                sys.exit(f" [!] Sent {number - 1}, then the broker refused")
        print(f" [x] Sent {count} × {job!r}")


if __name__ == "__main__":
    if len(sys.argv) < 3 or not sys.argv[1].isdecimal():
        print("Usage: python send_jobs.py COUNT JOB...", file=sys.stderr)
        sys.exit(2)
    try:
        main(int(sys.argv[1]), " ".join(sys.argv[2:]))
    except KeyboardInterrupt:
        sys.exit(1)
    except (AMQPError, OSError, ValueError, LookupError) as why:
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
