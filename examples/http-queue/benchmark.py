#!/usr/bin/env python3
"""benchmark.py: measure the queue, and count what goes wrong.

    python benchmark.py claims

What there is: claims (several processes claim at once), rate (claims and
completes in a second), upload (rows in a second), simulated (one by one
against upload and batch), chaos (workers and the API are killed at random).
It prints JSON. --database and --queue are those of serve.py; the default is
SQLite in a temporary folder.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from client import Api, Failed, run_command
from make_samples import write

HERE = Path(__file__).parent
LETTER = {"recipient": "ann@example.com", "text": "Hello", "copies": 1}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start(script: str, *arguments: str, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(HERE / script), *arguments],
        stdout=subprocess.PIPE,
        text=True,
        **more,
    )


class Server:
    """A serve.py, and its URL, the same after a restart."""

    def __init__(self, *options: str) -> None:
        self._options = (f"--port={free_port()}", *options)
        self.start()

    def start(self) -> None:
        self.process = start("serve.py", *self._options)
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not (found := re.search(r"http://\S+", line)):
            raise RuntimeError(f"serve.py did not start: {line}")
        self.url = found[0]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def close(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate()


@contextmanager
def serving(*options: str) -> Iterator[Server]:
    server = Server(*options)
    try:
        yield server
    finally:
        server.close()


def options_of(given: argparse.Namespace) -> list[str]:
    queue = [f"--queue={given.queue}"] if given.queue else []
    return queue or [f"--database={given.database}"]


async def opened(database: str) -> Any:
    """A table, without an API."""
    # Only here, as workers, who are started often, need none of it.
    from queues import Policy
    from table_queue import TableQueue

    queue = TableQueue(database, Policy())
    await queue.start()
    return queue


async def fill(database: str, count: int) -> None:
    """Put messages into a table."""
    from queues import Row

    queue = await opened(database)
    try:
        async with queue.intake("benchmark") as intake:
            body = json.dumps(LETTER)
            await intake.store([Row(n, body) for n in range(count)])
    finally:
        await queue.close()


# --- claims: several processes, each with the database open -----------------


async def claim_all(database: str) -> int:
    """Claim until there is nothing; print what was claimed."""
    queue = await opened(database)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    ids, errors = [], []
    while True:
        try:
            _, found = await queue.claim(1, 600)
        except Exception as error:
            errors.append(repr(error))
            if len(errors) > 100:
                break
            continue
        if not found:
            break
        ids += [message["id"] for message in found]
    print(json.dumps({"ids": ids, "errors": errors}))
    await queue.close()
    return 0


def claims(given: argparse.Namespace) -> dict[str, Any]:
    """Who claimed what, when several processes claim at once."""
    asyncio.run(fill(given.database, given.messages))
    option = f"--database={given.database}"
    processes = [
        start("benchmark.py", "claimer", option, stdin=subprocess.PIPE)
        for _ in range(given.processes)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
    started = time.monotonic()
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [json.loads(process.communicate()[0]) for process in processes]
    seconds = time.monotonic() - started
    times = Counter(id for each in told for id in each["ids"])
    return {
        "messages": given.messages,
        "processes": given.processes,
        "claims": times.total(),
        "claimed_by_each": [len(each["ids"]) for each in told],
        "claimed_twice": sum(count > 1 for count in times.values()),
        "errors": [error for each in told for error in each["errors"]],
        "seconds": round(seconds, 2),
    }


# --- rate: workers over HTTP ------------------------------------------------


async def claim_and_complete(
    url: str, workers: int, messages: int
) -> dict[str, Any]:
    async with Api(url, "", 30) as api:

        async def put() -> None:
            for _ in range(messages // 20):
                await api.call("POST", "v1/messages", LETTER, again=False)

        started = time.monotonic()
        await asyncio.gather(*(put() for _ in range(20)))
        putting = time.monotonic() - started
        done = 0

        async def work() -> None:
            nonlocal done
            while True:
                claimed = await api.call("POST", "v1/claims", {"count": 1})
                if not claimed["messages"]:
                    return
                path = f"v1/messages/{claimed['messages'][0]['id']}/complete"
                token = {"token": claimed["token"]}
                await api.call("POST", path, token)
                done += 1

        started = time.monotonic()
        await asyncio.gather(*(work() for _ in range(workers)))
        seconds = time.monotonic() - started
    return {
        "workers": workers,
        "messages": done,
        "per_second": round(done / seconds),
        "creates_per_second": round(messages // 20 * 20 / putting),
    }


def rate(given: argparse.Namespace) -> dict[str, Any]:
    """Claims and completes in a second, over HTTP, one at a time."""
    with serving(*options_of(given)) as server:
        return asyncio.run(
            claim_and_complete(server.url, given.workers, given.messages)
        )


# --- upload -----------------------------------------------------------------


async def send(url: str, path: Path) -> dict[str, Any]:
    files = [("files", (path.name, path.read_bytes()))]
    async with Api(url, "", 30) as api:
        return await api.call("POST", "v1/uploads", files=files, again=False)


def upload(given: argparse.Namespace) -> dict[str, Any]:
    """Rows in a second."""
    path = Path(given.folder) / "upload.xlsx"
    write(path, given.messages)
    with serving(*options_of(given)) as server:
        started = time.monotonic()
        (told,) = asyncio.run(send(server.url, path))["files"]
        seconds = time.monotonic() - started
    return {
        "rows": told["rows"],
        "seconds": round(seconds, 2),
        "per_second": round(told["rows"] / seconds),
    }


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


# --- chaos ------------------------------------------------------------------


def chaos(given: argparse.Namespace) -> dict[str, Any]:
    """Kill workers and the API, again and again, until all is done."""
    journal = Path(given.folder) / "journal"
    journal.touch()
    chance = random.Random(given.seed)
    path = Path(given.folder) / "chaos.xlsx"
    write(path, given.messages)
    server = Server(*options_of(given), "--max-attempts=20", "--backoff=0")
    asyncio.run(send(server.url, path))
    killed: Counter[str] = Counter()

    def worker() -> subprocess.Popen[str]:
        return start("benchmark.py", "victim", server.url, str(journal))

    workers = [worker() for _ in range(given.workers)]
    started = time.monotonic()
    try:
        while done_of(journal) < given.messages:
            if time.monotonic() - started > given.limit:
                break
            time.sleep(chance.uniform(0.5, 1.5) * given.pause)
            if killed.total() < given.kills:
                if chance.random() < 0.25:
                    server.kill()
                    server.start()
                    killed["api"] += 1
                else:
                    index = chance.randrange(len(workers))
                    workers[index].kill()
                    workers[index].communicate()
                    workers[index] = worker()
                    killed["workers"] += 1
        state: dict[str, Any] = {}
        # What was handled, and not completed, comes once more.
        for _ in range(600):
            with suppress(Failed):
                state = asyncio.run(ask_state(server.url))
                if not (state["ready"] + state["leased"] + state["delayed"]):
                    break
            time.sleep(0.1)
    finally:
        for process in workers:
            process.kill()
            process.communicate()
        server.close()
    handled = Counter(journal.read_text().split())
    return {
        "messages": given.messages,
        "handled": len(handled),
        "handled_again": handled.total() - len(handled),
        "killed": dict(killed),
        "state": state,
        "seconds": round(time.monotonic() - started, 1),
    }


def done_of(journal: Path) -> int:
    return len(set(journal.read_text().split()))


async def ask_state(url: str) -> dict[str, Any]:
    async with Api(url, "", 30) as api:
        return await api.call("GET", "v1/state")


async def victim(url: str, journal: str) -> int:
    """A worker that notes what it handles, until it is killed."""
    async with Api(url, "", 60) as api:
        wanted = {"count": 10, "lease_seconds": 2, "wait_seconds": 5}
        while True:
            claimed = await api.call("POST", "v1/claims", wanted)
            for message in claimed["messages"]:
                with open(journal, "a") as file:  # noqa: PTH123
                    file.write(f"{message['payload']['text'].split()[1]}\n")
                path = f"v1/messages/{message['id']}/complete"
                with suppress(Failed):  # somebody else has it now
                    await api.call("POST", path, {"token": claimed["token"]})


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
    ):
        add = of.add_parser(measure.__name__).add_argument
        add("--database", help="as serve.py has it")
        add("--queue", help="as serve.py has it")
        add("--messages", type=int, default=messages)
        add("--processes", type=int, default=4)
        add("--workers", type=int, default=4)
        add("--create", type=float, default=3, help="simulated seconds")
        add("--handle", type=float, default=5, help="simulated seconds")
        add("--kills", type=int, default=30, help="of chaos")
        add("--pause", type=float, default=1, help="seconds between kills")
        add("--limit", type=float, default=300, help="seconds of chaos")
        add("--seed", type=int, default=1)
    of.add_parser("claimer").add_argument("--database")
    for_victim = of.add_parser("victim")
    for_victim.add_argument("url")
    for_victim.add_argument("journal")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    if given.what == "claimer":
        return asyncio.run(claim_all(given.database))
    if given.what == "victim":
        return run_command(victim(given.url, given.journal))
    with tempfile.TemporaryDirectory() as given.folder:
        if not given.database:
            given.database = f"sqlite://{given.folder}/queue.sqlite3"
        print(json.dumps(globals()[given.what](given), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
