"""routes_producers.py: how messages come in, one by one or as files."""

import asyncio
import hashlib
import shutil
import time
from tempfile import NamedTemporaryFile
from typing import Annotated, Any

from desk import (
    Desk,
    DeskOf,
    Direct,
    answers,
    as_json,
    bearer,
    desk_of,
    problem,
)
from fastapi import APIRouter, File, Header, Request, Response, UploadFile
from intake import take_in
from queues import Once
from schemas import Fault, FileResult, MessageOut, Payload, Uploaded

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
    ),
]


direct = APIRouter(route_class=Direct, dependencies=[bearer])
router = APIRouter(dependencies=[bearer])


@direct.post(
    "/v1/messages",
    status_code=201,
    response_model=MessageOut,
    responses={200: {"model": MessageOut}, **answers()},
    tags=["producers"],
)
async def create(
    request: Request, payload: Payload, idempotency_key: Key = None
) -> Any:
    """Put a message into the queue; when this answers, it is stored.

    Repeated with the same Idempotency-Key it answers 200 and the message
    of the first time.
    """
    desk = desk_of(request)
    if desk.settings.simulate_create:
        await asyncio.sleep(desk.settings.simulate_create)
    body = payload.model_dump_json()
    made, new = await desk.queue.create(body, idempotency_key)
    if not new:
        return as_json(MessageOut(**made))
    desk.events["created"] += 1
    await desk.ring()
    return MessageOut(**made)


@router.post(
    "/v1/uploads",
    status_code=201,
    responses={
        200: {"model": Uploaded},
        207: {"model": Uploaded},
        **answers(),
    },
    tags=["producers"],
)
async def upload(
    desk: DeskOf,
    files: Annotated[list[UploadFile], File(max_length=20)],
    response: Response,
    idempotency_key: Key = None,
) -> Any:
    """Put the rows of .xlsx files into the queue.

    Each file is taken whole or refused whole. 201: all are in, 207: some
    are, 422: none is. A file that was taken before, with the same
    Idempotency-Key and in the same place, isn't taken again; 200: none was.
    """
    started = time.monotonic()
    limit = desk.settings.max_file_bytes
    results = []
    for number, file in enumerate(files):
        given = file.filename or "unnamed"
        name = "".join(c if c.isprintable() else "?" for c in given)[:255]
        if (file.size or 0) > limit:
            reason = f"{file.size:,} bytes; at most {limit:,} are taken."
            fault = Fault(reason=reason)
            results.append(FileResult(file=name, rows=0, faults=[fault]))
            continue
        key = idempotency_key and f"{number}:{idempotency_key}"
        results.append(await store(desk, file, name, key))
    done = sum(not result.faults for result in results)
    if not done:
        title = "No file was taken"
        detail = "Nothing of a file that is refused is stored."
        return problem(422, title, detail, files=results)
    response.status_code = 201 if done == len(results) else 207
    if all(result.repeated for result in results):
        response.status_code = 200
    seconds = round(time.monotonic() - started, 3)
    return Uploaded(files=results, seconds=seconds)


async def store(
    desk: Desk, file: UploadFile, name: str, key: str | None
) -> FileResult:
    with NamedTemporaryFile(suffix=".xlsx") as copy:

        def fill() -> Once | None:
            shutil.copyfileobj(file.file, copy)
            copy.flush()
            if not key:
                return None
            copy.seek(0)
            return Once(key, hashlib.sha256(copy.read()).hexdigest())

        result = await take_in(
            desk.queue,
            desk.readers,
            copy.name,
            name,
            await asyncio.to_thread(fill),
            desk.settings.intake_size,
            desk.settings.simulate_create,
        )
    if result.repeated:
        return result
    desk.events["created"] += result.rows
    await desk.ring(result.rows)
    return result
