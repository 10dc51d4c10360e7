"""routes_people.py: what people ask, and machines, and dead letters."""

from pathlib import Path
from typing import Annotated, Literal

from desk import DeskOf, answers, bearer
from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, PlainTextResponse
from routes_workers import Id
from schemas import Counts, MessageOut, Messages, Requeued, State
from table_queue import TableQueue

HERE = Path(__file__).parent

# What anybody may ask, what takes the token, and what only a table can
# answer: a broker cannot be asked what is in its queue.
public = APIRouter()
router = APIRouter(dependencies=[bearer])
lookups = APIRouter(dependencies=[bearer])


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
async def page() -> FileResponse:
    return FileResponse(
        HERE / "page.html",
        headers={
            "Content-Security-Policy": "default-src 'self'; img-src 'self' "
            "data:; frame-ancestors 'none'",
            "Cache-Control": "no-cache",
        },
    )


@public.get("/page.{kind}", include_in_schema=False)
async def part(kind: Literal["css", "js"]) -> FileResponse:
    headers = {"Cache-Control": "no-cache"}
    return FileResponse(HERE / f"page.{kind}", headers=headers)


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
