"""What goes wrong on a connection that worked: registered with what provocations.py has."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial

import aio_pika
import pika
from aio_pika.abc import AbstractChannel
from conftest import connected, subscribed
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError
from provocations import PROVOCATIONS, Site, aio_pika_does, pika_does, provokes
from shells.chapters import CLIENTS, EXAMPLES
from shells.proxy import Proxy
from shells.running import Script

__all__ = ["PROVOCATIONS"]  # with all of them


@provokes("heartbeat")
def pika_heartbeat(site: Site) -> None:
    parameters = pika.URLParameters(f"{site.url}?heartbeat=1")
    with pika.BlockingConnection(parameters) as connection:
        time.sleep(4)  # a long task
        connection.channel()


@provokes("heartbeat")
async def aio_pika_heartbeat(site: Site) -> None:
    async with await aio_pika.connect(f"{site.url}?heartbeat=1") as connection:
        channel = await connection.channel()
        time.sleep(4)  # a long task without await
        await channel.declare_queue("tasks", durable=True)


def deaf(site: Site, client: str) -> None:
    """The broker freezes, or the cable is cut, while a consumer waits."""
    script = EXAMPLES / "1-hello-world" / client / "receive.py"
    # Not "silent": then the broker would miss heartbeats, too, and close the connection.
    with Proxy(site.url) as proxy, closing(Script(script, url=f"{proxy.url}?heartbeat=1")) as it:
        it.wait_for("Waiting")
        with connected(site.url) as channel:
            channel.basic_publish("", "hello", b"")
        it.wait_for("Received")
        proxy.state = "deaf"
        it.wait()
        logging.error("\n".join(it.stderr))


for _client in CLIENTS:
    provokes("heartbeat")(partial(deaf, client=_client))


@pika_does("closed")
def _(channel: BlockingChannel) -> None:
    channel.close()
    channel.queue_declare("tasks", durable=True)


@aio_pika_does("closed")
async def _(channel: AbstractChannel) -> None:
    with suppress(aio_pika.exceptions.ChannelNotFoundEntity):
        await channel.get_queue("tasks")  # there is none: closes the channel
    await channel.declare_queue("tasks", durable=True)


@provokes("closed-connection")
def pika_closed_connection(site: Site) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(site.url))
    connection.close()
    connection.channel()


@provokes("closed-connection")
async def aio_pika_closed_connection(site: Site) -> None:
    connection = await aio_pika.connect(site.url)
    await connection.close()
    await connection.channel()


@provokes("forced")
def pika_forced(site: Site) -> None:
    with pika.BlockingConnection(pika.URLParameters(site.url)) as connection:
        site.close_connections()
        connection.channel()


@provokes("forced")
async def aio_pika_forced(site: Site) -> None:
    async with await aio_pika.connect(site.url):
        await asyncio.to_thread(site.close_connections)
        await asyncio.sleep(0.2)


THREADS = """
import os, threading, time, pika
channel = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])).channel()
def publish():
    while True:
        channel.basic_publish("amq.fanout", "", b"message")
threads = [threading.Thread(target=publish) for _ in range(4)]
for thread in threads:
    thread.start()
deadline = time.monotonic() + 15
while all(thread.is_alive() for thread in threads) and time.monotonic() < deadline:
    time.sleep(0.05)
time.sleep(0.5)
os._exit(0)  # the others may hang
"""


@provokes("threads")
def pika_threads(site: Site) -> None:
    """Threads that publish through one channel, until it breaks."""
    done = subprocess.run(
        [sys.executable, "-c", THREADS],
        env={**os.environ, "AMQP_URL": site.url},
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    logging.error(done.stderr)


def consumer_says(site: Site, client: str, then: Callable[[BlockingChannel], object]) -> None:
    """What chapter 1's receiver prints when it ends, because of what is done then."""
    script = EXAMPLES / "1-hello-world" / client / "receive.py"
    with closing(Script(script, url=site.url)) as receiver, connected(site.url) as channel:
        receiver.wait_for("Waiting")
        subscribed(channel, "hello")
        with suppress(AMQPError):
            then(channel)
        receiver.wait()
        logging.error("\n".join(receiver.stderr))


def delete_queue(channel: BlockingChannel) -> None:
    channel.queue_delete("hello")


def send_a_timestamp_in_milliseconds(channel: BlockingChannel) -> None:
    late = pika.BasicProperties(timestamp=9223372036854775)
    channel.basic_publish("", "hello", b"late", late)


@provokes("gone")
def pika_gone(site: Site) -> None:
    consumer_says(site, "pika", delete_queue)


@provokes("gone")
def aio_pika_gone(site: Site) -> None:
    consumer_says(site, "aio-pika", delete_queue)


@provokes("forced")
def pika_consumer_forced(site: Site) -> None:
    consumer_says(site, "pika", lambda _: site.close_connections())


@provokes("forced")
def aio_pika_consumer_forced(site: Site) -> None:
    consumer_says(site, "aio-pika", lambda _: site.close_connections())


@provokes("unmarshal")
def aio_pika_unmarshal(site: Site) -> None:
    consumer_says(site, "aio-pika", send_a_timestamp_in_milliseconds)
