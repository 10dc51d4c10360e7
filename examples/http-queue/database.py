"""database.py: SQLite and PostgreSQL, as far as the queue needs them.

Both run a statement and answer after the commit. Whoever waits for the disk
waits together with the others: PostgreSQL sees to that by itself, for SQLite
it is done here.
"""

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Generic, TypeVar

import asyncpg
from queues import QueueDown, new_id
from statements import CHANNEL, INSERT, ROW_COLUMNS, TELL, written

# What says that the database is away, rather than that we are wrong.
AWAY = (
    OSError,
    sqlite3.OperationalError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.TooManyConnectionsError,
    asyncpg.exceptions.OperatorInterventionError,
    # Two processes waited for each other, and one had to give way.
    asyncpg.exceptions.TransactionRollbackError,
)
# As many as can be of use: one for each kind of statement that is shared, and
# some for files and for people.
CONNECTIONS = 8

Rows = list[dict[str, Any]]


Wish = TypeVar("Wish")
Answer = TypeVar("Answer")


class Together(Generic[Wish, Answer]):
    """Does at once what was wished for while the last was being done."""

    def __init__(
        self, do: Callable[[list[Wish]], Awaitable[list[Answer]]], most: int
    ) -> None:
        self._do, self._most = do, most
        self._waiting: list[tuple[Wish, asyncio.Future[Answer]]] = []
        self._task: asyncio.Task[None] | None = None

    def __call__(self, wish: Wish) -> Awaitable[Answer]:
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((wish, answer))
        if not self._task:
            self._task = asyncio.create_task(self._work())
        return answer

    async def _work(self) -> None:
        while self._waiting:
            now = self._waiting[: self._most]
            del self._waiting[: self._most]
            await self._answer(now)
        self._task = None

    async def _answer(
        self, asked: list[tuple[Wish, asyncio.Future[Answer]]]
    ) -> None:
        try:
            answers = await self._do([wish for wish, _ in asked])
        except Exception as error:
            if len(asked) > 1 and not isinstance(error, QueueDown):
                # One of them is at fault, and only that one is to fail.
                for each in asked:
                    await self._answer([each])
                return
            for _, future in asked:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), answer in zip(asked, answers, strict=True):
            if not future.done():  # else who asked has gone
                future.set_result(answer)


class SQLite:
    """One connection writes, in a thread of its own, and one reads."""

    kind = "SQLite"

    def __init__(self, url: str) -> None:
        self._path = url.partition("://")[2].partition("?")[0]
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if self._path == ":memory:":
            # Each connection would have a memory of its own.
            self._folder = tempfile.TemporaryDirectory(prefix="http-queue-")
            self._path = f"{self._folder.name}/queue.sqlite3"
        self.url = f"sqlite://{self._path}"
        self._write = Together(self._commit, 1_000)
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._connections: dict[str, sqlite3.Connection] = {}

    async def start(self) -> None:
        for name in ("write", "read"):
            await self._open(name)

    async def _open(self, name: str) -> None:
        def open_it() -> None:
            made = sqlite3.connect(
                self._path, timeout=30, isolation_level=None
            )
            made.row_factory = sqlite3.Row
            made.execute("PRAGMA journal_mode = WAL")
            # FULL: what the API has confirmed survives a power cut, as it
            # does in PostgreSQL.
            level = "OFF" if self._folder else "FULL"
            made.execute(f"PRAGMA synchronous = {level}")
            self._connections[name] = made

        self._threads[name] = ThreadPoolExecutor(1, f"sqlite-{name}")
        await self._in(name, open_it)

    async def _in(
        self, name: str, work: Callable[..., Any], *given: Any
    ) -> Any:
        """Run something in a connection's thread."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._threads[name], work, *given
            )
        except (KeyError, RuntimeError):
            raise QueueDown("The database is closed.") from None
        except AWAY as error:
            if "malformed" in str(error):  # a value, not the database
                raise
            raise QueueDown(f"The database is away: {error}") from None

    async def _shut(self, name: str) -> None:
        def shut() -> None:
            if connection := self._connections.pop(name, None):
                connection.close()

        if thread := self._threads.pop(name, None):
            await asyncio.get_running_loop().run_in_executor(thread, shut)
            thread.shutdown()

    async def close(self) -> None:
        for name in [*self._threads]:
            await self._shut(name)
        if self._folder:
            self._folder.cleanup()

    async def run(self, statement: str, *values: Any) -> Rows:
        return await self._write((text_of(statement, False), values))

    async def _commit(
        self, wishes: list[tuple[str, tuple[Any, ...]]]
    ) -> list[Rows]:
        """Several statements, and one wait for the disk."""

        def work() -> list[Rows]:
            connection = self._connections["write"]
            connection.execute("BEGIN IMMEDIATE")
            try:
                found = [
                    [*map(dict, connection.execute(text, values).fetchall())]
                    for text, values in wishes
                ]
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise
            return found

        return await self._in("write", work)

    async def read(self, statement: str, *values: Any) -> Rows:
        def work() -> Rows:
            text = text_of(statement, False)
            found = self._connections["read"].execute(text, values)
            return [*map(dict, found.fetchall())]

        return await self._in("read", work)

    async def listen(self, heard: Callable[[int], object]) -> None:
        """SQLite has nothing of the kind."""

    async def tell(self, count: int) -> None:
        """Nor this."""

    @asynccontextmanager
    async def copying(self) -> AsyncIterator["SQLiteCopying"]:
        """Nobody else can write from the first row on."""
        name = f"copy-{new_id()}"
        await self._open(name)
        copying = SQLiteCopying(self, name)
        try:
            yield copying
            await copying.execute("COMMIT")
        except BaseException:
            await copying.execute("ROLLBACK")
            raise
        finally:
            await self._shut(name)


class SQLiteCopying:
    def __init__(self, database: SQLite, name: str) -> None:
        self._database, self._name = database, name
        self._begun = False

    async def execute(self, text: str) -> None:
        def work() -> None:
            self._database._connections[self._name].execute(text)

        if self._begun:
            await self._database._in(self._name, work)

    async def _begin(self) -> sqlite3.Connection:
        if not self._begun:
            self._begun = True
            await self.execute("BEGIN IMMEDIATE")
        return self._database._connections[self._name]

    async def copy(self, rows: Sequence[Sequence[Any]]) -> None:
        connection = await self._begin()

        def work() -> None:
            # Its cursor must not leave this thread: when another lets go of
            # it, it resets the statement, which the next rows are using.
            connection.executemany(INSERT, rows)

        await self._database._in(self._name, work)

    async def run(self, statement: str, *values: Any) -> Rows:
        connection = await self._begin()
        text = text_of(statement, False)

        def work() -> Rows:
            return [*map(dict, connection.execute(text, values).fetchall())]

        return await self._database._in(self._name, work)


class PostgreSQL:
    """A pool of connections, each of which prepares a statement once."""

    kind = "PostgreSQL"

    def __init__(self, url: str) -> None:
        self.url = url
        self._pool: asyncpg.Pool | None = None
        self._ear: Any = None
        self._name = new_id()

    async def start(self) -> None:
        async def keep(connection: Any) -> None:
            """Asyncpg would ask the server to reset what we never set."""

        self._pool = await asyncpg.create_pool(
            self.url, min_size=1, max_size=CONNECTIONS, reset=keep
        )

    async def close(self) -> None:
        if self._ear:
            self._ear.terminate()
        if self._pool:
            self._pool.terminate()
            self._pool = None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        if not self._pool:
            raise QueueDown("The database is closed.")
        try:
            async with self._pool.acquire(timeout=30) as connection:
                yield connection
        except AWAY as error:
            raise QueueDown(f"The database is away: {error}") from None

    async def run(self, statement: str, *values: Any) -> Rows:
        async with self.connection() as connection:
            found = await connection.fetch(text_of(statement, True), *values)
        return [*map(dict, found)]

    read = run

    async def listen(self, heard: Callable[[int], object]) -> None:
        """Hear of other processes' messages. To call it again does no harm.

        Who hears nothing looks again by itself after a while.
        """

        def listener(_: Any, pid: int, channel: str, told: str) -> None:
            name, _, count = told.partition(" ")
            if name != self._name and count.isdecimal():
                heard(int(count))

        if not self._ear or self._ear.is_closed():
            self._ear = await asyncpg.connect(self.url, timeout=30)
            await self._ear.add_listener(CHANNEL, listener)

    async def tell(self, count: int) -> None:
        await self.run(TELL, f"{self._name} {count}")

    @asynccontextmanager
    async def copying(self) -> AsyncIterator["PostgreSQLCopying"]:
        async with self.connection() as connection, connection.transaction():
            yield PostgreSQLCopying(connection)


class PostgreSQLCopying:
    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def copy(self, rows: Sequence[Sequence[Any]]) -> None:
        await self._connection.copy_records_to_table(
            "message", records=rows, columns=ROW_COLUMNS
        )

    async def run(self, statement: str, *values: Any) -> Rows:
        text = text_of(statement, True)
        return [*map(dict, await self._connection.fetch(text, *values))]


text_of = cache(written)


def database_of(url: str) -> SQLite | PostgreSQL:
    url = url.replace("postgresql://", "postgres://", 1)
    if url.startswith("sqlite://"):
        return SQLite(url)
    if url.startswith("postgres://"):
        return PostgreSQL(url)
    raise QueueDown("A database is sqlite://FILE or postgres://…")
