"""client.py: what the commands have in common: calling the API, progress.

insert.py, upload.py, worker.py and batch_worker.py use it. A worker in any
other language does the same: five HTTP calls.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import httpx
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

URL = os.environ.get("HTTP_QUEUE_URL", "http://127.0.0.1:8000/")
PATIENCE = 30  # seconds for an API that is being restarted
WAIT = 20  # seconds that a claim waits for a message
FEW = 50  # so many messages get a line each


class Failed(Exception):
    """What the API answered, or why it didn't."""

    def __init__(self, text: str, status: int = 0, body: Any = None) -> None:
        super().__init__(text)
        self.status = status
        self.body = body


class Api:
    """The API. Calls are repeated while it is away; see `call`."""

    def __init__(self, url: str, token: str, patience: float) -> None:
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._url = url
        self._patience = patience

    async def __aenter__(self) -> "Api":
        self._http = httpx.AsyncClient(
            base_url=self._url,
            headers=self._headers,
            timeout=httpx.Timeout(10, read=600, pool=None),
            limits=httpx.Limits(max_connections=600),
            trust_env=False,
            # To load certificates takes longer than all the rest.
            verify=self._url.startswith("https:"),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        again: bool = True,
        **more: Any,
    ) -> Any:
        """One request. Raises Failed.

        With `again` it is repeated when no answer came, so the call must be
        one that does no harm twice.
        """
        deadline = time.monotonic() + self._patience
        while True:
            try:
                answer = await self._http.request(
                    method, path, json=body, **more
                )
                if answer.status_code != 503:
                    break
                why = str(answer.json().get("detail") or "status 503")
            except httpx.TransportError as error:
                why = str(error) or type(error).__name__
            if not again or time.monotonic() > deadline:
                hint = "Is it running? python serve.py"
                raise Failed(f"Failed at {self._url}: {why}. {hint}")
            await asyncio.sleep(0.2)
        if answer.is_success:
            return answer.json()
        try:
            told = answer.json()
            text = f"{told['title']}. {told.get('detail', '')}".strip()
        except (ValueError, KeyError, TypeError):
            told, text = None, f"Status {answer.status_code}"
        raise Failed(text, answer.status_code, told)


class Shown:
    """How far we are: a bar on a terminal, else lines."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._done = 0
        moves = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.bar = self._bar() if moves else None
        self._few = not moves and (total is None or total <= FEW)

    def _bar(self) -> Progress:
        return Progress(
            TextColumn(" [*]", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )

    def __enter__(self) -> "Shown":
        if self.bar:
            self.bar.start()
            self._task = self.bar.add_task("", total=self._total)
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def advance(self, line: str) -> None:
        self._done += 1
        if self.bar:
            self.bar.advance(self._task)
        elif self._few:
            self.say(line)
        elif self._done % max(1, (self._total or 0) // 10) == 0:
            self.say(f" [*] {self._done:,} of {self._total:,}")

    def say(self, line: str) -> None:
        if self.bar:
            self.bar.console.print(line, markup=False, highlight=False)
        else:
            try:
                print(line, flush=True)
            except OSError:
                # Nobody reads it any more. What we do must not depend on it.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def title_of(payload: Any) -> str:
    """A message in a few words, whatever its Payload has."""
    values = payload.values() if isinstance(payload, dict) else [payload]
    return " ".join(": ".join(map(str, [*values][:2])).split())[:80]


def told_of(fault: dict[str, Any]) -> str:
    """Why a file is refused, and where."""
    where = [f"{k} {fault[k]}" for k in ("row", "column") if fault.get(k)]
    return ": ".join(filter(None, [", ".join(where), fault["reason"]]))


Handler = Callable[[dict[str, Any]], Awaitable[None]]


class Worker:
    """Claims messages and handles up to `size` of them at a time."""

    def __init__(
        self, api: Api, handle: Handler, given: argparse.Namespace, size: int
    ) -> None:
        self.api, self.handle, self.given, self.size = api, handle, given, size
        self.done = self.failed = self.lost = 0
        self.held: dict[str, str] = {}  # message by message: the token
        self._tasks: set[asyncio.Task[None]] = set()
        self._claiming: asyncio.Task[Any] | None = None
        self._stopping = self._giving_back = False
        self._handled: list[tuple[str, str, asyncio.Future[None]]] = []
        self._completing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.interrupt)
        state = await self.api.call("GET", "v1/state")
        total = self.given.count
        if self.given.until_empty:
            waiting = state["ready"] + state["delayed"] + state["leased"]
            total = min(total or waiting, waiting)
        with Shown(total) as self.shown:
            extending = asyncio.create_task(self._extend())
            try:
                await self._loop()
            finally:
                # Whatever ended us: what is in hand gets finished.
                while self._tasks:
                    await asyncio.wait([*self._tasks])
                if self._completing:
                    await self._completing
                extending.cancel()

    def interrupt(self) -> None:
        """Ctrl-C: finish what is in hand; the second time: give it back."""
        if self._stopping:
            self._giving_back = True
            for task in self._tasks:
                task.cancel()
        self._stopping = True
        if self._claiming:
            self._claiming.cancel()
        if self._tasks and not self._giving_back:
            self.shown.say(
                f" [*] Finishing {len(self._tasks)} in hand. "
                "CTRL+C again gives them back"
            )

    def _wanted(self) -> int:
        """How many we can take now."""
        free = self.size - len(self._tasks)
        if self.given.count is not None:
            # Those that failed come again, to us or somebody else.
            over = self.given.count - self.done - len(self._tasks)
            free = min(free, max(0, over))
        return 0 if self._stopping else free

    async def _loop(self) -> None:
        while not self._stopping:
            if count := self._wanted():
                if not await self._claim(count):
                    return
            elif self._tasks:
                first = asyncio.FIRST_COMPLETED
                await asyncio.wait([*self._tasks], return_when=first)
            else:
                return

    async def _claim(self, count: int) -> bool:
        """Take messages into hand; False when there will be none."""
        busy = bool(self._tasks)
        wait = 1 if busy or self.given.until_empty else WAIT
        body = {
            "count": count,
            "lease_seconds": self.given.lease,
            "wait_seconds": wait,
        }
        call = self.api.call("POST", "v1/claims", body)
        self._claiming = asyncio.create_task(call)
        try:
            claimed = await self._claiming
        except asyncio.CancelledError:
            return False
        finally:
            self._claiming = None
        for message in claimed["messages"]:
            self.held[message["id"]] = claimed["token"]
            task = asyncio.create_task(self._work(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if claimed["messages"] or not self.given.until_empty or busy:
            return True
        state = await self.api.call("GET", "v1/state")
        return bool(state["ready"] or state["delayed"] or state["leased"])

    async def _work(self, message: dict[str, Any]) -> None:
        id, token = message["id"], self.held[message["id"]]
        payload = message["payload"]
        name = title_of(payload)
        holder: dict[str, Any] = {"token": token}
        try:
            try:
                await self.handle(payload)
            except asyncio.CancelledError:
                await self._tell(id, "release", holder)
                self.shown.say(f" [*] Gave back {name}")
            except Exception as error:
                self.failed += 1
                holder["reason"] = str(error) or repr(error)
                told = await self._tell(id, "fail", holder)
                wait = told["retry_in_seconds"]
                then = f"again in {wait:g} s" if wait is not None else "dead"
                self.shown.say(f" [!] Failed {name} ({error}), {then}")
            else:
                await self._complete(id, token)
                self.done += 1
                self.shown.advance(f" [x] Done {name}")
        except Failed as error:
            self.lost += 1
            self.shown.say(f" [!] Lost {name}: {error}")
        finally:
            del self.held[id]

    async def _complete(self, id: str, token: str) -> None:
        """Tell that it is done, together with others that are by then."""
        loop = asyncio.get_running_loop()
        told: asyncio.Future[None] = loop.create_future()
        self._handled.append((id, token, told))
        if not self._completing:
            self._completing = asyncio.create_task(self._complete_all())
        await told

    async def _complete_all(self) -> None:
        while self._handled:
            token = self._handled[0][1]
            now = {id: told for id, its, told in self._handled if its == token}
            self._handled = [e for e in self._handled if e[0] not in now]
            refused: dict[str, Failed] = {}
            try:
                body = {"token": token, "ids": [*now]}
                answer = await self.api.call("POST", "v1/completions", body)
                for each in answer["refused"]:
                    error = Failed(each["title"], each["status"])
                    refused[each["id"]] = error
            except Failed as error:
                refused = dict.fromkeys(now, error)
            for id, told in now.items():
                if told.done():
                    continue  # who waited for it was cancelled
                if id in refused:
                    told.set_exception(refused[id])
                else:
                    told.set_result(None)
        self._completing = None

    async def _tell(self, id: str, what: str, body: Any) -> Any:
        return await self.api.call("POST", f"v1/messages/{id}/{what}", body)

    async def _extend(self) -> None:
        """Work may take longer than the lease, as long as we live."""
        while True:
            await asyncio.sleep(self.given.lease / 3)
            for id, token in [*self.held.items()]:
                body = {"token": token, "lease_seconds": self.given.lease}
                # If it is no longer ours, completing it will say so.
                with contextlib.suppress(Failed):
                    await self._tell(id, "extend", body)


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=(description or "").partition("\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    made.add_argument("--url", default=URL, help="$HTTP_QUEUE_URL")
    made.add_argument(
        "--token",
        default=os.environ.get("HTTP_QUEUE_TOKEN", ""),
        help="$HTTP_QUEUE_TOKEN",
    )
    made.add_argument(
        "--patience",
        type=float,
        default=PATIENCE,
        help="seconds for an API that is away",
    )
    return made


def worker_parser(description: str | None) -> argparse.ArgumentParser:
    made = parser(description)
    add = made.add_argument
    add("--lease", type=float, default=30, help="seconds, and extended")
    add("--count", type=int, help="end after so many messages")
    add("--until-empty", action="store_true", help="end when all are done")
    add(
        "--simulate",
        type=float,
        default=0,
        metavar="SECONDS",
        help="simulation: what it takes to handle a message",
    )
    add(
        "--flaky",
        type=float,
        default=0,
        metavar="SHARE",
        help="simulation: the share that fails, from 0 to 1",
    )
    return made


def simulated(given: argparse.Namespace) -> Handler:
    """A handler that does nothing. Put your own work here."""

    async def handle(payload: dict[str, Any]) -> None:
        if given.simulate:
            await asyncio.sleep(given.simulate)
        if random.random() < given.flaky:
            raise RuntimeError("simulated failure")

    return handle


def work(given: argparse.Namespace, size: int, how: str) -> int:
    """Run a worker; returns the exit status."""

    async def run() -> None:
        async with Api(given.url, given.token, given.patience) as api:
            worker = Worker(api, simulated(given), given, size)
            started = time.monotonic()
            print(" [*] Waiting for messages. To exit press CTRL+C")
            try:
                await worker.run()
            finally:
                seconds = time.monotonic() - started
                told = f" [x] {worker.done:,} messages {how}"
                more = {"failures": worker.failed, "lost": worker.lost}
                told += "".join(f", {n} {k}" for k, n in more.items() if n)
                print(f"{told} in {seconds:.2f} s", flush=True)

    return run_command(run())


def run_command(coroutine: Coroutine[Any, Any, int | None]) -> int:
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        return asyncio.run(coroutine) or 0
    except KeyboardInterrupt:
        return 130
    except (Failed, httpx.InvalidURL) as error:
        print(error, file=sys.stderr)
        return 1
