"""processes.py: serve.py with --processes, and what each of them does.

Uvicorn starts them, starts those again that end, and ends them with itself.
"""

import argparse
import asyncio
import multiprocessing
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from serve import app_of, arguments, careful, queue_of, say_ready
from uvicorn.supervisors import Multiprocess


def run(given: argparse.Namespace) -> None:
    """Listen, and have so many processes answer."""
    queue = queue_of(given)

    async def look() -> None:
        """One message of what is wrong, and not one from each."""
        with careful(given):
            await queue.start()
        await queue.close()

    asyncio.run(look())
    config = uvicorn.Config(
        "processes:application",
        given.host,
        given.port,
        factory=True,
        workers=given.processes,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=3,
        # One that doesn't answer for so long is killed; a busy machine is no
        # reason to.
        timeout_worker_healthcheck=60,
    )
    listening = config.bind_socket()
    # Whoever calls from now on waits for the first process to be ready.
    listening.listen(2048)
    say_ready(queue.kind, listening)
    Multiprocess(config, sockets=[listening]).run()


def application() -> FastAPI:
    """The API in one of the processes, which has its parent's arguments."""
    given = arguments()
    queue = queue_of(given)
    app, readers = app_of(queue, given)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        if parent := multiprocessing.parent_process():
            # Killed, it tells nobody; we would stay, and keep the port.
            loop.add_reader(parent.sentinel, orphaned, loop, parent.sentinel)
        exits = signal.getsignal(signal.SIGTERM)

        def leave(number: int, frame: Any) -> None:
            """As uvicorn does, and nobody waits any longer."""
            exits(number, frame)  # type: ignore[operator]
            loop.call_soon_threadsafe(app.state.desk.end)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, leave)
        await queue.start()
        await readers.prepare()
        print(f" [*] Process {os.getpid()} is ready", flush=True)
        try:
            yield
        finally:
            await readers.close()
            await queue.close()

    app.router.lifespan_context = lifespan
    return app


def orphaned(loop: asyncio.AbstractEventLoop, sentinel: int) -> None:
    loop.remove_reader(sentinel)
    signal.raise_signal(signal.SIGTERM)
