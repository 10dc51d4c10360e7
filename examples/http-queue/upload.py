#!/usr/bin/env python3
"""upload.py: put the rows of spreadsheets into the queue, by uploading them.

    python upload.py FILE

Several files are one request. A file that has a wrong row is not stored.
"""

import argparse
import sys
import time
import uuid
from pathlib import Path
from typing import Any

from client import Api, Failed, Shown, parser, run_command, told_of


def tell(result: dict[str, Any], shown: Shown) -> None:
    name = result["file"]
    if not result.get("faults"):
        shown.say(f" [x] {name}: {result['rows']:,} rows")
        for warning in result.get("warnings", []):
            shown.say(f"     {warning}")
        return
    shown.say(f" [!] {name} is refused, nothing of it is stored")
    for fault in result["faults"]:
        shown.say(f"     {told_of(fault)}")


async def upload(given: argparse.Namespace) -> int:
    try:
        files = [
            (Path(name).name, Path(name).read_bytes()) for name in given.files
        ]
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    started = time.monotonic()
    async with Api(given.url, given.token, given.patience) as api:
        with Shown(None) as shown:
            try:
                # With a key, so that it may be repeated when no answer came.
                key = {"Idempotency-Key": str(uuid.uuid4())}
                told = await api.call(
                    "POST", "v1/uploads", files=files, headers=key
                )
            except Failed as error:
                if error.status != 422:
                    raise
                told = error.body
            results = told["files"]
            for result in results:
                tell(result, shown)
    seconds = time.monotonic() - started
    rows = sum(result["rows"] for result in results)
    print(f" [x] {rows:,} messages by upload in {seconds:.2f} s")
    return 1 if any(result.get("faults") for result in results) else 0


if __name__ == "__main__":
    arguments = parser(__doc__)
    arguments.add_argument("files", nargs="+")
    sys.exit(run_command(upload(arguments.parse_args())))
