"""The promises of docs/http-queue.rst: several processes of the API (processes.py) on one queue,
in PostgreSQL or RabbitMQ (broker_peers.py)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
from apps.http_queue import BROKER, CHAPTER, LETTER, POSTGRES, Client, module
from apps.serving import NO_BROKER
from broker import free_ports
from conftest import Starter, connected
from shells.running import Script

pytest_plugins = ["apps.fixtures"]

PROCESSES = 3
both = pytest.mark.parametrize("option", [POSTGRES, BROKER], indirect=True)


class Several:
    """serve.py with several processes."""

    def __init__(self, start: Starter, *options: str, processes: int = PROCESSES) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        more = (f"--port={port}", f"--processes={processes}", *options)
        self.server: Script = start(CHAPTER, "", "serve.py", *more, url=NO_BROKER)
        self.ids: list[int] = []
        self.server.wait_for("A queue in ", seconds=90)
        for _ in range(processes if processes > 1 else 0):
            self.next()

    def next(self) -> int:
        """Wait for another process to be ready."""
        wanted = len(self.ids) + 1
        deadline = time.monotonic() + 90
        while (
            len(found := re.findall(r"Process (\d+) is", "\n".join(self.server.stdout))) < wanted
        ):
            assert time.monotonic() < deadline, self.server
            assert self.server.process.poll() is None, self.server
            time.sleep(0.05)
        self.ids.append(int(found[wanted - 1]))
        return self.ids[-1]


def is_there(id: int) -> bool:
    """Not that of a process which only waits to be noticed."""
    with contextlib.suppress(OSError):
        return bool(Path(f"/proc/{id}/cmdline").read_bytes())
    return False


async def call(http: aiohttp.ClientSession, path: str, body: Any) -> Any:
    """On a connection of its own, which any of the processes may get."""
    async with http.post(path, json=body) as answer:
        return answer.status, await answer.json()


def session(several: Several) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(force_close=True)
    return aiohttp.ClientSession(several.url, connector=connector)


def test_sqlite_gets_one_process(start: Starter) -> None:
    ended = start(CHAPTER, "", "serve.py", "--processes=2", url=NO_BROKER)
    assert ended.wait() == 2
    assert ended.stderr[-1].endswith(
        "--processes is for PostgreSQL and RabbitMQ; "
        "SQLite has one writer at a time, and so gets one process"
    )


def test_what_is_wrong_is_said_once(start: Starter) -> None:
    (port,) = free_ports(1)
    where = f"--queue=amqp://guest:secret@127.0.0.1:{port}/"
    ended = start(CHAPTER, "", "serve.py", "--processes=3", where, url=NO_BROKER)
    assert ended.wait(60) == 1
    told = [line for line in ended.stderr if "Cannot use amqp://guest" in line]
    assert told == ended.stderr[-1:]
    assert "secret" not in "".join(ended.stderr)


@pytest.mark.long
@both
def test_one_is_killed_and_the_others_go_on(start: Starter, option: str) -> None:
    """Whoever claims and whoever completes, they reach any of them; none is handed out twice."""
    several = Several(start, option)
    handed: Counter[str] = Counter()
    refused: Counter[int] = Counter()
    done: set[str] = set()
    unknown: set[str] = set()  # acknowledged, perhaps, by the killed one, which did not say so
    killed = 0.0

    async def again_if_killed(http: aiohttp.ClientSession, path: str, body: Any) -> Any:
        while True:
            try:
                return await call(http, path, body)
            except (aiohttp.ClientError, OSError):
                assert killed, "nobody was killed"  # it had this connection
                if "messages/" in path:
                    unknown.add(path.split("/")[-2])

    async def work(http: aiohttp.ClientSession) -> None:
        while len(done | unknown) < 120:
            wanted = {"count": 3, "lease_seconds": 60, "wait_seconds": 1}
            status, claimed = await again_if_killed(http, "/v1/claims", wanted)
            assert status == 200, claimed
            for message in claimed["messages"]:
                handed[message["id"]] += 1
                path = f"/v1/messages/{message['id']}/complete"
                status, _ = await again_if_killed(http, path, {"token": claimed["token"]})
                if status == 200:
                    done.add(message["id"])
                else:
                    refused[status] += 1
                    if status == 503:
                        unknown.add(message["id"])

    async def use() -> None:
        nonlocal killed
        async with session(several) as http:
            for n in range(120):
                status, _ = await call(http, "/v1/messages", {**LETTER, "text": f"Letter {n}"})
                assert status == 201
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                workers = [group.create_task(work(http)) for _ in range(4)]
                while len(done) < 30:
                    await asyncio.sleep(0.01)
                assert not refused
                assert handed.total() == len(handed)
                killed = time.monotonic()
                os.kill(several.ids[0], signal.SIGKILL)
                if option.startswith("--database"):
                    # What was in an answer that the killed one did not send
                    # stays with its token; the lease is long.
                    while len(done | unknown) < 120 - 4 * 3:
                        await asyncio.sleep(0.05)
                    for worker in workers:
                        worker.cancel()
            if option.startswith("--queue"):  # the broker has again what it had
                wanted = {"count": 12, "wait_seconds": 1}
                while left := (await call(http, "/v1/claims", wanted))[1]["messages"]:
                    assert {message["id"] for message in left} <= unknown - done

    asyncio.run(asyncio.wait_for(use(), 90))
    several.next()  # in its place
    if option.startswith("--database"):
        assert handed.total() == len(handed)
    else:  # the broker has again what the killed one had
        assert handed.total() <= 120 + 4 * 3
    # 503: it was asked to acknowledge, and killed before it answered.
    assert {*refused} <= ({409} if option.startswith("--database") else {409, 503})
    assert several.server.interrupt() == 0
    assert not [*filter(is_there, several.ids)]


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, PROCESSES])
@pytest.mark.parametrize("option", [BROKER], indirect=True)
def test_a_claim_that_waits_does_not_keep_it_from_ending(
    start: Starter, option: str, processes: int
) -> None:
    several = Several(start, option, processes=processes)

    async def use() -> Any:
        async with session(several) as http:
            wanted = {"wait_seconds": 50}
            waiting = [asyncio.create_task(call(http, "/v1/claims", wanted)) for _ in range(6)]
            await asyncio.sleep(1.5)
            assert await asyncio.to_thread(several.server.interrupt) == 0
            return await asyncio.gather(*waiting)

    for status, told in asyncio.run(asyncio.wait_for(use(), 60)):
        assert (status, told["messages"]) == (200, [])
    assert several.server.stderr == []


@pytest.mark.long
@both
def test_they_end_with_the_one_that_started_them(start: Starter, option: str) -> None:
    several = Several(start, option)
    several.server.process.kill()
    deadline = time.monotonic() + 30
    try:
        for id in several.ids:
            while is_there(id):
                assert time.monotonic() < deadline, f"{id} is still there"
                time.sleep(0.05)
    finally:
        for id in filter(is_there, several.ids):
            os.kill(id, signal.SIGKILL)


# --- In this process: two queues, as two processes have them ------------------


@both
def test_a_claim_hears_of_what_came_by_another_process(option: str) -> None:
    async def use(here: Client, there: Client) -> None:
        for one, other in ((here, there), (there, here)):
            waiting = asyncio.create_task(one.claim(wait=50))
            while not one.app.state.desk.arrived._waiters:
                await asyncio.sleep(0.05)
            started = time.monotonic()
            (id,) = await other.create()
            claimed = await waiting
            assert [each["id"] for each in claimed["messages"]] == [id]
            assert time.monotonic() - started < 30  # not when it looks by itself
            await other.tell(claimed, "complete")

    two(option, use)


@both
def test_one_process_tells_another_what_became_of_it(option: str) -> None:
    async def use(here: Client, there: Client) -> None:
        ids = await here.create(4)
        claimed = await here.claim(4)
        assert [each["id"] for each in claimed["messages"]] == ids
        wrong = {**claimed, "token": "0" * 32}
        await there.tell(wrong, "complete", 409)
        await there.tell({**claimed, "token": claimed["token"][:8] + "0" * 24}, "complete", 409)
        await there.tell(claimed, "complete")
        await there.tell(claimed, "complete")  # twice does no harm
        claimed["messages"].pop(0)
        await there.tell(claimed, "extend", lease_seconds=40)
        await there.tell(claimed, "release")
        await there.tell(claimed, "release", 409)
        claimed["messages"].pop(0)
        told = await there.tell(claimed, "fail", reason="no paper", retry=False)
        assert told["state"] == "dead"
        claimed["messages"].pop(0)
        told = await there.tell(claimed, "fail", reason="no paper")
        assert (told["state"], told["retry_in_seconds"]) == ("ready", 0.2)
        started = time.monotonic()
        late = (await there.claim(1, wait=50))["messages"]
        late += (await here.claim(1, wait=50))["messages"]
        assert time.monotonic() - started < 30  # at the end of its wait it looks
        assert {each["id"] for each in late} == {ids[1], ids[3]}
        async with asyncio.timeout(20):
            for each in (here, there):  # they count together
                while (await each.counts()) != {"leased": 2, "done": 1, "dead": 1}:
                    await asyncio.sleep(0.1)

    two(option, use, policy={"backoff": 0.2}, due=True)


def test_nonsense_in_the_queue_of_a_process_does_no_harm(url: str) -> None:
    async def use(here: Client, there: Client) -> None:
        name = here.queue.peers.name
        with connected(url) as channel:
            for body in (b"", b"[]", b"\xff", b'["close", []]', b'["complete", 17]', b"{}"):
                channel.basic_publish("", f"http_queue.process.{name}", body)
                channel.basic_publish("http_queue.news", "", body)
        (id,) = await there.create()
        claimed = await here.claim(wait=20)
        await there.tell(claimed, "complete")
        assert id == claimed["messages"][0]["id"]

    two(f"--queue={url}", use)


async def nothing() -> int:
    return 0


def two(option: str, use: Any, policy: dict[str, Any] | None = None, due: bool = False) -> None:
    """Claims of two queues, which hear of messages and don't look for them."""
    name, _, where = option.partition("=")
    made = module("queues").Policy(**(policy or {}))
    kind = (
        module("broker_queue").BrokerQueue
        if name == "--queue"
        else module("table_queue").TableQueue
    )

    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            clients = []
            for _ in range(2):
                queue = kind(where, made)
                queue.look_again = 60
                if not due:
                    queue.due = nothing
                await queue.start()
                stack.push_async_callback(queue.close)
                if name == "--database":
                    while not queue.database._ear:
                        await asyncio.sleep(0.05)
                app = module("api").create_app(queue, module("desk").Settings())
                http = httpx.AsyncClient(
                    transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=60
                )
                await stack.enter_async_context(http)
                clients.append(Client(http, queue, app))
            await use(*clients)

    asyncio.run(asyncio.wait_for(main(), 90))
