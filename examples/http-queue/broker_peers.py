"""broker_peers.py: what the processes of the API say to one another.

A lease is a delivery, and a delivery belongs to one connection. So whoever is
told of a token that another process gave out passes it on, through RabbitMQ,
and gives back the answer. Each process has a queue for that, which goes when
the process does, and hears of new messages in it, too.
"""

import asyncio
import functools
import json
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from aiormq.exceptions import DeliveryError, PublishError
from broker_link import AWAY
from queues import QueueDown, Stale

NEWS = "http_queue.news"
NAME = 8  # digits of a token: the process that gave it out
PATIENCE = 10.0  # seconds for an answer
FORGET = 5.0  # seconds after which who says nothing has gone


def by_owner(method: Callable[..., Awaitable[Any]]) -> Any:
    """Whoever gave out the token does it: nobody else has the delivery."""

    @functools.wraps(method)
    async def call(self: Any, id: str, token: str, *more: Any) -> Any:
        if self.peers.is_ours(token):
            return await method(self, id, token, *more)
        given = [id, token, *more]
        return await self.peers.ask(token, method.__name__, given)

    return call


class Peers:
    """This process among the others."""

    def __init__(
        self,
        numbers: Callable[[], list[int]],
        heard: Callable[[int], object],
        asked: Callable[[str, list[Any]], Awaitable[Any]],
    ) -> None:
        self.name = os.urandom(NAME // 2).hex()
        self._numbers, self._heard, self._asked = numbers, heard, asked
        self._others: dict[str, tuple[float, list[int]]] = {}
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._untold = 0
        self._told = asyncio.Event()
        self._talking: asyncio.Task[None] | None = None

    async def start(self, channel: AbstractChannel) -> None:
        self._channel = channel
        self._news = await channel.declare_exchange(
            NEWS, aio_pika.ExchangeType.FANOUT, auto_delete=True
        )
        # Not exclusive: after a lost connection it may still be there.
        mine = await channel.declare_queue(
            self._queue_of(self.name), durable=True, auto_delete=True
        )
        await mine.bind(self._news)
        await mine.consume(self._hear, no_ack=True)
        self._talking = asyncio.create_task(self._talk())

    async def close(self) -> None:
        if self._talking:
            self._talking.cancel()
            await asyncio.gather(self._talking, return_exceptions=True)

    def token(self) -> str:
        """Nobody can guess it, and it says who has the delivery."""
        return self.name + os.urandom(16 - NAME // 2).hex()

    def is_ours(self, token: str) -> bool:
        return token[:NAME] == self.name

    def sums(self) -> list[int]:
        """The numbers of all processes together."""
        since = time.monotonic() - FORGET
        others = [told for at, told in self._others.values() if at > since]
        return [*map(sum, zip(self._numbers(), *others, strict=True))]

    def tell(self, count: int) -> None:
        """The others may have claims that wait for a message."""
        self._untold += count
        self._told.set()

    async def _talk(self) -> None:
        """Tell at once of new messages, and each second of our numbers."""
        while True:
            # Not wait_for(), which may take no notice of close().
            with suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._told.wait()
                    await asyncio.sleep(0.01)  # of several at once
            self._told.clear()
            count, self._untold = self._untold, 0
            news = [self.name, count, self._numbers()]
            with suppress(*AWAY):  # they look by themselves, too
                body = json.dumps(news).encode()
                await self._news.publish(
                    aio_pika.Message(body, type="news"), "", mandatory=False
                )

    async def ask(self, token: str, what: str, given: list[Any]) -> Any:
        """Have a method called by the process that gave out the token."""
        id = os.urandom(8).hex()
        message = aio_pika.Message(
            json.dumps([what, given]).encode(),
            type="ask",
            correlation_id=id,
            reply_to=self._queue_of(self.name),
        )
        answer = asyncio.get_running_loop().create_future()
        self._waiting[id] = answer
        try:
            async with asyncio.timeout(PATIENCE):
                await self._channel.default_exchange.publish(
                    message, self._queue_of(token[:NAME])
                )
                kind, told = await answer
        except (DeliveryError, PublishError):
            # It has gone, and all that it had is in the queue again.
            raise Stale("Its process has ended.") from None
        except AWAY as error:
            raise QueueDown(f"No answer: {error!r}") from None
        finally:
            del self._waiting[id]
        if kind == "stale":
            raise Stale(told)
        if kind == "down":
            raise QueueDown(told)
        return told

    async def _hear(self, message: AbstractIncomingMessage) -> None:
        # Others can write to this queue, too: nothing of it is trusted.
        with suppress(ValueError, TypeError, LookupError, *AWAY):
            told = json.loads(message.body)
            if message.type == "news":
                name, count, numbers = told
                if name != self.name:
                    self._others[name] = (time.monotonic(), numbers)
                    self._heard(count)
            elif message.type == "answer":
                answer = self._waiting[message.correlation_id or ""]
                if not answer.done():
                    answer.set_result(told)
            elif message.reply_to:
                await self._answer(message, *told)

    async def _answer(
        self, message: AbstractIncomingMessage, what: str, given: list[Any]
    ) -> None:
        try:
            told = ["told", await self._asked(what, given)]
        except Stale as error:
            told = ["stale", str(error)]
        except QueueDown as error:
            told = ["down", str(error)]
        await self._channel.default_exchange.publish(
            aio_pika.Message(
                json.dumps(told).encode(),
                type="answer",
                correlation_id=message.correlation_id,
            ),
            message.reply_to or "",
            mandatory=False,
        )

    @staticmethod
    def _queue_of(name: str) -> str:
        return f"http_queue.process.{name}"
