"""What the tests of http-queue share: the app in this process, and as a server."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from shells.chapters import EXAMPLES

CHAPTER = "http-queue"
FOLDER = EXAMPLES / CHAPTER
# Where the queue is: for the fixture `option` of fixtures.py.
SQLITE, BROKER = "--database=sqlite", "--queue"
in_one_process = pytest.mark.xdist_group("postgres")
POSTGRES = pytest.param("--database=postgres", marks=in_one_process)
LETTER = {"recipient": "ann@example.com", "text": "Hello", "copies": 1}


def module(name: str) -> Any:
    """One of the app's modules; they aren't a package, and nor is the folder."""
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))
    return importlib.import_module(name)


class Client:
    """Calls the API without a network: the app is in this process."""

    def __init__(self, http: httpx.AsyncClient, queue: Any, app: Any) -> None:
        self.http, self.queue, self.app = http, queue, app

    async def get(self, path: str, **more: Any) -> Any:
        answer = await self.http.get(path, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def post(self, path: str, body: Any = None, status: int = 200, **more: Any) -> Any:
        answer = await self.http.post(path, json=body, **more)
        assert answer.status_code == status, answer.text
        if status >= 400:
            assert answer.headers["content-type"] == "application/problem+json"
            assert answer.json()["status"] == status
        return answer.json()

    async def create(self, count: int = 1) -> list[str]:
        letters = [{**LETTER, "text": f"Letter {n}"} for n in range(1, count + 1)]
        return [(await self.post("/v1/messages", each, 201))["id"] for each in letters]

    async def claim(self, count: int = 1, lease: float = 30, wait: float = 0) -> Any:
        wanted = {"count": count, "lease_seconds": lease, "wait_seconds": wait}
        return await self.post("/v1/claims", wanted)

    async def tell(self, claimed: Any, what: str, status: int = 200, **more: Any) -> Any:
        """Complete, fail, release or extend the first message of a claim."""
        path = f"/v1/messages/{claimed['messages'][0]['id']}/{what}"
        return await self.post(path, {"token": claimed["token"], **more}, status)

    async def counts(self) -> dict[str, int]:
        """By state, those that are not zero."""
        state = await self.get("/v1/state")
        return {name: n for name, n in state.items() if name != "queue" and n}

    async def upload(self, *paths: Path) -> tuple[int, Any]:
        files = [("files", (path.name, path.read_bytes())) for path in paths]
        answer = await self.http.post("/v1/uploads", files=files)
        return answer.status_code, answer.json()


def run(
    use: Callable[[Client], Awaitable[Any]],
    database: str = "",
    broker: str = "",
    policy: dict[str, Any] | None = None,
    **settings: Any,
) -> Any:
    """Start the queue and the API, use it, and close it."""
    api = module("api")
    kept = module("queues").Policy(**(policy or {}))
    if broker:
        queue = module("broker_queue").BrokerQueue(broker, kept)
    else:
        queue = module("table_queue").TableQueue(database, kept)

    async def main() -> Any:
        await queue.start()
        try:
            app = api.create_app(queue, module("desk").Settings(**settings))
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://localhost", timeout=60
            ) as http:
                return await use(Client(http, queue, app))
        finally:
            await queue.close()

    return asyncio.run(asyncio.wait_for(main(), 90))
