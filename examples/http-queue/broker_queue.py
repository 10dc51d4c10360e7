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
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aio_pika.abc import AbstractIncomingMessage
from broker_intake import Intake
from broker_link import AWAY, Link
from broker_messages import (
    ATTEMPTS,
    DEAD,
    ERROR,
    QUEUE,
    Foreign,
    Lease,
    as_row,
    attempts_of,
    headers_of,
    id_of,
    payload_of,
)
from broker_peers import Peers, by_owner
from queues import (
    NotDead,
    Once,
    Policy,
    QueueDown,
    QueueError,
    Stale,
    new_id,
)


class BrokerQueue:
    """The queue in RabbitMQ."""

    kind = "RabbitMQ"
    # The broker takes back what isn't acknowledged in 30 minutes.
    max_lease = 900.0
    # Seconds: a waiting claim looks for what other programs put in.
    look_again = 1.0

    def __init__(self, url: str, policy: Policy) -> None:
        self.url = url
        self.policy = policy
        self.heard: Callable[[int], object] = lambda count: None
        self.done = 0
        self._leases: dict[str, Lease] = {}
        self._finished: dict[str, str] = {}  # the tokens of the last ones
        self._link = Link(url, policy, self._reset)
        self._getting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self.peers = Peers(
            lambda: [len(self._leases), self.done],
            lambda count: self.heard(count),
            self._asked,
        )

    async def start(self) -> None:
        await self._link.start()
        try:
            await self.peers.start(await self._link.another_channel())
        except AWAY as error:
            await self.close()
            raise QueueDown(f"Cannot use the broker: {error!r}") from None

    def tell(self, count: int) -> None:
        """Tell other processes of new messages."""
        self.peers.tell(count)

    def _arrived(self) -> None:
        """A message is back in the queue, and no request of ours says so."""
        self.heard(1)
        self.tell(1)

    async def _asked(self, what: str, given: list[Any]) -> Any:
        """Do for another process what only this one can."""
        methods = {
            "complete": self._complete,
            "fail": self.fail,
            "release": self.release,
            "extend": self.extend,
        }
        told = await methods[what](*given)
        return [*told] if isinstance(told, dict) else told

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
        await self.peers.close()
        await self._link.close()

    # --- Producers ----------------------------------------------------------

    async def create(
        self, payload: str, key: str | None
    ) -> tuple[dict[str, Any], bool]:
        """Store a message. The key is ignored: a broker has no index."""
        id = new_id()
        created = time.time_ns() // 1_000_000
        headers = {"created_at": created}
        await self._link.publish(QUEUE, payload.encode(), id, headers)
        made = {"id": id, "payload": json.loads(payload), "state": "ready"}
        return made | {"attempts": 0, "created_at": created / 1000}, True

    async def taken_before(self, once: Once) -> int | None:
        """Unknown, as with create."""
        return None

    @asynccontextmanager
    async def intake(self, file: str) -> AsyncIterator["Intake"]:
        """Store the rows of a file, all of which are known to be right."""
        async with Intake(self.url, file) as intake:
            yield intake

    # --- Workers ------------------------------------------------------------

    async def claim(
        self, count: int, lease: float
    ) -> tuple[str, list[dict[str, Any]]]:
        """Take up to `count` deliveries, and leave them unacknowledged."""
        token, found = self.peers.token(), []
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
        return await self._link.get(name)

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
            self._arrived()

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
        await self._link.publish(
            name, message.body, id or id_of(message), headers
        )
        await self._link.ack(message)

    async def complete(
        self, pairs: list[tuple[str, str]]
    ) -> dict[str, QueueError]:
        """Acknowledge: (id, token). By id, those that are refused, and why."""
        theirs: dict[str, list[tuple[str, str]]] = {}
        for pair in pairs:
            theirs.setdefault(pair[1], []).append(pair)
        refused: dict[str, QueueError] = {}
        for token, some in theirs.items():
            if self.peers.is_ours(token):
                refused |= await self._complete(some)
                continue
            try:
                stale = await self.peers.ask(token, "complete", [some])
            except Stale:
                stale = [id for id, _ in some]
            refused |= {id: Stale(id) for id in stale}
        return refused

    async def _complete(
        self, pairs: list[tuple[str, str]]
    ) -> dict[str, QueueError]:
        refused: dict[str, QueueError] = {}
        for id, token in pairs:
            if self._finished.get(id) == token:
                continue
            try:
                lease = self._take(id, token)
            except Stale as error:
                refused[id] = error
                continue
            await self._link.ack(lease.message)
            self.done += 1
            self._finished[id] = token
            if len(self._finished) > 10_000:
                del self._finished[next(iter(self._finished))]
        return refused

    @by_owner
    async def fail(
        self, id: str, token: str, reason: str, retry: bool
    ) -> tuple[str, float | None]:
        lease = self._take(id, token)
        if not retry or lease.attempts >= self.policy.max_attempts:
            await self._move(lease, DEAD, reason)
            return "dead", None
        name = self._link.retry_name(lease.attempts)
        delay = self._link.delay_of(lease.attempts)
        await self._move(lease, name, reason)
        # The broker says nothing when the time is over.
        asyncio.get_running_loop().call_later(delay + 0.1, self._arrived)
        return "ready", delay

    @by_owner
    async def release(self, id: str, token: str) -> None:
        lease = self._take(id, token)
        await self._move(lease, QUEUE, "", lease.attempts - 1)

    @by_owner
    async def extend(self, id: str, token: str, lease: float) -> None:
        mine = self._leases.get(id)
        if not mine or mine.token != token:
            raise Stale(id)
        mine.until = asyncio.get_running_loop().time() + lease
        self._set_timer(mine)

    # --- People -------------------------------------------------------------

    async def dead(self, limit: int) -> list[dict[str, Any]]:
        async with self._getting, self._link.held(DEAD, limit) as found:
            return [as_row(message, "dead") for message in found]

    async def requeue(self, id: str | None) -> int:
        count = 0
        async with self._getting, self._link.held(DEAD, 10_000) as found:
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
        numbers = await self._link.count()
        ready, dead = numbers.pop(QUEUE), numbers.pop(DEAD)
        leased, done = self.peers.sums()
        return {
            "ready": ready,
            "delayed": sum(numbers.values()),
            "leased": leased,
            "done": done,
            "dead": dead,
        }
