"""queues.py: what the two kinds of queue have in common.

table_queue.py and broker_queue.py each have the methods that api.py calls;
this has what both raise, take and give.
"""

import itertools
import os
import time
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Policy:
    """When to try again, and when to stop trying."""

    max_attempts: int = 5
    backoff: float = 1.0  # seconds after the first attempt; then doubled


class Row(NamedTuple):
    """A row of a sheet that is right."""

    number: int
    payload: str  # as JSON


@dataclass(frozen=True)
class Once:
    """A file that is to be taken once: its key, and what it looks like."""

    key: str
    digest: str


class QueueError(Exception):
    """What the API answers for it is in api.py."""


class Unknown(QueueError):
    """There is no such message."""


class Stale(QueueError):
    """The token is not, or no longer, that of the message's lease."""


class NotDead(QueueError):
    """Only dead messages are requeued."""


class KeyReused(QueueError):
    """An Idempotency-Key came back with another message or file."""


class TakenMeanwhile(QueueError):
    """The same file came twice at the same time, and the other was first."""


class QueueDown(QueueError):
    """The database or broker is away."""


_counter = itertools.count()


def new_id() -> str:
    """32 hexadecimal digits nobody can guess, which sort by time."""
    count = next(_counter) & 0xFFFFFF
    now = time.time_ns() // 1_000_000
    return f"{now:012x}{count:06x}{os.urandom(7).hex()}"
