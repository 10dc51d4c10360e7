"""Send COUNT jobs, numbered: python send_jobs.py 20 sleep 0.1

"sleep 0.1" waits, as for a database; "count 1000000" makes Python compute.
"""

import os
import signal
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"


def main(count: int, job: str) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.confirm_delivery()  # publish, and wait for the broker's word
    channel.queue_declare(
        "jobs", durable=True, arguments={"x-queue-type": "quorum"}
    )
    stored = pika.BasicProperties(delivery_mode=2)  # persistent
    for number in range(1, count + 1):
        body = os.fsencode(f"{job} #{number}")
        channel.basic_publish("", "jobs", body, stored, mandatory=True)
    print(f" [x] Sent {count} × {job!r}")
    connection.close()


if __name__ == "__main__":
    if len(sys.argv) < 3 or not sys.argv[1].isdecimal():
        sys.exit("Usage: python send_jobs.py COUNT JOB...")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main(int(sys.argv[1]), " ".join(sys.argv[2:]))
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor")
