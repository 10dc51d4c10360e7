"""The promises of docs/http-queue.rst: the commands, made-up requests, the compose file."""

from __future__ import annotations

import datetime
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pexpect
import pytest
import requests
from apps import odd_sheets
from apps.http_queue import BROKER, CHAPTER, FOLDER, POSTGRES, SQLITE
from apps.serving import NO_BROKER, Served, book, letters, text
from broker import free_ports
from conftest import Starter, assert_one_line, poll
from shells.chapters import figure, page, reader_environment, said

pytest_plugins = ["apps.fixtures"]


def test_nothing_is_open_to_others_by_default(start: Starter) -> None:
    ended = start(CHAPTER, "", "serve.py", "--host=0.0.0.0", url=NO_BROKER)
    assert ended.wait() == 2
    assert "add --token" in ended.stderr[-1]


@pytest.mark.parametrize("port", ["-5", "65536"])
def test_a_port_that_is_none(start: Starter, port: str) -> None:
    ended = start(CHAPTER, "", "serve.py", f"--port={port}", url=NO_BROKER)
    assert ended.wait() == 2
    assert ended.stderr[-1] == "serve.py: error: --port is from 0 to 65535"


def test_the_commands(start: Starter, tmp_path: Path) -> None:
    api = Served(start, tmp_path)
    path = str(book(tmp_path / "five.xlsx", letters(5)))
    inserted = api.ended("insert.py", path)
    sent = [f" [x] Sent reader{n}@example.com: Letter {n}" for n in range(1, 6)]
    assert inserted.stdout[:5] == sent
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


def test_the_curl_lines(start: Starter, tmp_path: Path) -> None:
    api = Served(start, tmp_path)
    first, *lines = re.findall(r"^   ((?:api=|curl ).*)", page(CHAPTER).read_text(), re.MULTILINE)
    first = first.replace("http://127.0.0.1:8000/", api.url)
    told: Any = {}
    for line, state in zip(lines, ("ready", "leased", "done"), strict=True):
        given = line.replace("TOKEN", told.get("token", "")).replace("curl", "curl -sS")
        if "messages" in told:
            given = given.replace("ID", told["messages"][0]["id"])
        command = ["sh", "-ec", f"{first}\n{given}"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.stderr == ""
        assert done.stdout.endswith("}\n")  # and the shell's prompt below it
        told = json.loads(done.stdout)
        assert told.get("messages", [told])[0]["state"] == state
    assert figure(CHAPTER, r"hold for (\w+) minutes") * 60 == figure(CHAPTER, r'_seconds": (\d+)')


PAYLOAD = '''class Payload(Strict):
    """An order: nothing of it is like a letter."""

    Article: Annotated[Text, Field(min_length=1)]
    number: int
    price: float = 1.5
    express: bool = False
    due: datetime.date | None = None
'''


def test_any_payload(start: Starter, tmp_path: Path) -> None:
    """The one class to change for messages of your own: all commands follow it."""
    app = shutil.copytree(FOLDER, tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    schemas = (app / "schemas.py").read_text()
    before, after = schemas.index("class Payload("), schemas.index("class MessageOut(")
    changed = f"{schemas[:before]}{PAYLOAD}\n\n{schemas[after:]}"
    (app / "schemas.py").write_text(
        changed.replace("from typing", "import datetime\nfrom typing", 1)
    )
    api = Served(start, tmp_path, "--max-attempts=1", "--backoff=0", chapter=str(app))
    head = ("NUMBER", "article", "due", "Express")
    rows = [(7, "a\nchair", "", True), (8, "table", datetime.date(2026, 12, 24), "")]
    path = str(book(tmp_path / "orders.xlsx", rows, head))
    inserted = api.ended("insert.py", path)
    assert inserted.stdout[:2] == [" [x] Sent a chair: 7", " [x] Sent table: 8"]
    assert api.ended("upload.py", path).stdout[0] == " [x] orders.xlsx: 2 rows"
    batch = api.ended("batch_worker.py", "--count=2")
    assert sorted(batch.stdout[1:3]) == [" [x] Done a chair: 7", " [x] Done table: 8"]
    failing = api.ended("worker.py", "--flaky=1", "--until-empty")
    assert failing.stdout[1:3] == [
        " [!] Failed a chair: 7 (simulated failure), dead",
        " [!] Failed table: 8 (simulated failure), dead",
    ]
    wrong = str(book(tmp_path / "wrong.xlsx", [("x", "y")], head[:2]))
    single = requests.post(
        f"{api.url}v1/messages", data='{"Article": "x", "number": "2"}', timeout=9
    )
    assert (single.status_code, single.json()["faults"][0]["column"]) == (422, "body.number")
    refused = api.run("insert.py", wrong)
    assert refused.wait() == 1
    assert "row 2, column number: Input should be a valid integer" in refused.stderr[0]


@pytest.mark.parametrize(
    "name", ["half of it", "a password", "workbook of another case", "filtered"]
)
def test_insert_says_what_upload_says(start: Starter, tmp_path: Path, name: str) -> None:
    api = Served(start, tmp_path)
    path = tmp_path / "Odd.XLSX"
    expected = odd_sheets.write(name, path)
    inserted, uploaded = api.run("insert.py", str(path)), api.run("upload.py", str(path))
    good = isinstance(expected, odd_sheets.Taken)
    assert {inserted.wait(), uploaded.wait()} == {0 if good else 1}
    if good:
        assert inserted.stderr == []
        for warning in expected.warnings:
            assert warning in inserted.stdout[0]
            assert warning in uploaded.stdout[1]
    else:
        (line,) = inserted.stderr
        assert line == f"{path}: {uploaded.stdout[1].strip()}"
    assert subprocess_state(api)["ready"] == 2 * len(getattr(expected, "rows", ()))


def test_insert_without_a_file(start: Starter, tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none.xlsx", "No such file"), (tmp_path, "directory")):
        script = start(CHAPTER, "", "insert.py", str(path), url=NO_BROKER)
        assert_one_line(script, str(path), why)


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
    said(CHAPTER, r"at a (second) Ctrl-C it gives them back")
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


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("option", [SQLITE, POSTGRES, BROKER], indirect=True)
def test_made_up_requests_find_no_defect(start: Starter, tmp_path: Path, option: str) -> None:
    """schemathesis makes them up from the OpenAPI document: no 5xx."""
    api = Served(start, tmp_path, option, "--max-wait=0")
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
    assert {"aio-pika", "fastapi"} <= both
    assert {name: ours[name] for name in both} == {name: apps[name] for name in both}
