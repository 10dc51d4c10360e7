"""benchmark_soak.py: the same for long, with workers killed meanwhile.

benchmark.py runs it: does memory grow, does the table, does it get slower?
"""

import argparse
import asyncio
import re
import time
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

from benchmark_server import Server, options_of, send, serving, start
from client import Api
from make_samples import write

ROWS = 2_000  # of a file
LEASE = 5.0  # seconds


class Sample(NamedTuple):
    seconds: float
    completed: int
    mib: float
    kept: int  # messages that are done, and still in the table


async def soaker(url: str) -> int:
    """A worker that claims and completes, until it is killed."""
    async with Api(url, "", 60) as api:
        wanted: dict[str, Any] = {"count": 50, "lease_seconds": LEASE}
        while True:
            claimed = await api.call("POST", "v1/claims", wanted)
            wanted["done"] = []
            if ids := [message["id"] for message in claimed["messages"]]:
                wanted["done"] = [{"token": claimed["token"], "ids": ids}]
            else:
                await asyncio.sleep(0.05)


def completed(url: str) -> int:
    with urlopen(f"{url}metrics") as answer:
        text = answer.read().decode()
    return int(re.findall(r'event="completed"} (\d+)', text)[0])


async def watch(
    server: Server, given: argparse.Namespace, path: Path
) -> tuple[list[Sample], dict[str, Any]]:
    """Feed it and look at it until it has had enough, and is empty."""

    def worker() -> Any:
        return start("benchmark.py", "soaker", server.url)

    workers = [worker() for _ in range(given.workers)]
    samples: list[Sample] = []
    created = killed = 0
    began = time.monotonic()
    filling = asyncio.create_task(asyncio.sleep(0, {}))
    try:
        async with Api(server.url, "", 60) as api:
            while True:
                seconds = time.monotonic() - began
                state = await api.call("GET", "v1/state")
                waiting = sum(state[n] for n in ("ready", "leased", "delayed"))
                count = await asyncio.to_thread(completed, server.url)
                mib = server.memory("VmRSS")
                samples.append(Sample(seconds, count, mib, state["done"]))
                more = created < given.messages
                more = more and seconds < given.minutes * 60
                if filling.done() and more and waiting < 5 * ROWS:
                    await filling  # raises what it met
                    filling = asyncio.create_task(send(server.url, path))
                    created += ROWS
                late = seconds > given.minutes * 60 + 120
                if late or (filling.done() and not more and not waiting):
                    more = {"messages": created, "minutes": seconds / 60}
                    more |= {"killed": killed, "left": waiting}
                    return samples, more | {"dead": state["dead"]}
                if seconds > (killed + 1) * given.pause:
                    workers.append(worker())
                    process = workers.pop(0)
                    process.kill()
                    process.communicate()
                    killed += 1
                await asyncio.sleep(0.3)
    finally:
        for process in workers:
            process.kill()
            process.communicate()


def tenths(samples: list[Sample]) -> dict[str, list[int]]:
    """By tenths of what was completed: how fast, and how large."""
    last = samples[-1].completed
    told: dict[str, list[int]] = {"per_second": [], "mib": [], "kept": []}
    for tenth in range(10):
        low, high = last * tenth / 10, last * (tenth + 1) / 10
        some = [each for each in samples if low <= each.completed <= high]
        if len(some) < 2:  # too short a soak to say
            continue
        first, end = some[0], some[-1]
        seconds = end.seconds - first.seconds
        told["per_second"] += [
            round((end.completed - first.completed) / seconds)
        ]
        told["mib"] += [round(max(each.mib for each in some))]
        told["kept"] += [max(each.kept for each in some)]
    return told


def soak(given: argparse.Namespace) -> dict[str, Any]:
    """So many messages or minutes, whichever is first; workers are killed."""
    path = Path(given.folder) / "soak.xlsx"
    write(path, ROWS)
    options = (*options_of(given), "--max-attempts=20", f"--keep={given.keep}")
    with serving(*options) as server:
        samples, told = asyncio.run(watch(server, given, path))
    return told | {"completed": samples[-1].completed} | tenths(samples)
