"""A service that takes items by HTTP, so many seconds each, one at a time.

    python consumer_service.py 0.1

It takes them at http://127.0.0.1:8001/items. An item that contains "oops" it
answers with status 500; press Ctrl-C to have it answer nothing at all.
"""

import asyncio
import os
import re
import signal
import sys
from typing import Annotated, Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import Body, FastAPI, HTTPException

URL = os.environ.get("CONSUMER_URL", "http://127.0.0.1:8001")
app = FastAPI()
one_at_a_time = asyncio.Lock()
seconds = 0.0


@app.post("/items")
async def take(item: Annotated[Any, Body()]) -> None:
    async with one_at_a_time:
        await asyncio.sleep(seconds)  # the work
    if "oops" in str(item):
        print(f" [!] Failed {item!r}")
        raise HTTPException(500)
    print(f" [x] Took {item!r}")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # for when uvicorn is through
    if not re.fullmatch(r"\d+(\.\d+)?", " ".join(sys.argv[1:])):
        sys.exit("Usage: python consumer_service.py SECONDS")
    seconds = float(sys.argv[1])
    port = urlsplit(URL).port or 80
    config = uvicorn.Config(app, port=port, log_level="warning")
    listening = config.bind_socket()  # or it says why not, and ends
    listening.listen()
    print(f" [*] Waiting for items at {URL}. To exit press CTRL+C")
    uvicorn.Server(config).run(sockets=[listening])
