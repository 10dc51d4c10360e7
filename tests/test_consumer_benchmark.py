"""What docs/consumer-benchmark.rst says, held against its record."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest
from plotting import FIGURES
from record_consumer_benchmark import PARTS, RECORD, bars, of, rate, tables
from record_consumer_benchmark import PEERS as PEERS_RECORD
from record_consumer_benchmark import load as load_record
from shells.chapters import DOCS, EXAMPLES, figure, said
from test_consumer_benchmark_method import CHAPTER, benchmark, plans


def full(path: Path) -> dict[str, Any]:
    """A record to make claims on; make bench and make bench-peers write it."""
    data = load_record(path)
    if data["plan"] not in PARTS:
        pytest.skip(f"{path.name} is provisional, of the plan {data['plan']}")
    return data


def test_the_record_is_whole_and_nothing_went_wrong() -> None:
    for path in (RECORD, PEERS_RECORD):
        data = load_record(path)
        assert data["wrong"] == []
        every = benchmark.jobs(plans.PLANS[data["plan"]], data["seed"])
        kept = benchmark.Record(None, data["seed"])
        kept.data = data
        assert all(kept.has(job) for job in every)
        assert len(data["runs"]) == len(every)
        assert not re.search(r"/(tmp|home|root|work)|@", path.read_text())


def test_the_tables_show_the_record() -> None:
    found = tables(load_record(RECORD), load_record(PEERS_RECORD))
    page = (DOCS / f"{CHAPTER}.rst").read_text()
    for name, expected in found.items():
        path = FIGURES / f"{CHAPTER}-{name}.csv"
        with path.open(newline="") as file:
            assert list(csv.reader(file)) == expected, "make figures"
        assert f":file: figures/{path.name}" in page


def test_what_the_page_says_of_blocking_and_asynchronous() -> None:
    data = full(RECORD)
    order = ("pika_select", "pika_callback", "aio_pika_callback", "aio_pika_iterator")
    for count in (8_000, 80_000):
        rates = [rate(data, "length", consumer=each, messages=count) for each in order]
        assert rates == sorted(rates, reverse=True), count
    for count in (2_000, 8_000, 80_000):
        adapter, blocking = (
            rate(data, "length", consumer=each, messages=count) for each in order[:2]
        )
        assert adapter > 2 * blocking, count
    for number in (1, 2, 3):  # in every round, the same order
        rates = [
            rate(data, "length", consumer=each, messages=80_000, round=number) for each in order
        ]
        assert rates == sorted(rates, reverse=True), number
    for consumer in ("pika_callback", "pika_asyncio", "aio_pika_callback"):
        by_prefetch = [
            rate(data, "prefetch", consumer=consumer, prefetch=value)
            for value in range(100, 1301, 200)
        ]
        assert max(by_prefetch) < 2.5 * min(by_prefetch), consumer
        assert sorted(by_prefetch) not in (by_prefetch, by_prefetch[::-1]), "an order"


def test_what_the_page_says_of_the_levers() -> None:
    data = full(RECORD)
    for consumer in ("pika_callback", "pika_select", "aio_pika_callback"):
        one = rate(data, "lever: prefetch", consumer=consumer, prefetch=1)
        hundred = rate(data, "lever: prefetch", consumer=consumer, prefetch=100)
        assert hundred > 1.5 * one
        thousand = rate(data, "lever: prefetch", consumer=consumer, prefetch=1000)
        # The adapter acks in bursts.
        least, most = (1.6, 2) if consumer == "pika_select" else (0.75, 1.35)
        assert least * hundred < thousand < most * hundred, consumer
    for consumer in ("pika_callback", "pika_fastest", "aio_pika_fastest"):
        each, many, none = (
            rate(data, "lever: acks", consumer=consumer, ack_every=value) for value in (1, 100, 0)
        )
        assert many > 1.1 * each
        assert none < 1.3 * many  # no ack is hardly faster
    blocking, adapter = (
        rate(data, "lever: acks", consumer=each, ack_every=100)
        for each in ("pika_callback", "pika_fastest")
    )
    assert 0.75 < blocking / adapter < 1.35
    for every in (1, 100):
        classic, quorum = (
            rate(data, "lever: queue type", queue=kind, ack_every=every)
            for kind in ("classic", "quorum")
        )
        assert 0.75 < classic / quorum < 1.35
    small, kilobyte, ten = (rate(data, "lever: body", size=size) for size in (10, 1_000, 10_000))
    assert small < 1.35 * kilobyte
    assert 0.4 * small < ten < 0.6 * small
    peers = full(PEERS_RECORD)
    for consumer, least, most in (
        ("aio_pika_callback", 1.1, 1.6),
        ("aio_pika_fastest", 1.1, 1.6),
        ("pika_asyncio", 0.7, 1.1),
    ):
        plain, fast = (
            rate(peers, "lever: uvloop", consumer=consumer, uvloop=value) for value in (None, True)
        )
        assert least < fast / plain < most, consumer
    said("consumer-benchmark", r"\* - uvloop - about (a quarter) for aio-pika; nothing for pika")
    slow, fast = (rate(data, "lever: window", window=value) for value in (1, 100))
    assert fast > 4 * slow


def test_what_the_page_says_of_growth() -> None:
    data = full(RECORD)
    for consumer in ("pika_fastest", "aio_pika_fastest"):
        short, long = (
            of(data, "growth", consumer=consumer, messages=count)[0] for count in (80_000, 800_000)
        )
        assert long["a second"] > short["a second"] / 1.5
        assert long["peak MiB"] < 1.2 * short["peak MiB"]


def test_what_the_page_says_of_librabbitmq() -> None:
    peers = full(PEERS_RECORD)
    for acked, pika in (("each acked", "pika_select"), ("100 acked at once", "pika_fastest")):
        limit, ours, aio = (
            rate(peers, f"clients, {acked}", consumer=each, uvloop=None)
            for each in ("peer_librabbitmq", pika, "aio_pika_fastest")
        )
        part = {"half": 1 / 2, "a fifth": 1 / 5}
        assert part[said(CHAPTER, r"pika does more than (\w+) of that")] < ours / limit < 0.6, (
            acked
        )
        fifth = part[said(CHAPTER, r"aio-pika about (a \w+)")]
        assert 0.85 * fifth < aio / limit < 1.15 * fifth, acked


def test_what_the_page_says_of_how_it_was_measured() -> None:
    data = full(RECORD)
    assert {run["messages"] for run in of(data, "pool")} == {
        figure(CHAPTER, r"There were ([\d,]+) messages")
    }
    assert {run["messages"] for run in of(data, "pool: waiting")} == {
        figure(CHAPTER, r"messages; (\d+) with one, two and three")
    }
    assert {run["prefetch"] for run in of(data, "length")} == {
        figure(CHAPTER, r"the prefetch is (\d+)")
    }
    most = figure(CHAPTER, r"at most (\w+) milliseconds") / 1000
    threads = figure(CHAPTER, r"with its (\w+) threads")
    pool = said(CHAPTER, r"Celery with its ``(\w+)`` pool")
    for name, code in (
        ("pika_fastest", f"PATIENCE = {most}"),
        ("aio_pika_fastest", f"PATIENCE = {most}"),
        ("peer_dramatiq", f"worker_threads={threads}"),
        ("peer_celery", f'pool="{pool}"'),
    ):
        assert code in (EXAMPLES / CHAPTER / f"{name}.py").read_text(), name


def test_the_bars() -> None:
    for name, (got, wanted) in bars(full(RECORD), full(PEERS_RECORD)).items():
        assert got >= wanted, name
