"""The promises of docs/http-queue.rst: the queue itself, on both databases.

Here are api.py with desk.py, guard.py, routes_people.py, routes_producers.py and
routes_workers.py; schemas.py, queues.py; table_queue.py with statements.py, database.py,
models.py, migrate.py, 0001_initial.py and 0002_finished.py; and benchmark.py with
benchmark_server.py, benchmark_faults.py and benchmark_soak.py. In test_http_queue_broker.py are
broker_queue.py, broker_link.py, broker_messages.py and broker_intake.py; in _processes
processes.py and broker_peers.py; in _intake and _sheets intake.py, spreadsheet.py and workbook.py;
in _commands client.py and working.py; and the page in _page.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import math
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import record_http_queue as figures
from apps.http_queue import CHAPTER, FOLDER, LETTER, Client, in_one_process, module, run
from apps.postgres import Postgres
from shells.chapters import figure, page, reader_environment, said

pytest_plugins = ["apps.fixtures"]

NOBODY = "0" * 32


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "database" in metafunc.fixturenames:
        both = ["sqlite", pytest.param("postgres", marks=in_one_process)]
        metafunc.parametrize("database", both, indirect=True)


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        yield f"sqlite://{tmp_path}/queue.sqlite3"
        return
    with request.getfixturevalue("postgres").database() as url:
        yield url


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/queue.sqlite3"


# --- Producers ---------------------------------------------------------------


def test_a_message_is_created_claimed_and_completed(database: str) -> None:
    async def use(api: Client) -> None:
        made = await api.post("/v1/messages", LETTER, 201)
        assert made["state"] == "ready"
        assert made["payload"] == LETTER
        claimed = await api.claim()
        (message,) = claimed["messages"]
        assert (message["id"], message["state"], message["attempts"]) == (
            made["id"],
            "leased",
            1,
        )
        assert (await api.tell(claimed, "complete"))["state"] == "done"
        # Told twice, because the first answer got lost.
        await api.tell(claimed, "complete")
        done = await api.get(f"/v1/messages/{made['id']}")
        assert done["state"] == "done"
        assert done["finished_at"] >= done["created_at"]
        assert await api.counts() == {"done": 1}

    run(use, database)


def test_an_idempotency_key_stores_once(database: str) -> None:
    async def use(api: Client) -> None:
        key = {"Idempotency-Key": "letter-1"}
        answers = await asyncio.gather(
            *(api.http.post("/v1/messages", json=LETTER, headers=key) for _ in range(20))
        )
        first, again = r"instead of (\d+)\.", r"and with (\d+) instead"
        codes = {figure(CHAPTER, first): 1, figure(CHAPTER, again): 19}
        assert Counter(answer.status_code for answer in answers) == codes
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert await api.counts() == {"ready": 1}
        other = {**LETTER, "text": "Something else"}
        told = await api.post("/v1/messages", other, 422, headers=key)
        assert "letter-1" in told["detail"]

    run(use, database)


def test_what_is_stored_outlives_the_api(database: str) -> None:
    async def create(api: Client) -> list[str]:
        return await api.create(3)

    async def look(api: Client) -> list[str]:
        return [each["id"] for each in (await api.claim(5))["messages"]]

    assert run(create, database) == run(look, database)


# --- Workers -----------------------------------------------------------------


def test_claims_are_the_oldest_and_nobody_elses(database: str) -> None:
    async def use(api: Client) -> None:
        ids = await api.create(10)
        first = await api.claim(4)
        assert [each["id"] for each in first["messages"]] == ids[:4]
        rest = await asyncio.gather(*(api.claim(2) for _ in range(5)))
        others = [each["id"] for claimed in rest for each in claimed["messages"]]
        assert sorted(others) == ids[4:]
        assert (await api.claim(4))["messages"] == []

    run(use, database)


def test_a_lease_that_runs_out_gives_the_message_back(database: str) -> None:
    stale = figure(CHAPTER, r"message by now: (\d+)\.")

    async def use(api: Client) -> None:
        (id,) = await api.create()
        first = await api.claim(lease=0.1)
        second = await api.claim(wait=10)  # waits for that
        assert [each["id"] for each in second["messages"]] == [id]
        assert second["messages"][0]["attempts"] == 2
        for what in ("complete", "fail", "release", "extend"):
            told = await api.tell(first, what, stale)
            assert told["detail"] == id
        await api.tell(second, "complete")
        await api.tell(first, "complete", stale)

    run(use, database)


def test_several_are_completed_at_once(database: str) -> None:
    async def use(api: Client) -> None:
        ids = await api.create(4)
        mine = await api.claim(3)
        await api.post(f"/v1/messages/{ids[0]}/release", {"token": mine["token"]})
        body = {"token": mine["token"], "ids": [*ids, NOBODY, ids[1]]}
        told = await api.post("/v1/completions", body)
        assert told["completed"] == ids[1:3]
        refused = {each["id"]: each["status"] for each in told["refused"]}
        assert refused == {ids[0]: 409, ids[3]: 409, NOBODY: 404}
        assert await api.counts() == {"ready": 2, "done": 2}
        # Told twice, because the first answer got lost.
        assert (await api.post("/v1/completions", body))["completed"] == ids[1:3]

    run(use, database)


def test_what_is_done_is_told_in_one_request_with_a_claim(database: str) -> None:
    async def use(api: Client) -> None:
        ids = await api.create(4)
        mine = await api.claim(2)
        done = [{"token": mine["token"], "ids": [*ids[:2], ids[3]]}]
        # It doesn't wait: what was done would be told late.
        told = await api.post("/v1/claims", {"count": 1, "wait_seconds": 60, "done": done})
        assert [each["id"] for each in told["messages"]] == ids[2:3]
        assert told["completed"] == ids[:2]
        assert [(each["id"], each["status"]) for each in told["refused"]] == [(ids[3], 409)]
        none = await api.post("/v1/claims", {"count": 0, "done": done})
        assert (none["messages"], none["completed"]) == ([], ids[:2])
        assert await api.counts() == {"ready": 1, "leased": 1, "done": 2}

    run(use, database)


def test_when_one_wish_fails_it_is_only_that_one(database: str) -> None:
    """Wishes of several callers are one statement."""
    create = module("statements").CREATE

    async def use(api: Client) -> None:
        def wish(payload: str) -> Any:
            return api.queue._create((module("queues").new_id(), payload, 1, None))

        # The second cannot be stored by this statement in either database.
        wishes = [wish('{"a": 1}'), wish("{"), wish('{"a": 2}')]
        told = await asyncio.gather(*wishes, return_exceptions=True)
        assert [isinstance(each, Exception) for each in told] == [False, True, False]
        assert await api.counts() == {"ready": 2}

    assert "AS {json})" in create
    if database.startswith("sqlite"):  # which would store it
        module("statements").CREATE = create.replace("CAST(value ->> 1", "CAST(json(value ->> 1)")
    try:
        run(use, database)
    finally:
        module("statements").CREATE = create


def test_what_is_done_is_forgotten_in_time(database: str) -> None:
    async def use(api: Client) -> None:
        await api.create(3)
        claimed = await api.claim(2)
        await api.tell(claimed, "complete")
        api.queue.keep = 60.0
        await api.queue.prune()
        assert await api.counts() == {"ready": 1, "leased": 1, "done": 1}
        api.queue.keep = 0.0
        await asyncio.sleep(0.01)
        await api.queue.prune()
        assert await api.counts() == {"ready": 1, "leased": 1}

    run(use, database)


def test_late_is_not_too_late_while_nobody_else_has_it(database: str) -> None:
    async def use(api: Client) -> None:
        await api.create()
        claimed = await api.claim(lease=0.1)
        await asyncio.sleep(0.2)
        assert await api.counts() == {"ready": 1}
        await api.tell(claimed, "complete")
        assert await api.counts() == {"done": 1}

    run(use, database)


def test_extend_keeps_the_lease(database: str) -> None:
    async def use(api: Client) -> None:
        await api.create()
        claimed = await api.claim(lease=0.3)
        await api.tell(claimed, "extend", lease_seconds=60)
        await asyncio.sleep(0.4)
        assert (await api.claim())["messages"] == []
        await api.tell(claimed, "complete")

    run(use, database)


def test_a_failure_waits_longer_each_time_and_is_dead_in_the_end(database: str) -> None:
    async def use(api: Client) -> None:
        (id,) = await api.create()
        waits, told = [], {}
        for _ in range(attempts):
            claimed = await api.claim(wait=10)
            told = await api.tell(claimed, "fail", reason="no paper")
            waits.append(told["retry_in_seconds"])
        assert waits == [*(0.01 * 2**n for n in range(attempts - 1)), None]
        assert told["state"] == "dead"
        (dead,) = (await api.get("/v1/dead"))["messages"]
        assert (dead["id"], dead["attempts"], dead["error"]) == (id, attempts, "no paper")
        assert (await api.claim())["messages"] == []

        assert await api.post(f"/v1/dead/{id}/requeue") == {"requeued": 1}
        claimed = await api.claim()
        assert claimed["messages"][0]["attempts"] == 1
        await api.post(f"/v1/dead/{id}/requeue", status=409)
        await api.tell(claimed, "fail", retry=False)  # hopeless: dead at once
        assert await api.post("/v1/dead/requeue") == {"requeued": 1}
        assert await api.counts() == {"ready": 1}

    attempts = figure(CHAPTER, r"After (\w+) attempts it is \*\*dead")
    run(use, database, policy={"backoff": 0.01})
    policy = module("queues").Policy()
    assert said(CHAPTER, r"\*\*fails\*\* waits ([\d, ]+), … seconds").split(", ") == [
        f"{policy.backoff * 2**n:.0f}" for n in range(3)
    ]


def test_a_failed_message_waits_its_time(database: str) -> None:
    async def use(api: Client) -> None:
        await api.create()
        await api.tell(await api.claim(), "fail")
        assert await api.counts() == {"delayed": 1}
        assert (await api.claim())["messages"] == []

    run(use, database, policy={"backoff": 60.0})


def test_a_message_that_kills_its_workers_is_dead_in_the_end(database: str) -> None:
    async def use(api: Client) -> None:
        await api.create()
        for _ in range(2):
            assert (await api.claim(lease=0.1, wait=10))["messages"]
        await asyncio.sleep(0.2)
        assert (await api.claim())["messages"] == []
        await api.queue.bury()  # which happens every second
        (dead,) = (await api.get("/v1/dead"))["messages"]
        assert "lease ran out" in dead["error"]

    run(use, database, policy={"max_attempts": 2})


def test_what_is_given_back_has_not_been_tried(database: str) -> None:
    async def use(api: Client) -> None:
        await api.create()
        claimed = await api.claim()
        await api.tell(claimed, "release")
        await api.tell(claimed, "complete", 409)
        assert (await api.claim())["messages"][0]["attempts"] == 1

    run(use, database)


def test_unknown_messages(database: str) -> None:
    async def use(api: Client) -> None:
        nothing = {"token": NOBODY, "messages": [{"id": NOBODY}]}
        for what in ("complete", "fail", "release", "extend"):
            await api.tell(nothing, what, 404)
        await api.post(f"/v1/dead/{NOBODY}/requeue", status=404)

    run(use, database)


def never_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither claim nor queue finds a message by itself: they have to be told."""

    async def none(_: Any) -> int:
        return 0

    monkeypatch.setattr(module("table_queue").TableQueue, "look_again", 60)
    monkeypatch.setattr(module("table_queue").TableQueue, "due", none)


def test_a_claim_waits_for_a_message(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    never_looks(monkeypatch)

    async def use(api: Client) -> None:
        waiting = asyncio.create_task(api.claim(wait=30))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        started = time.monotonic()
        await api.create()
        assert len((await waiting)["messages"]) == 1
        # At once, not when it would have looked again by itself.
        assert time.monotonic() - started < 5
        assert (await api.claim(wait=0.1))["messages"] == []

    run(use, database)


def test_a_message_that_comes_while_a_claim_looks(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_looks(monkeypatch)

    async def use(api: Client) -> None:
        claim, created = api.queue.claim, []

        async def look(count: int, lease: float) -> Any:
            found = await claim(count, lease)
            if not created:  # after it has looked, and before it waits
                created.extend(await api.create())
            return found

        monkeypatch.setattr(api.queue, "claim", look)
        started = time.monotonic()
        assert len((await api.claim(wait=40))["messages"]) == 1
        assert time.monotonic() - started < 20

    run(use, database)


def test_a_waiting_claim_hears_that_the_time_has_come(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backoffs and leases: the queue looks for what is due, and the claims need not."""
    monkeypatch.setattr(module("table_queue").TableQueue, "look_again", 60)

    async def use(api: Client) -> None:
        await api.create(2)
        await api.tell(await api.claim(lease=60), "fail", reason="no")
        await api.claim(lease=0.3)
        started = time.monotonic()
        found = [await api.claim(wait=50, lease=60) for _ in range(2)]
        assert time.monotonic() - started < 30  # at the end of its wait it looks
        assert [each["messages"][0]["attempts"] for each in found] == [2, 2]

    run(use, database, policy={"backoff": 0.3})


@in_one_process
def test_a_claim_hears_of_a_message_that_came_by_another_process(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    never_looks(monkeypatch)

    async def use(api: Client) -> None:
        policy, settings = module("queues").Policy(), module("desk").Settings()
        other = module("table_queue").TableQueue(url, policy)
        await other.start()
        app = module("api").create_app(other, settings)
        transport = httpx.ASGITransport(app)
        base = {"base_url": "http://localhost", "timeout": 90}
        async with httpx.AsyncClient(transport=transport, **base) as http:
            both = [api, Client(http, other, app)]
            for here, there in (both, both[::-1]):
                while not (here.queue.database._ear and here.queue._janitor):
                    await asyncio.sleep(0.05)
                waiting = asyncio.create_task(here.claim(wait=50))
                while not here.app.state.desk.arrived._waiters:
                    await asyncio.sleep(0.05)
                started = time.monotonic()
                (id,) = await there.create()
                assert [each["id"] for each in (await waiting)["messages"]] == [id]
                assert time.monotonic() - started < 30  # not when it looks by itself
        await other.close()

    with postgres.database() as url:
        run(use, url)


# --- People ------------------------------------------------------------------


def test_lists_are_filtered_and_come_in_pages(database: str) -> None:
    async def use(api: Client) -> None:
        ids = await api.create(7)
        for claimed in [await api.claim() for _ in range(2)]:
            await api.tell(claimed, "complete")
        await api.claim()
        found, after, page = [], {}, {}
        for _ in range(4):
            page = await api.get("/v1/messages", params={"limit": 2, **after})
            found += [each["id"] for each in page["messages"]]
            after = {"after": page["next"]}
        assert found == ids
        assert page["next"] is None
        for state, expected in (("done", ids[:2]), ("leased", ids[2:3]), ("ready", ids[3:])):
            page = await api.get("/v1/messages", params={"state": state})
            assert [each["id"] for each in page["messages"]] == expected
        page = await api.get("/v1/messages", params={"upload": "none.xlsx"})
        assert page["messages"] == []

    run(use, database)


def test_metrics_and_health(database: str) -> None:
    async def use(api: Client) -> None:
        await api.create(3)
        await api.tell(await api.claim(), "complete")
        assert await api.get("/healthz") == {"status": "ok"}
        text = (await api.http.get("/metrics")).text
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#")
        assert lines['http_queue_messages{state="ready"}'] == "2"
        assert lines['http_queue_messages{state="done"}'] == "1"
        assert lines['http_queue_events_total{event="created"}'] == "3"
        assert lines['http_queue_events_total{event="completed"}'] == "1"

    run(use, database)


# --- More than one process ---------------------------------------------------


def benchmark(**given: Any) -> argparse.Namespace:
    defaults = {"queue": None, "seed": random.randrange(1000), "limit": 60}
    return argparse.Namespace(**{**defaults, **given})


@pytest.mark.long
def test_four_processes_claim_every_message_once(database: str) -> None:
    given = benchmark(database=database, processes=4, messages=400)
    told = module("benchmark").claims(given)
    assert (told["claims"], told["claimed_twice"], told["errors"]) == (400, 0, [])
    assert sum(count > 0 for count in told["claimed_by_each"]) > 1


@pytest.mark.long
def test_killed_at_random_nothing_is_lost(database: str, tmp_path: Path) -> None:
    """Workers and the API; what is handled twice was not completed before."""
    given = benchmark(
        database=database,
        folder=str(tmp_path),
        messages=200,
        workers=2,
        kills=3,
        pause=0.4,
    )
    told = module("benchmark").chaos(given)
    assert told["handled"] == 200
    assert {n: c for n, c in told["state"].items() if c and n != "queue"} == {"done": 200}
    # A kill can cost what the killed had claimed: 10 for each worker.
    assert told["handled_again"] <= 3 * 2 * 10


@pytest.mark.long
def test_a_soak_ends_with_an_empty_queue_and_forgets(sqlite: str, tmp_path: Path) -> None:
    given = benchmark(
        database=sqlite,
        folder=str(tmp_path),
        messages=12_000,
        minutes=1,
        workers=2,
        pause=3,
        keep=0,
    )
    told = module("benchmark").soak(given)
    assert (told["completed"], told["left"], told["dead"]) == (12_000, 0, 0)
    assert max(told["kept"]) < 12_000  # it begins to forget before all is done
    assert {*map(len, (told["per_second"], told["mib"]))} == {len(told["kept"])}


def test_two_processes_start_on_one_new_database(database: str) -> None:
    asked = "import asyncio, sys; sys.path.insert(0, sys.argv[1])\n"
    asked += "from table_queue import *\nfrom queues import Policy\n"
    asked += "async def main():\n    q = TableQueue(sys.argv[2], Policy())\n"
    asked += "    await q.start()\n    print(await q.counts())\n    await q.close()\n"
    asked += "asyncio.run(main())"
    command = [sys.executable, "-c", asked, str(FOLDER), database]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(3)]
    for process in processes:
        stdout, stderr = process.communicate(timeout=60)
        assert "'ready': 0" in stdout, stderr


def test_the_migrations_make_the_models(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tortoise", "-c", "models.TORTOISE", "makemigrations"],
        cwd=FOLDER,
        env={
            **reader_environment("amqp://unused/"),
            "HTTP_QUEUE_DATABASE": f"sqlite://{tmp_path}/x.sqlite3",
        },
        capture_output=True,
        text=True,
    )
    assert "No changes" in done.stdout, done.stdout + done.stderr


# --- What was measured -------------------------------------------------------


def test_the_tables_are_the_record() -> None:
    rows = figures.rows(json.loads(figures.RECORD.read_text()))
    for name, table in figures.TABLES.items():
        with table.open(newline="") as file:
            assert [*csv.reader(file)] == rows[name], f"{table.name}: make figures"
        assert f":file: figures/{table.name}" in page(CHAPTER).read_text()


def test_the_page_has_the_defaults_of_the_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["serve.py"])
    given = module("serve").arguments()
    policy = module("queues").Policy(given.max_attempts, given.backoff)
    assert policy == module("queues").Policy()
    assert given.max_attempts == figure(CHAPTER, r"After (\w+) attempts it is \*\*dead")
    where = said(CHAPTER, r"shows a page at (\S+) with the state")
    assert f"http://{given.host}:{given.port}/" == module("client").URL == where
    assert given.database == f"sqlite://{said(CHAPTER, 'in the file ``([^`]+)``')}"
    at_a_time = figure(CHAPTER, r"(?:because|Queue`` of) (\d+) (?:are in|places)")
    assert given.intake_size == at_a_time
    assert math.ceil(1_000 / at_a_time) == figure(CHAPTER, r"rows take (\w+) times as long")
    broker = module("broker_queue").BrokerQueue
    assert broker.look_again == figure(CHAPTER, r"programs put in after (\w+) second")
    longest = broker.max_lease
    assert longest == 60 * figure(CHAPTER, r"At most (\d+) minutes, as the broker")
    takes_back = figure(CHAPTER, r"what isn't acknowledged for (\d+)")
    assert takes_back == figure("2-work-queues", r"not been acked for (\d+) minutes")
    samples = (FOLDER / "make_samples.py").read_text()
    assert f"C{figure(CHAPTER, r'says of itself that it has ([0-9,]+) rows')}" in samples
    few = figure(CHAPTER, r"(?:rows\. It holds|what is compared:) (\d+)")
    assert few == module("make_samples").COUNTS[0]
    assert few - 1 == figure(CHAPTER, r"(?:also saves|requests and) (\d+) (?:requests|commits)")


def test_the_page_says_what_the_record_shows() -> None:
    data = json.loads(figures.RECORD.read_text())
    assert not data["draft"]
    workers = said(CHAPTER, r"in a second by (\d+, \d+ and \d+) workers")
    assert workers.replace(" and", ",") == ", ".join(map(str, figures.WORKERS))
    for found in data["simulated"].values():
        assert found["create_seconds"] == figure(CHAPTER, r"with (\w+) seconds for a message")
        assert found["handle_seconds"] == figure(CHAPTER, r"and (\w+) for its handling")
        # A thousand take three times as long as one, and no more.
        assert found["upload_1000"] <= 1.1 * 3 * found["create_seconds"]
        assert found["batch_50"] <= 1.1 * found["handle_seconds"]
        assert found["insert_21"] >= 21 * found["create_seconds"]
    for found in data["claims"].values():
        assert (found["claims"], found["claimed_twice"], found["errors"]) == (5_000, 0, [])
    for found in data["chaos"].values():
        messages = figure(CHAPTER, r"while they handle ([\d,]+) messages")
        assert found["messages"] == found["handled"] == found["state"]["done"] == messages
        # It was asked for 30, and goes on to the last message whether all have come or not.
        assert found["handled_again"] == 0  # as the page has it
        assert found["killed"]["workers"] >= 10
        assert found["killed"]["api"] >= 3
