"""broker_queue.py: the same API on a quorum queue in RabbitMQ.

A claimed message is a delivery that this process has not acknowledged yet, so
the lease lives here, and the broker takes all of them back when this process
goes away. What is to be tried later waits in a queue without consumers, one
for each backoff, and is dead-lettered back from there when its time is over.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aio_pika
from aio_pika.abc import (
    AbstractIncomingMessage,
    AbstractRobustChannel,
    AbstractRobustConnection,
    AbstractRobustQueue,
)
from aiormq.exceptions import AMQPError
from broker_messages import (
    ATTEMPTS,
    DEAD,
    ERROR,
    QUEUE,
    Foreign,
    as_row,
    attempts_of,
    headers_of,
    id_of,
    payload_of,
)
from queues import NotDead, Once, Policy, QueueDown, Row, Stale, new_id

QUORUM = {"x-queue-type": "quorum"}
AWAY = (AMQPError, OSError, asyncio.TimeoutError, RuntimeError)


@dataclass
class Lease:
    """A delivery in a worker's hands."""

    message: AbstractIncomingMessage
    token: str
    attempts: int
    until: float
    timer: asyncio.TimerHandle | None = None


class BrokerQueue:
    """The queue in RabbitMQ."""

    kind = "RabbitMQ"
    # The broker takes back what isn't acknowledged in 30 minutes.
    max_lease = 900.0

    def __init__(self, url: str, policy: Policy) -> None:
        self.url = url
        self.policy = policy
        self.done = 0
        self._leases: dict[str, Lease] = {}
        self._finished: dict[str, str] = {}  # the tokens of the last ones
        self._connection: AbstractRobustConnection | None = None
        self._channel: AbstractRobustChannel | None = None
        self._queues: dict[str, AbstractRobustQueue] = {}
        self._getting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def channel(self) -> AbstractRobustChannel:
        if not self._channel:
            raise QueueDown("The broker is away.")
        return self._channel

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
            # A claim is lost together with its channel; see _reset.
            self._connection.reconnect_callbacks.add(self._reset)
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

    def _reset(self, *_: Any) -> None:
        """The connection was lost: the broker has all messages again."""
        for lease in self._leases.values():
            if lease.timer:
                lease.timer.cancel()
        self._leases.clear()

    async def close(self) -> None:
        self._reset()
        for task in [*self._tasks]:
            task.cancel()
        if self._connection:
            with contextlib.suppress(*AWAY):
                await self._connection.close()
        self._connection = self._channel = None

    async def _publish(
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

    # --- Producers ----------------------------------------------------------

    async def create(
        self, payload: dict[str, Any], key: str | None
    ) -> tuple[dict[str, Any], bool]:
        """Store a message. The key is ignored: a broker has no index."""
        id = new_id()
        created = time.time_ns() // 1_000_000
        body = json.dumps(payload).encode()
        await self._publish(QUEUE, body, id, {"created_at": created})
        made = {"id": id, "payload": payload, "state": "ready"}
        return made | {"attempts": 0, "created_at": created / 1000}, True

    async def taken_before(self, once: Once) -> int | None:
        """Unknown, as with create."""
        return None

    @asynccontextmanager
    async def intake(self, file: str) -> AsyncIterator["Intake"]:
        """Store the rows of a file, all of which are known to be right."""
        yield Intake(self, file)

    # --- Workers ------------------------------------------------------------

    async def claim(
        self, count: int, lease: float
    ) -> tuple[str, list[dict[str, Any]]]:
        """Take up to `count` deliveries, and leave them unacknowledged."""
        token, found = new_id(), []
        until = asyncio.get_running_loop().time() + lease
        complete = False
        try:
            async with self._getting:
                while len(found) < count:
                    if not (message := await self._get(QUEUE)):
                        break
                    payload = await self._lease(message, token, until)
                    if payload is not None:
                        found.append(as_row(message, "leased", payload))
            complete = True
        except AWAY as error:
            raise QueueDown(f"The broker is away: {error!r}") from None
        finally:
            if not complete:  # nobody will hear of the token
                for each in found:
                    lease_of = self._take(each["id"], token)
                    with contextlib.suppress(*AWAY):
                        await lease_of.message.nack(requeue=True)
        return token, found

    async def _get(self, name: str) -> AbstractIncomingMessage | None:
        return await self._queues[name].get(fail=False, timeout=10)

    async def _lease(
        self, message: AbstractIncomingMessage, token: str, until: float
    ) -> dict[str, Any] | None:
        """Put a delivery into a worker's hands, unless it is none of ours."""
        mine = Lease(message, token, attempts_of(message) + 1, until)
        id = id_of(message)
        try:
            try:
                payload = payload_of(message)
            except Foreign as error:
                await self._move(mine, DEAD, str(error), mine.attempts - 1)
                return None
            if id in self._leases:
                # Two of one id, after a crash in _move, or from elsewhere.
                await self._move(mine, QUEUE, "", mine.attempts - 1, new_id())
                return None
        except BaseException:
            with contextlib.suppress(*AWAY):
                await message.nack(requeue=True)
            raise
        self._leases[id] = mine
        self._set_timer(mine)
        return payload

    def _set_timer(self, lease: Lease) -> None:
        if lease.timer:
            lease.timer.cancel()

        def lapse() -> None:
            task = asyncio.create_task(self._lapse(lease))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        loop = asyncio.get_running_loop()
        lease.timer = loop.call_at(lease.until, lapse)

    async def _lapse(self, lease: Lease) -> None:
        """The lease ran out: to somebody else, or dead."""
        id = id_of(lease.message)
        if self._leases.get(id) is not lease:
            return
        del self._leases[id]
        dead = lease.attempts >= self.policy.max_attempts
        reason = "The lease ran out." if dead else ""
        with contextlib.suppress(QueueDown):
            await self._move(lease, DEAD if dead else QUEUE, reason)

    def _take(self, id: str, token: str) -> Lease:
        """The lease of that token, which ends with this."""
        lease = self._leases.get(id)
        if not lease or lease.token != token:
            raise Stale(id)
        del self._leases[id]
        if lease.timer:
            lease.timer.cancel()
        return lease

    async def _move(
        self,
        lease: Lease,
        name: str,
        error: str,
        attempts: int | None = None,
        id: str = "",
    ) -> None:
        """Send a copy, and acknowledge once the broker has that.

        A crash between the two leaves both, never none.
        """
        message = lease.message
        headers = headers_of(message)
        headers[ATTEMPTS] = lease.attempts if attempts is None else attempts
        if error:
            headers[ERROR] = error
        await self._publish(name, message.body, id or id_of(message), headers)
        await self._ack(message)

    async def _ack(self, message: AbstractIncomingMessage) -> None:
        try:
            await message.ack()
        except AWAY as error:
            raise QueueDown(f"Not acknowledged: {error!r}") from None

    async def complete(self, id: str, token: str) -> None:
        if self._finished.get(id) == token:
            return
        await self._ack(self._take(id, token).message)
        self.done += 1
        self._finished[id] = token
        if len(self._finished) > 10_000:
            del self._finished[next(iter(self._finished))]

    async def fail(
        self, id: str, token: str, reason: str, retry: bool
    ) -> tuple[str, float | None]:
        lease = self._take(id, token)
        if not retry or lease.attempts >= self.policy.max_attempts:
            await self._move(lease, DEAD, reason)
            return "dead", None
        name = self.retry_name(lease.attempts)
        await self._move(lease, name, reason)
        return "ready", self.delay_of(lease.attempts)

    async def release(self, id: str, token: str) -> None:
        lease = self._take(id, token)
        await self._move(lease, QUEUE, "", lease.attempts - 1)

    async def extend(self, id: str, token: str, lease: float) -> None:
        mine = self._leases.get(id)
        if not mine or mine.token != token:
            raise Stale(id)
        mine.until = asyncio.get_running_loop().time() + lease
        self._set_timer(mine)

    # --- People -------------------------------------------------------------

    @asynccontextmanager
    async def _dead_ones(
        self, limit: int
    ) -> AsyncIterator[list[AbstractIncomingMessage]]:
        """Get dead messages; what isn't acknowledged meanwhile goes back."""
        found: list[AbstractIncomingMessage] = []
        try:
            async with self._getting:
                try:
                    while len(found) < limit:
                        if not (message := await self._get(DEAD)):
                            break
                        found.append(message)
                    yield found
                finally:
                    for message in found:
                        if not message.processed:
                            await message.nack(requeue=True)
        except AWAY as error:
            raise QueueDown(f"The broker is away: {error!r}") from None

    async def dead(self, limit: int) -> list[dict[str, Any]]:
        async with self._dead_ones(limit) as found:
            return [as_row(message, "dead") for message in found]

    async def requeue(self, id: str | None) -> int:
        count = 0
        async with self._dead_ones(10_000) as found:
            for message in found:
                if id not in (None, id_of(message)):
                    continue
                lease = Lease(message, "", 0, 0.0)
                await self._move(lease, QUEUE, "")
                count += 1
                if id:
                    break
        if id and not count:
            raise NotDead(id)
        return count

    async def counts(self) -> dict[str, int]:
        """What the broker counts; it may lag by some seconds."""
        numbers = {}
        try:
            for name in self._queues:
                # aio-pika would answer from its own memory.
                channel = await self.channel.get_underlay_channel()
                told = await channel.queue_declare(name, passive=True)
                numbers[name] = told.message_count or 0
        except AWAY as error:
            raise QueueDown(f"The broker is away: {error!r}") from None
        ready, dead = numbers.pop(QUEUE), numbers.pop(DEAD)
        return {
            "ready": ready,
            "delayed": sum(numbers.values()),
            "leased": len(self._leases),
            "done": self.done,
            "dead": dead,
        }


class Intake:
    """The rows of one file. Not a transaction: see the page."""

    def __init__(self, queue: BrokerQueue, file: str) -> None:
        self._queue = queue
        self._file = file

    async def store(self, rows: Iterable[Row]) -> None:
        now = time.time_ns() // 1_000_000
        async with asyncio.TaskGroup() as group:
            for row in rows:
                headers = {"upload": self._file, "row": row.number}
                body = row.payload.encode()
                group.create_task(
                    self._queue._publish(
                        QUEUE, body, new_id(), headers | {"created_at": now}
                    )
                )

    async def note(self, once: Once, rows: int) -> None:
        """A broker has nowhere to keep that."""
