"""Take lists, but not too long ones nor too many: python take_bounded.py"""

import asyncio
import json
import os
import signal
import socket
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, HTTPException, Request

URL = os.environ.get("PRODUCE_URL", "http://127.0.0.1:8000")
MAX_BODY, MAX_REQUESTS = 1_000_000, 8  # bytes, at a time
app = FastAPI()
busy = 0  # requests at work


async def read(request: Request) -> Any:
    """The body, which is given up as soon as it is too long, or too slow."""
    body = b""
    async with asyncio.timeout(3):
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                raise HTTPException(413, f"at most {MAX_BODY} bytes")
    return json.loads(body)


@app.post("/produce")
async def produce(request: Request) -> int:
    global busy
    if busy >= MAX_REQUESTS:
        raise HTTPException(503, "too many at a time", {"Retry-After": "1"})
    busy += 1
    try:
        items = await read(request)
        await asyncio.sleep(0.1)  # the work
        return len(items)
    except TimeoutError:
        raise HTTPException(408, "too slow") from None
    except (TypeError, ValueError, RecursionError):
        raise HTTPException(400, "that is no list") from None
    finally:
        busy -= 1


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # for when uvicorn is through
    address = urlsplit(URL)
    with socket.create_server((address.hostname, address.port)) as server:
        print(f" [*] Waiting for lists at {URL}. To exit press CTRL+C")
        config = uvicorn.Config(app, log_level="warning")
        uvicorn.Server(config).run(sockets=[server])
