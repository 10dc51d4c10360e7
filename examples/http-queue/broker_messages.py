"""broker_messages.py: how a message of the queue is kept in RabbitMQ.

Anybody may publish to a queue. What this API did not write is told apart here,
and nothing of it is trusted: neither that it has an id, nor that its body is a
Payload, nor what its headers hold.
"""

import asyncio
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from aio_pika.abc import AbstractIncomingMessage
from pydantic import TypeAdapter, ValidationError
from schemas import Payload

QUEUE = "http_queue"
DEAD = "http_queue.dead"
ATTEMPTS = "x-attempts"
ERROR = "x-error"
# Redeliveries after a crash of this process, which count as attempts, too.
REDELIVERED = "x-delivery-count"
MOST_OF_A_BODY = 200

CHECK = TypeAdapter(Payload)
ID = re.compile(r"[0-9a-f]{32}")


@dataclass
class Lease:
    """A delivery in a worker's hands."""

    message: AbstractIncomingMessage
    token: str
    attempts: int
    until: float
    timer: asyncio.TimerHandle | None = None


class Foreign(Exception):
    """This API did not write that; the text says how one can tell."""


def has_id(message: AbstractIncomingMessage) -> bool:
    return bool(ID.fullmatch(message.message_id or ""))


def id_of(message: AbstractIncomingMessage) -> str:
    """Its id, or what can serve as one, the same at every look."""
    if has_id(message):
        return str(message.message_id)
    what = repr((message.message_id, message.body)).encode()
    return hashlib.md5(what, usedforsecurity=False).hexdigest()


def payload_of(message: AbstractIncomingMessage) -> dict[str, Any]:
    """What it says. Raises Foreign."""
    if not has_id(message):
        raise Foreign("Not written by this API: it has no id of ours.")
    try:
        made = CHECK.validate_json(message.body)
    except ValidationError as error:
        told = error.errors(include_url=False)[0]
        where = ".".join(map(str, told["loc"]))
        why = ": ".join(filter(None, [where, told["msg"]]))[:300]
        raise Foreign(f"Not a Payload: {why}") from None
    return CHECK.dump_python(made, mode="json")


def shown(message: AbstractIncomingMessage) -> dict[str, Any]:
    """What it says, for people, whatever it is."""
    try:
        payload = json.loads(message.body)
        json.dumps(payload, allow_nan=False, ensure_ascii=False).encode()
        if isinstance(payload, dict):
            return payload
    except (ValueError, RecursionError):
        pass
    text = message.body[:MOST_OF_A_BODY].decode(errors="backslashreplace")
    return {"body": text}


def number(message: AbstractIncomingMessage, name: str) -> int | None:
    value = message.headers.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value < 2**53 else None


def text(message: AbstractIncomingMessage, name: str, most: int) -> str | None:
    value = message.headers.get(name)
    return value[:most] if isinstance(value, str) else None


def attempts_of(message: AbstractIncomingMessage) -> int:
    """How often it was claimed before."""
    counts = (number(message, name) for name in (ATTEMPTS, REDELIVERED))
    return sum(filter(None, counts))


def headers_of(message: AbstractIncomingMessage) -> dict[str, Any]:
    """What a copy of it keeps: a fresh message, with our own headers only.

    Others would have a meaning of their own (CC, for one, sends more copies).
    """
    kept = {
        "created_at": number(message, "created_at"),
        "upload": text(message, "upload", 255),
        "row": number(message, "row"),
        ERROR: text(message, ERROR, 1_000),
    }
    return {name: value for name, value in kept.items() if value is not None}


def as_row(
    message: AbstractIncomingMessage,
    state: str,
    payload: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A message as the API shows it."""
    kept = headers_of(message)
    attempts = attempts_of(message) + 1
    if state == "dead":
        # Every look at it was a delivery, which before 4.3 counts as well.
        attempts = number(message, ATTEMPTS) or 0
    created = kept.get("created_at")
    return {
        "id": id_of(message),
        "payload": payload or shown(message),
        "state": state,
        "attempts": attempts,
        "error": kept.get(ERROR),
        "upload": kept.get("upload"),
        "row": kept.get("row"),
        "created_at": None if created is None else created / 1000,
    }
