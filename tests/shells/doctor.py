"""Say what is there and what to type next (`make doctor`); clear up (`make reset`).

python -m shells.doctor           look, and change nothing
python -m shells.doctor reset     delete the queues and exchanges that the
                                  example scripts declare, and no others

With `--port 5673`, in the broker of `make broker PORT=5673`, whatever AMQP_URL says.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shlex
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

import pika
import pika.exceptions
from broker import (
    DEFAULT_IMAGE,
    DEFAULT_URL,
    BrokerError,
    diagnose,
    docker_trouble,
    handshake,
    installed_programs,
    named,
    shown,
)
from pika.adapters.blocking_connection import BlockingChannel
from shells.chapters import Declaration, declarations

PROBE = f"rabbitmq-by-example-probe-{uuid.uuid4().hex[:8]}"


def broker_url() -> str:
    """The broker that the scripts would use."""
    return os.environ.get("AMQP_URL", DEFAULT_URL)


def attempt(url: str, action: Callable[[BlockingChannel], Any]) -> str:
    """Do something on a channel of its own; return the broker's refusal, or ""."""
    with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        try:
            action(connection.channel())
        except (pika.exceptions.ChannelClosed, pika.exceptions.ConnectionClosed) as refusal:
            if connection.is_closed:
                connection.close = lambda *_: None  # type: ignore[method-assign]
            return refusal.reply_text
    return ""


def denied_features(url: str) -> Iterator[str]:
    """What this broker refuses of what tutorials, old and new, ask for."""

    def transient_queue(channel: BlockingChannel) -> None:
        channel.queue_declare(PROBE, auto_delete=True)
        channel.queue_delete(PROBE)

    def quorum_queue(channel: BlockingChannel) -> None:
        channel.queue_declare(PROBE, durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_delete(PROBE)

    def global_qos(channel: BlockingChannel) -> None:
        channel.basic_qos(prefetch_count=1, global_qos=True)

    for name, action in (
        ("non-durable queues that are not exclusive", transient_queue),
        ("quorum queues", quorum_queue),
        ("a prefetch count for a whole channel (global QoS)", global_qos),
    ):
        if attempt(url, action):
            yield name


def exists(url: str, thing: Declaration) -> bool:
    if thing.kind == "queue":
        return not attempt(url, lambda channel: channel.queue_declare(thing.name, passive=True))
    return not attempt(url, lambda channel: channel.exchange_declare(thing.name, passive=True))


def declare(thing: Declaration, channel: BlockingChannel) -> None:
    given = dict(thing.arguments)
    if thing.kind == "queue":
        channel.queue_declare(thing.name, **given)
    else:
        channel.exchange_declare(thing.name, given.pop("type", "direct"), **given)


def unique_declarations() -> list[Declaration]:
    """One for each queue and exchange that the scripts name."""
    return list({(each.kind, each.name): each for each in declarations()}.values())


def leftovers(url: str) -> Iterator[str]:
    """Queues and exchanges of the scripts' names that they cannot use."""
    for thing in unique_declarations():
        if exists(url, thing) and (refusal := attempt(url, partial(declare, thing))):
            yield f"{thing.kind} {thing.name}: {refusal}"


def policies(url: str) -> Iterator[tuple[str, str]]:
    """Those that change what the scripts declare, each with the command that clears it.

    The management API has them; where it does not answer, nothing is said.
    """
    vhost = pika.URLParameters(url).virtual_host
    place = [] if vhost == "/" else ["-p", vhost]
    with suppress(BrokerError, re.error):
        for policy in named(url).call_api("GET", f"policies/{quote(vhost, safe='')}"):
            kinds = {"all": ("queue", "exchange"), "exchanges": ("exchange",)}
            changed = [
                each.name
                for each in unique_declarations()
                if each.kind in kinds.get(policy["apply-to"], ("queue",))
                and re.search(policy["pattern"], each.name)
            ]
            if changed:
                sets = ", ".join(f"{key}={value}" for key, value in policy["definition"].items())
                cure = ["rabbitmqctl", "clear_policy", *place, policy["name"]]
                found = f"policy {policy['name']}: {sets} for {', '.join(changed)}"
                yield found, shlex.join(cure)


def present(url: str) -> Iterator[tuple[Declaration, str]]:
    """What `make reset` deletes, each with its words."""
    for thing in unique_declarations():
        if not exists(url, thing):
            continue
        if thing.kind == "exchange":
            yield thing, f"exchange {thing.name}"
            continue
        with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
            found = connection.channel().queue_declare(thing.name, passive=True).method
        plural = "" if found.message_count == 1 else "s"
        yield thing, f"queue {thing.name} with {found.message_count} waiting message{plural}"


def consumers(url: str) -> Iterator[str]:
    """The scripts' queues that somebody consumes, each with how many do."""
    for thing in unique_declarations():
        if thing.kind == "queue" and exists(url, thing):
            with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
                found = connection.channel().queue_declare(thing.name, passive=True).method
            if found.consumer_count:
                yield f"queue {thing.name}: {found.consumer_count}"


def docker_version() -> str:
    import docker

    with closing(docker.from_env()) as client:
        return str(client.version()["Version"])


def port_of_no_broker(url: str, problem: str) -> int:
    """Of this machine, where AMQP_URL names a broker that is off; else 0."""
    if "AMQP_URL" not in os.environ or not problem.startswith("No broker answers"):
        return 0
    told = urlsplit(url)
    return (told.port or 5672) if told.hostname in ("localhost", "127.0.0.1") else 0


def look() -> int:
    """Print what is there; return 0 when the scripts can be run, or `make demo`."""
    url = broker_url()
    rows = [("Python", f"{platform.python_version()} ({sys.executable})")]
    image = os.environ.get("RABBITMQ_IMAGE") or DEFAULT_IMAGE
    trouble = docker_trouble(image, pull=False)
    engine = (
        trouble
        if trouble.startswith("no ")
        else f"{docker_version()}; " + (trouble or f"image {image} is there")
    )
    rows.append(("Docker", engine))
    programs = installed_programs()
    rows.append(("Server", programs["rabbitmq-server"] if programs else "none installed"))
    problem = diagnose(url)
    cures = []
    if problem:
        rows.append(("Broker", f"{shown(url)}: {problem}"))
    else:
        rows.append(("Broker", f"{shown(url)}: RabbitMQ {handshake(url)}"))
        denied = ", ".join(denied_features(url))
        rows.append(
            ("", f"refuses {denied}" if denied else "accepts all that the scripts ask for")
        )
        if found := ", ".join(consumers(url)):
            rows.append(("Consumers", f"{found}; several of a queue share its messages"))
        for policy, cure in policies(url):
            rows.append(("Left over", policy))
            cures.append(cure)
        if found := list(leftovers(url)):
            rows += [("Left over", leftover) for leftover in found]
            deleted = ", ".join(words for _, words in present(url))
            cures.append(f"make reset  (deletes {deleted})")
    for name, text in rows:
        print(f"{name:<10} {text}")
    if cures:
        print(f"Next       {', and: '.join(cures)}")
    elif not problem:
        print("Next       open the page of a chapter and run its scripts, or: make test")
    elif "AMQP_URL" in os.environ and problem.startswith("No broker") and url.startswith("amqps:"):
        print("Next       make broker TLS=1  (and leave it running), or amqp:// without TLS")
    elif off := port_of_no_broker(url, problem):
        print(f"Next       make broker PORT={off}  (and leave it running), or fix AMQP_URL")
    elif "AMQP_URL" in os.environ:
        print("Next       fix AMQP_URL, or unset it and: make broker")
    else:
        print("Next       make broker  (and leave it running), or: make demo")
    return 1 if problem or cures else 0


def reset() -> int:
    """Delete what the scripts declare; return 1 where the broker cannot be used."""
    url = broker_url()
    if problem := diagnose(url):
        print(f"{shown(url)}: {problem}", file=sys.stderr)
        return 1
    found = list(present(url))
    for thing, words in found:
        with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
            channel = connection.channel()
            if thing.kind == "queue":
                channel.queue_delete(thing.name)
            else:
                channel.exchange_delete(thing.name)
        print(f"Deleted {words}.")
    if not found:
        print(f"{shown(url)} has none of the scripts' queues and exchanges.")
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description="Look after the broker that the scripts use.")
    parser.add_argument("what", nargs="?", choices=("look", "reset"), default="look")
    parser.add_argument("--port", help="of this machine, instead of AMQP_URL")
    given = parser.parse_args()
    if given.port:
        os.environ["AMQP_URL"] = f"amqp://guest:guest@localhost:{given.port}/"
    sys.exit(reset() if given.what == "reset" else look())


if __name__ == "__main__":
    main()
