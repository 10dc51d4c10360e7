"""table_queue.py: a table as a queue, in SQLite or PostgreSQL.

What it asks of the database is in statements.py, one statement for each of
these methods.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import migrate
import statements as sql
from database import AWAY, Rows, Together, database_of
from queues import (
    KeyReused,
    NotDead,
    Once,
    Policy,
    QueueDown,
    QueueError,
    Row,
    Stale,
    TakenMeanwhile,
    Unknown,
    new_id,
)

TOGETHER = 500  # wishes in one statement, and messages in one claim


def milliseconds() -> int:
    return time.time_ns() // 1_000_000


def as_row(found: dict[str, Any], now: int) -> dict[str, Any]:
    """A row of the table as the API shows it."""
    lapsed = found["state"] == "leased" and found["available_at"] <= now
    times = ("available_at", "created_at", "finished_at")
    return {
        **found,
        **{name: (found[name] or 0) / 1000 or None for name in times},
        "payload": json.loads(found["payload"]),
        "state": "ready" if lapsed else found["state"],
    }


class TableQueue:
    """The queue in a database. Any number of processes may have one open."""

    max_lease = 43_200.0
    # Seconds: a waiting claim looks by itself, which it need not; see _tidy.
    look_again = 5.0

    def __init__(
        self, database: str, policy: Policy, keep: float | None = None
    ) -> None:
        self.database = database_of(database)
        self.kind = self.database.kind
        self.policy = policy
        self.keep = keep  # seconds, of what is done; None: for ever
        self.heard: Callable[[int], object] = lambda count: None
        self._janitor: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._untold = 0
        self._create = Together(self._create_all, TOGETHER)
        self._claim = Together(self._claim_all, TOGETHER)
        self._complete = Together(self._complete_all, TOGETHER)

    async def start(self) -> None:
        """Connect, and bring the tables up to date."""
        try:
            await migrate.to_date(self.database.url)
            await self.database.start()
        except QueueDown:
            raise
        except Exception as error:
            await self.close()
            raise QueueDown(f"Cannot use the database: {error}") from None
        self._janitor = asyncio.create_task(self._tidy())

    async def close(self) -> None:
        for task in (self._janitor, self._telling):
            if task:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self.database.close()

    async def _tidy(self) -> None:
        while True:
            # A database that is away for a while is no reason to stop.
            with suppress(QueueDown, *AWAY):
                await self.database.listen(self._hear)
                await self.bury()
                await self.prune()
                # Whose backoff is over, or whose lease has run out: one look
                # for all the claims that wait.
                self.heard(await self.due())
            await asyncio.sleep(1)

    def _hear(self, count: int) -> None:
        self.heard(count)

    def tell(self, count: int) -> None:
        """Tell other processes of new messages, of several at once."""
        self._untold += count
        if not self._telling:
            self._telling = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        await asyncio.sleep(0.01)
        count, self._untold, self._telling = self._untold, 0, None
        with suppress(QueueDown, *AWAY):  # they look by themselves, too
            await self.database.tell(count)

    async def bury(self) -> None:
        """Set aside what nobody may claim any more."""
        now = milliseconds()
        most = self.policy.max_attempts
        await self.database.run(sql.BURY, now, now, most)

    async def due(self) -> int:
        """How many may be claimed; that there are more doesn't matter."""
        most = self.policy.max_attempts
        values = (milliseconds(), most, TOGETHER)
        return len(await self.database.read(sql.DUE, *values))

    async def prune(self) -> None:
        """Forget what has been done for long enough."""
        if self.keep is None:
            return
        until = milliseconds() - int(self.keep * 1000)
        while await self.database.run(sql.PRUNE, until):
            await asyncio.sleep(0)

    # --- Producers ----------------------------------------------------------

    async def create(
        self, payload: str, key: str | None
    ) -> tuple[dict[str, Any], bool]:
        """Store a message; with a key, once. Also whether it is new."""
        now = milliseconds()
        made = {
            "id": new_id(),
            "payload": json.loads(payload),
            "state": "ready",
            "attempts": 0,
            "available_at": now / 1000,
            "created_at": now / 1000,
        }
        if await self._create((made["id"], payload, now, key)):
            return made, True
        (first,) = await self.database.read(sql.FIRST, key)
        found = as_row(first, now)
        if found["payload"] != made["payload"]:
            raise KeyReused(
                f"Idempotency-Key {key!r} was used for another message."
            )
        return found, False

    async def _create_all(
        self, wishes: list[tuple[str, str, int, str | None]]
    ) -> list[bool]:
        found = await self.database.run(sql.CREATE, json.dumps(wishes))
        made = {each["id"] for each in found}
        return [wish[0] in made for wish in wishes]

    async def taken_before(self, once: Once) -> int | None:
        """How many rows a file had when it came with this key before."""
        found = await self.database.read(sql.NOTED, once.key)
        if found and found[0]["digest"] != once.digest:
            raise KeyReused("Idempotency-Key was used for another file.")
        return found[0]["rows"] if found else None

    @asynccontextmanager
    async def intake(self, file: str) -> AsyncIterator["Intake"]:
        """Store the rows of a file: all of them, or none if this raises."""
        async with self.database.copying() as copying:
            yield Intake(copying, file)

    # --- Workers ------------------------------------------------------------

    async def claim(
        self, count: int, lease: float
    ) -> tuple[str, list[dict[str, Any]]]:
        """Lease up to `count` messages to whoever holds the token."""
        token = new_id()
        found = await self._claim((token, count, lease)) if count else []
        now = milliseconds()
        return token, [as_row(message, now) for message in found]

    async def _claim_all(
        self, wishes: list[tuple[str, int, float]]
    ) -> list[Rows]:
        now = milliseconds()
        wanted = [
            (token, now + int(lease * 1000))
            for token, count, lease in wishes
            for _ in range(count)
        ]
        most = self.policy.max_attempts
        given: dict[str, Rows] = {token: [] for token, _, _ in wishes}
        for start in range(0, len(wanted), TOGETHER):
            some = wanted[start : start + TOGETHER]
            found = await self.database.run(
                sql.CLAIM, json.dumps(some), now, most, len(some)
            )
            for each in found:
                given[each["token"]].append(each)
            if len(found) < len(some):
                break
        return [sorted(each, key=lambda m: m["id"]) for each in given.values()]

    async def complete(
        self, pairs: list[tuple[str, str]]
    ) -> dict[str, QueueError]:
        """Mark (id, token) as done. By id: those refused, and why."""
        return await self._complete(pairs)

    async def _complete_all(
        self, wishes: list[list[tuple[str, str]]]
    ) -> list[dict[str, QueueError]]:
        pairs = [pair for wish in wishes for pair in wish]
        found = await self.database.run(
            sql.COMPLETE, milliseconds(), json.dumps(pairs)
        )
        done = {(each["id"], each["token"]) for each in found}
        tokens: dict[str, str] = {}
        if rest := [pair for pair in pairs if pair not in done]:
            # Asked twice, because the first answer got lost? Then its token
            # is still there, and it is done.
            for each in await self.database.run(sql.TOKENS, json.dumps(rest)):
                tokens[each["id"]] = each["token"]

        def refusal(pair: tuple[str, str]) -> QueueError | None:
            id, token = pair
            if pair in done or tokens.get(id) == token:
                return None
            return Stale(id) if id in tokens else Unknown(id)

        return [
            {pair[0]: error for pair in wish if (error := refusal(pair))}
            for wish in wishes
        ]

    async def fail(
        self, id: str, token: str, reason: str, retry: bool
    ) -> tuple[str, float | None]:
        """Back to the queue, or dead: the state, and the seconds to wait."""
        now = milliseconds()
        most = self.policy.max_attempts if retry else 0
        backoff = int(self.policy.backoff * 1000)
        values = (most, now, backoff, reason, most, now, id, token)
        (told,) = await self._or_refuse(id, sql.FAIL, *values)
        if told["state"] == "dead":
            return "dead", None
        return "ready", (told["available_at"] - now) / 1000

    async def release(self, id: str, token: str) -> None:
        now = milliseconds()
        await self._or_refuse(id, sql.RELEASE, now, id, token)

    async def extend(self, id: str, token: str, lease: float) -> None:
        until = milliseconds() + int(lease * 1000)
        await self._or_refuse(id, sql.EXTEND, until, id, token)

    async def _or_refuse(self, id: str, statement: str, *values: Any) -> Rows:
        if found := await self.database.run(statement, *values):
            return found
        await self.get(id)
        raise Stale(id)

    # --- People -------------------------------------------------------------

    async def get(self, id: str) -> dict[str, Any]:
        if not (found := await self.database.read(sql.GET, id)):
            raise Unknown(id)
        return as_row(found[0], milliseconds())

    async def search(
        self,
        state: str | None,
        upload: str | None,
        after: str | None,
        limit: int,
    ) -> list[dict[str, Any]]:
        """Messages in the order of their ids."""
        now = milliseconds()
        filtered = int(upload is not None)
        found = await self.database.read(
            sql.SEARCH, now, after or "", state or "", filtered, upload, limit
        )
        return [as_row(each, now) for each in found]

    async def dead(self, limit: int) -> list[dict[str, Any]]:
        return await self.search("dead", None, None, limit)

    async def requeue(self, id: str | None) -> int:
        """Make a dead message ready again, or all of them."""
        found = await self.database.run(
            sql.REQUEUE, milliseconds(), id, int(id is None)
        )
        if id and not found:
            await self.get(id)
            raise NotDead(id)
        return len(found)

    async def counts(self) -> dict[str, int]:
        names = ("ready", "delayed", "leased", "done", "dead")
        found = await self.database.read(sql.COUNT, milliseconds())
        return dict.fromkeys(names, 0) | {
            each["now"]: each["number"] for each in found
        }


class Intake:
    """The rows of one file, on their way in: one transaction."""

    def __init__(self, copying: Any, file: str) -> None:
        self._copying = copying
        self._file = file

    async def store(self, rows: Iterable[Row]) -> None:
        now, file = milliseconds(), self._file
        await self._copying.copy(
            [
                (new_id(), body, "ready", now, 0, file, number, now)
                for number, body in rows
            ]
        )

    async def note(self, once: Once, rows: int) -> None:
        """Remember the file, in the same transaction."""
        values = (once.key, once.digest, rows, milliseconds())
        if not await self._copying.run(sql.NOTE, *values):
            raise TakenMeanwhile(once.key)
