"""Send a payment with its key: python new_payment.py 17 alice 5

QUEUE names the queue, if it isn't payments.
"""

import os
import signal
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
QUEUE = os.environ.get("QUEUE") or "payments"


def main(key: str, task: str) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.confirm_delivery()
    # The same key each time it is sent: that it is one payment, not two.
    keyed = pika.BasicProperties(delivery_mode=2, message_id=key)
    channel.basic_publish("", QUEUE, os.fsencode(task), keyed, mandatory=True)
    print(f" [x] Sent {task!r}")
    connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    if len(sys.argv) < 3:
        sys.exit("Usage: python new_payment.py KEY ACCOUNT AMOUNT")
    try:
        main(sys.argv[1], " ".join(sys.argv[2:]))
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor, declare_queues.py")
