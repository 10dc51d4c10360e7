"""Pass items on to consumer_service.py, and say which: python produce.py"""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import httpx
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

URL = os.environ.get("PRODUCE_URL", "http://127.0.0.1:8000")
CONSUMER_URL = os.environ.get("CONSUMER_URL", "http://127.0.0.1:8001")
app = FastAPI()


async def work(
    client: httpx.AsyncClient,
    jobs: Iterator[tuple[int, Any]],
    fates: list[str],
) -> None:
    for index, item in jobs:  # each worker takes the next
        fates[index] = "unknown"  # until there is an answer
        try:
            answer = await client.post(f"{CONSUMER_URL}/items", json=item)
        except (httpx.ConnectError, ValueError):
            fates[index] = "failed"  # was not sent
        except httpx.HTTPError:
            pass  # it may have been done all the same
        else:
            fates[index] = "delivered" if answer.is_success else "refused"


@app.post("/produce")
async def produce(items: list[Any]) -> JSONResponse:
    fates, jobs = ["not tried"] * len(items), enumerate(items)
    with suppress(TimeoutError):  # the fates tell
        async with asyncio.timeout(3), httpx.AsyncClient(timeout=2) as client:
            four = (work(client, jobs, fates) for _ in range(4))
            await asyncio.gather(*four)
    return JSONResponse(fates, 200 if {*fates} <= {"delivered"} else 502)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # for when uvicorn is through
    port = urlsplit(URL).port or 80
    config = uvicorn.Config(app, port=port, log_level="warning")
    listening = config.bind_socket()  # or it says why not, and ends
    listening.listen()
    print(f" [*] Waiting for lists at {URL}. To exit press CTRL+C")
    uvicorn.Server(config).run(sockets=[listening])
