#!/usr/bin/env python3
"""insert.py: put the rows of a spreadsheet into the queue, one by one.

    python insert.py FILE

Each is a request of its own, sent when the one before is answered. upload.py
sends the file instead.
"""

import argparse
import json
import sys
import time
import uuid
from contextlib import aclosing

from client import Api, Failed, Shown, parser, run_command, title_of, told_of
from intake import Readers, rows_of
from queues import Row
from workbook import Refused


async def rows_in(file: str) -> tuple[list[Row], list[str]]:
    """All rows, read as the API reads an upload. Raises Refused."""
    warnings: list[str] = []
    rows: list[Row] = []
    async with aclosing(rows_of(Readers(), file, warnings)) as found:
        async for some in found:
            rows += some
    return rows, warnings


async def insert(given: argparse.Namespace) -> int:
    try:
        rows, warnings = await rows_in(given.file)
    except OSError as error:
        print(f"{given.file}: {error.strerror}", file=sys.stderr)
        return 1
    except Refused as error:
        for fault in error.faults:
            print(f"{given.file}: {told_of(fault)}", file=sys.stderr)
        return 1
    started = time.monotonic()
    async with Api(given.url, given.token, given.patience) as api:
        with Shown(len(rows)) as shown:
            for warning in warnings:
                shown.say(f" [!] {warning}")
            for row in rows:
                payload = json.loads(row.payload)
                # So that a row whose answer got lost isn't stored twice.
                key = {"Idempotency-Key": str(uuid.uuid4())}
                try:
                    await api.call("POST", "v1/messages", payload, headers=key)
                except Failed as error:
                    shown.say(f" [!] Row {row.number:,} and all after: not in")
                    raise error
                shown.advance(f" [x] Sent {title_of(payload)}")
    seconds = time.monotonic() - started
    print(f" [x] {len(rows):,} messages one by one in {seconds:.2f} s")
    return 0


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("file")
    sys.exit(run_command(insert(arguments.parse_args())))
