"""schemas.py: what goes over the wire, and what a row of a sheet holds.

Payload is the one class to change for messages of your own: the API, the
spreadsheets and the page at / follow it.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

# Printable text. PostgreSQL, for one, cannot store the character NUL.
Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
# What new_id() makes; ids and tokens look alike.
Token = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
State = Literal["ready", "leased", "done", "dead"]


class Strict(BaseModel):
    """Refuses fields that it doesn't know, and text where a number belongs."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Payload(Strict):
    """A letter to send: the columns of a sheet, the body of a message."""

    recipient: Annotated[Text, Field(min_length=1, max_length=200)]
    text: Annotated[Text, Field(min_length=1, max_length=10_000)]
    copies: Annotated[int, Field(ge=1, le=1_000)] = 1


class MessageOut(BaseModel):
    """A message as the API shows it. Times are seconds since 1970."""

    id: str
    payload: dict[str, Any]
    state: State
    attempts: int
    error: str | None = None
    available_at: float | None = None
    created_at: float | None = None
    finished_at: float | None = None
    upload: str | None = None
    row: int | None = None


class Messages(BaseModel):
    """A page of a list; `next` is the `after` of the next one, if any."""

    messages: list[MessageOut]
    next: str | None = None


class Holder(Strict):
    """Who speaks: the token of the claim."""

    token: Token


class Completion(Holder):
    """What is done, of what one claim gave."""

    ids: Annotated[list[Token], Field(min_length=1, max_length=500)]


class NotCompleted(BaseModel):
    """What `complete` would have answered for this one."""

    id: str
    status: int
    title: str


class Claim(Strict):
    """How many, for how long, and how long to wait when there is none.

    `done`: what is completed in the same request.
    """

    count: Annotated[int, Field(ge=0, le=500)] = 1
    lease_seconds: Annotated[float, Field(ge=0.1, le=43_200)] = 30
    wait_seconds: Annotated[float, Field(ge=0, le=60)] = 0
    done: Annotated[list[Completion], Field(max_length=500)] = []


class Claimed(BaseModel):
    """What was claimed: none, or up to as many as were asked for.

    The token proves that the messages are yours, until the lease runs out and
    somebody else claims them.
    """

    token: str
    messages: list[MessageOut]
    completed: list[str] = []
    refused: list[NotCompleted] = []


class Failure(Holder):
    """What went wrong. Without `retry` the message is dead at once."""

    reason: Annotated[Text, Field(max_length=1_000)] = ""
    retry: bool = True


class Extension(Holder):
    """The lease is to run out so many seconds from now."""

    lease_seconds: Annotated[float, Field(ge=0.1, le=43_200)] = 30


class Outcome(BaseModel):
    """Where the message is now."""

    id: str
    state: State
    retry_in_seconds: float | None = None


class Completed(BaseModel):
    """Each id is in one of the two."""

    completed: list[str]
    refused: list[NotCompleted] = []


class Requeued(BaseModel):
    """How many dead messages are ready again."""

    requeued: int


class Counts(BaseModel):
    """How many messages there are, by state.

    `delayed` ones wait for their next attempt. With a broker, `done` counts
    since the API started: a broker forgets what is acknowledged.
    """

    queue: str
    ready: int
    delayed: int
    leased: int
    done: int
    dead: int


class Fault(BaseModel):
    """Why a file is refused: the row as the spreadsheet numbers it."""

    row: int | None = None
    column: str | None = None
    reason: str


class FileResult(BaseModel):
    """One file: all of its rows are in the queue, or none is.

    `warnings` tell what was left out. `repeated`: they were in the queue
    already, from a request with the same Idempotency-Key.
    """

    file: str
    rows: int
    warnings: list[str] = []
    faults: list[Fault] = []
    repeated: bool = False


class Uploaded(BaseModel):
    """What became of each file, and how long it took."""

    files: list[FileResult]
    seconds: float


class Problem(BaseModel):
    """An error, as RFC 9457 has it (application/problem+json)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    faults: list[Fault] = []
    files: list[FileResult] = []
