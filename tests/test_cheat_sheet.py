"""docs/cheat-sheet.rst: every cell of code is run, and sends what its row says."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aio_pika
import pamqp.frame
import pika
from conftest import connected, poll
from shells.chapters import CLIENTS, page
from shells.wiretap import Wiretap, frames

CODE = re.compile(r"``(.+?)``")
TABLE = re.compile(
    r"^(\w[\w ]+)\n\+\+\++\n(.*?)(?=^\w[\w ]+\n\+\+\+|\Z)", re.MULTILINE | re.DOTALL
)
# What each client has of its own: names, reserved fields, how a connection is closed.
OWN = {"consumer_tag", "delivery_tag", "reply_to", "ticket", "nowait", "if_unused"}
OWN |= {"insist", "out_of_band", "capabilities", "reply_code", "reply_text"}


@dataclass(frozen=True)
class Row:
    section: str
    what: str
    code: dict[str, str]
    term: str
    flags: dict[str, str]


def rows() -> list[Row]:
    found = []
    for section, text in TABLE.findall(page("cheat-sheet").read_text()):
        for row in re.split(r"^   \* - ", text, flags=re.MULTILINE)[2:]:
            row = re.split(r"\n\n(?! )", row)[0]
            what, *cells = re.split(r"^     - ", row, flags=re.MULTILINE)
            codes = [" ".join(CODE.findall(cell.replace("\n       ", " "))) for cell in cells]
            term, *flags = CODE.findall(what) or [""]
            pairs = dict(flag.split("=") for flag in flags)
            name = what.partition("\n")[0]
            found.append(Row(section, name, dict(zip(CLIENTS, codes, strict=True)), term, pairs))
    return found


class Recorder(Wiretap):
    """What the client says, by method, with the properties of what it publishes."""

    def __init__(self, url: str) -> None:
        self.sent: list[tuple[str, dict[str, str]]] = []
        super().__init__(url, holding=False)

    def _upstream(self) -> None:
        with suppress(OSError):
            for frame, method in frames(self._client):
                if not frame.startswith(b"AMQP"):
                    said: Any = pamqp.frame.unmarshal(frame)[2]
                    if method != (0, 0):
                        about = {k: str(v) for k, v in dict(said).items() if k not in OWN}
                        name = re.sub(r"(?<!^)([A-Z])", r"-\1", said.name.partition(".")[2])
                        self.sent.append((f"{said.name.partition('.')[0]}.{name}".lower(), about))
                    elif hasattr(said, "properties"):
                        given = {k: str(v) for k, v in dict(said.properties).items() if v}
                        self.sent[-1][1].update(given)
                self._broker.sendall(frame)
        self.cut()


async def run(code: str, known: dict[str, Any]) -> None:
    compiled = compile(code, "cheat-sheet", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    outcome = eval(compiled, known)
    if inspect.isawaitable(outcome):
        await outcome


def send_one(url: str) -> None:
    """One to fetch: those before it are in the consumer's hands."""
    with connected(url) as channel:
        channel.confirm_delivery()
        channel.basic_publish("", "tasks", b"a task")


async def play(client: str, url: str) -> dict[str, tuple[str, dict[str, str]]]:
    """All rows; by what a row does, the method that it says it sends, as it was sent."""
    got: list[Any] = []

    async def called(message: Any) -> None:
        got.append(message)

    callback: Callable[..., Any] = called if client == "aio-pika" else lambda *all: got.append(all)
    found = {}
    fetch = next(row.code[client] for row in rows() if row.term == "basic.get")
    tap = Recorder(url)
    with tap:
        known = {"AMQP_URL": tap.url, "callback": callback, "pika": pika, "aio_pika": aio_pika}
        for row in rows():
            if row.code[client] == fetch or row.section == "Settle":
                send_one(url)
            if row.section == "Settle":
                await run(fetch, known)
            before = len(tap.sent) if row.code[client] and row.what != "connect" else 0
            await run(row.code[client], known)

            def sent(row: Row = row, before: int = before) -> list[Any]:
                return [
                    (name, about)
                    for name, about in tap.sent[before:]
                    if name == row.term and row.flags.items() <= about.items()
                ]

            if row.term:
                await asyncio.to_thread(poll, lambda: bool(sent()), True)
                found[row.what] = sent()[0]
    return found


def test_there_are_lines_of_all_kinds() -> None:
    assert len(rows()) > 25
    assert {row.section for row in rows()} >= {"Connect", "Publish", "Consume", "Settle"}
    assert all(row.code["pika"] for row in rows())
    assert sum(not row.term for row in rows()) == 1
    # aio-pika's confirms are on by themselves; every other cell is code, marked as such.
    assert sum(not row.code["aio-pika"] for row in rows()) == 1


def test_each_line_sends_what_it_says_and_the_same_in_both_clients(url: str) -> None:
    by_client = [asyncio.run(play(client, url)) for client in CLIENTS]
    for what, (name, about) in by_client[0].items():
        other, others = by_client[1][what]
        assert name == other
        # Defaults that differ are those of the table of which-client.
        same = (about.keys() & others.keys()) - {"mandatory", "priority", "delivery_mode"} - OWN
        named = {key for key in same if "amq." not in about[key] + others[key]}
        assert {key: about[key] for key in named} == {key: others[key] for key in named}, what
