"""Record what becomes of a message, and write the page's tables from the record.

record_what_happens.py --record    try all with a throwaway broker, keep it
record_what_happens.py --render    write the tables of the page from that
"""

from __future__ import annotations

import itertools
import json
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import broker as brokers
from fates import (
    AIO,
    ALL,
    ANY,
    BOTH,
    ENDINGS,
    RECORD,
    ROBUST,
    TABLES,
    Ending,
    Fate,
    cases,
    experience,
    number,
    series,
    short_timeout,
    with_restart,
    with_timeout,
)
from shells.chapters import DOCS

PAGE = DOCS / "what-happens.rst"


def record() -> None:
    broker = brokers.start()
    with broker:
        with ThreadPoolExecutor(4) as pool:
            shared = cases("")
            fates = dict(
                zip(shared, pool.map(lambda case: experience(broker, *case), shared), strict=True)
            )
        with short_timeout(broker):
            fates |= with_timeout(broker, {})
        fates |= with_restart(broker, {})
        data = json.loads(RECORD.read_text()) if RECORD.exists() else {"versions": {}}
        clients = {client: {} for client in (*ALL, ANY)}
        for name in ENDINGS:
            for client in ENDINGS[name].clients:
                clients[client][name] = vars(fates[name, client])
        data["versions"][series(broker.version)] = {
            "rabbitmq": broker.version,
            "date": time.strftime("%Y-%m-%d"),
            "fates": clients,
        }
    data["versions"] = dict(sorted(data["versions"].items(), key=lambda each: number(each[0])))
    RECORD.write_text(json.dumps(data, indent=1) + "\n")


# --- The tables ------------------------------------------------------------------

# What stands in a table for what is in the record.
WORDS = {
    "unmarked": "not marked",
    "delivery_limit": "``delivery_limit``",
    "rejected": "``rejected``",
    "expired": "``expired``",
    "maxlen": "``maxlen``",
}
HEADS = {
    "says": "The worker …",
    "raises": "It raises …",
    "ends": "The worker …",
    "broker": "Meanwhile …",
    "queue": "Over and over, or too long: …",
}
WIDTHS = (36, 36, 36)


def words(fate: Fate) -> str:
    """A fate as the tables say it."""
    kind, _, more = fate.message.replace(": ", ", ", 1).partition(", ")
    for old, new in WORDS.items():
        more = more.replace(old, new)
    text = f"**{kind}**" + (f" ({more})" if more else "")
    end, _, error = fate.worker.partition(": ")
    return text + (f"; {end}" if end else "") + (f": ``{error}``" if error else "")


def cell(versions: dict[str, dict[str, Any]], client: str, name: str) -> list[str]:
    """What the versions say of one ending; once, where they agree."""
    said: dict[str, list[str]] = {}
    for version, data in versions.items():
        fates = {
            each: Fate(**data["fates"][each][name])
            for each in data["fates"]
            if name in data["fates"][each]
        }
        if client not in fates:
            return ["–"]
        text = words(fates[client])
        if client == AIO and fates.get(ROBUST, fates[AIO]) != fates[AIO]:
            more = fates[ROBUST]
            text += ". ``connect_robust``: "
            text += more.worker if more.message == fates[AIO].message else words(more)
        said.setdefault(text, []).append(version)
    if len(said) == 1:
        return list(said)
    return [f"{', '.join(those)}: {text}" for text, those in said.items()]


def table(rows: list[Ending], head: str, versions: dict[str, dict[str, Any]]) -> list[str]:
    """A grid table; cells that agree are one."""
    rule = "+" + "+".join("-" * (width + 2) for width in WIDTHS) + "+"
    lines = [rule, *grid_row([[head], ["pika"], ["aio-pika"]]), rule.replace("-", "=")]
    for ending in rows:
        if ending.clients == (ANY,):
            cells = [[ending.what], cell(versions, ANY, ending.name)]
        else:
            cells = [[ending.what], *(cell(versions, each, ending.name) for each in BOTH)]
            if cells[1] == cells[2]:
                cells.pop()
        lines += [*grid_row(cells), rule]
    return lines


def grid_row(cells: list[list[str]]) -> list[str]:
    widths = WIDTHS if len(cells) == 3 else (WIDTHS[0], WIDTHS[1] + WIDTHS[2] + 3)
    columns = [
        "\n\n".join(
            textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
            for text in texts
        ).splitlines()
        for texts, width in zip(cells, widths, strict=True)
    ]
    return [
        "| " + " | ".join(part.ljust(w) for part, w in zip(line, widths, strict=True)) + " |"
        for line in itertools.zip_longest(*columns, fillvalue="")
    ]


def rendered(page: str) -> str:
    """The page's text with its tables as the record has them."""
    versions = json.loads(RECORD.read_text())["versions"]
    for name, rows in TABLES.items():
        block = "\n".join(f"   {line}" for line in table(rows, HEADS[name], versions))
        head, begin, rest = page.partition(f".. begin {name}:")
        options, blank, rest = rest.partition(":widths: 32 34 34\n\n")
        _, end, rest = rest.partition(f"\n\n.. end {name}\n")
        assert rest, f"the page has no table {name}"
        page = head + begin + options + blank + block + end + rest
    return page


def render() -> None:
    PAGE.write_text(rendered(PAGE.read_text()))


if __name__ == "__main__":
    if sys.argv[1:] == ["--record"]:
        record()
    elif sys.argv[1:] == ["--render"]:
        render()
    else:
        sys.exit(__doc__)
