#!/usr/bin/env python3
"""insert.py: put the rows of a spreadsheet into the queue, one by one.

    python insert.py FILE

Each is a request of its own, sent when the one before is answered. upload.py
sends the file instead.
"""

import argparse
import sys
import time
import uuid

from client import Api, Failed, Shown, parser, run_command
from spreadsheet import Refused, read


async def insert(given: argparse.Namespace) -> int:
    try:
        rows = read(given.file)
    except (Refused, OSError, ValueError) as error:
        faults = error.faults if isinstance(error, Refused) else [error]
        print(f"{given.file}: {faults[0]}", file=sys.stderr)
        return 1
    started = time.monotonic()
    async with Api(given.url, given.token, given.patience) as api:
        with Shown(len(rows)) as shown:
            for number, payload in rows:
                # So that a row whose answer got lost isn't stored twice.
                key = {"Idempotency-Key": str(uuid.uuid4())}
                try:
                    await api.call("POST", "v1/messages", payload, headers=key)
                except Failed as error:
                    shown.say(f" [!] Row {number:,} and all after it: not in")
                    raise error
                shown.advance(f" [x] Sent {payload['text']}")
    seconds = time.monotonic() - started
    print(f" [x] {len(rows):,} messages one by one in {seconds:.2f} s")
    return 0


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("file")
    sys.exit(run_command(insert(arguments.parse_args())))
