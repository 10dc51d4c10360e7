"""What holds for every lesson: what its text is, and how it meets a reader's mistakes."""

from __future__ import annotations

import ast
import re
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Any

import broker as brokers
import pytest
from broker import Broker
from conftest import assert_one_line, close_connections, connected, poll, subscribers
from shells.chapters import (
    CLIENTS,
    DOCS,
    EXAMPLES,
    PRODUCTION,
    chapters,
    declarations,
    numbered,
    said,
)
from shells.running import INTERRUPTED, Script

# Most lines of a whole file, by how the path of a script begins: the first that fits.
LIMITS = {
    r"7-publisher-confirms/(aio-)?pika/publish_(individually|or_explain)": 42,
    r"7-publisher-confirms/pika/publish_(in_batches|asynchronously)": 80,
    r"[1-5]-": 40,
    r"[6-8]-|which-client/": 55,
    r"handling-models/": 80,
    r"backpressure/": 55,
    r"producer-consumer/job_controller": 180,
}
# The chapters that are lessons.
COMPANIONS = ("handling-models", "backpressure")
LESSONS = [each for each in (*chapters(), *COMPANIONS) if each not in PRODUCTION]


def lessons(chapter: str) -> list[Path]:
    """The scripts of a chapter that talk to the broker."""
    return [
        path
        for path in sorted((EXAMPLES / chapter).glob("**/*.py"))
        if "AMQP_URL" in path.read_text()
    ]


def name(script: Path) -> str:
    return str(script.relative_to(EXAMPLES))


ALL = [script for chapter in LESSONS for script in lessons(chapter)]
PAIRED = [script for script in ALL if script.parent.name in CLIENTS]

# --- What they are -------------------------------------------------------------

GUARD = """
    try:
        connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    except Exception as error:  # only its kind: its text may hold a password
        sys.exit(f"No connection: {type(error).__name__}. Try make doctor")
"""
# What the last lines catch; what they advise may name more than make doctor.
EPILOGUES = {
    "pika": r"""
    except AMQPError as error:
        sys\.exit\(f"Failed: {error!r}\. Try make doctor(, declare_queues\.py)?"\)
""",
    "aio_pika": r"""
    except \(aio_pika\.AMQPException, KeyError, TimeoutError, ValueError\) as why:
        (raise SystemExit|sys\.exit)\(f"Failed: {why!r}\..* make doctor.*"\)
""",
}
CONNECT = "\n    async with await aio_pika.connect(AMQP_URL, timeout=15) as connection:\n"
URL = 'AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/") or "no"\n'
SIGNAL = "    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it at once\n"


def imported(script: Path) -> set[str]:
    """The modules that it imports, by their first word."""
    found = set()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def client_of(script: Path) -> str:
    return "aio_pika" if "aio_pika" in imported(script) else "pika"


# Production scripts that end with their connection, too.
THEIRS = (DOCS / "production-retry.rst").read_text() + "/worker_logged.py\n/worker_measured.py\n"
ENDING = [x for x in lessons("production-worker") if f"/{x.name}\n" in THEIRS]
# A service does not end with its broker; what it does then is in its chapter's tests.
SERVICES = {script for script in ALL if "uvicorn" in script.read_text()}
# They learn of a lost connection by a callback.
BY_CALLBACK = [x for x in ALL if re.search("SelectConn|AsyncioConn", x.read_text())]
FRAMED = [x for x in (*ALL, *ENDING) if x not in (*SERVICES, *BY_CALLBACK)]


@pytest.mark.parametrize("script", [*ALL, *ENDING], ids=name)
def test_its_frame_is_that_of_all_others(script: Path) -> None:
    """How a script meets mistakes is said once, in the same words everywhere."""
    text = script.read_text()
    assert URL in text
    if script in SERVICES:
        return
    assert SIGNAL in text
    assert "KeyboardInterrupt" not in text
    if script in FRAMED:
        assert (GUARD if client_of(script) == "pika" else CONNECT) in text
        assert re.search(EPILOGUES[client_of(script)] + r"\Z", text)


@pytest.mark.parametrize("script", PAIRED, ids=name)
def test_it_needs_only_its_client(script: Path) -> None:
    """It can be copied out of here: standard library plus one client."""
    own = {"pika": "pika", "aio-pika": "aio_pika"}[script.parent.name]
    assert imported(script) <= {own, *sys.stdlib_module_names}


@pytest.mark.parametrize(
    "script", sorted({*ALL, *(EXAMPLES / "producer-consumer").glob("job_controller.py")}), ids=name
)
def test_it_is_short(script: Path) -> None:
    limit = next(most for begins, most in LIMITS.items() if re.match(begins, name(script)))
    assert len(script.read_text().splitlines()) <= limit


def test_the_tutorial_reads_in_a_minute_a_script() -> None:
    sizes = [
        len(script.read_text().splitlines())
        for chapter in numbered()
        for script in lessons(chapter)
    ]
    assert median(sizes) <= 40
    assert sum(sizes) <= 2305


def test_only_what_is_run_by_it_has_a_shebang() -> None:
    assert not [name(script) for script in ALL if script.read_text().startswith("#!")]


# --- Mistakes that the reader can mend ------------------------------------------


def usage(script: Path) -> list[str]:
    """The arguments with which its docstring says to run it."""
    docstring = ast.get_docstring(ast.parse(script.read_text())) or ""
    words = rf"python {script.name}(?P<arguments>( \S+)*)( {{2,}}.*)?$"
    found = re.search(words, docstring, re.MULTILINE)
    assert found, f"{script}: its docstring does not say how to run it"
    return shlex.split(found["arguments"])


WHERE = [
    (chapter, client)
    for chapter in LESSONS
    for client in (CLIENTS if chapter in chapters() else ("",))
]
every_folder = pytest.mark.parametrize(
    ("chapter", "client"), WHERE, ids=["-".join(filter(None, each)) for each in WHERE]
)


def assert_says(script: Script, *words: str) -> None:
    assert_one_line(script, "make doctor", *words)
    assert not re.search("s3|cret|cr[/#?]", script.stderr[0]), script


# All others have the same frame, word by word.
ONE_OF_EACH = [*(EXAMPLES / "2-work-queues" / x / "tasks_worker.py" for x in CLIENTS)]
one_of_each = pytest.mark.parametrize("script", [*ONE_OF_EACH, *BY_CALLBACK], ids=name)


@one_of_each
def test_no_broker(script: Path) -> None:
    (port,) = brokers.free_ports(1)
    url = f"amqp://guest:s3cret@localhost:{port}/"
    with closing(Script(script, *usage(script), url=url)) as ended:
        assert_says(ended)


@one_of_each
def test_wrong_password_and_wrong_vhost(script: Path, broker: Broker) -> None:
    where = broker.url.rpartition("@")[2]
    denied = r"Denied|InvalidFrame|ACCESS_REFUSED|ProbableAuth|NOT_ALLOWED"
    for url in (f"amqp://guest:s3cret@{where}", f"amqp://guest:guest@{where}no-such-vhost"):
        with closing(Script(script, *usage(script), url=url)) as ended:
            assert_says(ended)
            assert re.search(denied, ended.stderr[0]), ended


@one_of_each
def test_a_server_that_accepts_and_says_nothing(script: Path) -> None:
    """As `docker pause` leaves one; it is waited for for a quarter of a minute."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://guest:s3cret@127.0.0.1:{silent.getsockname()[1]}/"
        with closing(Script(script, *usage(script), url=url)) as ended:
            ended.wait()
            assert_says(ended)


MALFORMED = [
    "",
    "localhost",
    "localhost:5672",
    "amqp://localhost:port/",
    "amqp://localhost:99999/",
    "amqp://alice:s3cr/et@localhost/",
    "amqp://alice:s3cr#et@localhost/",
    "amqp://alice:s3cr?et@localhost/",
    "amqp://alice:s3cret",
    "amqp://[::1/",
    "ampq://guest:s3cret@localhost/",
]


@one_of_each
def test_a_url_that_is_none(script: Path) -> None:
    with ExitStack() as stack:
        for url in MALFORMED:
            run = Script(script, *usage(script), url=url)
            assert_says(stack.enter_context(closing(run)))


COUNTING = [
    path
    for chapter in LESSONS
    for path in sorted((EXAMPLES / chapter).glob("**/*.py"))
    if re.search(r"\b(int|float)\((sys\.argv\[|given)", path.read_text())
]
GUIDING = [script for script in ALL if "Usage: " in script.read_text()]


def guard(script: Path) -> str:
    """The line that decides what is wrong, or which number is none."""
    found = re.search(r"\n *(if .*:)\n *sys\.exit\(f?\"Usage: ", script.read_text())
    return found[1] if found else ""


# What is wrong is tried with the first script of those with the same guard.
FIRST = {guard(script): script for script in reversed([*GUIDING, *COUNTING])}


@pytest.mark.parametrize("script", GUIDING, ids=name)
def test_missing_arguments(script: Path) -> None:
    usage = f"Usage: python {script.name} "
    assert re.search(rf"sys\.exit\(f?\"{usage}", script.read_text())
    if FIRST[guard(script)] == script:
        # Where none is needed, "[N]", the first is a number.
        wrong = ["no number"] if f"{usage}[" in script.read_text() else []
        with closing(Script(script, *wrong, url="amqp://unused/")) as ended:
            assert_one_line(ended, usage)
            assert ended.stdout == []


@pytest.mark.parametrize("script", COUNTING, ids=name)
def test_a_number_that_is_none(script: Path) -> None:
    text = script.read_text()
    arguments = usage(script)
    place = next(n for n, each in enumerate(arguments) if re.fullmatch(r"[\d.]+", each))
    wrong = ["many"]
    says = re.search(rf"Usage: python {script.name}.*?(, (\d+) to (\d+))?\"", text)
    if FIRST[guard(script)] == script:
        wrong += ["--help"]
        if says:
            wrong += ["-1", "1e9", "²", "1.5.2"]
            if says[1]:
                wrong += [str(int(says[2]) - 1), str(int(says[3]) + 1)]
    with ExitStack() as stack:
        for each in wrong:
            given = [*arguments[:place], each, *arguments[place + 1 :]]
            ended = Script(script, *given, url="amqp://unused/")
            expected = f"Usage: python {script.name} " if says else f"10: '{each}'"
            assert_one_line(stack.enter_context(closing(ended)), expected)
            assert ended.stdout == []


# --- Output and Ctrl-C ------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
def test_what_cannot_be_printed_is_done_all_the_same(client: str, url: str) -> None:
    """Whatever the terminal's encoding: what is printed never decides what is done."""
    folder = EXAMPLES / "2-work-queues" / client
    task, printed = "Grüße 🐰", r"'Gr\xfc\xdfe \U0001f430'"
    with closing(
        Script(folder / "new_task.py", task, url=url, PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    ) as sender:
        assert (sender.wait(), sender.stderr) == (0, [])
        assert sender.stdout == [f" [x] Sent {printed}"]
    with closing(Script(folder / "tasks_worker.py", url=url)) as worker:
        worker.wait_for(f"Received '{task}'").wait_for("Done")


@pytest.mark.parametrize("client", CLIENTS)
def test_ctrl_c_while_the_broker_stays_silent(client: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://guest:guest@127.0.0.1:{silent.getsockname()[1]}/"
        script = EXAMPLES / "1-hello-world" / client / "send.py"
        with closing(Script(script, url=url)) as waiting:
            connected, _ = silent.accept()
            with connected:
                assert connected.recv(8)  # it has greeted, and waits for an answer
                assert (waiting.interrupt(), waiting.stderr) == (INTERRUPTED, [])


# --- While it waits ---------------------------------------------------------------

WAITING = re.compile(r'print\(" \[\*\] Waiting for \w+\. To exit press CTRL\+C"\)')


def consumers(chapter: str, client: str) -> list[Path]:
    """The scripts of a folder that wait for messages of a queue that they declare."""
    texts = {x: x.read_text() for x in lessons(chapter) if x.parent == EXAMPLES / chapter / client}
    return [x for x, text in texts.items() if WAITING.search(text) and "declare" in text]


CONSUMING = [each for each in WHERE if consumers(*each)]
every_consumer = pytest.mark.parametrize(("chapter", "client"), CONSUMING)


@pytest.fixture
def waiting(chapter: str, client: str, broker: Broker, url: str) -> Iterator[list[Script]]:
    """All of them, subscribed."""
    with ExitStack() as stack:
        started = [
            stack.enter_context(closing(Script(script, *usage(script), url=url)))
            for script in consumers(chapter, client)
        ]
        for script in started:
            script.wait_for("Waiting")
        shared = [each["name"] for each in queues(broker, url) if not each["exclusive"]]
        with connected(url) as channel:
            if shared and chapter != "8-streams":  # a stream does not count them
                poll(lambda: sum(subscribers(channel, name) for name in shared), len(started))
        yield started


def queues(broker: Broker, url: str) -> list[dict[str, Any]]:
    return broker.call_api("GET", f"queues/{url.rpartition('/')[2]}")


@every_consumer
def test_ctrl_c_ends_it_quietly(waiting: list[Script]) -> None:
    for script in waiting:
        assert (script.interrupt(), len(script.stdout), script.stderr) == (INTERRUPTED, 1, [])


@every_consumer
def test_the_connection_closed_under_it(waiting: list[Script], broker: Broker, url: str) -> None:
    """The reason is what an operator typed, and the script tells it."""
    close_connections(broker, url, "maintenance at noon", len(waiting))
    for script in waiting:
        assert_one_line(script, "Failed: ", "320", "CONNECTION_FORCED - maintenance at noon")


@pytest.mark.parametrize(
    ("chapter", "client"), [each for each in CONSUMING if each[0] != "8-streams"]
)
def test_the_queue_deleted_under_it(waiting: list[Script], broker: Broker, url: str) -> None:
    for queue in queues(broker, url):
        if queue["exclusive"]:  # nobody else may, but who runs the broker can
            broker.ctl("delete_queue", "--quiet", "-p", url.rpartition("/")[2], queue["name"])
        else:
            with connected(url) as channel:
                channel.queue_delete(queue["name"])
    for script in waiting:
        assert_one_line(script, "Failed: ", "the queue is gone")


# By chapter: where its page has what a script is told then.
TAKEN = {
    "1-hello-world": r"as anything else, the broker answers ``(\w+)``",
    "3-publish-subscribe": r"other tutorials leave behind: ``(\w+)``",
    "8-streams": r"another one is refused with ``(\w+)``",
}


@every_folder
def test_a_name_that_is_taken(chapter: str, client: str, url: str) -> None:
    """By a queue of other arguments, or an exchange of another type."""
    folder = EXAMPLES / chapter / client
    its = [each for each in declarations() if each.script.parent == folder]
    code = said(chapter, TAKEN[chapter]) if chapter in TAKEN else "PRECONDITION_FAILED"
    with connected(url) as channel:
        for each in its:
            if each.kind == "exchange":
                channel.exchange_declare(each.name, "headers")
            else:
                channel.queue_declare(each.name, durable=True, arguments={"x-max-length": 9})
    # One of each kind, for the last lines are those of all others; and who has no such lines.
    tried = {each.kind: each.script for each in its if each.script not in SERVICES}
    for path in {*tried.values(), *({each.script for each in its} & {*BY_CALLBACK})}:
        with closing(Script(path, *usage(path), url=url)) as script:
            assert_one_line(script, "Failed: ", code, "make doctor")
            assert not client or script.stdout == []
