"""The numbers of the page that compares the clients: rates, CPU, memory, start.

Every measurement runs in a process of its own, pika and aio-pika in turn, and
the page's table has the medians. A client's own benchmark is a chapter of its
own; this is the order of magnitude.
"""

from __future__ import annotations

import asyncio
import csv
import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pika
from broker import Broker
from conftest import connected
from pika.adapters.blocking_connection import BlockingChannel
from pika.spec import Basic
from plotting import FIGURES, about
from shells.chapters import CLIENTS

CHAPTER = "which-client"
RECORD, TABLE = FIGURES / f"{CHAPTER}.json", FIGURES / f"{CHAPTER}.csv"
ROUNDS = 5
CONSUMED, PUBLISHED, PREFETCH = 10_000, 1_000, 500
QUEUE = "measured"


def cpu() -> float:
    """Seconds of CPU that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def consume_with_pika(url: str) -> dict[str, float]:
    """From the first delivery to the last ack, each acked by itself."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=PREFETCH)
    count, started, used = 0, 0.0, 0.0

    def on_message(channel: BlockingChannel, method: Basic.Deliver, _: object, __: bytes) -> None:
        nonlocal count, started, used
        if not count:
            started, used = time.perf_counter(), cpu()
        count += 1
        channel.basic_ack(method.delivery_tag)
        if count == CONSUMED:
            channel.stop_consuming()

    channel.basic_consume(QUEUE, on_message)
    channel.start_consuming()
    return {
        "consumed a second": CONSUMED / (time.perf_counter() - started),
        "CPU, µs a message": (cpu() - used) / CONSUMED * 1e6,
    }


def consume_with_aio_pika(url: str) -> dict[str, float]:
    import aio_pika
    from aio_pika.abc import AbstractIncomingMessage

    async def main() -> dict[str, float]:
        count, started, used = 0, 0.0, 0.0
        done = asyncio.Event()

        async def on_message(message: AbstractIncomingMessage) -> None:
            nonlocal count, started, used
            if not count:
                started, used = time.perf_counter(), cpu()
            count += 1
            await message.ack()
            if count == CONSUMED:
                done.set()

        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            await channel.set_qos(PREFETCH)
            queue = await channel.get_queue(QUEUE)
            await queue.consume(on_message)
            await done.wait()
            return {
                "consumed a second": CONSUMED / (time.perf_counter() - started),
                "CPU, µs a message": (cpu() - used) / CONSUMED * 1e6,
            }

    return asyncio.run(main())


def publish_with_pika(url: str) -> dict[str, float]:
    """Each confirmed before the next."""
    with connected(url) as channel:
        started = time.perf_counter()
        for _ in range(PUBLISHED):
            channel.basic_publish("", QUEUE, b"x" * 100)
        return {"confirmed a second": PUBLISHED / (time.perf_counter() - started)}


def publish_with_aio_pika(url: str) -> dict[str, float]:
    import aio_pika

    async def main() -> dict[str, float]:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            started = time.perf_counter()
            for _ in range(PUBLISHED):
                message = aio_pika.Message(b"x" * 100)
                await channel.default_exchange.publish(message, QUEUE)
            return {"confirmed a second": PUBLISHED / (time.perf_counter() - started)}

    return asyncio.run(main())


IMPORT = """
import time
def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
before, started = resident(), time.perf_counter()
import {module}
print((time.perf_counter() - started) * 1000, (resident() - before) / 1024)
"""


def import_cost(client: str) -> dict[str, float]:
    program = IMPORT.format(module=client.replace("-", "_"))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    milliseconds, mebibytes = map(float, done.stdout.split())
    return {"import, ms": milliseconds, "import, MiB": mebibytes}


def in_a_process(measure: Callable[[str], dict[str, float]], url: str) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, url).result()


def measure(client: str, url: str) -> dict[str, float]:
    """One round with one client; the queue is empty before and after."""
    pika_or_not = client == "pika"
    publish = publish_with_pika if pika_or_not else publish_with_aio_pika
    consume = consume_with_pika if pika_or_not else consume_with_aio_pika
    found = import_cost(client) | in_a_process(publish, url)
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()  # no confirms here: only many, and soon
        for _ in range(CONSUMED - PUBLISHED):
            channel.basic_publish("", QUEUE, b"x" * 100)
    return found | in_a_process(consume, url)


def record(broker: Broker) -> None:
    rounds: dict[str, list[dict[str, float]]] = {client: [] for client in CLIENTS}
    for _ in range(ROUNDS):
        for client in CLIENTS:
            with broker.vhost() as url:
                with connected(url) as channel:
                    channel.queue_declare(
                        QUEUE, durable=True, arguments={"x-queue-type": "quorum"}
                    )
                rounds[client].append(measure(client, url))
    data = {"about": about(broker), "rounds": rounds}
    RECORD.write_text(json.dumps(data, indent=1) + "\n")


def rows(data: dict[str, Any]) -> list[list[str]]:
    """The page's table: for each measure and client the median, and the extremes."""
    found = []
    for name in data["rounds"]["pika"][0]:
        row = [name]
        for client in CLIENTS:
            values = [each[name] for each in data["rounds"][client]]
            middle, low, high = statistics.median(values), min(values), max(values)
            row.append(f"{middle:,.0f} ({low:,.0f} to {high:,.0f})")
        found.append(row)
    return found


def draw() -> None:
    with TABLE.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows(json.loads(RECORD.read_text())))
