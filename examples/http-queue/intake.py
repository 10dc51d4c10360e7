"""intake.py: from the rows of a file to messages in the queue.

A producer reads the rows into an asynchronous queue of so many places (400),
from which as many consumers create the messages, each as soon as it is free.
Nobody waits until the queue is full, and nobody has to know which row is the
last.
"""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from pathlib import Path
from typing import Protocol

from queues import KeyReused, Once, Row, TakenMeanwhile
from schemas import Fault, FileResult
from workbook import Refused, check_start

READER = Path(__file__).with_name("spreadsheet.py")
ROWS_A_STATEMENT = 2_000
ENDED = "The reader ended before the file."
LINE_LIMIT = 64 * 2**20  # bytes: 100 rows of the longest text, as JSON


class TakesRows(Protocol):
    """What a queue's intake() gives: the rows of one file, or none of them."""

    async def store(self, rows: list[Row]) -> None: ...

    async def note(self, once: Once, rows: int) -> None: ...


class HasIntake(Protocol):
    """Either kind of queue."""

    async def taken_before(self, once: Once) -> int | None: ...

    def intake(self, file: str) -> AbstractAsyncContextManager[TakesRows]: ...


class Readers:
    """Processes that read one file each.

    To start one takes longer than to read most files, so with `spare` the
    next one is there before it is needed.
    """

    def __init__(self, spare: bool = False) -> None:
        self._keep = spare
        self._spare: Process | None = None

    async def take(self, path: str) -> Process:
        """A process that reads this file."""
        reader, self._spare = self._spare, None
        if reader is None or reader.returncode is not None:
            reader = await self._start()
        assert reader.stdin
        reader.stdin.write(os.fsencode(path))
        reader.stdin.close()
        return reader

    async def prepare(self) -> None:
        if self._keep and self._spare is None:
            self._spare = await self._start()

    async def close(self) -> None:
        self._keep = False
        if spare := self._spare:
            assert spare.stdin
            spare.stdin.close()
            await spare.wait()

    async def _start(self) -> Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, str(READER)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=LINE_LIMIT,
        )


async def feed(
    rows: AsyncIterator[Row],
    size: int,
    create: Callable[[Row], Awaitable[None]],
) -> None:
    """Call `create` for every row, `size` at a time, while they arrive.

    When one raises, the others are cancelled and the error comes out.
    """
    queue: asyncio.Queue[Row | None] = asyncio.Queue(size)

    async def consume() -> None:
        while row := await queue.get():
            await create(row)
        await queue.put(None)  # the end, for the next of the consumers

    async with asyncio.TaskGroup() as group:
        for _ in range(size):
            group.create_task(consume())
        async for row in rows:
            await queue.put(row)
        await queue.put(None)


async def rows_of(
    readers: Readers, path: str, warnings: list[str]
) -> AsyncGenerator[list[Row], None]:
    """The rows of a file, all of which are right. Else raises Refused.

    What was left out is told by `warnings`.
    """
    check_start(path)
    reader = await readers.take(path)
    assert reader.stdout
    try:
        first = await reader.stdout.readline()
        if not first:
            reason = "Reading it takes too much memory, or too long."
            raise Refused(reason)
        told = json.loads(first)
        if "faults" in told:
            raise Refused("", faults=told["faults"])
        warnings += told["warnings"]
        count = 0
        async for line in reader.stdout:
            rows = [Row(*each) for each in json.loads(line)]
            count += len(rows)
            yield rows
        if count != told["rows"]:
            raise Refused(ENDED)
    except json.JSONDecodeError:  # half a line
        raise Refused(ENDED) from None
    finally:
        # Not reader.kill(), which would wait for a process that has ended, and
        # then asyncio's own wait finds none.
        if not reader.stdout.at_eof():
            with suppress(ProcessLookupError):
                os.kill(reader.pid, signal.SIGKILL)
        await reader.wait()
        await readers.prepare()


async def take_in(
    queue: HasIntake,
    readers: Readers,
    path: str,
    file: str,
    once: Once | None,
    size: int,
    simulate: float,
) -> FileResult:
    """Put the rows of one file into the queue: all of them, or none."""
    while True:
        try:
            if once and (rows := await queue.taken_before(once)) is not None:
                return FileResult(file=file, rows=rows, repeated=True)
            warnings: list[str] = []
            found = rows_of(readers, path, warnings)
            total = await pour(queue, found, file, once, size, simulate)
            return FileResult(file=file, rows=total, warnings=warnings)
        except TakenMeanwhile:
            continue  # now it was taken before
        except KeyReused as error:
            faults = [Fault(reason=str(error))]
        except Refused as error:
            faults = [Fault(**each) for each in error.faults]
        return FileResult(file=file, rows=0, faults=faults)


async def pour(
    queue: HasIntake,
    found: AsyncGenerator[list[Row], None],
    file: str,
    once: Once | None,
    size: int,
    simulate: float,
) -> int:
    """Store the rows in one transaction; how many there were."""
    made: list[Row] = []
    batches: asyncio.Queue[list[Row]] = asyncio.Queue(1)
    total = 0

    async def add(rows: list[Row]) -> None:
        made.extend(rows)
        if len(made) >= ROWS_A_STATEMENT:
            batch, made[:] = made[:], []
            await batches.put(batch)

    async def create(row: Row) -> None:
        await asyncio.sleep(simulate)  # work that takes time, in theory
        await add([row])

    async def produce() -> None:
        async with aclosing(found):
            if simulate:
                await feed(each_of(found), size, create)
            else:
                async for rows in found:
                    await add(rows)
        if made:
            await batches.put(made)
        await batches.put([])  # the end

    try:
        async with queue.intake(file) as intake, asyncio.TaskGroup() as group:
            group.create_task(produce())
            while batch := await batches.get():
                await intake.store(batch)
                total += len(batch)
            if once:
                await intake.note(once, total)
    except ExceptionGroup as errors:
        error: Exception = errors
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        raise error from None
    return total


async def each_of(found: AsyncIterator[list[Row]]) -> AsyncIterator[Row]:
    async for rows in found:
        for row in rows:
            yield row
