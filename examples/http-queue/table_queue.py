"""table_queue.py: a table as a queue, in SQLite or PostgreSQL.

Every change of a message is one statement that names the state it expects, so
that two workers, or two of these processes, can never both succeed.
"""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
from models import DEAD, DONE, LEASED, READY, Message, Upload, config
from queues import (
    KeyReused,
    NotDead,
    Once,
    Policy,
    QueueDown,
    Row,
    Stale,
    TakenMeanwhile,
    Unknown,
    new_id,
)
from tortoise import Tortoise
from tortoise.backends.base.client import BaseDBAsyncClient
from tortoise.exceptions import (
    BaseORMException,
    DBConnectionError,
    OperationalError,
)
from tortoise.expressions import Q
from tortoise.migrations.executor import MigrationExecutor
from tortoise.transactions import in_transaction

# What says that the database is away, rather than that we are wrong.
AWAY = (
    DBConnectionError,
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.TooManyConnectionsError,
    asyncpg.exceptions.OperatorInterventionError,
)

# Two processes that start on one new database: one migrates, one waits.
MIGRATION_LOCK = 7_216_002

# The queue is these statements. ? is a parameter; PostgreSQL numbers them.
#
# A lease that has run out is as good as no lease: the message is claimed
# again, with no one needed to clean up before.
CLAIM = """
WITH picked AS MATERIALIZED (
    SELECT id FROM message
    WHERE state IN ('ready', 'leased') AND available_at <= ?
      AND attempts < ?
    ORDER BY available_at, id LIMIT ? {skip_locked}
)
UPDATE message
SET state = 'leased', token = ?, available_at = ?, attempts = attempts + 1
WHERE id IN (SELECT id FROM picked)
RETURNING *
"""
COMPLETE = """
UPDATE message SET state = 'done', finished_at = ?, error = NULL
WHERE id = ? AND token = ? AND state = 'leased'
RETURNING id
"""
# Waits 1, 2, 4, ... times the backoff; << works on both databases.
FAIL = """
UPDATE message
SET state = CASE WHEN attempts >= ? THEN 'dead' ELSE 'ready' END,
    available_at = CAST(? AS BIGINT)
                 + CAST(? AS BIGINT) * (1 << (attempts - 1)),
    token = NULL, error = ?,
    finished_at = CASE WHEN attempts >= ? THEN CAST(? AS BIGINT) END
WHERE id = ? AND token = ? AND state = 'leased'
RETURNING state, available_at
"""
RELEASE = """
UPDATE message
SET state = 'ready', available_at = ?, token = NULL, attempts = attempts - 1
WHERE id = ? AND token = ? AND state = 'leased'
RETURNING id
"""
EXTEND = """
UPDATE message SET available_at = ?
WHERE id = ? AND token = ? AND state = 'leased'
RETURNING id
"""
# A lease that ran out on the last attempt: nobody may claim that any more.
BURY = """
UPDATE message SET state = 'dead', token = NULL, finished_at = ?,
    error = 'The lease ran out on the last attempt.'
WHERE state = 'leased' AND available_at <= ? AND attempts >= ?
"""
INSERT = """
INSERT INTO message (id, payload, state, available_at, attempts,
                     idempotency_key, upload, row, created_at)
VALUES (?, ?, 'ready', ?, 0, ?, ?, ?, ?)
"""
NOTE = """
INSERT INTO upload (key, digest, rows, created_at) VALUES (?, ?, ?, ?)
ON CONFLICT (key) DO NOTHING RETURNING key
"""
ONCE = " ON CONFLICT (idempotency_key) DO NOTHING RETURNING id"
COUNT = """
SELECT CASE WHEN available_at <= ? THEN
           CASE state WHEN 'leased' THEN 'ready' ELSE state END
       ELSE CASE state WHEN 'ready' THEN 'delayed' ELSE state END
       END AS now, count(*) AS number
FROM message GROUP BY now
"""


def milliseconds() -> int:
    return time.time_ns() // 1_000_000


def as_row(found: dict[str, Any], now: int) -> dict[str, Any]:
    """A row of the table as the API shows it."""
    payload = found["payload"]
    lapsed = found["state"] == LEASED and found["available_at"] <= now
    times = ("available_at", "created_at", "finished_at")
    return {
        **found,
        **{name: (found[name] or 0) / 1000 or None for name in times},
        "payload": json.loads(payload)
        if isinstance(payload, str)
        else payload,
        "state": READY if lapsed else found["state"],
    }


class TableQueue:
    """The queue in a database. Any number of processes may have one open."""

    max_lease = 43_200.0

    def __init__(self, database: str, policy: Policy) -> None:
        self.database = database
        self.policy = policy
        self._connection: BaseDBAsyncClient | None = None
        self._statements: dict[str, str] = {}
        self._janitor: asyncio.Task[None] | None = None
        self.postgresql = False
        self._waiting: list[tuple[str, list[Any], asyncio.Future[Any]]] = []
        self._committing = asyncio.Lock()

    @property
    def kind(self) -> str:
        return "PostgreSQL" if self.postgresql else "SQLite"

    @property
    def connection(self) -> BaseDBAsyncClient:
        if not self._connection:
            raise QueueDown("The queue is closed.")
        return self._connection

    async def start(self) -> None:
        """Connect, and bring the tables up to date."""
        settings = config(self.database)
        await Tortoise.init(settings, _enable_global_fallback=True)
        self._connection = Tortoise.get_connection("default")
        dialect = self._connection.capabilities.dialect
        self.postgresql = dialect == "postgres"
        try:
            await self._migrate(settings["apps"])
        except (*AWAY, asyncpg.PostgresError, BaseORMException) as error:
            await self.close()
            raise QueueDown(f"Cannot use the database: {error}") from None
        self._janitor = asyncio.create_task(self._tidy())

    async def _migrate(self, apps: dict[str, Any]) -> None:
        executor = MigrationExecutor(self.connection, apps)
        if self.postgresql:
            alone = await asyncpg.connect(self.database)
            try:
                lock = f"SELECT pg_advisory_lock({MIGRATION_LOCK})"
                await alone.execute(lock)
                return await executor.migrate()
            finally:
                await alone.close()
        for attempt in itertools.count():
            try:
                return await executor.migrate()
            except OperationalError:  # another process was first
                if attempt == 20:
                    raise
                await asyncio.sleep(0.1)
                executor = MigrationExecutor(self.connection, apps)

    async def close(self) -> None:
        if self._janitor:
            self._janitor.cancel()
            await asyncio.gather(self._janitor, return_exceptions=True)
        self._connection = None
        await Tortoise.close_connections()

    async def _tidy(self) -> None:
        while True:
            # A database that is away for a while is no reason to stop.
            with suppress(*AWAY, BaseORMException, QueueDown):
                await self.bury()
            await asyncio.sleep(1)

    async def bury(self) -> None:
        """Set aside what nobody may claim any more."""
        now = milliseconds()
        most = self.policy.max_attempts
        await self.run(BURY, now, now, most)

    def text_of(self, statement: str) -> str:
        """A statement as this database wants it."""
        if statement not in self._statements:
            text = statement.replace(
                "{skip_locked}",
                "FOR UPDATE SKIP LOCKED" if self.postgresql else "",
            )
            if self.postgresql:
                first, *rest = text.split("?")
                numbered = enumerate(rest, 1)
                text = first + "".join(f"${n}{part}" for n, part in numbered)
            self._statements[statement] = text
        return self._statements[statement]

    async def run(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """Run one statement; the rows that it returns."""
        text = self.text_of(statement)
        try:
            if self.postgresql or statement == COUNT:
                return await self.connection.execute_query_dict(
                    text, list(values)
                )
            return await self._run_together(text, list(values))
        except AWAY as error:
            raise QueueDown(f"The database is away: {error}") from None

    async def _run_together(
        self, text: str, values: list[Any]
    ) -> list[dict[str, Any]]:
        """Run a statement in one transaction with all that wait meanwhile.

        SQLite waits for the disk at every commit, one commit at a time. So
        whoever comes first takes the others along (PostgreSQL does the like
        by itself). Each answer is given after the commit.
        """
        mine: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, values, mine))
        async with self._committing:
            if not mine.done():
                together, self._waiting = self._waiting, []
                await asyncio.shield(self._commit(together))
        return mine.result()

    async def _commit(
        self, together: list[tuple[str, list[Any], asyncio.Future[Any]]]
    ) -> None:
        try:
            async with in_transaction() as one:
                found = [
                    await one.execute_query_dict(text, values)
                    for text, values, _ in together
                ]
        except BaseException as error:
            for _, _, future in together:
                future.set_exception(error)
                future.exception()  # its waiter may have gone
            return
        for (_, _, future), rows in zip(together, found, strict=True):
            future.set_result(rows)

    # --- Producers ----------------------------------------------------------

    async def create(
        self, payload: dict[str, Any], key: str | None
    ) -> tuple[dict[str, Any], bool]:
        """Store a message; with a key, once. Also whether it is new."""
        now = milliseconds()
        id = new_id()
        body = json.dumps(payload)
        made = await self.run(
            INSERT + ONCE, id, body, now, key, None, None, now
        )
        if made:
            return await self.get(id), True
        first = await Message.get(idempotency_key=key).values()
        if first["payload"] != payload:
            raise KeyReused(
                f"Idempotency-Key {key!r} was used for another message."
            )
        return as_row(first, now), False

    async def taken_before(self, once: Once) -> int | None:
        """How many rows a file had when it came with this key before."""
        found = await Upload.get_or_none(key=once.key).values()
        if found and found["digest"] != once.digest:
            raise KeyReused("Idempotency-Key was used for another file.")
        return found["rows"] if found else None

    @asynccontextmanager
    async def intake(self, file: str) -> AsyncIterator["Intake"]:
        """Store the rows of a file: all of them, or none if this raises."""
        async with Intake(self, file) as intake:
            yield intake

    # --- Workers ------------------------------------------------------------

    async def claim(
        self, count: int, lease: float
    ) -> tuple[str, list[dict[str, Any]]]:
        """Lease up to `count` messages to whoever holds the token."""
        token, now = new_id(), milliseconds()
        until = now + int(lease * 1000)
        most = self.policy.max_attempts
        found = await self.run(CLAIM, now, most, count, token, until)
        found.sort(key=lambda message: message["id"])
        return token, [as_row(message, now) for message in found]

    async def complete(self, id: str, token: str) -> None:
        if await self.run(COMPLETE, milliseconds(), id, token):
            return
        # Asked twice, because the first answer got lost? It is done, then.
        if (await self._stored(id))["token"] != token:
            raise Stale(id)

    async def fail(
        self, id: str, token: str, reason: str, retry: bool
    ) -> tuple[str, float | None]:
        """Back to the queue, or dead: the state, and the seconds to wait."""
        now = milliseconds()
        most = self.policy.max_attempts if retry else 0
        backoff = int(self.policy.backoff * 1000)
        values = (most, now, backoff, reason, most, now, id, token)
        if not (found := await self.run(FAIL, *values)):
            raise await self._refusal(id)
        (told,) = found
        if told["state"] == DEAD:
            return DEAD, None
        return READY, (told["available_at"] - now) / 1000

    async def release(self, id: str, token: str) -> None:
        if not await self.run(RELEASE, milliseconds(), id, token):
            raise await self._refusal(id)

    async def extend(self, id: str, token: str, lease: float) -> None:
        until = milliseconds() + int(lease * 1000)
        if not await self.run(EXTEND, until, id, token):
            raise await self._refusal(id)

    async def _stored(self, id: str) -> dict[str, Any]:
        if not (found := await Message.get_or_none(id=id).values()):
            raise Unknown(id)
        return dict(found)

    async def _refusal(self, id: str) -> Stale:
        await self._stored(id)
        return Stale(id)

    # --- People -------------------------------------------------------------

    async def get(self, id: str) -> dict[str, Any]:
        return as_row(await self._stored(id), milliseconds())

    async def search(
        self,
        state: str | None,
        upload: str | None,
        after: str | None,
        limit: int,
    ) -> list[dict[str, Any]]:
        """Messages in the order of their ids."""
        now = milliseconds()
        lapsed = Q(state=LEASED, available_at__lte=now)
        chosen = Q()
        if state == READY:
            chosen &= Q(state=READY) | lapsed
        elif state == LEASED:
            chosen &= Q(state=LEASED, available_at__gt=now)
        elif state:
            chosen &= Q(state=state)
        if upload is not None:
            chosen &= Q(upload=upload)
        if after is not None:
            chosen &= Q(id__gt=after)
        found = Message.filter(chosen).order_by("id").limit(limit).values()
        return [as_row(dict(each), now) for each in await found]

    async def dead(self, limit: int) -> list[dict[str, Any]]:
        return await self.search(DEAD, None, None, limit)

    async def requeue(self, id: str | None) -> int:
        """Make a dead message ready again, or all of them."""
        chosen = {"state": DEAD} | ({"id": id} if id else {})
        count = await Message.filter(**chosen).update(
            state=READY,
            attempts=0,
            available_at=milliseconds(),
            finished_at=None,
        )
        if id and not count:
            await self._stored(id)
            raise NotDead(id)
        return count

    async def counts(self) -> dict[str, int]:
        names = (READY, "delayed", LEASED, DONE, DEAD)
        found = await self.run(COUNT, milliseconds())
        return dict.fromkeys(names, 0) | {
            each["now"]: each["number"] for each in found
        }


class Intake:
    """The rows of one file, on their way in: one transaction."""

    def __init__(self, queue: TableQueue, file: str) -> None:
        self._queue = queue
        self._file = file
        self._context: Any = None
        self._using: BaseDBAsyncClient | None = None

    async def __aenter__(self) -> "Intake":
        return self

    async def store(self, rows: Iterable[Row]) -> None:
        if not self._using:
            # Only now: in SQLite nobody else can write until it ends.
            self._context = in_transaction()
            self._using = await self._context.__aenter__()
        now = milliseconds()
        values = [
            [
                *(new_id(), row.payload, now),
                *(None, self._file, row.number, now),
            ]
            for row in rows
        ]
        assert self._using
        await self._using.execute_many(self._queue.text_of(INSERT), values)

    async def note(self, once: Once, rows: int) -> None:
        """Remember the file, in the same transaction."""
        assert self._using
        text = self._queue.text_of(NOTE)
        values = [once.key, once.digest, rows, milliseconds()]
        if not await self._using.execute_query_dict(text, values):
            raise TakenMeanwhile(once.key)

    async def __aexit__(self, *error: Any) -> None:
        if self._context:
            await self._context.__aexit__(*error)
