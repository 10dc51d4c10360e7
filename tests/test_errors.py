"""docs/errors.rst: every message that it quotes, provoked in a real client.

An entry of the page is a section with a label `error-NAME`; what is registered under
NAME in provocations.py, or provocations_later.py, provokes it. What that raises and logs
has to contain the lines that the entry quotes.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import traceback
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

import pika
import pytest
from aiormq.channel import EXCEPTION_MAPPING
from broker import Broker
from conftest import connected, poll, ready
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker
from provocations import CLASSIC, Provocation, Site
from provocations_later import PROVOCATIONS
from shells.chapters import DOCS, figure, said, scripts, version

PAGE = DOCS / "errors.rst"
PARAMETERS = pika.ConnectionParameters()

# --- The page ---------------------------------------------------------------------


def entries() -> dict[str, list[str]]:
    """By name, the lines that each entry of the page quotes."""
    text = PAGE.read_text()
    found: dict[str, list[str]] = {}
    for part in re.split(r"^\.\. _error-", text, flags=re.MULTILINE)[1:]:
        name = part.partition(":")[0]
        blocks = re.findall(
            r"^\.\. code-block:: text\n((?:   .*\n)*)\n((?:   .*\n|\n)+)", part, re.MULTILINE
        )
        found[name] = [
            line.strip() for _, block in blocks for line in block.splitlines() if line.strip()
        ]
    return found


def provoked(site: Site, provoke: Provocation, log: pytest.LogCaptureFixture) -> str:
    """What a reader would see: exceptions and what is logged."""
    log.clear()
    said = ""
    try:
        outcome = provoke(site)
        if inspect.isawaitable(outcome):

            async def within() -> None:
                await asyncio.wait_for(outcome, 30)

            asyncio.run(within())
    except Exception as error:
        said = "".join(traceback.format_exception_only(error)) + repr(error)
    said += "\n" + log.text
    said = said.replace(site.vhost, "/").replace(site.address.strip("/"), "localhost:5672")
    return re.sub(r"\b[23]\d{4}\b", "5672", said)


def quotes(line: str, said: str) -> bool:
    """Whether it was said; … stands for anything."""
    return re.search(re.escape(line).replace("…", ".*"), said) is not None


def assert_quoted(name: str, *said: object) -> None:
    """All that the entry quotes was said."""
    for line in entries()[name]:
        assert any(quotes(line, str(each)) for each in said), (line, said)


# Entries of which the page says that it is one of these, depending on the moment.
ONE_OF = {"threads", "heartbeat"}
SLOW = {"timeout", "transient"}  # in test_what_happens.py, with its broker
BY_VERSION = {"global-prefetch", "removed-argument"}  # below: not every version refuses


LONG = {"heartbeat": pytest.mark.long}


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=LONG.get(each, ())) for each in PROVOCATIONS]
)
def test_an_entry(broker: Broker, url: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    lines = entries()[name]
    said = []
    for provoke in PROVOCATIONS[name]:
        with broker.vhost() as fresh:
            said.append(provoked(Site(broker, fresh), provoke, caplog))
    for each in said:
        assert any(quotes(line, each) for line in lines), f"the page does not quote {each}"
    for line in lines if name not in ONE_OF else []:
        assert any(quotes(line, each) for each in said), f"{line}\nis not in {said}"


def test_every_entry_is_provoked() -> None:
    assert set(entries()) == set(PROVOCATIONS) | SLOW | BY_VERSION
    assert all(entries().values())


def endings() -> Iterator[str]:
    """Expressions for what our scripts say when they end, where that has words of its own."""
    for script in scripts():
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("sys.exit", "SystemExit"):
                for text in (each for each in node.args if isinstance(each, ast.JoinedStr)):
                    own = [str(x.value) for x in text.values if isinstance(x, ast.Constant)]
                    if re.search(r"[A-Za-z]{4}", "".join(own)):
                        yield ".*".join(map(re.escape, ["", *own, ""]))


def test_what_our_scripts_end_with() -> None:
    """The lines of "How to read it" are those of a script."""
    section = re.split(r"\n\++\n", PAGE.read_text())[1]
    lines = re.findall(r"^   (?! )(.+:.+)$", section, re.MULTILINE)
    lines += [" ".join(each.split()) for each in re.findall(r"``([^`]+'\w+'[^`]*)``", section)]
    assert len(lines) == 6
    for line in lines:
        assert any(re.fullmatch(each, line) for each in {*endings()}), line


def test_what_closes_the_channel() -> None:
    """As aio-pika knows it."""
    codes = said("errors", r"((?:\d+, )+\d+ and \d+) close the \*channel\*")
    assert {int(code) for code in re.findall(r"\d+", codes)} == {*EXCEPTION_MAPPING}


def test_ports_limits_and_escapes(broker: Broker) -> None:
    for scheme in ("amqp", "amqps"):
        port = pika.URLParameters(f"{scheme}://localhost").port
        assert figure("errors", rf"[Pp]ort (\d+) with ``{scheme}://``") == port
    assert figure("errors", r"(\d+) is the broker's port") == pika.URLParameters("amqp://").port
    assert figure("errors", r"TLS port, (\d+),") == pika.URLParameters("amqps://").port
    assert figure("errors", r"gives up after (\d+) seconds") == PARAMETERS.stack_timeout
    escapes = re.findall(r"``(%\w\w)`` for\s+``(.)``", PAGE.read_text())
    assert escapes == [(quote(each, safe=""), each) for each in "/@:#"]
    since = version(said("errors", r"limit is \d+ MiB since RabbitMQ ([\d.]+),"))
    now = figure("errors", r"limit is (\d+) MiB since")
    before = figure("errors", r"before it was (\d+) MiB")
    most = now if version(broker.version) >= since else before
    setting = broker.ctl("eval", "application:get_env(rabbit, max_message_size).")
    assert f"{{ok,{most * 2**20}}}" in setting


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_a_global_prefetch(broker: Broker, url: str, kind: str) -> None:
    """The two consumers of a channel share it, are refused, or have one each."""
    got: list[object] = []
    since = version(said("errors", r"Since (\d\.\d) global prefetch is denied"))
    hold = figure("errors", r"consumers with a global prefetch of 1 hold (\d) messages")

    def consume() -> None:
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            channel = connection.channel()
            channel.basic_qos(prefetch_count=1, global_qos=True)
            for _ in range(2):
                channel.basic_consume("tasks", lambda *delivery: got.append(delivery))
            poll(lambda: connection.process_data_events(0) or len(got) >= wanted, True)
            # What it would have sent besides has come before the answer to this.
            channel.queue_declare("tasks", passive=True)
            connection.process_data_events(0)
            assert len(got) == wanted

    wanted = hold if version(broker.version) >= since else 1
    with connected(url) as channel:
        arguments = {"x-queue-type": kind}
        channel.queue_declare("tasks", durable=True, arguments=arguments)
        for _ in range(4):
            channel.basic_publish("", "tasks", b"task")
        poll(lambda: ready(channel, "tasks"), 4)
    if kind == "quorum" and version(broker.version) < since:
        with pytest.raises(ConnectionClosedByBroker) as caught:
            consume()
        assert caught.value.reply_code == figure(
            "errors", r"the connection closes, with (\d+)\. A"
        )
        assert_quoted(
            "global-prefetch", caught.value.reply_text.replace(urlsplit(url).path[1:], "/")
        )
    else:
        consume()


def test_arguments_of_older_days(broker: Broker, url: str) -> None:
    """Refused since 4.3, in Debian's build, too."""
    since = version(said("errors", r"RabbitMQ (\d\.\d) refuses the arguments"))
    refused = []
    for argument in ({"x-queue-master-locator": "random"}, {"x-queue-version": 1}):
        try:
            with connected(url) as channel:
                channel.queue_declare("tasks", durable=True, arguments={**CLASSIC, **argument})
                channel.queue_delete("tasks")
        except (ConnectionClosedByBroker, ChannelClosedByBroker) as error:
            refused.append(
                (error.reply_code, error.reply_text.replace(urlsplit(url).path[1:], "/"))
            )
    if version(broker.version) < since:
        assert not refused
    else:
        codes, texts = zip(*refused, strict=True)
        assert_quoted("removed-argument", *texts)
        assert codes == (
            figure("errors", r"``x-queue-master-locator``, with (\d+)"),
            figure("errors", r"``x-queue-version`` 1, with (\d+)"),
        )
