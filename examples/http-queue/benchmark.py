#!/usr/bin/env python3
"""benchmark.py: measure the queue, and count what goes wrong.

    python benchmark.py claims

What there is: claims (several processes claim at once), rate (creates, claims
and completes in a second, and what each costs client and server), upload (rows
in a second), simulated (one by one against upload and batch), chaos (workers
and the API are killed at random), soak (for long, with workers killed: speed,
memory and table by tenths). It prints JSON. --database and --queue are those
of serve.py; the default is SQLite in a temporary folder.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from benchmark_faults import chaos, claim_all, claims, victim
from benchmark_server import (
    LETTER,
    Server,
    opened,
    options_of,
    send,
    serving,
    start,
)
from benchmark_soak import soak, soaker
from client import Api, run_command
from make_samples import write
from python_calamine import CalamineWorkbook
from queues import Row

# --- rate: workers over HTTP ------------------------------------------------


async def measured(
    server: Server, count: int, work: Awaitable[Any]
) -> dict[str, Any]:
    """In a second, and for each the microseconds of client and server."""
    began, client, its = time.monotonic(), time.process_time(), server.cpu()
    await work
    seconds = time.monotonic() - began
    return {
        "per_second": round(count / seconds),
        "client_us": round((time.process_time() - client) / count * 1e6),
        "server_us": round((server.cpu() - its) / count * 1e6),
    }


async def create(api: Api, clients: int, messages: int) -> None:
    async def put() -> None:
        for _ in range(messages // clients):
            await api.call("POST", "v1/messages", LETTER, again=False)

    await asyncio.gather(*(put() for _ in range(clients)))


async def work_off(api: Api, workers: int, batch: int, messages: int) -> None:
    """Claim and complete: what is done is told when more is asked for."""
    done = 0

    async def work() -> None:
        nonlocal done
        body: dict[str, Any] = {"count": batch}
        while True:
            claimed = await api.call("POST", "v1/claims", body)
            if not (found := claimed["messages"]):
                return
            done += len(found)
            ids = [message["id"] for message in found]
            body["done"] = [{"token": claimed["token"], "ids": ids}]

    await asyncio.gather(*(work() for _ in range(workers)))
    if done != messages:
        raise RuntimeError(f"{done} of {messages} were claimed")


async def rates(server: Server, given: argparse.Namespace) -> dict[str, Any]:
    path = Path(given.folder) / "rate.xlsx"
    creates = min(given.creates, given.messages) // 20 * 20
    async with Api(server.url, "", 30) as api:
        created = await measured(server, creates, create(api, 20, creates))
        if rest := given.messages - creates:
            write(path, rest)
            await send(server.url, path)
        work = work_off(api, given.workers, given.batch, given.messages)
        done = await measured(server, given.messages, work)
    return {
        "workers": given.workers,
        "batch": given.batch,
        "messages": given.messages,
        **done,
        "creates": created,
    }


def rate(given: argparse.Namespace) -> dict[str, Any]:
    """Claims and completes in a second, over HTTP."""
    with serving(*options_of(given)) as server:
        return asyncio.run(rates(server, given))


# --- upload -----------------------------------------------------------------


async def store_at_once(database: str, path: Path) -> float:
    """Read the sheet and store its rows, unchecked; how long it took.

    What an upload would take if it had nothing else to do.
    """
    queue = await opened(database)
    try:
        began = time.monotonic()
        sheet = CalamineWorkbook.from_path(path).get_sheet_by_index(0)
        header, *lines = sheet.to_python()
        rows = [
            Row(number, json.dumps(dict(zip(header, line, strict=True))))
            for number, line in enumerate(lines, 2)
        ]
        async with queue.intake(path.name) as intake:
            await intake.store(rows)
        return time.monotonic() - began
    finally:
        await queue.close()


def upload(given: argparse.Namespace) -> dict[str, Any]:
    """Rows in a second."""
    path = Path(given.folder) / "upload.xlsx"
    write(path, given.messages)
    with serving(*options_of(given)) as server:
        started = time.monotonic()
        (told,) = asyncio.run(send(server.url, path))["files"]
        seconds = time.monotonic() - started
        memory, cpu = server.memory(), server.cpu()
    measured = {
        "rows": told["rows"],
        "seconds": round(seconds, 2),
        "per_second": round(told["rows"] / seconds),
        "server_mib": round(memory),
        "server_seconds": round(cpu, 2),
    }
    if not given.queue:
        limit = asyncio.run(store_at_once(given.database, path))
        measured["limit_per_second"] = round(told["rows"] / limit)
    return measured


# --- simulated: the table of the original -----------------------------------


def command_seconds(server: Server, script: str, *arguments: str) -> float:
    """Run one of the commands; the seconds that it tells."""
    environment = {**os.environ, "HTTP_QUEUE_URL": server.url}
    process = start(script, *arguments, env=environment)
    lines = process.communicate()[0].splitlines()
    found = re.search(r"in ([\d.]+) s$", lines[-1])
    assert found, lines
    return float(found[1])


def simulated(given: argparse.Namespace) -> dict[str, Any]:
    """Sleeps that overlap against sleeps that don't."""
    folder = Path(given.folder)
    for count in (21, 1_000):
        write(folder / f"letters-{count}.xlsx", count)
    few, many = (str(folder / f"letters-{n}.xlsx") for n in (21, 1_000))
    create = f"--simulate-create={given.create}"
    handle = f"--simulate={given.handle}"
    with serving(*options_of(given), create) as server:
        return {
            "create_seconds": given.create,
            "handle_seconds": given.handle,
            "insert_21": command_seconds(server, "insert.py", few),
            "upload_21": command_seconds(server, "upload.py", few),
            "upload_1000": command_seconds(server, "upload.py", many),
            "single_1": command_seconds(
                server, "worker.py", handle, "--count=1"
            ),
            "batch_50": command_seconds(
                server, "batch_worker.py", handle, "--count=50"
            ),
        }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    of = parser.add_subparsers(dest="what", required=True)
    for measure, messages in (
        (claims, 5_000),
        (rate, 2_000),
        (upload, 100_000),
        (simulated, 1_000),
        (chaos, 5_000),
        (soak, 1_000_000),
    ):
        add = of.add_parser(measure.__name__).add_argument
        add("--database", help="as serve.py has it")
        add("--queue", help="as serve.py has it")
        add("--messages", type=int, default=messages)
        add("--processes", type=int, default=4)
        add("--workers", type=int, default=4)
        add("--batch", type=int, default=1, help="claimed at a time")
        add("--creates", type=int, default=1_000, help="one by one")
        add("--create", type=float, default=3, help="simulated seconds")
        add("--handle", type=float, default=5, help="simulated seconds")
        add("--kills", type=int, default=30, help="of chaos")
        pause = 10 if measure is soak else 1
        add("--pause", type=float, default=pause, help="between kills")
        add("--minutes", type=float, default=30, help="of soak, at most")
        add("--keep", type=float, default=20, help="as serve.py, for soak")
        add("--limit", type=float, default=300, help="seconds of chaos")
        add("--seed", type=int, default=1)
    of.add_parser("claimer").add_argument("--database")
    of.add_parser("soaker").add_argument("url")
    for_victim = of.add_parser("victim")
    for_victim.add_argument("url")
    for_victim.add_argument("journal")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    if given.what == "claimer":
        return asyncio.run(claim_all(given.database))
    if given.what == "soaker":
        return run_command(soaker(given.url))
    if given.what == "victim":
        return run_command(victim(given.url, given.journal))
    with tempfile.TemporaryDirectory() as given.folder:
        if not given.database:
            given.database = f"sqlite://{given.folder}/queue.sqlite3"
        print(json.dumps(globals()[given.what](given), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
