"""Take lists, but not too long ones nor too many: python take_bounded.py"""

import asyncio
import os
import signal
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from pydantic import TypeAdapter
from starlette.requests import ClientDisconnect

URL = os.environ.get("PRODUCE_URL", "http://127.0.0.1:8000")
MAX_BODY, MAX_REQUESTS = 1_000_000, 8  # bytes, at a time
app = FastAPI()
busy = 0  # requests at work


async def read(request: Request) -> list[Any]:
    """The list in the body, which is given up as soon as that is too long."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"at most {MAX_BODY} bytes")
    return TypeAdapter(list[Any]).validate_json(body)


@app.post("/produce")
async def produce(request: Request) -> int:
    global busy
    if busy >= MAX_REQUESTS:
        raise HTTPException(503, "too many at a time", {"Retry-After": "1"})
    busy += 1
    try:
        items = await asyncio.wait_for(read(request), timeout=3)
        await asyncio.sleep(0.1)  # the work
        return len(items)
    except TimeoutError:
        raise HTTPException(408, "too slow") from None
    except (ValueError, ClientDisconnect):
        raise HTTPException(400, "that is no list") from None
    finally:
        busy -= 1


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # for when uvicorn is through
    port = urlsplit(URL).port or 80
    config = uvicorn.Config(app, port=port, log_level="warning")
    listening = config.bind_socket()  # or it says why not, and ends
    listening.listen()
    print(f" [*] Waiting for lists at {URL}. To exit press CTRL+C")
    uvicorn.Server(config).run(sockets=[listening])
