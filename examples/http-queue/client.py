"""client.py: what the commands have in common: calling the API, progress."""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Coroutine
from typing import Any

import aiohttp
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
        try:
            self._http = aiohttp.ClientSession(
                self._url if self._url.endswith("/") else f"{self._url}/",
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(sock_connect=10, sock_read=600),
                connector=aiohttp.TCPConnector(limit=600),
            )
        except ValueError:
            raise Failed(f"Not a URL: {self._url}") from None
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        again: bool = True,
        headers: dict[str, str] | None = None,
        files: list[tuple[str, bytes]] | None = None,
    ) -> Any:
        """One request. Raises Failed.

        With `again` it is repeated when no answer came, so the call must be
        one that does no harm twice.
        """
        deadline = time.monotonic() + self._patience
        while True:
            status, why = 0, ""
            told: Any = None
            more: dict[str, Any] = (
                {"data": form_of(files)} if files else {"json": body}
            )
            if body is None and not files:
                more = {}
            try:
                async with self._http.request(
                    method, path, headers=headers, **more
                ) as answer:
                    status, text = answer.status, await answer.read()
                    with contextlib.suppress(ValueError):
                        told = json.loads(text)
            except aiohttp.InvalidURL:
                raise Failed(f"Not a URL: {self._url}") from None
            except (aiohttp.ClientError, OSError) as error:
                status, why = 0, str(error) or type(error).__name__
            if status not in (0, 503):
                break
            if status:
                why = str((told or {}).get("detail") or "status 503")
            if not again or time.monotonic() > deadline:
                hint = "Is it running? python serve.py"
                raise Failed(f"Failed at {self._url}: {why}. {hint}")
            await asyncio.sleep(0.2)
        if status < 300:
            return told
        try:
            text = f"{told['title']}. {told.get('detail', '')}".strip()
        except (AttributeError, KeyError, TypeError):
            text = f"Status {status}"
        raise Failed(text, status, told)


def form_of(files: list[tuple[str, bytes]]) -> aiohttp.FormData:
    form = aiohttp.FormData(quote_fields=False)
    for name, data in files:
        form.add_field("files", data, filename=name)
    return form


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
        metavar="SECONDS",
        help="how long to try again when the API does not answer",
    )
    return made


def run_command(coroutine: Coroutine[Any, Any, int | None]) -> int:
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore
    try:
        return asyncio.run(coroutine) or 0
    except KeyboardInterrupt:
        return 130
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
