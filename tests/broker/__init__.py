"""A throwaway RabbitMQ broker for the tests, the demo and the reader.

Which one, in this order:

1. the one that AMQP_URL names, which is used and never stopped or restarted;
2. a container, where a Docker engine answers and has, or can pull, the image
   RABBITMQ_IMAGE (default: `DEFAULT_IMAGE`);
3. an installed `rabbitmq-server`, run as a private node of this user: its own
   folder, ports, name and cookie;
4. on Debian and Ubuntu, as root: Debian's `rabbitmq-server` is installed, and
   then run the same way.

`BROKER=docker` or `BROKER=private` in the environment leaves out the others.
Everything listens on loopback only, and everything is gone when its owner is:
see reaper.py.

`make broker` (`python -m broker`) keeps one on port 5672, or $PORT.
"""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from broker.base import (
    LOOPBACK,
    PREFIX,
    Broker,
    BrokerError,
    OwnedBroker,
    free_ports,
    port_is_free,
    reserve,
    say,
)
from broker.container import DEFAULT_IMAGE, DockerBroker, docker_trouble
from broker.node import PrivateNode, can_install, install_from_debian, installed_programs
from broker.urls import DEFAULT_URL, diagnose, handshake, is_amqp, shown

__all__ = [
    "DEFAULT_IMAGE",
    "DEFAULT_URL",
    "LOOPBACK",
    "PREFIX",
    "Broker",
    "BrokerError",
    "DockerBroker",
    "OwnedBroker",
    "can_install",
    "diagnose",
    "docker_trouble",
    "free_ports",
    "get",
    "handshake",
    "in_docker",
    "install_from_debian",
    "is_amqp",
    "named",
    "port_is_free",
    "reserve",
    "say",
    "shown",
    "start",
]


ATTEMPTS = 3
REMEDIES = """\
There is no RabbitMQ broker to use here. Any one of these fixes it:
  1. start Docker, and let this user use it (docker info must answer), or
  2. install a broker:  sudo apt-get install rabbitmq-server
                        (elsewhere: https://www.rabbitmq.com/docs/download), or
  3. name a running one: export AMQP_URL=amqp://user:password@host/"""


def in_docker(kind: str | None = None) -> str:
    """The image to use in Docker; or, where `start` is to use private nodes, ""."""
    kind = kind or os.environ.get("BROKER") or None
    if kind not in (None, "docker", "private"):
        raise BrokerError(f"BROKER={kind} means nothing here: docker, private, or unset.")
    image = os.environ.get("RABBITMQ_IMAGE") or DEFAULT_IMAGE
    reason = ""
    if kind != "private":
        reason = docker_trouble(image)
        if reason and kind == "docker":
            raise BrokerError(f"BROKER=docker was asked for, but {reason}.")
    if kind != "private" and not reason:
        return image
    if not installed_programs():
        if not can_install():
            raise BrokerError(f"{reason and reason + '. '}{REMEDIES}")
        try:
            install_from_debian("rabbitmq-server")
        except BrokerError as error:
            raise BrokerError(f"{error}\n\n{REMEDIES}") from None
    if reason:
        say(f"Using the installed rabbitmq-server, because {reason}.")
    return ""


def start(
    port: int | None = None, kind: str | None = None, lean: bool = False, tls: bool = False
) -> OwnedBroker:
    """Start a throwaway broker and wait until it answers.

    `kind` is "docker", "private", or None for the first that works; it comes
    from the environment's BROKER when it isn't given. A container may be `lean`,
    for a thousand tests: it logs errors only, and has its files in memory, which
    forgets them when it stops. With `tls` it listens on one more port, over TLS, with
    a certificate for localhost (see certificates.py). Raises BrokerError.
    """
    image = in_docker(kind)
    for attempt in range(ATTEMPTS):
        broker = DockerBroker(image, port, lean, tls) if image else PrivateNode(port, tls)
        try:
            broker.start()
            return broker
        except BaseException as error:
            broker.close()
            # Somebody else may have taken one of its ports meanwhile.
            if attempt == ATTEMPTS - 1 or not isinstance(error, Exception):
                raise
    raise AssertionError("unreachable")


def named(url: str) -> Broker:
    """The running broker at `url`. Raises BrokerError when it cannot be used."""
    if problem := diagnose(url):
        raise BrokerError(
            f"AMQP_URL is {shown(url)}. {problem} Or unset it to use a throwaway broker."
        )
    parts = urlsplit(url)
    api = f"http://{parts.hostname}:{(parts.port or 5672) + 10000}"
    return Broker(shown(url), url, handshake(url), os.environ.get("RABBITMQ_API", api))


def get(lean: bool = False, tls: bool = False) -> Broker:
    """The broker to use, as the text at the top of this file says.

    Where it is started, `lean` and `tls` are as for `start`.
    """
    url = os.environ.get("AMQP_URL")
    return start(lean=lean, tls=tls) if url is None else named(url)
