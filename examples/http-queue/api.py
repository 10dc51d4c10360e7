"""api.py: the HTTP interface of the queue.

serve.py runs it; /docs in a browser describes it.
"""

import asyncio
import hashlib
import hmac
import logging
import shutil
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Any
from urllib.parse import urlsplit

from broker_queue import BrokerQueue
from fastapi import (
    APIRouter,
    Depends,
    FastAPI,
    File,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    UploadFile,
)
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from intake import Readers, take_in
from pydantic import ValidationError
from queues import (
    KeyReused,
    NotDead,
    Once,
    QueueDown,
    QueueError,
    Stale,
    Unknown,
)
from schemas import (
    Claim,
    Claimed,
    Completed,
    Completion,
    Counts,
    Extension,
    Failure,
    Fault,
    FileResult,
    Holder,
    MessageOut,
    Messages,
    NotCompleted,
    Outcome,
    Payload,
    Problem,
    Requeued,
    State,
    Uploaded,
)
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from table_queue import AWAY, TableQueue

PAGE = Path(__file__).with_name("page.html")
# What a waiting claim looks for by itself: messages that came by another
# process, whose backoff is over, or whose lease has run out.
LOOK_AGAIN = 0.5  # seconds
MESSAGE_BYTES = 2**20
LOOPBACK = ("localhost", "127.0.0.1", "::1")
STATUS = {
    Unknown: (404, "There is no such message"),
    Stale: (409, "The lease is no longer yours"),
    NotDead: (409, "The message is not dead"),
    KeyReused: (422, "The Idempotency-Key was used before"),
    QueueDown: (503, "The queue is away"),
}
log = logging.getLogger("http-queue")


@dataclass(frozen=True)
class Settings:
    """What serve.py is told on its command line."""

    token: str = ""
    hosts: tuple[str, ...] = LOOPBACK
    intake_size: int = 400
    simulate_create: float = 0.0
    max_wait: float = 60.0
    max_file_bytes: int = 20 * 2**20
    max_upload_bytes: int = 100 * 2**20


@dataclass
class Desk:
    """What all requests share."""

    queue: TableQueue | BrokerQueue
    settings: Settings
    readers: Readers = field(default_factory=Readers)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    arrivals: int = 0
    events: Counter[str] = field(default_factory=Counter)

    async def ring(self, count: int = 1) -> None:
        """Wake as many waiting claims as there are new messages."""
        async with self.arrived:
            self.arrivals += count
            self.arrived.notify(count)


def problem(
    status: int, title: str, detail: str = "", **more: Any
) -> JSONResponse:
    body = Problem(title=title, status=status, detail=detail, **more)
    return JSONResponse(
        body.model_dump(exclude_defaults=True)
        | {"type": body.type, "title": title, "status": status},
        status,
        {"WWW-Authenticate": "Bearer"} if status == 401 else None,
        "application/problem+json",
    )


class Guard:
    """Limits the body, and who may call from a browser.

    Without the second, any web site that you visit could post a file to
    localhost, or, with a name of its own for 127.0.0.1, read the answers.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings

    async def __call__(
        self, scope: Scope, receive: Receive, send: Send
    ) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        host = headers.get("host", "")
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        if "*" not in self.settings.hosts and name not in self.settings.hosts:
            refusal = problem(403, "Unknown host", f"Start with --host {name}")
            return await refusal(scope, receive, send)
        origin = headers.get("origin", "")
        if origin and origin.partition("://")[2] != host:
            refusal = problem(403, "Not from another site's page", origin)
            return await refusal(scope, receive, send)
        upload = scope["path"] == "/v1/uploads"
        limit = self.settings.max_upload_bytes if upload else MESSAGE_BYTES
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            detail = f"At most {limit:,} bytes."
            refusal = problem(413, "Too much at once", detail)
            return await refusal(scope, receive, send)
        taken = 0

        async def counting() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise HTTPException(413, f"At most {limit:,} bytes.")
            return message

        await self.app(scope, counting, send)


bearer = HTTPBearer(auto_error=False)


def desk_of(request: Request) -> Desk:
    return request.app.state.desk


DeskOf = Annotated[Desk, Depends(desk_of)]


def check_token(
    desk: DeskOf,
    given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> None:
    wanted = desk.settings.token
    told = given.credentials if given else ""
    if wanted and not hmac.compare_digest(told.encode(), wanted.encode()):
        raise HTTPException(401, "This API wants Authorization: Bearer TOKEN")


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for the OpenAPI document."""
    content = {"application/problem+json": {}}
    every = {400, 401, 403, 413, 422, 503, *statuses}
    return {
        status: {"model": Problem, "content": content}
        for status in sorted(every)
    }


Id = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{32}$")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
    ),
]


# What anybody may ask, what takes the token, and what only a table can
# answer: a broker cannot be asked what is in its queue.
public = APIRouter()
router = APIRouter(dependencies=[Depends(check_token)])
lookups = APIRouter(dependencies=[Depends(check_token)])


@router.post(
    "/v1/messages",
    status_code=201,
    responses={200: {"model": MessageOut}, **answers()},
    openapi_extra={
        "requestBody": {
            "content": {
                "application/json": {"schema": Payload.model_json_schema()}
            },
            "required": True,
        }
    },
    tags=["producers"],
)
async def create(
    desk: DeskOf,
    request: Request,
    response: Response,
    idempotency_key: Key = None,
) -> MessageOut:
    """Put a message into the queue; when this answers, it is stored.

    Repeated with the same Idempotency-Key it answers 200 and the message
    of the first time.
    """
    # Read as JSON and not, as FastAPI would, from the objects that JSON has,
    # which know no dates: a strict Payload takes those in JSON only.
    try:
        payload = Payload.model_validate_json(await request.body())
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False)
        at = [{**each, "loc": ("body", *each["loc"])} for each in faults]
        raise RequestValidationError(at) from None
    if desk.settings.simulate_create:
        await asyncio.sleep(desk.settings.simulate_create)
    made, new = await desk.queue.create(
        payload.model_dump(mode="json"), idempotency_key
    )
    if new:
        desk.events["created"] += 1
        await desk.ring()
    else:
        response.status_code = 200
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


@router.post("/v1/claims", responses=answers(), tags=["workers"])
async def claim(desk: DeskOf, wanted: Claim, request: Request) -> Claimed:
    """Take up to `count` messages, and nobody else gets them.

    With `wait_seconds` the answer waits for the first message. Complete
    or fail each of them, with the token, before the lease runs out; then
    they go to somebody else.
    """
    wait = min(wanted.wait_seconds, desk.settings.max_wait)
    deadline = time.monotonic() + wait
    lease = min(wanted.lease_seconds, desk.queue.max_lease)
    while True:
        seen = desk.arrivals
        token, found = await desk.queue.claim(wanted.count, lease)
        left = deadline - time.monotonic()
        if found or left <= 0:
            break
        async with desk.arrived:
            look = min(left, LOOK_AGAIN)
            if desk.arrivals == seen:  # else one came while we looked
                with suppress(TimeoutError):
                    await asyncio.wait_for(desk.arrived.wait(), look)
        if await request.is_disconnected():
            break  # nobody would get what we claim
    desk.events["claimed"] += len(found)
    return Claimed(
        token=token, messages=[MessageOut(**each) for each in found]
    )


@router.post(
    "/v1/messages/{id}/complete",
    responses=answers(404, 409),
    tags=["workers"],
)
async def complete(desk: DeskOf, id: Id, holder: Holder) -> Outcome:
    """The work is done. To say so twice does no harm."""
    await desk.queue.complete(id, holder.token)
    desk.events["completed"] += 1
    return Outcome(id=id, state="done")


@router.post("/v1/completions", responses=answers(), tags=["workers"])
async def complete_many(desk: DeskOf, given: Completion) -> Completed:
    """The same for several at once, which saves requests and commits."""

    async def one(id: str) -> NotCompleted | None:
        try:
            await desk.queue.complete(id, given.token)
        except QueueDown:
            raise  # all of them may come again
        except QueueError as error:
            status, title = STATUS[type(error)]
            return NotCompleted(id=id, status=status, title=title)
        return None

    ids = [*dict.fromkeys(given.ids)]
    told = await asyncio.gather(*map(one, ids))
    refused = [each for each in told if each]
    not_done = {each.id for each in refused}
    completed = [id for id in ids if id not in not_done]
    desk.events["completed"] += len(completed)
    return Completed(completed=completed, refused=refused)


@router.post(
    "/v1/messages/{id}/fail",
    responses=answers(404, 409),
    tags=["workers"],
)
async def fail(desk: DeskOf, id: Id, failure: Failure) -> Outcome:
    """The work failed: try again later, or, after so many times, never."""
    state, wait = await desk.queue.fail(
        id, failure.token, failure.reason, failure.retry
    )
    desk.events["failed"] += 1
    desk.events["died"] += state == "dead"
    return Outcome(id=id, state=state, retry_in_seconds=wait)  # type: ignore[arg-type]


@router.post(
    "/v1/messages/{id}/release",
    responses=answers(404, 409),
    tags=["workers"],
)
async def release(desk: DeskOf, id: Id, holder: Holder) -> Outcome:
    """Give a message back undone. It doesn't count as an attempt."""
    await desk.queue.release(id, holder.token)
    desk.events["released"] += 1
    await desk.ring()
    return Outcome(id=id, state="ready")


@router.post(
    "/v1/messages/{id}/extend",
    responses=answers(404, 409),
    tags=["workers"],
)
async def extend(desk: DeskOf, id: Id, more: Extension) -> Outcome:
    """The work takes longer."""
    lease = min(more.lease_seconds, desk.queue.max_lease)
    await desk.queue.extend(id, more.token, lease)
    return Outcome(id=id, state="leased")


@router.get("/v1/dead", responses=answers(), tags=["people"])
async def dead(
    desk: DeskOf, limit: Annotated[int, Query(ge=1, le=500)] = 100
) -> Messages:
    """The dead messages, the oldest first."""
    found = await desk.queue.dead(limit)
    return Messages(messages=[MessageOut(**each) for each in found])


@router.post("/v1/dead/requeue", responses=answers(), tags=["people"])
async def requeue_all(desk: DeskOf) -> Requeued:
    """Try all dead messages again, with all their attempts."""
    count = await desk.queue.requeue(None)
    await desk.ring(count)
    return Requeued(requeued=count)


@router.post(
    "/v1/dead/{id}/requeue",
    responses=answers(404, 409),
    tags=["people"],
)
async def requeue(desk: DeskOf, id: Id) -> Requeued:
    """Try a dead message again."""
    count = await desk.queue.requeue(id)
    await desk.ring(count)
    return Requeued(requeued=count)


@router.get("/v1/state", responses=answers(), tags=["people"])
async def state(desk: DeskOf) -> Counts:
    """How many messages there are, by state."""
    return Counts(queue=desk.queue.kind, **await desk.queue.counts())


@public.get("/healthz", tags=["machines"], responses=answers())
async def healthz(desk: DeskOf) -> dict[str, str]:
    """200 while the database or broker answers, else 503."""
    await desk.queue.counts()
    return {"status": "ok"}


@router.get(
    "/metrics",
    tags=["machines"],
    response_class=PlainTextResponse,
    responses=answers(),
)
async def metrics(desk: DeskOf) -> PlainTextResponse:
    """For Prometheus."""
    lines = [
        "# HELP http_queue_messages Messages by state.",
        "# TYPE http_queue_messages gauge",
    ]
    counts = await desk.queue.counts()
    for name, number in counts.items():
        lines.append(f'http_queue_messages{{state="{name}"}} {number}')
    lines += [
        "# HELP http_queue_events_total Since this process started.",
        "# TYPE http_queue_events_total counter",
    ]
    names = "created claimed completed failed released died"
    for name in names.split():
        number = desk.events[name]
        lines.append(f'http_queue_events_total{{event="{name}"}} {number}')
    kind = "text/plain; version=0.0.4"
    return PlainTextResponse("\n".join(lines) + "\n", media_type=kind)


@public.get("/", include_in_schema=False)
async def page() -> HTMLResponse:
    return HTMLResponse(
        PAGE.read_text(encoding="utf-8"),
        headers={
            "Content-Security-Policy": "default-src 'self'; style-src "
            "'unsafe-inline'; script-src 'unsafe-inline'"
        },
    )


@lookups.get("/v1/messages", responses=answers(), tags=["people"])
async def list_messages(
    desk: DeskOf,
    state: State | None = None,
    upload: Annotated[
        str | None, Query(max_length=255, pattern=r"^[^\x00]*$")
    ] = None,
    after: Annotated[str | None, Query(pattern=r"^[0-9a-f]{32}$")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> Messages:
    """Messages by age; `next` is the `after` of the next page."""
    queue = desk.queue
    assert isinstance(queue, TableQueue)
    found = await queue.search(state, upload, after, limit + 1)
    return Messages(
        messages=[MessageOut(**each) for each in found[:limit]],
        next=found[limit - 1]["id"] if len(found) > limit else None,
    )


@lookups.get(
    "/v1/messages/{id}",
    responses=answers(404),
    tags=["people"],
)
async def get(desk: DeskOf, id: Id) -> MessageOut:
    """One message."""
    queue = desk.queue
    assert isinstance(queue, TableQueue)
    return MessageOut(**await queue.get(id))


def add_errors(app: FastAPI) -> None:
    async def refused(request: Request, error: Exception) -> JSONResponse:
        status, title = STATUS[type(error)]
        return problem(status, title, str(error))

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, AnyHTTPException)
        answer = problem(error.status_code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        faults = [
            Fault(column=".".join(map(str, each["loc"])), reason=each["msg"])
            for each in error.errors()
        ]
        return problem(422, "The request is not right", faults=faults)

    async def away(request: Request, error: Exception) -> JSONResponse:
        log.warning("%r", error)
        return problem(*STATUS[QueueDown], detail=str(error))

    async def broken(request: Request, error: Exception) -> JSONResponse:
        return problem(500, "This is a defect; the log says more")

    for kind in AWAY:
        app.add_exception_handler(kind, away)
    for kind in STATUS:
        app.add_exception_handler(kind, refused)
    app.add_exception_handler(AnyHTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, broken)


def create_app(
    queue: TableQueue | BrokerQueue,
    settings: Settings,
    readers: Readers | None = None,
) -> FastAPI:
    """The API on a queue that its caller starts and closes."""
    app = FastAPI(
        title="A queue behind HTTP",
        version="1.0",
        description="Messages go in one by one or as a spreadsheet; workers "
        "claim them with a lease, and complete or fail them.",
    )
    app.state.desk = Desk(queue, settings, readers or Readers())
    app.add_middleware(Guard, settings=settings)
    add_errors(app)
    app.include_router(public)
    app.include_router(router)
    if isinstance(queue, TableQueue):
        app.include_router(lookups)
    return app
