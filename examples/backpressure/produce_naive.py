"""Pass items on to consumer_service.py: python produce_naive.py"""

import asyncio
import logging
import os
import signal
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
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # for when uvicorn is through
    port = urlsplit(URL).port or 80
    # Those it has kept waiting would keep it from ending.
    config = uvicorn.Config(
        app, port=port, log_level="warning", timeout_graceful_shutdown=1
    )
    listening = config.bind_socket()  # or it says why not, and ends
    listening.listen()
    logging.disable()  # we look at what it answers
    print(f" [*] Waiting for lists at {URL}. To exit press CTRL+C")
    uvicorn.Server(config).run(sockets=[listening])
