"""broker_intake.py: many messages into RabbitMQ at once.

As chapter 7's windowed publisher does it: the next is sent while the broker
still has to confirm some hundreds before it. pika needs a fifth of the
time that aio-pika takes for a message, and here that is what counts.
"""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import pika
from broker_messages import QUEUE
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.spec import Basic
from queues import Once, QueueDown, Row, new_id

WINDOW = 1_000  # messages that are sent and not yet confirmed
PATIENCE = 30.0  # seconds for a connection, and for a confirm


class Intake:
    """The rows of one file. Not a transaction: see the page."""

    def __init__(self, url: str, file: str) -> None:
        self._url, self._file = url, file
        self._failed = ""
        self._changed = asyncio.Event()
        self._sent = self._confirmed = 0
        self._singles: set[int] = set()
        self._open = False

    async def __aenter__(self) -> "Intake":
        self._connection = AsyncioConnection(
            pika.URLParameters(self._url),
            on_open_callback=self._opened,
            on_open_error_callback=self._broken,
            on_close_callback=self._broken,
        )
        await self._until(lambda: self._open)
        return self

    async def __aexit__(self, kind: type | None, *_: object) -> None:
        try:
            if kind is None:
                await self._until(lambda: self._confirmed == self._sent)
        finally:
            if self._connection.is_open:
                self._connection.close()

    def _opened(self, connection: Any) -> None:
        connection.channel(on_open_callback=self._ready)

    def _ready(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._broken)
        # Nobody may delete the queue unnoticed.
        channel.add_on_return_callback(self._broken)
        channel.confirm_delivery(self._told, callback=self._usable)

    def _usable(self, _: Any) -> None:
        self._open = True
        self._changed.set()

    def _told(self, frame: Any) -> None:
        """The broker has them; with `multiple` all up to this one."""
        method = frame.method
        if isinstance(method, Basic.Nack):
            return self._broken(None, "not accepted")
        if method.multiple:
            self._confirmed = method.delivery_tag
            self._singles = {n for n in self._singles if n > self._confirmed}
        else:
            self._singles.add(method.delivery_tag)
        while self._confirmed + 1 in self._singles:
            self._confirmed += 1
            self._singles.discard(self._confirmed)
        self._changed.set()

    def _broken(self, _: Any, *why: Any) -> None:
        self._failed = self._failed or repr(why[0])
        self._changed.set()

    async def _until(self, done: Any) -> None:
        while not done():
            if self._failed:
                raise QueueDown(f"Not confirmed: {self._failed}")
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), PATIENCE)
            except TimeoutError:
                raise QueueDown("Not confirmed in time.") from None

    async def store(self, rows: Iterable[Row]) -> None:
        now = time.time_ns() // 1_000_000
        for number, body in rows:
            if self._sent - self._confirmed >= WINDOW:
                await self._until(
                    lambda: self._sent - self._confirmed < WINDOW // 2
                )
            headers = {
                "upload": self._file,
                "row": number,
                "created_at": now,
            }
            properties = pika.BasicProperties(
                message_id=new_id(),
                headers=headers,
                content_type="application/json",
                delivery_mode=2,
                priority=4,
            )
            self._channel.basic_publish(
                "", QUEUE, body.encode(), properties, mandatory=True
            )
            self._sent += 1

    async def note(self, once: Once, rows: int) -> None:
        """A broker has nowhere to keep that."""
