"""AMQP URLs: what is wrong with one, and how to show it without its password."""

from __future__ import annotations

import os
import re
import ssl
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pika
import pika.exceptions
from pika.adapters.utils.connection_workflow import AMQPConnectorException

DEFAULT_URL = "amqp://guest:guest@localhost/"


def handshake(url: str, ca_file: str = "") -> str:
    """Connect and return the broker's version; with `ca_file`, the server's certificate is
    verified by it.

    Raises pika's exceptions, or OSError, where that fails.
    """
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.blocked_connection_timeout = 5
    parameters.stack_timeout = 10
    if ca_file:
        context = ssl.create_default_context(cafile=ca_file)
        parameters.ssl_options = pika.SSLOptions(context, parameters.host)
    try:
        opened = pika.BlockingConnection(parameters)
    except AMQPConnectorException:  # which is neither AMQPError nor OSError
        raise TimeoutError("it accepts connections and says nothing") from None
    with closing(opened) as connection:
        implementation: Any = getattr(connection, "_impl")  # noqa: B009 (not public)
        properties = implementation.server_properties
        return str((properties or {}).get("version", "?"))


def shown(url: str) -> str:
    """A URL without its password: where that is in doubt, nothing of it."""
    return re.sub(r"(//[^:@]*):.*@", r"\1@", url) if is_amqp(url) else "not shown"


def is_amqp(url: str) -> bool:
    """Whether it is a URL that both clients understand."""
    try:
        parts = urlsplit(url)
        pika.URLParameters(url)
        stray = "@" in parts.path + parts.query + parts.fragment  # a part of the password
        good = parts.scheme in ("amqp", "amqps") and parts.hostname and parts.port != 0
        return bool(good) and not stray
    except (ValueError, LookupError, TypeError):
        return False


def diagnose(url: str) -> str:
    """Why the broker at `url` cannot be used, and what to do; "" when it can."""
    if not is_amqp(url):
        return (
            "AMQP_URL is not an AMQP URL. It looks like amqp://user:password@host:5672/vhost "
            "(in user, password and vhost, write / as %2F and @ as %40)."
        )
    parts = urlsplit(url)
    vhost = pika.URLParameters(url).virtual_host
    try:
        handshake(url)
    except pika.exceptions.ProbableAuthenticationError:
        return f"It refuses user {parts.username or 'guest'}, or the password. Fix AMQP_URL."
    except pika.exceptions.ProbableAccessDeniedError:
        if not vhost:
            return "AMQP_URL ends in //, for a virtual host without a name. End it in one /."
        return (
            f"It has no virtual host {vhost!r} for user {parts.username or 'guest'}. Fix "
            f"AMQP_URL, or create it: rabbitmqctl add_vhost {vhost}"
        )
    except pika.exceptions.IncompatibleProtocolError:
        return "Something answers there that does not speak AMQP 0-9-1: is that the right port?"
    except (pika.exceptions.AMQPError, OSError) as error:
        hint = "Fix AMQP_URL." if os.environ.get("AMQP_URL") else "Start one: make broker"
        reason = f" ({error})" if isinstance(error, OSError) else ""
        return f"No broker answers there{reason}. {hint}"
    return ""
