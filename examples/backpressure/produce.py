#!/usr/bin/env python3
"""Pass items on to consumer_service.py, and say which: python produce.py

It takes lists at http://127.0.0.1:8000/produce; send one with ask.py. The
answer says how many were delivered, and of the others which, and why not.
"""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse

URL = os.environ.get("PRODUCE_URL", "http://127.0.0.1:8000")
CONSUMER_URL = os.environ.get("CONSUMER_URL", "http://127.0.0.1:8001")
MAX_BODY = 1_000_000  # bytes
MAX_REQUESTS = 8  # at a time
WORKERS, WAITING = 4, 10  # of each request
POST_SECONDS, REQUEST_SECONDS = 2.0, 3.0

NOT_TRIED = "not tried: no time left"
UNKNOWN = "unknown: no answer"
Job = tuple[int, Any]  # an item, and its place in the list
busy = 0  # requests at work


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    limits = httpx.Limits(max_connections=WORKERS * MAX_REQUESTS)
    # One for all requests: it keeps its connections open.
    async with httpx.AsyncClient(timeout=POST_SECONDS, limits=limits) as it:
        app.state.client = it
        yield


app = FastAPI(lifespan=lifespan)


async def read_items(request: Request) -> list[Any]:
    """The list in the body, which is given up as soon as it is too long."""
    body = bytearray()
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise HTTPException(413, f"at most {MAX_BODY} bytes")
    except TimeoutError:
        raise HTTPException(408, "that took you too long") from None
    try:
        items = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "that is no JSON") from None
    if not isinstance(items, list):
        raise HTTPException(422, "that is no list")
    return items


async def deliver(client: httpx.AsyncClient, item: Any) -> str:
    """Return why the item is not delivered; "" when it is."""
    try:
        answer = await client.post(f"{CONSUMER_URL}/items", json=item)
    except (httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError):
        return UNKNOWN  # it may have been done all the same
    except Exception as error:  # whatever it is, this worker goes on
        return f"failed: {type(error).__name__}"
    return "" if answer.is_success else f"refused: {answer.status_code}"


async def work(
    client: httpx.AsyncClient, queue: asyncio.Queue[Job], fates: list[str]
) -> None:
    while True:
        index, item = await queue.get()
        try:
            fates[index] = UNKNOWN  # until we know more
            fates[index] = await deliver(client, item)
        finally:
            queue.task_done()


async def pass_on(client: httpx.AsyncClient, items: list[Any]) -> list[str]:
    """The fate of each item, all of them settled or time is up."""
    fates = [NOT_TRIED] * len(items)
    queue: asyncio.Queue[Job] = asyncio.Queue(maxsize=WAITING)  # our own
    jobs = (work(client, queue, fates) for _ in range(WORKERS))
    workers = [asyncio.create_task(job) for job in jobs]
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            for job in enumerate(items):
                await queue.put(job)  # waits while the queue is full
            await queue.join()
    except TimeoutError:
        pass  # the fates tell
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    return fates


def account(fates: Iterable[str]) -> dict[str, Any]:
    not_delivered: dict[str, list[int]] = {}
    delivered = 0
    for index, fate in enumerate(fates):
        if fate:
            not_delivered.setdefault(fate, []).append(index)
        else:
            delivered += 1
    return {"delivered": delivered, "not_delivered": not_delivered}


@app.post("/produce")
async def produce(request: Request) -> JSONResponse:
    global busy
    if busy >= MAX_REQUESTS:
        wait = {"Retry-After": "1"}  # seconds
        raise HTTPException(503, "too many requests at a time", wait)
    busy += 1
    try:
        items = await read_items(request)
        told = account(await pass_on(app.state.client, items))
    finally:
        busy -= 1
    return JSONResponse(told, 502 if told["not_delivered"] else 200)


if __name__ == "__main__":
    address = urlsplit(URL)
    try:
        with socket.create_server((address.hostname, address.port)) as server:
            print(f" [*] Waiting for lists at {URL}. To exit press CTRL+C")
            config = uvicorn.Config(app, log_level="warning")
            uvicorn.Server(config).run(sockets=[server])
    except KeyboardInterrupt:
        pass
    except OSError as why:
        sys.exit(f"Failed at {URL}: {why!r}. Is the port taken?")
