"""benchmark_faults.py: count what goes wrong.

benchmark.py runs it: several processes claim at once, or are killed.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark_server import Server, fill, opened, options_of, send, start
from client import Api, Failed
from make_samples import write

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
