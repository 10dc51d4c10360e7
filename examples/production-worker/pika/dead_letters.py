"""See what was set aside; put it back when its cause is mended.

python dead_letters.py                  a table of all
python dead_letters.py show 17          the history of one
python dead_letters.py put-back 17      one of them, or with "all" each
"""

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
QUEUE = os.environ.get("QUEUE") or "payments"  # its dead are in payments.dead


def each(channel: Any) -> Iterator[tuple[int, Any, Any, str]]:
    """The dead, and how many are left; at 0 all those before are settled."""
    dead = channel.queue_declare(f"{QUEUE}.dead", passive=True).method
    for left in range(dead.message_count, -1, -1):
        method, properties, body = channel.basic_get(dead.queue)
        if method:
            text = body.decode(errors="backslashreplace")
            yield left, method, properties, text


def history(headers: dict[str, Any]) -> list[str]:
    """Why each attempt failed: in the worker's words, then in the broker's."""
    noted = headers.get("failures")
    noted = [str(each) for each in noted] if isinstance(noted, list) else []
    deaths = [x for x in headers.get("x-death", []) if x["queue"] == QUEUE]
    return [*noted, *(x["reason"] for x in deaths)] or ["unknown"]


def main(command: str, wanted: str) -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel = connection.channel()
    channel.queue_declare(QUEUE, passive=True)  # it is there to go back to
    found, kept = 0, []
    if command == "list":
        print("KEY         PAYMENT             NOTED   LAST")
    for left, method, old, text in each(channel):
        key, failures = old.message_id, history(old.headers or {})
        chosen = left > 0 and wanted in (key, "all")
        found += chosen
        if chosen and command == "put-back":
            # The broker moves it, in one step: whole, or not at all.
            channel.basic_nack(method.delivery_tag, requeue=False)
            print(f" [x] Put back {key!r}: {text!r}")
            continue
        kept.append(method.delivery_tag)
        if chosen and command == "show":
            print(f" [x] {key!r}: {text!r}", *failures, sep="\n     ")
        elif command == "list":
            row = f"{key!r:<12}{text!r:<20.40}{len(failures):<8}"
            print(f"{row}{failures[-1]:.50}")
    for tag in kept:
        channel.basic_nack(tag)
    connection.close()
    if not found and command != "list":
        sys.exit(f"There is no {wanted!r} among the dead")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    words = sys.argv[1:] or ["list", ""]
    if len(words) != 2 or words[0] not in ("list", "show", "put-back"):
        sys.exit("Usage: python dead_letters.py [show KEY | put-back KEY]")
    try:
        main(*words)
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor, declare_queues.py")
