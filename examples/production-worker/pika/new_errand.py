"""Ask for an errand: python new_errand.py Fetch the letters.

QUEUE names the queue, if it isn't errands; PRIORITY says how urgent it is, of
0 to 255; EXPIRES, after how many seconds nobody wants it any more.
"""

import os
import signal
import sys

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
QUEUE = os.environ.get("QUEUE") or "errands"


def main(task: str, priority: int, milliseconds: int) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.confirm_delivery()
    properties = pika.BasicProperties(
        delivery_mode=2,
        priority=priority,
        expiration=str(milliseconds) if milliseconds else None,
    )
    channel.basic_publish("", QUEUE, os.fsencode(task), properties, True)
    print(f" [x] Sent {task!r}")
    connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    if len(sys.argv) < 2:
        sys.exit("Usage: python new_errand.py ERRAND")
    try:
        # 4 is what a quorum queue takes a message for that says nothing.
        urgency = int(os.environ.get("PRIORITY") or 4)
        wanted = int(1000 * float(os.environ.get("EXPIRES") or 0))
        if not (0 <= urgency <= 255 and wanted >= 0):
            raise ValueError
    except (ValueError, OverflowError):
        sys.exit("PRIORITY wants a number from 0 to 255, EXPIRES seconds")
    try:
        main(" ".join(sys.argv[1:]), urgency, wanted)
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor, declare_errands.py")
