"""What provokes the messages that docs/errors.rst quotes, in real clients.

Each function is registered under the NAME of an entry of the page (label `error-NAME`)
in PROVOCATIONS; test_errors.py compares what it raises and logs with what is quoted.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import broker as brokers
import pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from broker import Broker
from conftest import close_connections
from pika.adapters.blocking_connection import BlockingChannel
from shells.chapters import CLIENTS, EXAMPLES
from shells.running import Script

CLASSIC: dict[str, Any] = {"x-queue-type": "classic"}
QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}
STREAM: dict[str, Any] = {"x-queue-type": "stream"}
FULL: dict[str, Any] = {"x-max-length": 0, "x-overflow": "reject-publish"}


@dataclass(frozen=True)
class Site:
    """Where to provoke it."""

    broker: Broker
    url: str  # of a fresh virtual host

    @property
    def vhost(self) -> str:
        return urlsplit(self.url).path[1:]

    @property
    def address(self) -> str:
        return self.broker.url.rpartition("@")[2]

    def close_connections(self) -> None:
        """As an operator does in the management interface, who gives no reason."""
        close_connections(self.broker, self.url, "Closed via management plugin")

    @contextmanager
    def user(self, *rights: str) -> Iterator[str]:
        """A user who may not do everything: the URL."""
        name = f"reader-{self.vhost[-12:]}"
        self.broker.call_api("PUT", f"users/{name}", {"password": "secret", "tags": ""})
        if rights:
            given = dict(zip(("configure", "write", "read"), rights, strict=True))
            self.broker.call_api("PUT", f"permissions/{self.vhost}/{name}", given)
        yield self.url.replace("guest:guest", f"{name}:secret")
        self.broker.call_api("DELETE", f"users/{name}")


Provocation = Callable[[Site], Awaitable[object] | object]
PROVOCATIONS: dict[str, list[Provocation]] = {}


def provokes(name: str) -> Callable[[Provocation], Provocation]:
    def register(function: Provocation) -> Provocation:
        PROVOCATIONS.setdefault(name, []).append(function)
        return function

    return register


def pika_does(name: str) -> Callable[[Callable[[BlockingChannel], object]], None]:
    """Register what is done on a channel of pika."""

    def register(function: Callable[[BlockingChannel], object]) -> None:
        def provoke(site: Site) -> None:
            with pika.BlockingConnection(pika.URLParameters(site.url)) as connection:
                function(connection.channel())

        provokes(name)(provoke)

    return register


def aio_pika_does(name: str) -> Callable[[Callable[[AbstractChannel], Awaitable[object]]], None]:
    """Register what is done on a channel of aio-pika."""

    def register(function: Callable[[AbstractChannel], Awaitable[object]]) -> None:
        async def provoke(site: Site) -> None:
            async with await aio_pika.connect(site.url) as connection:
                await function(await connection.channel())

        provokes(name)(provoke)

    return register


# --- Connecting -----------------------------------------------------------------


def connecting(name: str, url: Callable[[Site], str]) -> None:
    """Register a connection that fails, in both clients."""

    async def with_aio_pika(site: Site) -> None:
        await (await aio_pika.connect(url(site))).close()

    provokes(name)(lambda site: pika.BlockingConnection(pika.URLParameters(url(site))).close())
    provokes(name)(with_aio_pika)


connecting("refused", lambda _: f"amqp://guest:guest@localhost:{brokers.free_ports(1)[0]}/")
connecting("host", lambda _: "amqp://guest:guest@no-such-host.invalid/")
connecting("url", lambda _: "localhost")
connecting("url", lambda _: "localhost:5672")
connecting("url", lambda _: "ampq://localhost/")
connecting("url", lambda _: "amqp://guest:pass/word@localhost/")
connecting(
    "protocol", lambda site: f"amqp://guest:guest@localhost:{site.broker.api.split(':')[2]}/"
)
connecting("tls", lambda site: f"amqps://guest:guest@{site.address}")
connecting("password", lambda site: f"amqp://guest:secret@{site.address}")
connecting("vhost", lambda site: f"{site.broker.url}nowhere")


def over_tls(site: Site) -> str:
    if not site.broker.tls_url:
        pytest.skip("whether the broker that AMQP_URL names has TLS is not known")
    return site.broker.tls_url


connecting("certificate", over_tls)


def secure_worker_says(name: str, url: Callable[[Site], str], ca_file: str = "") -> None:
    """Register what the worker over TLS prints, in both clients."""

    def run(site: Site, client: str) -> None:
        script = EXAMPLES / "production-worker" / client / "worker_secure.py"
        with closing(Script(script, url=url(site), CA_FILE=ca_file)) as ended:
            ended.wait()
            logging.error("\n".join(ended.stderr))

    for client in CLIENTS:
        provokes(name)(partial(run, client=client))


secure_worker_says("certificate", over_tls)
secure_worker_says("certificate", over_tls, "no-such-file.pem")
secure_worker_says("tls", lambda site: f"amqps://guest:guest@{site.address}")
secure_worker_says("url", lambda site: site.url)


# What pika refuses, and aio-pika takes.
PARTICULAR: list[tuple[str, Callable[[Site], str]]] = [
    ("url", lambda site: site.url.replace("guest:guest@", "guest@")),
    ("url", lambda site: f"{site.url}?frobnicate=1"),
    ("vhost", lambda site: f"{site.broker.url}/"),
]


def pika_is_particular(name: str, url: Callable[[Site], str]) -> None:
    async def both(site: Site) -> None:
        await (await aio_pika.connect(url(site))).close()
        pika.BlockingConnection(pika.URLParameters(url(site)))

    provokes(name)(both)


for _name, _url in PARTICULAR:
    pika_is_particular(_name, _url)


@contextmanager
def silent_server() -> Iterator[str]:
    """One that accepts, and says nothing: its URL, for pika and aio-pika."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"amqp://guest:guest@127.0.0.1:{listening.getsockname()[1]}/"


@provokes("silent")
def pika_silent(_: Site) -> None:
    with silent_server() as url:
        pika.BlockingConnection(pika.URLParameters(f"{url}?stack_timeout=1"))


@provokes("silent")
async def aio_pika_silent(_: Site) -> None:
    with silent_server() as url:
        await aio_pika.connect(url, timeout=1)


@provokes("vhost")
def pika_forbidden_vhost(site: Site) -> None:
    with site.user() as url:
        pika.BlockingConnection(pika.URLParameters(url))


# --- Declaring ------------------------------------------------------------------


@pika_does("inequivalent")
def _(channel: BlockingChannel) -> None:
    channel.queue_declare("tasks", durable=True, arguments=CLASSIC)
    channel.queue_declare("tasks", durable=True, arguments=QUORUM)


@aio_pika_does("inequivalent")
async def _(channel: AbstractChannel) -> None:
    await channel.declare_queue("tasks", durable=True, arguments=CLASSIC)
    await channel.declare_queue("tasks", durable=True, arguments=QUORUM)


@pika_does("inequivalent")
def _(channel: BlockingChannel) -> None:
    channel.queue_declare("tasks", durable=True)
    channel.queue_declare("tasks", durable=False)


@aio_pika_does("inequivalent")
async def _(channel: AbstractChannel) -> None:
    await channel.declare_exchange("logs", "fanout")
    await channel.declare_exchange("logs", "direct")


@pika_does("property")
def _(channel: BlockingChannel) -> None:
    channel.queue_declare("tasks", arguments=QUORUM)


@aio_pika_does("property")
async def _(channel: AbstractChannel) -> None:
    await channel.declare_queue("tasks", durable=True, exclusive=True, arguments=QUORUM)


@pika_does("exchange-type")
def _(channel: BlockingChannel) -> None:
    channel.exchange_declare("logs", "fan-out")


@aio_pika_does("exchange-type")
async def _(channel: AbstractChannel) -> None:
    await channel.declare_exchange("logs", "fan-out")


@pika_does("reserved")
def _(channel: BlockingChannel) -> None:
    channel.queue_declare("amq.tasks", durable=True)


@aio_pika_does("reserved")
async def _(channel: AbstractChannel) -> None:
    await channel.declare_queue("amq.tasks", durable=True)


@provokes("permission")
def pika_forbidden_queue(site: Site) -> None:
    with (
        site.user("", "", ".*") as url,
        pika.BlockingConnection(pika.URLParameters(url)) as connection,
    ):
        connection.channel().queue_declare("tasks", durable=True, arguments=QUORUM)


@provokes("permission")
async def aio_pika_forbidden_queue(site: Site) -> None:
    with site.user("", "", ".*") as url:
        async with await aio_pika.connect(url) as connection:
            channel = await connection.channel()
            await channel.declare_queue("tasks", durable=True, arguments=QUORUM)


@provokes("locked")
def pika_locked(site: Site) -> None:
    parameters = pika.URLParameters(site.url)
    with (
        pika.BlockingConnection(parameters) as first,
        pika.BlockingConnection(parameters) as second,
    ):
        first.channel().queue_declare("mine", exclusive=True)
        second.channel().queue_declare("mine", exclusive=True)


@provokes("locked")
async def aio_pika_locked(site: Site) -> None:
    async with (
        await aio_pika.connect(site.url) as first,
        await aio_pika.connect(site.url) as second,
    ):
        await (await first.channel()).declare_queue("mine", exclusive=True)
        await (await second.channel()).declare_queue("mine", exclusive=True)


# --- Consuming ------------------------------------------------------------------


@pika_does("no-queue")
def _(channel: BlockingChannel) -> None:
    channel.basic_consume("tasks", print)


@aio_pika_does("no-queue")
async def _(channel: AbstractChannel) -> None:
    await channel.get_queue("tasks")


@pika_does("exclusive-use")
def _(channel: BlockingChannel) -> None:
    channel.queue_declare("tasks", durable=True, arguments=CLASSIC)
    channel.basic_consume("tasks", print, exclusive=True)
    channel.connection.channel().basic_consume("tasks", print)


async def ignore(message: AbstractIncomingMessage) -> None:
    """A callback."""


@provokes("exclusive-use")
async def aio_pika_exclusive_use(site: Site) -> None:
    async with await aio_pika.connect(site.url) as connection:
        for _ in range(2):
            channel = await connection.channel()
            queue = await channel.declare_queue("tasks", durable=True, arguments=CLASSIC)
            await queue.consume(ignore, exclusive=True)


@pika_does("delivery-tag")
def _(channel: BlockingChannel) -> None:
    channel.queue_declare("tasks", durable=True)
    channel.basic_publish("", "tasks", b"task")
    method, _, _ = channel.basic_get("tasks")
    assert method
    channel.basic_ack(method.delivery_tag)
    channel.basic_ack(method.delivery_tag)
    channel.queue_declare("tasks", passive=True)  # by when the answer is here


async def one_message(channel: AbstractChannel) -> AbstractIncomingMessage:
    queue = await channel.declare_queue("tasks", durable=True)
    await channel.default_exchange.publish(aio_pika.Message(b"task"), "tasks")
    message = await queue.get()
    assert message
    return message


@aio_pika_does("delivery-tag")
async def _(channel: AbstractChannel) -> None:
    await one_message(channel)
    amqp = await channel.get_underlay_channel()
    await amqp.basic_ack(2)
    await channel.get_queue("tasks")


@aio_pika_does("processed")
async def _(channel: AbstractChannel) -> None:
    message = await one_message(channel)
    async with message.process():
        await message.ack()


@pika_does("stream-prefetch")
def _(channel: BlockingChannel) -> None:
    channel.queue_declare("events", durable=True, arguments=STREAM)
    channel.basic_consume("events", print)


@aio_pika_does("stream-prefetch")
async def _(channel: AbstractChannel) -> None:
    queue = await channel.declare_queue("events", durable=True, arguments=STREAM)
    await queue.consume(ignore)


@pika_does("reentrancy")
def _(channel: BlockingChannel) -> None:
    channel.queue_declare("tasks", durable=True)
    channel.basic_publish("", "tasks", b"task")
    channel.basic_consume("tasks", lambda channel, *_: channel.start_consuming())
    channel.start_consuming()


@aio_pika_does("callback")
async def _(channel: AbstractChannel) -> None:
    async def on_message(message: AbstractIncomingMessage) -> None:
        raised.set()
        raise RuntimeError("the work fails")

    raised = asyncio.Event()
    queue = await channel.declare_queue("tasks", durable=True)
    await channel.default_exchange.publish(aio_pika.Message(b"task"), "tasks")
    await queue.consume(on_message)
    await raised.wait()
    await asyncio.sleep(0.1)


# --- Publishing -----------------------------------------------------------------


@pika_does("no-exchange")
def _(channel: BlockingChannel) -> None:
    channel.confirm_delivery()
    channel.basic_publish("logs", "", b"message")


@aio_pika_does("no-exchange")
async def _(channel: AbstractChannel) -> None:
    exchange = await channel.get_exchange("logs", ensure=False)
    await exchange.publish(aio_pika.Message(b"message"), "")


@pika_does("unroutable")
def _(channel: BlockingChannel) -> None:
    channel.confirm_delivery()
    channel.basic_publish("", "tasks", b"task", mandatory=True)


@provokes("unroutable")
async def aio_pika_unroutable(site: Site) -> None:
    async with await aio_pika.connect(site.url) as connection:
        channel = await connection.channel(on_return_raises=True)
        await channel.default_exchange.publish(aio_pika.Message(b"task"), "tasks")


@pika_does("nacked")
def _(channel: BlockingChannel) -> None:
    channel.confirm_delivery()
    channel.queue_declare("tasks", durable=True, arguments=FULL)
    channel.basic_publish("", "tasks", b"task")


@aio_pika_does("nacked")
async def _(channel: AbstractChannel) -> None:
    await channel.declare_queue("tasks", durable=True, arguments=FULL)
    await channel.default_exchange.publish(aio_pika.Message(b"task"), "tasks")


@pika_does("routing-key")
def _(channel: BlockingChannel) -> None:
    channel.basic_publish("amq.topic", "k" * 256, b"message")


@aio_pika_does("routing-key")
async def _(channel: AbstractChannel) -> None:
    exchange = await channel.get_exchange("amq.topic")
    await exchange.publish(aio_pika.Message(b"message"), "k" * 256)


@pika_does("body")
def _(channel: BlockingChannel) -> None:
    channel.basic_publish("", "tasks", {"a": 1})  # pyright: ignore[reportArgumentType]


@aio_pika_does("body")
async def _(channel: AbstractChannel) -> None:
    aio_pika.Message({"a": 1})  # pyright: ignore[reportArgumentType]


def too_large(site: Site) -> bytes:
    """16 MiB is the limit since 4.0; before, 128 MiB."""
    return b"x" * ((17 if int(site.broker.version.split(".")[0]) >= 4 else 129) * 2**20)


@provokes("size")
def pika_size(site: Site) -> None:
    with pika.BlockingConnection(pika.URLParameters(site.url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("", "tasks", too_large(site))


@provokes("size")
async def aio_pika_size(site: Site) -> None:
    async with await aio_pika.connect(site.url) as connection:
        channel = await connection.channel()
        await channel.default_exchange.publish(aio_pika.Message(too_large(site)), "tasks")
