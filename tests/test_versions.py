"""docs/versions.rst: its tables are what is tested, recorded, and what this broker has."""

from __future__ import annotations

import json
import re
from importlib import metadata

import fates
import pytest
from broker import Broker
from shells.chapters import ROOT, page, said, version


def tables() -> list[list[list[str]]]:
    """The cells of each table, by row; white space made one space."""
    text = page("versions").read_text(encoding="utf-8")
    found = []
    for block in re.findall(r"^\.\. list-table::\n(?:(?:   .*)?\n)+", text, re.MULTILINE):
        rows = re.split(r"^   \* -", block, flags=re.MULTILINE)[1:]
        cells = [re.split(r"^     - ", row, flags=re.MULTILINE) for row in rows]
        found.append([[" ".join(cell.split()) for cell in row] for row in cells])
    return found


def changes() -> dict[str, dict[str, str]]:
    """By what changes, by series, what the second table says."""
    head, *rows = tables()[1]
    return {what: dict(zip(head[1:], cells, strict=True)) for what, *cells in rows}


def of(series: dict[str, str], number: str) -> str:
    """What it says of the newest series that is not newer than this version."""
    mine = version(number)
    return series[max((each for each in series if version(each) <= mine), key=version)]


def test_what_is_tested() -> None:
    tested = dict(row for row in tables()[0] if len(row) == 2)
    record = json.loads(fates.RECORD.read_text())["versions"]
    brokers = [each["rabbitmq"] for each in record.values()]
    assert re.findall(r"\d+\.\d+\.\d+", tested["RabbitMQ"]) == brokers
    for client in ("pika", "aio-pika"):
        assert metadata.version(client).startswith(f"{tested[client]}.")
    listed = (ROOT / ".github/workflows/test.yml").read_text()
    pythons = sorted(re.findall(r'python: "([\d.]+)"', listed))
    assert re.findall(r"3\.\d+", tested["Python"]) == pythons
    for series in said("versions", r"left out there, and says why\. (.+) were not tried").split():
        assert series.strip(",") not in record


def test_what_changes_is_what_is_recorded() -> None:
    rows = changes()
    limits, nacks, timeouts = list(rows.values())[:3]
    assert list(limits) == list(json.loads(fates.RECORD.read_text())["versions"])
    for series in limits:
        recorded = fates.recorded(series)
        ends = recorded["limit_reject", "pika"].message
        given = re.search(r"delivery (\d+)", ends)
        assert limits[series] == (str(int(given[1]) - 1) if given else "none")
        nacked = "dropped" in recorded["limit_nack", "pika"].message
        assert nacks[series] == (("yes" if nacked else "no") if given else "(no limit)")
        closes = "ChannelClosed" in recorded["timeout", "pika"].worker
        assert timeouts[series].startswith("the channel closes" if closes else "the consumer is")
        classic = recorded["timeout_classic", "pika"].worker == "goes on"
        assert ("on a classic queue nothing happens" in timeouts[series]) == classic
    assert limits["4.0"] == said("glossary", r"(\d+) times by default since RabbitMQ 4\.0")
    assert limits["3.10"] == "none"
    assert said("glossary", "(without limit before)")


ACK_TIMEOUT = {
    "errors": r"longer than ``consumer_timeout``, (\d+) minutes",
    "production-worker": r"waits for an ack for (\d+) minutes",
    "versions": r"Not acked in (\d+) minutes",
    "what-happens": r"\*\*The ack timeout\*\* is (\d+) minutes",
}


@pytest.mark.parametrize("name", ACK_TIMEOUT)
def test_the_ack_timeout_is_that_of_this_broker(broker: Broker, name: str) -> None:
    setting = broker.ctl("eval", "application:get_env(rabbit, consumer_timeout).")
    assert f"{{ok,{int(said(name, ACK_TIMEOUT[name])) * 60_000}}}" in setting


def test_what_changes_is_so_with_this_broker(broker: Broker) -> None:
    watermark = changes()["Memory at which publishers are blocked"]
    default = broker.ctl("eval", "application:get_env(rabbit, vm_memory_high_watermark).")
    assert of(watermark, broker.version) in default


def test_what_is_refused_is_what_the_error_index_has() -> None:
    """Its own tests try that with this broker."""
    rows = changes()
    since = said("errors", r"RabbitMQ (\d\.\d) refuses the arguments")
    assert said("errors", r"Since (\d\.\d) global prefetch is denied") == since
    assert said("errors", r"RabbitMQ's own (\d\.\d) does \(`its") == since
    for words in ("neither durable", "x-queue-master-locator"):
        [row] = [cells for what, cells in rows.items() if words in what]
        assert [each for each in row if row[each].startswith("refused")] == [since]
    [row] = [cells for what, cells in rows.items() if "prefetch" in what]
    assert [each for each in row if "each consumer" in row[each]] == [since]
