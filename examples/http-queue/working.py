"""working.py: a worker, which worker.py and batch_worker.py are.

A worker in any other language does the same: a few HTTP calls. What is done is
told in the request that asks for more.
"""

import argparse
import asyncio
import contextlib
import random
import signal
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from client import Api, Failed, Shown, parser, run_command, title_of

WAIT = 20  # seconds that a claim waits for a message

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
        self._claiming: asyncio.Task[bool] | None = None
        self._stopping = self._giving_back = False
        # What is done, and not yet told: the id, the token, the title.
        self._handled: list[tuple[str, str, str]] = []
        self._changed = asyncio.Event()

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
                if self._handled:
                    await self._exchange(0)
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
        self._changed.set()
        if self._tasks and not self._giving_back:
            self.shown.say(
                f" [*] Finishing {len(self._tasks)} in hand. "
                "CTRL+C again gives them back"
            )

    def _wanted(self) -> int:
        """How many we can take now."""
        if self._stopping or self._claiming:
            return 0
        free = self.size - len(self._tasks)
        if self.given.count is not None:
            # Those that failed come again, to us or somebody else.
            known = self.done + len(self._handled) + len(self._tasks)
            free = min(free, max(0, self.given.count - known))
        return free

    async def _loop(self) -> None:
        while True:
            self._changed.clear()
            if self._handled:
                await self._exchange(self._wanted())
                continue
            if self._claiming and self._claiming.done():
                there_may_be_more = self._ended(self._claiming)
                self._claiming = None
                if not there_may_be_more and not self._tasks:
                    return
            if count := self._wanted():
                self._claiming = asyncio.create_task(self._claim(count))
                self._claiming.add_done_callback(self._wake)
            if not self._tasks and not self._claiming:
                return
            await self._changed.wait()

    def _wake(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        self._changed.set()

    def _ended(self, task: asyncio.Task[bool]) -> bool:
        return not task.cancelled() and task.result()

    def _take(self, claimed: dict[str, Any]) -> None:
        """Take messages into hand."""
        for message in claimed["messages"]:
            self.held[message["id"]] = claimed["token"]
            task = asyncio.create_task(self._work(message))
            self._tasks.add(task)
            task.add_done_callback(self._wake)

    async def _claim(self, count: int) -> bool:
        """Wait for messages; False when there will be none."""
        busy = bool(self._tasks)
        body = {
            "count": count,
            "lease_seconds": self.given.lease,
            "wait_seconds": 1 if busy or self.given.until_empty else WAIT,
        }
        claimed = await self.api.call("POST", "v1/claims", body)
        self._take(claimed)
        if claimed["messages"] or not self.given.until_empty or busy:
            return True
        state = await self.api.call("GET", "v1/state")
        return bool(state["ready"] or state["delayed"] or state["leased"])

    async def _exchange(self, count: int) -> None:
        """Tell what is done, and take as many new ones."""
        told, self._handled = self._handled, []
        done: dict[str, list[str]] = defaultdict(list)
        for id, token, _ in told:
            done[token].append(id)
        body = {
            "count": count,
            "lease_seconds": self.given.lease,
            "done": [{"token": t, "ids": ids} for t, ids in done.items()],
        }
        refused: dict[str, str] = {}
        try:
            answer = await self.api.call("POST", "v1/claims", body)
            self._take(answer)
            for each in answer["refused"]:
                refused[each["id"]] = each["title"]
        except Failed as error:
            refused = {id: str(error) for id, _, _ in told}
        for id, _, title in told:
            if id in refused:
                self.lost += 1
                self.shown.say(f" [!] Lost {title}: {refused[id]}")
            else:
                self.done += 1
                self.shown.advance(f" [x] Done {title}")

    async def _work(self, message: dict[str, Any]) -> None:
        id, token = message["id"], self.held[message["id"]]
        title = title_of(message["payload"])
        try:
            try:
                await self.handle(message["payload"])
            except asyncio.CancelledError:
                await self._tell(id, "release", token)
                self.shown.say(f" [*] Gave back {title}")
            except Exception as error:
                self.failed += 1
                reason = (str(error) or repr(error))[:1_000]
                told = await self._tell(id, "fail", token, reason=reason)
                wait = told["retry_in_seconds"]
                then = f"again in {wait:g} s" if wait is not None else "dead"
                self.shown.say(f" [!] Failed {title} ({error}), {then}")
            else:
                self._handled.append((id, token, title))
        except Failed as error:
            self.lost += 1
            self.shown.say(f" [!] Lost {title}: {error}")
        finally:
            del self.held[id]

    async def _tell(self, id: str, what: str, token: str, **more: Any) -> Any:
        body = {"token": token, **more}
        return await self.api.call("POST", f"v1/messages/{id}/{what}", body)

    async def _extend(self) -> None:
        """Work may take longer than the lease, as long as we live."""
        while True:
            await asyncio.sleep(self.given.lease / 3)
            for id, token in [*self.held.items()]:
                # If it is no longer ours, completing it will say so.
                with contextlib.suppress(Failed):
                    lease = self.given.lease
                    await self._tell(id, "extend", token, lease_seconds=lease)


def worker_parser(description: str | None) -> argparse.ArgumentParser:
    made = parser(description)
    add = made.add_argument
    add(
        "--lease",
        type=float,
        default=30,
        metavar="SECONDS",
        help="how long a claim lasts; the worker extends it while it works",
    )
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
