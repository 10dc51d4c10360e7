"""broker_link.py: the connection to RabbitMQ, and the queues there."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import aio_pika
from aio_pika.abc import (
    AbstractChannel,
    AbstractIncomingMessage,
    AbstractRobustChannel,
    AbstractRobustConnection,
    AbstractRobustQueue,
)
from aiormq.exceptions import AMQPError
from broker_messages import DEAD, QUEUE
from pamqp import decode
from queues import Policy, QueueDown


def timestamp(value: bytes) -> tuple[int, datetime]:
    """Any message may have a time of the year 292278994, which Python lacks.

    For pamqp that is the end of the connection, again and again, as the
    message comes back. Here it is the last time that there is.
    """
    try:
        return decode.timestamp(value)
    except (ValueError, OverflowError, OSError):
        return 8, datetime.max.replace(tzinfo=UTC)


decode.METHODS["timestamp"] = decode.TABLE_MAPPING[b"T"] = timestamp

QUORUM = {"x-queue-type": "quorum"}
AWAY = (AMQPError, OSError, asyncio.TimeoutError, RuntimeError)


class Link:
    """One connection with one channel. `lost` is called when it was lost."""

    def __init__(
        self, url: str, policy: Policy, lost: Callable[..., None]
    ) -> None:
        self.url = url
        self.policy = policy
        self._lost = lost
        self._connection: AbstractRobustConnection | None = None
        self._channel: AbstractRobustChannel | None = None
        self._queues: dict[str, AbstractRobustQueue] = {}

    @property
    def channel(self) -> AbstractRobustChannel:
        if not self._channel:
            raise QueueDown("The broker is away.")
        return self._channel

    async def another_channel(self) -> AbstractChannel:
        if not self._connection:
            raise QueueDown("The broker is away.")
        return await self._connection.channel(on_return_raises=True)

    def delay_of(self, attempt: int) -> float:
        """Seconds to wait after so many attempts."""
        return self.policy.backoff * 2 ** (attempt - 1)

    def retry_name(self, attempt: int) -> str:
        return f"{QUEUE}.retry.{int(self.delay_of(attempt) * 1000)}"

    async def start(self) -> None:
        try:
            self._connection = await aio_pika.connect_robust(
                self.url, timeout=10, fail_fast="1"
            )
            # A claim is lost together with its channel.
            self._connection.reconnect_callbacks.add(self._lost)
            channel = await self._connection.channel(on_return_raises=True)
            assert isinstance(channel, AbstractRobustChannel)
            self._channel = channel
            await self._declare(channel)
        except AWAY as error:
            await self.close()
            where = aio_pika.connection.make_url(self.url).with_password(None)
            raise QueueDown(f"Cannot use {where}: {error!r}") from None

    async def _declare(self, channel: AbstractRobustChannel) -> None:
        async def declare(name: str, **more: Any) -> None:
            self._queues[name] = await channel.declare_queue(
                name, durable=True, arguments=QUORUM | more
            )

        await declare(
            QUEUE,
            **{
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": DEAD,
                # At its delivery limit a message is dead, but never lost on
                # its way there.
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        )
        # Looking at the dead ones returns them, which would count as well.
        await declare(DEAD, **({"x-delivery-limit": -1} if self._new else {}))
        for attempt in range(1, self.policy.max_attempts):
            await declare(
                self.retry_name(attempt),
                **{
                    "x-message-ttl": int(self.delay_of(attempt) * 1000),
                    "x-dead-letter-exchange": "",
                    "x-dead-letter-routing-key": QUEUE,
                    "x-dead-letter-strategy": "at-least-once",
                    "x-overflow": "reject-publish",
                },
            )

    @property
    def _new(self) -> bool:
        """Whether the broker has a delivery limit by default: since 4.0."""
        transport = self._connection and self._connection.transport
        told = transport.connection.server_properties if transport else {}
        version = str(told.get("version", "0"))
        return int(version.partition(".")[0]) >= 4

    async def close(self) -> None:
        if self._connection:
            with contextlib.suppress(*AWAY):
                await self._connection.close()
        self._connection = self._channel = None

    async def publish(
        self, name: str, body: bytes, id: str, headers: dict[str, Any]
    ) -> None:
        """Send to a queue; when this returns, a quorum has the message."""
        message = aio_pika.Message(
            body,
            message_id=id,
            headers=headers,
            content_type="application/json",
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            priority=4,  # as other senders' have it; see chapter 2
        )
        try:
            await self.channel.default_exchange.publish(
                message, routing_key=name, timeout=30
            )
        except AWAY as error:
            raise QueueDown(f"Not confirmed: {error!r}") from None

    async def get(self, name: str) -> AbstractIncomingMessage | None:
        return await self._queues[name].get(fail=False, timeout=10)

    @contextlib.asynccontextmanager
    async def held(
        self, name: str, limit: int
    ) -> AsyncIterator[list[AbstractIncomingMessage]]:
        """Get messages; what isn't acknowledged meanwhile goes back."""
        found: list[AbstractIncomingMessage] = []
        try:
            try:
                while len(found) < limit:
                    if not (message := await self.get(name)):
                        break
                    found.append(message)
                yield found
            finally:
                for message in found:
                    if not message.processed:
                        await message.nack(requeue=True)
        except AWAY as error:
            raise QueueDown(f"The broker is away: {error!r}") from None

    async def ack(self, message: AbstractIncomingMessage) -> None:
        try:
            await message.ack()
        except AWAY as error:
            raise QueueDown(f"Not acknowledged: {error!r}") from None

    async def count(self) -> dict[str, int]:
        """By queue, what the broker counts; it may lag by some seconds."""
        numbers = {}
        try:
            for name in self._queues:
                # aio-pika would answer from its own memory.
                channel = await self.channel.get_underlay_channel()
                told = await channel.queue_declare(name, passive=True)
                numbers[name] = told.message_count or 0
        except AWAY as error:
            raise QueueDown(f"The broker is away: {error!r}") from None
        return numbers
