"""routes_workers.py: how messages are claimed, completed and failed."""

import asyncio
import time
from contextlib import suppress
from typing import Annotated, Any

from desk import STATUS, Desk, DeskOf, Direct, answers, bearer, desk_of
from fastapi import APIRouter, Request
from fastapi import Path as PathParameter
from schemas import (
    Claim,
    Claimed,
    Completed,
    Completion,
    Extension,
    Failure,
    Holder,
    MessageOut,
    NotCompleted,
    Outcome,
)

Id = Annotated[str, PathParameter(pattern=r"^[0-9a-f]{32}$")]
direct = APIRouter(route_class=Direct, dependencies=[bearer])
router = APIRouter(dependencies=[bearer])


@direct.post(
    "/v1/claims",
    response_model=Claimed,
    responses=answers(),
    tags=["workers"],
)
async def claim(request: Request, wanted: Claim) -> Any:
    """Take up to `count` messages, and nobody else gets them.

    With `wait_seconds` the answer waits for the first message. Complete
    or fail each of them, with the token, before the lease runs out; then
    they go to somebody else.

    `done` completes what you had, in the same request, and doesn't wait.
    """
    desk = desk_of(request)
    if wanted.done:
        done, (token, found) = await asyncio.gather(
            finish(desk, wanted.done), take(desk, wanted)
        )
    else:
        done = Completed(completed=[])
        token, found = await wait_for(desk, wanted, request)
    desk.events["claimed"] += len(found)
    return Claimed(
        token=token,
        messages=[MessageOut(**each) for each in found],
        completed=done.completed,
        refused=done.refused,
    )


async def take(desk: Desk, wanted: Claim) -> tuple[str, list[dict[str, Any]]]:
    lease = min(wanted.lease_seconds, desk.queue.max_lease)
    return await desk.queue.claim(wanted.count, lease)


async def wait_for(
    desk: Desk, wanted: Claim, request: Request
) -> tuple[str, list[dict[str, Any]]]:
    """The same, and look again while there is none."""
    wait = min(wanted.wait_seconds, desk.settings.max_wait)
    deadline = time.monotonic() + wait
    while True:
        seen = desk.arrivals
        token, found = await take(desk, wanted)
        left = deadline - time.monotonic()
        if found or left <= 0 or desk.ending:
            return token, found
        async with desk.arrived:
            look = min(left, desk.queue.look_again)
            if desk.arrivals == seen:  # else one came while we looked
                with suppress(TimeoutError):
                    await asyncio.wait_for(desk.arrived.wait(), look)
        if await request.is_disconnected():
            return token, []  # nobody would get what we claim


@direct.post(
    "/v1/completions",
    response_model=Completed,
    responses=answers(),
    tags=["workers"],
)
async def complete_many(request: Request, given: Completion) -> Any:
    """Complete several at once, which saves requests and commits."""
    return await finish(desk_of(request), [given])


async def finish(desk: Desk, given: list[Completion]) -> Completed:
    pairs = {(id, each.token): None for each in given for id in each.ids}
    told = await desk.queue.complete([*pairs])
    refused = [
        NotCompleted(
            id=id, status=STATUS[type(why)][0], title=STATUS[type(why)][1]
        )
        for id, why in told.items()
    ]
    completed = [id for id, _ in pairs if id not in told]
    desk.events["completed"] += len(completed)
    return Completed(completed=completed, refused=refused)


@router.post(
    "/v1/messages/{id}/complete",
    responses=answers(404, 409),
    tags=["workers"],
)
async def complete(desk: DeskOf, id: Id, holder: Holder) -> Outcome:
    """The work is done. To say so twice does no harm."""
    if refused := await desk.queue.complete([(id, holder.token)]):
        raise refused[id]
    desk.events["completed"] += 1
    return Outcome(id=id, state="done")


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
