"""desk.py: what all requests share, and how they are answered."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from broker_queue import BrokerQueue
from database import AWAY
from fastapi import Depends, FastAPI, Request
from fastapi.dependencies.utils import request_params_to_args
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from intake import Readers
from pydantic import BaseModel, TypeAdapter, ValidationError
from queues import KeyReused, NotDead, QueueDown, Stale, Unknown
from schemas import Fault, Problem
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.responses import Response
from starlette.routing import request_response
from table_queue import TableQueue

LOOPBACK = ("localhost", "127.0.0.1", "::1")
STATUS = {
    Unknown: (404, "There is no such message"),
    Stale: (409, "The lease is no longer yours"),
    NotDead: (409, "The message is not dead"),
    KeyReused: (422, "The Idempotency-Key was used before"),
    QueueDown: (503, "The queue is away"),
}
PROBLEM = "application/problem+json"
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
    ending: bool = False

    def __post_init__(self) -> None:
        self.queue.heard = self._hear
        self._ringing: set[asyncio.Task[None]] = set()

    def _hear(self, count: int) -> None:
        """Another process has new messages."""
        task = asyncio.create_task(self._ring(count))
        self._ringing.add(task)
        task.add_done_callback(self._ringing.discard)

    def end(self) -> None:
        """Nobody waits any longer: the API is about to end."""
        self.ending = True
        self._hear(10_000)

    async def ring(self, count: int = 1) -> None:
        """There are new messages: tell all who may wait for one."""
        await self._ring(count)
        self.queue.tell(count)

    async def _ring(self, count: int) -> None:
        """Wake as many waiting claims as there are new messages."""
        async with self.arrived:
            self.arrivals += count
            self.arrived.notify(count)


def desk_of(request: Request) -> Desk:
    return request.app.state.desk


DeskOf = Annotated[Desk, Depends(desk_of)]
# For the document only: guard.py has looked at the token.
bearer = Depends(HTTPBearer(auto_error=False))


class Direct(APIRoute):
    """A route that is called often: documented like any other.

    FastAPI would make objects of the JSON, and of these the model, and the
    same on the way back. Here pydantic reads and writes the JSON, which is
    twice as fast, and strict with a date, too.
    """

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        endpoint: Callable[..., Any] = self.endpoint
        name, model = next(
            (parameter.name, parameter.field_info.annotation)
            for parameter in self.dependant.body_params
        )
        assert model
        read = TypeAdapter(model).validate_json
        headers = self.dependant.header_params

        async def handle(request: Request) -> Response:
            try:
                body = read(await request.body())
            except ValidationError as error:
                faults = error.errors(include_url=False, include_context=False)
                at = [
                    {**each, "loc": ("body", *each["loc"])} for each in faults
                ]
                raise RequestValidationError(at) from None
            wanted, wrong = {}, []
            if any(each.alias in request.headers for each in headers):
                wanted, wrong = request_params_to_args(
                    headers, request.headers
                )
            if wrong:
                raise RequestValidationError(wrong)
            told = await endpoint(request=request, **{name: body}, **wanted)
            if isinstance(told, Response):
                return told
            return as_json(told, self.status_code or 200)

        self.app = request_response(handle)


def as_json(told: BaseModel, status: int = 200) -> Response:
    return Response(told.model_dump_json(), status, None, "application/json")


def problem(
    status: int, title: str, detail: str = "", **more: Any
) -> JSONResponse:
    body = Problem(title=title, status=status, detail=detail, **more)
    return JSONResponse(
        body.model_dump(exclude_defaults=True)
        | {"type": body.type, "title": title, "status": status},
        status,
        {"WWW-Authenticate": "Bearer"} if status == 401 else None,
        PROBLEM,
    )


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route, for the OpenAPI document."""
    every = {400, 401, 403, 413, 422, 503, *statuses}
    return {
        status: {"model": Problem, "content": {PROBLEM: {}}}
        for status in sorted(every)
    }


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
