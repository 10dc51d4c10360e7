"""The promises of docs/http-queue.rst: spreadsheets, requests, commands, the page."""

from __future__ import annotations

import asyncio
import random
import re
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from apps.http_queue import LETTER, POSTGRES, Client, module, run
from apps.serving import HEADINGS, book, letters, text

pytest_plugins = ["apps.fixtures"]


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/queue.sqlite3"


# --- What is taken -----------------------------------------------------------


def test_samples_come_in_whole_and_in_order(database: str, tmp_path: Path) -> None:
    module("make_samples").main(tmp_path / "samples")
    names = ("letters-21.xlsx", "letters-declared.xlsx", "letters-1000.xlsx")

    async def use(api: Client) -> None:
        status, told = await api.upload(*(tmp_path / "samples" / name for name in names))
        assert status == 201
        assert [(each["file"], each["rows"]) for each in told["files"]] == [
            (names[0], 21),
            (names[1], 21),
            (names[2], 1_000),
        ]
        where = {"upload": names[2], "limit": 500}
        page = await api.get("/v1/messages", params=where)
        assert [each["row"] for each in page["messages"]] == [*range(2, 502)]
        assert page["messages"][0]["payload"]["text"] == "Letter 1"
        assert await api.counts() == {"ready": 1_042}

    run(use, database)


def test_an_ordinary_sheet_is_searched_and_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which would take as long as all the rest: every sheet has margins on the *right*."""
    module("make_samples").write(path := tmp_path / "a.xlsx", 2)
    workbook, parsed = module("workbook"), []
    monkeypatch.setattr(workbook.Look, "through", lambda _, data: parsed.append(data))
    workbook.open_sheet(str(path))
    assert not parsed
    monkeypatch.setattr(workbook, "SUSPECTS", (*workbook.SUSPECTS, re.compile(b"pageMargins")))
    workbook.open_sheet(str(path))
    assert len(parsed) == 1


def test_rows_are_numbered_as_the_spreadsheet_has_them(database: str, tmp_path: Path) -> None:
    rows = [*letters(2), ("", "", ""), ("", "nobody", 1)]
    path = book(tmp_path / "a.xlsx", rows, ("Recipient", " TEXT ", "copies"), first=4)

    async def use(api: Client) -> None:
        status, told = await api.upload(path)
        assert status == 422
        (fault,) = told["files"][0]["faults"]
        assert (fault["row"], fault["column"]) == (9, "recipient")

    run(use, database)


def test_copies_may_be_left_out(database: str, tmp_path: Path) -> None:
    path = book(tmp_path / "a.xlsx", [("ann", "Hello")], HEADINGS[:2])

    async def use(api: Client) -> None:
        assert (await api.upload(path))[0] == 201
        assert (await api.claim())["messages"][0]["payload"]["copies"] == 1

    run(use, database)


@pytest.mark.parametrize("size", [1, 7, 400])
def test_so_many_rows_at_a_time_and_not_in_waves(size: int) -> None:
    """Whoever is free takes the next row; in waves all would wait for the slowest."""
    feed, row = module("intake").feed, module("queues").Row
    at_once, now, begun_before_end_of_slow = 0, 0, 0
    slow = asyncio.Event()
    done: list[int] = []

    async def rows() -> Any:
        for number in range(1, 1_001):
            yield row(number, LETTER)

    async def create(made: Any) -> None:
        nonlocal now, at_once, begun_before_end_of_slow
        now += 1
        at_once = max(at_once, now)
        if made.number == 1 and size > 1:
            await slow.wait()  # until all others are done
        else:
            await asyncio.sleep(0)
        now -= 1
        done.append(made.number)
        if len(done) == 999:
            slow.set()

    asyncio.run(asyncio.wait_for(feed(rows(), size, create), 30))
    assert sorted(done) == [*range(1, 1_001)]
    assert at_once == size


def test_an_error_while_storing_stores_nothing(database: str, tmp_path: Path) -> None:
    """After 2,000 rows are in the transaction."""
    path = book(tmp_path / "a.xlsx", letters(5_000))

    async def use(api: Client) -> None:
        intake = module("table_queue").Intake
        store, calls = intake.store, []

        async def broken(self: Any, rows: Any) -> None:
            calls.append(len(rows))
            if len(calls) == 2:
                raise OSError("disk full")
            await store(self, rows)

        intake.store = broken
        try:
            answer = await api.http.post("/v1/uploads", files={"files": path.read_bytes()})
        finally:
            intake.store = store
        assert answer.status_code == 503
        assert calls == [2_000, 2_000]
        assert await api.counts() == {}

    run(use, database)


# What PostgreSQL says to one of two that wait for each other.
DEADLOCK = """
    CREATE FUNCTION give_way() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'; END $$;
    CREATE TRIGGER give_way BEFORE UPDATE ON message EXECUTE FUNCTION give_way();
"""


@pytest.mark.parametrize("option", [POSTGRES], indirect=True)
def test_who_has_to_give_way_to_another_process_may_ask_again(option: str) -> None:
    url = option.partition("=")[2]

    async def use(api: Client) -> None:
        await api.create()
        claimed = await api.claim()
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(DEADLOCK)
            problem = await api.tell(claimed, "complete", 503)
            assert "deadlock" in problem["detail"]
            await connection.execute("DROP TRIGGER give_way ON message")
        finally:
            await connection.close()
        await api.tell(claimed, "complete")
        assert await api.counts() == {"done": 1}

    run(use, url)


def test_a_cursor_does_not_leave_its_thread(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropped elsewhere, it resets the statement that its own thread is using."""
    path = book(tmp_path / "a.xlsx", letters(5_000))
    connections = module("database").SQLite
    inside, left = connections._in, []

    async def seen(self: Any, name: str, work: Any, *given: Any) -> Any:
        left.append(await inside(self, name, work, *given))
        return left[-1]

    monkeypatch.setattr(connections, "_in", seen)

    async def use(api: Client) -> None:
        assert (await api.upload(path))[0] == 201
        await api.claim()
        await api.counts()

    run(use, database)
    assert len(left) > 5
    assert not [each for each in left if type(each).__module__ == "sqlite3"]


def test_a_reader_that_ends_in_the_middle_of_a_line(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = ('{"rows"', '{"rows": 2, "warnings": []}\n[[2, "{}"], [3')
    path = book(tmp_path / "a.xlsx", letters(2))
    for half in halves:
        reader = tmp_path / "reader.py"
        reader.write_text(f"import sys\nsys.stdin.read()\nprint({half!r}, end='')")
        monkeypatch.setattr(module("intake"), "READER", reader)

        async def use(api: Client) -> None:
            status, told = await api.upload(path)
            assert (status, told["files"][0]["faults"][0]["reason"]) == (
                422,
                "The reader ended before the file.",
            )
            assert await api.counts() == {}

        run(use, database)


@pytest.mark.parametrize("at_the_same_time", [False, True])
def test_an_upload_with_a_key_is_taken_once(
    database: str, tmp_path: Path, at_the_same_time: bool
) -> None:
    paths = [book(tmp_path / f"{n}.xlsx", letters(n)) for n in (3, 4)]
    files = [("files", (path.name, path.read_bytes())) for path in paths]

    async def use(api: Client) -> None:
        def send(*files: Any, key: str = "monday") -> Any:
            headers = {"Idempotency-Key": key}
            return api.http.post("/v1/uploads", files=files, headers=headers)

        if at_the_same_time:
            answers = await asyncio.gather(*(send(*files) for _ in range(4)))
        else:
            answers = [await send(*files) for _ in range(3)]
        assert {answer.status_code for answer in answers} <= {200, 201}
        rows = [[each["rows"] for each in answer.json()["files"]] for answer in answers]
        assert rows == [[3, 4]] * len(answers)
        repeated = [each["repeated"] for a in answers for each in a.json()["files"]]
        assert repeated.count(False) == 2
        assert await api.counts() == {"ready": 7}
        # The key is not for another file, and without a key each is another.
        answer = await send(files[1])
        assert answer.status_code == 422
        assert "another file" in answer.json()["files"][0]["faults"][0]["reason"]
        assert (await send(files[1], key="tuesday")).status_code == 201
        assert (await api.upload(paths[0]))[0] == 201
        assert await api.counts() == {"ready": 14}

    run(use, database)


def test_a_refused_upload_does_not_use_up_its_key(database: str, tmp_path: Path) -> None:
    good, bad = book(tmp_path / "good.xlsx", letters(3)), text(tmp_path / "bad.xlsx")

    async def use(api: Client) -> None:
        for path, status in ((bad, 422), (good, 201), (good, 200)):
            answer = await api.http.post(
                "/v1/uploads",
                files=[("files", (path.name, path.read_bytes()))],
                headers={"Idempotency-Key": "monday"},
            )
            assert answer.status_code == status

    run(use, database)


# --- What is refused ---------------------------------------------------------


def corrupt(path: Path) -> Path:
    data = bytearray(book(path, letters(500)).read_bytes())
    for at in range(2_000, len(data) // 2, 97):
        data[at] ^= 0xFF
    path.write_bytes(data)
    return path


def wrong_in_row_7312(path: Path) -> Path:
    rows = letters(10_000)
    rows[7_310] = ("ann", "Hello", "two")
    return book(path, rows)


def bomb(path: Path) -> Path:
    """200 MB of spaces, in 200 KB."""
    book(path, letters(1))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet9.xml", b" " * 200 * 2**20)
    return path


def lying_bomb(path: Path) -> Path:
    """The same, which says of itself that it is small."""
    book(path, letters(1))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet9.xml", b" " * 2**27)
    data = path.read_bytes()
    path.write_bytes(data.replace((2**27).to_bytes(4, "little"), (9).to_bytes(4, "little")))
    return path


def long_string_many_times(path: Path) -> Path:
    """Small in the file and gigabytes in memory: one text, in every cell."""
    text = "x" * 32_000
    return book(path, [(text, text, 1)] * 60_000)


def fifty_megabytes(path: Path) -> Path:
    path.write_bytes(b"PK\x03\x04" + random.Random(1).randbytes(2**20) * 50)
    return path


Maker = Callable[[Path], Path]
BAD: dict[str, tuple[Maker, dict[str, Any]]] = {
    "not a spreadsheet": (text, {"reason": "Not a spreadsheet"}),
    "corrupt": (corrupt, {"reason": "corrupt"}),
    "bomb": (bomb, {"reason": "more than 128 MiB"}),
    "lying bomb": (lying_bomb, {"reason": "corrupt"}),
    "50 MB": (fifty_megabytes, {"reason": "at most 20,971,520"}),
    "wrong type": (
        wrong_in_row_7312,
        {"row": 7_312, "column": "copies", "reason": "valid integer; this is text, 'two'"},
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_whole_and_told_why(
    database: str, tmp_path: Path, name: str
) -> None:
    make, expected = BAD[name]
    path = make(tmp_path / "bad.xlsx")

    async def use(api: Client) -> None:
        status, told = await api.upload(path)
        assert status == 422, told
        (result,) = told["files"]
        assert (result["file"], result["rows"]) == ("bad.xlsx", 0)
        fault = result["faults"][0]
        for key in ("row", "column"):
            assert fault.get(key) == expected.get(key)
        assert expected["reason"] in fault["reason"]
        assert await api.counts() == {}

    run(use, database)


def test_a_good_file_beside_a_bad_one_is_taken(database: str, tmp_path: Path) -> None:
    good, bad = book(tmp_path / "good.xlsx", letters(3)), text(tmp_path / "bad.xlsx")

    async def use(api: Client) -> None:
        for paths in ((good, bad), (bad, good)):
            status, told = await api.upload(*paths)
            assert status == 207
            rows = {each["file"]: (each["rows"], len(each["faults"])) for each in told["files"]}
            assert rows == {"good.xlsx": (3, 0), "bad.xlsx": (0, 1)}
        assert await api.counts() == {"ready": 6}

    run(use, database)


def test_a_file_that_fills_the_memory_ends_its_reader_only(database: str, tmp_path: Path) -> None:
    path = long_string_many_times(tmp_path / "bad.xlsx")
    assert path.stat().st_size < 20 * 2**20

    async def use(api: Client) -> None:
        status, told = await api.upload(path)
        assert status == 422
        assert "memory" in told["files"][0]["faults"][0]["reason"]
        await api.create()

    run(use, database)


def test_too_much_at_once(database: str) -> None:
    async def use(api: Client) -> None:
        await api.post("/v1/messages", {**LETTER, "text": "x" * 2**20}, 413)
        answer = await api.http.post("/v1/uploads", files={"files": b"x" * 2_000})
        assert answer.status_code == 413

        async def chunks() -> AsyncIterator[bytes]:  # whose length nobody has said
            for _ in range(20):
                yield b"x" * 100

        answer = await api.http.post(
            "/v1/uploads",
            content=chunks(),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
        assert answer.status_code in (400, 413)

    run(use, database, max_upload_bytes=1_000)


# --- Who may call ------------------------------------------------------------


def test_a_token_and_who_must_bring_it(database: str) -> None:
    async def use(api: Client) -> None:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer é"}):
            raw: Any = {name: value.encode() for name, value in headers.items()}
            for path in ("/v1/state", "/v1/messages", "/v1/dead", "/metrics"):
                answer = await api.http.get(path, headers=raw)
                assert answer.status_code == 401
                assert answer.json()["status"] == 401
            answer = await api.http.post("/v1/claims", json={}, headers=raw)
            assert answer.status_code == 401
        assert (await api.http.get("/healthz")).status_code == 200
        assert (await api.http.get("/")).status_code == 200
        await api.get("/v1/state", headers={"Authorization": "Bearer secret"})

    run(use, database, token="secret")


def test_no_page_of_another_site_may_call(database: str) -> None:
    async def use(api: Client) -> None:
        for headers in (
            {"Origin": "https://elsewhere.example"},
            {"Origin": "null"},
            {"Host": "elsewhere.example"},
        ):
            answer = await api.http.post("/v1/dead/requeue", headers=headers)
            assert answer.status_code == 403, headers
        await api.post("/v1/dead/requeue", headers={"Origin": "http://localhost"})

    run(use, database)
