"""The promises of docs/http-queue.rst: spreadsheets, requests, commands, the page."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest
import xlsxwriter
from apps.http_queue import CHAPTER, FOLDER, LETTER, Client, module, run
from broker import free_ports
from conftest import Starter, poll
from shells.chapters import reader_environment
from shells.running import Script

HEADINGS = ("recipient", "text", "copies")
NO_BROKER = "amqp://unused/"


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite://{tmp_path}/queue.sqlite3"


def book(path: Path, rows: list[Any], headings: Any = HEADINGS, first: int = 0) -> Path:
    with xlsxwriter.Workbook(str(path), {"strings_to_numbers": False}) as workbook:
        sheet = workbook.add_worksheet()
        for number, row in enumerate([headings, *rows], first):
            sheet.write_row(number, 0, row)
    return path


def letters(count: int) -> list[Any]:
    return [(f"reader{n}@example.com", f"Letter {n}", 1) for n in range(1, count + 1)]


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


def zip_of(path: Path, **parts: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def corrupt(path: Path) -> Path:
    data = bytearray(book(path, letters(500)).read_bytes())
    for at in range(2_000, len(data) // 2, 97):
        data[at] ^= 0xFF
    path.write_bytes(data)
    return path


def truncated(path: Path) -> Path:
    data = book(path, letters(50)).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def with_formula(path: Path) -> Path:
    with xlsxwriter.Workbook(str(path)) as workbook:
        sheet = workbook.add_worksheet()
        for number, row in enumerate([HEADINGS, *letters(5)]):
            sheet.write_row(number, 0, row)
        sheet.write_formula("C4", "=1+1", None, 2)
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


def empty(path: Path) -> Path:
    path.touch()
    return path


def text(path: Path) -> Path:
    path.write_text("recipient,text\nann,hello\n")
    return path


def fifty_megabytes(path: Path) -> Path:
    path.write_bytes(b"PK\x03\x04" + random.Random(1).randbytes(2**20) * 50)
    return path


Maker = Callable[[Path], Path]
BAD: dict[str, tuple[Maker, dict[str, Any]]] = {
    "empty file": (empty, {"reason": "empty"}),
    "not a spreadsheet": (text, {"reason": "Not a spreadsheet"}),
    "zip of something": (
        lambda path: zip_of(path, a=b"b"),
        {"reason": "no workbook"},
    ),
    "corrupt": (corrupt, {"reason": "corrupt"}),
    "truncated": (truncated, {"reason": "corrupt"}),
    "formula": (with_formula, {"row": 4, "reason": "C4 is a formula"}),
    "bomb": (bomb, {"reason": "more than 128 MiB"}),
    "lying bomb": (lying_bomb, {"reason": "corrupt"}),
    "50 MB": (fifty_megabytes, {"reason": "at most 20,971,520"}),
    "only headings": (lambda path: book(path, []), {"reason": "no row"}),
    "empty sheet": (lambda path: book(path, [], ()), {"reason": "empty"}),
    "unknown column": (
        lambda path: book(path, letters(1), ("recipient", "text", "colour")),
        {"row": 1, "reason": "Unknown column 'colour'"},
    ),
    "missing column": (
        lambda path: book(path, [("a", 1)], ("recipient", "copies")),
        {"row": 1, "reason": "'text' is missing"},
    ),
    "twice a column": (
        lambda path: book(path, [("a", "b", "c")], ("recipient", "text", "text")),
        {"row": 1, "reason": "Two columns 'text'"},
    ),
    "wrong type": (
        wrong_in_row_7312,
        {"row": 7_312, "column": "copies", "reason": "valid integer; this is text, 'two'"},
    ),
    "fraction": (
        lambda path: book(path, [("a", "b", 1.5)]),
        {"row": 2, "column": "copies", "reason": "a number, 1.5"},
    ),
    "number for a text": (
        lambda path: book(path, [(4912345, "b", 1)]),
        {"row": 2, "column": "recipient", "reason": "a number, 4912345"},
    ),
    "out of range": (
        lambda path: book(path, [*letters(3), ("a", "b", 0)]),
        {"row": 5, "column": "copies", "reason": "greater than"},
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


def test_nothing_is_open_to_others_by_default(start: Starter) -> None:
    ended = start(CHAPTER, "", "serve.py", "--host=0.0.0.0", url=NO_BROKER)
    assert ended.wait() == 2
    assert "add --token" in ended.stderr[-1]


# --- Commands ----------------------------------------------------------------


class Served:
    """serve.py with a database of its own, and the commands against it."""

    def __init__(self, start: Starter, folder: Path, *options: str) -> None:
        (port,) = free_ports(1)
        self._start = start
        self.url = f"http://127.0.0.1:{port}/"
        self.options = (f"--port={port}", f"--database=sqlite://{folder}/q.sqlite3", *options)
        self.server = self.run("serve.py", *self.options)
        # It imports much, which takes its time where many do so at once.
        self.server.wait_for("A queue in SQLite", seconds=90)

    def run(self, name: str, *arguments: str) -> Script:
        environment = {"HTTP_QUEUE_URL": self.url}
        return self._start(CHAPTER, "", name, *arguments, url=NO_BROKER, **environment)

    def ended(self, name: str, *arguments: str) -> Script:
        script = self.run(name, *arguments)
        assert script.wait(90) == 0, script
        return script


def test_the_commands(start: Starter, tmp_path: Path) -> None:
    api = Served(start, tmp_path)
    path = str(book(tmp_path / "five.xlsx", letters(5)))
    inserted = api.ended("insert.py", path)
    assert inserted.stdout[:5] == [f" [x] Sent Letter {n}" for n in range(1, 6)]
    assert re.fullmatch(r" \[x\] 5 messages one by one in [\d.]+ s", inserted.stdout[5])
    text(tmp_path / "bad.xlsx")
    uploaded = api.run("upload.py", path, str(tmp_path / "bad.xlsx"))
    assert uploaded.wait() == 1
    assert uploaded.stdout[:2] == [
        " [x] five.xlsx: 5 rows",
        " [!] bad.xlsx is refused, nothing of it is stored",
    ]
    assert re.fullmatch(r" \[x\] 5 messages by upload in [\d.]+ s", uploaded.stdout[-1])
    single = api.ended("worker.py", "--count=4")
    assert single.stdout[1] == " [x] Done reader1@example.com: Letter 1"
    assert re.fullmatch(r" \[x\] 4 messages one at a time in [\d.]+ s", single.stdout[-1])
    batch = api.ended("batch_worker.py", "--until-empty")
    assert re.fullmatch(r" \[x\] 6 messages 50 at a time in [\d.]+ s", batch.stdout[-1])
    assert sum(line.startswith(" [x] Done") for line in batch.stdout) == 6
    assert api.server.interrupt() == 0
    assert api.server.stderr == []


def test_a_batch_takes_as_long_as_one_message(start: Starter, tmp_path: Path) -> None:
    """Simulated: the sleeps overlap."""
    api = Served(start, tmp_path, "--simulate-create=1")
    path = str(book(tmp_path / "letters.xlsx", letters(40)))
    (told,) = re.findall(r"in ([\d.]+) s", api.ended("upload.py", path).stdout[-1])
    assert float(told) < 40 / 4
    batch = api.ended("batch_worker.py", "--simulate=1", "--count=40")
    (told,) = re.findall(r"in ([\d.]+) s", batch.stdout[-1])
    assert float(told) < 40 / 4


def test_ctrl_c_finishes_and_twice_gives_back(start: Starter, tmp_path: Path) -> None:
    api = Served(start, tmp_path)
    api.ended("insert.py", str(book(tmp_path / "five.xlsx", letters(5))))
    single = api.run("worker.py", "--simulate=1.5")
    single.wait_for("Done")
    poll(lambda: subprocess_state(api)["leased"], 1)
    time.sleep(0.3)  # until the worker, too, knows that it has the next
    single.process.send_signal(signal.SIGINT)
    assert single.wait() == 0
    assert single.stdout[2].startswith(" [*] Finishing 1 in hand")
    assert single.stdout[3].startswith(" [x] Done")
    assert " 2 messages one at a time" in single.stdout[4]

    batch = api.run("batch_worker.py", "--simulate=600", "--lease=600")
    batch.wait_for("Waiting")
    poll(lambda: subprocess_state(api)["ready"], 0)
    time.sleep(0.3)
    batch.process.send_signal(signal.SIGINT)
    batch.wait_for("Finishing")
    batch.process.send_signal(signal.SIGINT)
    assert batch.wait() == 0
    assert sum("Gave back" in line for line in batch.stdout) == 3
    api.ended("worker.py", "--count=3")  # at once, though the lease was 600 s


def subprocess_state(api: Served) -> Any:
    import requests

    return requests.get(f"{api.url}v1/state", timeout=10).json()


def test_a_flaky_worker_and_a_dead_letter(start: Starter, tmp_path: Path) -> None:
    api = Served(start, tmp_path, "--max-attempts=2", "--backoff=0")
    api.ended("insert.py", str(book(tmp_path / "one.xlsx", letters(1))))
    worker = api.ended("worker.py", "--flaky=1", "--until-empty")
    assert "again in 0 s" in worker.stdout[1]
    assert worker.stdout[2].endswith("(simulated failure), dead")
    assert subprocess_state(api)["dead"] == 1


def test_an_api_that_is_away_is_one_line(start: Starter) -> None:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/"
    ended = start(CHAPTER, "", "worker.py", "--patience=0", url=NO_BROKER, HTTP_QUEUE_URL=url)
    assert ended.wait() == 1
    assert len(ended.stderr) == 1
    assert "python serve.py" in ended.stderr[0]


def test_a_bar_on_a_terminal(start: Starter, tmp_path: Path) -> None:
    api = Served(start, tmp_path)
    path = str(book(tmp_path / "letters.xlsx", letters(60)))
    environment = {**reader_environment(NO_BROKER), "HTTP_QUEUE_URL": api.url, "TERM": "xterm"}
    child = pexpect.spawn(
        sys.executable,
        [str(FOLDER / "insert.py"), path],
        env=environment,  # type: ignore[arg-type]
        encoding="utf-8",
        timeout=30,
    )
    child.expect("60/60")
    child.expect("60 messages one by one")
    child.close()
    # In a pipe: a line for each tenth, and no control characters.
    batch = api.ended("batch_worker.py", "--count=60")
    assert " [*] 54 of 60" in batch.stdout
    assert "\x1b" not in "".join([*batch.stdout, *batch.stderr])


# --- The page ----------------------------------------------------------------


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for option in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        f"--user-data-dir={tmp_path}/chromium",
    ):
        options.add_argument(option)
    options.binary_location = program("chromium", "chromium-browser", "google-chrome")
    service = webdriver.ChromeService(program("chromedriver", "chromium.chromedriver"))
    with webdriver.Chrome(options, service) as driver:
        yield driver


def program(*names: str) -> str:
    import shutil

    found = next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.fail(f"There is no {names[0]}: sudo apt-get install chromium chromium-driver")
    return found


@pytest.mark.long
@pytest.mark.timeout(400)
def test_made_up_requests_find_no_defect(start: Starter, tmp_path: Path) -> None:
    """schemathesis makes them up from the OpenAPI document: no 5xx."""
    api = Served(start, tmp_path, "--max-wait=0")
    command = ["run", f"{api.url}openapi.json", "--checks=not_a_server_error", "--seed=1"]
    command += ["--max-examples=3", "--phases=examples,coverage,fuzzing", "--no-color"]
    command += ["--request-timeout=60"]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("schemathesis")), *command],
        cwd=tmp_path,
        env={**reader_environment(NO_BROKER), "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"[1-9]\d* generated", done.stdout), done.stdout


@pytest.mark.long
def test_the_page_is_live_uploads_and_requeues(
    start: Starter, tmp_path: Path, browser: Any
) -> None:
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.wait import WebDriverWait

    api = Served(start, tmp_path, "--max-attempts=1", "--token=secret")
    # The page replaces its parts every second.
    redrawn = [StaleElementReferenceException]
    wait = WebDriverWait(browser, 30, ignored_exceptions=redrawn)

    def shown(selector: str) -> str:
        return " ".join(each.text for each in browser.find_elements("css selector", selector))

    def until(condition: Callable[[], Any]) -> None:
        wait.until(lambda _: condition())

    browser.get(api.url)
    until(lambda: browser.find_element("id", "token").is_displayed())
    browser.find_element("id", "token").send_keys("secret\n")
    until(lambda: shown("[data-state=ready]") == "0")
    until(lambda: "In SQLite. Live." in shown("p"))

    rows = [("<b>ann</b>", "Hello", 1), ("bob", "Hi", 1)]
    good = book(tmp_path / "good.xlsx", rows)
    bad = book(tmp_path / "<i>bad.xlsx", [("ann", "Hello", "two")])
    browser.find_element("id", "files").send_keys(f"{good}\n{bad}")
    browser.find_element("css selector", "#upload button").click()
    until(lambda: "good.xlsx: 2 rows" in shown("#results"))
    assert "bad.xlsx: row 2: copies: Input should be a valid integer" in shown("#results")
    until(lambda: shown("[data-state=ready]") == "2")

    api.ended("worker.py", "--flaky=1", "--until-empty", "--token=secret")
    until(lambda: shown("[data-state=dead]") == "2")
    until(lambda: "<b>ann</b>: Hello" in shown("#dead"))  # as text
    until(lambda: "simulated failure" in shown("#dead"))
    browser.find_element("css selector", "#dead button").click()
    until(lambda: shown("[data-state=ready]") == "1")
    browser.find_element("id", "all").click()
    until(lambda: shown("[data-state=ready]") == "2")
    until(lambda: browser.find_element("id", "none").is_displayed())
    api.server.close()
    until(lambda: "Not live" in shown("#live"))


# --- Compose -----------------------------------------------------------------


def test_the_compose_file_names_what_is_there() -> None:
    """No engine here has the plugin; this is what can be checked without."""
    import yaml

    made = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    assert set(made["services"]) == {"api", "database", "worker"}
    for service in made["services"].values():
        for name in service.get("depends_on", {}):
            assert name in made["services"]
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in made["volumes"]
        command = service.get("command", [])
        scripts = [word for word in command if word.endswith(".py")]
        assert all((FOLDER / name).exists() for name in scripts)
        for published in service.get("ports", []):
            assert published.startswith("127.0.0.1:")
    dockerfile = (FOLDER / "Dockerfile").read_text()
    for name in re.findall(r"^COPY (\S+)", dockerfile, re.MULTILINE):
        assert name == "." or [*FOLDER.glob(name)], name


def test_the_app_and_the_repository_want_the_same_versions() -> None:
    """They share an environment here; the Dockerfile has the app's file alone."""

    def wanted(path: Path) -> dict[str, str]:
        found = re.findall(r"^([\w.-]+)(?:\[\w+\])?([<>=].*)$", path.read_text(), re.MULTILINE)
        assert found
        return {name.lower(): limits.partition("#")[0].strip() for name, limits in found}

    ours = wanted(FOLDER.parent.parent / "requirements.txt")
    apps = wanted(FOLDER / "requirements.txt")
    both = ours.keys() & apps.keys()
    assert {"aio-pika", "fastapi", "httpx"} <= both
    assert {name: ours[name] for name in both} == {name: apps[name] for name in both}
