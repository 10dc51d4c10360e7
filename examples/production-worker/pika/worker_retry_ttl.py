"""Try again later what fails, or set it aside: python worker_retry_ttl.py"""

import faulthandler
import os
import re
import signal
import sys
import time
from typing import Any

import pika
from pika.exceptions import AMQPError

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"
TIME_LIMIT = 30  # seconds
NEXT = [*(f"payments.retry.{delay}" for delay in (1, 2, 4)), "payments.dead"]
ACCOUNTS = {"alice": 0, "sleeper": 3600}  # seconds that a payment takes


def handle(body: bytes) -> None:
    """The work, faked. Some payments fail, and some are worse."""
    account, _ = body.decode().split()
    if account == "killer":
        os._exit(1)
    time.sleep(ACCOUNTS[account])


def onward(old: Any, failure: str) -> tuple[str, Any]:
    """Where to, after the dead anew; and what may be kept in the copy."""
    headers = old.headers or {}
    own = {k: v for k, v in headers.items() if not re.match("x-|B?CC$", k)}
    own["failures"] = [*headers.get("failures", []), failure]
    names = "content_type", "correlation_id", "message_id", "priority", "type"
    kept = {name: getattr(old, name) for name in names}
    copy = pika.BasicProperties(delivery_mode=2, headers=own, **kept)
    return NEXT[(len(own["failures"]) - 1) % len(NEXT)], copy


def deal_with(channel: Any, old: Any, body: bytes) -> str:
    """Do the work, or store a copy for later; return what has been done."""
    print(f" [x] Received {body.decode(errors='backslashreplace')!r}")
    faulthandler.dump_traceback_later(TIME_LIMIT, exit=True)
    try:
        if (old.headers or {}).get("x-delivery-count"):  # don't die of it, too
            raise RuntimeError("its worker died, or the time was up")
        handle(body)
        return "Done"
    except Exception as error:
        target, copy = onward(old, failure := repr(error)[:200])
        channel.basic_publish("", target, body, copy, mandatory=True)
        return f"Failed: {failure}, now in {target}"


def main() -> None:
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
    channel: Any = connection.channel()
    channel.confirm_delivery()  # no ack before its copy is stored
    channel.basic_qos(prefetch_count=1)
    print(" [*] Waiting for messages. To exit press CTRL+C")
    for method, old, body in channel.consume("payments"):
        outcome = deal_with(channel, old, body)
        faulthandler.cancel_dump_traceback_later()  # it was in time
        channel.basic_ack(method.delivery_tag)
        print(f" [x] {outcome}")
    sys.exit("Failed: the queue is gone")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        main()
    except AMQPError as error:
        sys.exit(f"Failed: {error!r}. Try make doctor, declare_queues.py")
