#!/usr/bin/env python3
"""Pass items on to consumer_service.py: python produce_naive.py

It takes lists at http://127.0.0.1:8000/produce; send one with ask.py.
"""

import asyncio
import logging
import os
import socket
import sys
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvicorn
from fastapi import FastAPI

URL = os.environ.get("PRODUCE_URL", "http://127.0.0.1:8000")
CONSUMER_URL = os.environ.get("CONSUMER_URL", "http://127.0.0.1:8001")
app = FastAPI()
queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=10)


async def producer(items: list[Any]) -> None:
    for item in items:
        await queue.put(item)  # waits while the queue is full


async def consumer() -> None:
    async with httpx.AsyncClient() as client:
        while True:
            item = await queue.get()
            await client.post(f"{CONSUMER_URL}/items", json=item)
            queue.task_done()


@app.post("/produce")
async def produce(items: list[Any]) -> dict[str, str]:
    consumer_task = asyncio.create_task(consumer())
    await producer(items)
    await queue.join()
    consumer_task.cancel()
    return {"status": "done"}


if __name__ == "__main__":
    # We look at what it answers.
    logging.getLogger("asyncio").setLevel("CRITICAL")
    address = urlsplit(URL)
    try:
        with socket.create_server((address.hostname, address.port)) as server:
            print(f" [*] Waiting for lists at {URL}. To exit press CTRL+C")
            # Those it has kept waiting would keep it from ending.
            config = uvicorn.Config(
                app, log_level="critical", timeout_graceful_shutdown=1
            )
            uvicorn.Server(config).run(sockets=[server])
    except KeyboardInterrupt:
        pass
    except OSError as why:
        sys.exit(f"Failed at {URL}: {why!r}. Is the port taken?")
