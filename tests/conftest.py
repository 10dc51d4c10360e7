"""One throwaway broker for all tests, a virtual host for each."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import broker as brokers
import pika
import pytest
from broker import Broker, BrokerError
from broker.cluster import Cluster
from pika.adapters.blocking_connection import BlockingChannel
from shells.chapters import APPS, CLIENTS, EXAMPLES, PRODUCTION, declared_in, folder
from shells.running import PATIENCE, Script

HANDLE = "RABBITMQ_BY_EXAMPLE_BROKER"
TESTS = Path(__file__).parent
PARTS = ("tutorial", "production", "apps")
OWN = "a test's own"  # name of a connection
owned: Broker | None = None


def pytest_configure() -> None:
    """Let the scripts feel Ctrl-C even where the tests run as a job in the background.

    A shell starts such a job with SIGINT ignored, and children inherit that.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-transcripts",
        action="store_true",
        help="write what the shells print into the pages, instead of failing",
    )
    parser.addoption("--chapter", help="without what tests another one (sabotage)")
    parser.addoption(
        "--part",
        choices=PARTS,
        help="the tests of one part (make test, test-production, test-apps);"
        " without it all that need no browser and no other database",
    )


def part_of_chapter(chapter: str) -> str:
    return "apps" if chapter in APPS else "production" if chapter in PRODUCTION else "tutorial"


def part_of_file(path: Path) -> str:
    if path.stem == "test_pages":  # as they are in a browser
        return "apps"
    named = path.stem.removeprefix("test_").replace("_", "-")
    owners = (name for name in (*APPS, "production", *PRODUCTION) if named.startswith(name))
    return part_of_chapter({"production": "production-worker"}.get(it := next(owners, ""), it))


def part_of(item: pytest.Item) -> str:
    """By its file; a transcript by its page."""
    if item.path.stem != "test_transcripts":
        return part_of_file(item.path)
    return part_of_chapter(folder(item.callspec.params["scenario"].page))  # type: ignore[attr-defined]


def in_part(part: str, wanted: str | None) -> bool:
    return part == wanted if wanted else part != "apps"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import the tests of the part that is wanted.

    What an app's need is not in requirements.txt.
    """
    stem, part = collection_path.stem, config.getoption("--part")
    if not stem.startswith("test_") or stem == "test_transcripts":
        return None
    return None if in_part(part_of_file(collection_path), part) else True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Iterator[None]:
    part, chapter = config.getoption("--part"), config.getoption("--chapter")

    def wanted(item: pytest.Item) -> bool:
        its = getattr(item, "callspec", None)
        other = chapter and its and its.params.get("chapter", chapter) != chapter
        return in_part(part_of(item), part) and not other

    config.hook.pytest_deselected(items=[each for each in items if not wanted(each)])
    items[:] = filter(wanted, items)
    for item in items:
        names: list[str] = getattr(item, "fixturenames", [])
        if not {"broker", "option", "restartable"}.isdisjoint(names):
            item.add_marker(pytest.mark.broker)
        if "restartable" in names:
            # In one process, which has one more broker for them, unless they name another.
            if not item.get_closest_marker("xdist_group"):
                item.add_marker(pytest.mark.xdist_group("restartable"))
            item.add_marker(pytest.mark.long)
        if "cluster" in names:
            item.add_marker(pytest.mark.xdist_group("cluster"))
            item.add_marker(pytest.mark.long)
    yield  # pytest-randomly shuffles them, and pytest-xdist looks at the groups
    # The longest first, so that no process is left alone with one at the end.
    items.sort(key=lambda item: not item.get_closest_marker("long"))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the broker once it is known that a test needs it."""
    # `start` asks for it only when a script is started without a URL.
    needed = any(
        item.get_closest_marker("broker") or "start" in getattr(item, "fixturenames", [])
        for item in session.items
    )
    if needed and not session.config.option.collectonly:
        start_broker()


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """With pytest-xdist, start it before there are processes to share it."""
    option = session.config.option
    controls_workers = getattr(option, "numprocesses", None) and HANDLE not in os.environ
    if controls_workers and not option.collectonly:
        if option.part == "apps":
            install_companions()
        start_broker()


def install_companions() -> None:
    """Where it can be done: what the apps' tests need beside a broker."""
    from apps import postgres  # which wants what is in apps/requirements.txt

    wanted = [] if postgres.programs() or os.environ.get("POSTGRES_URL") else ["postgresql"]
    if not (shutil.which("chromedriver") or shutil.which("chromium.chromedriver")):
        wanted += ["chromium", "chromium-driver"]
    if wanted and brokers.can_install():
        try:
            brokers.install_from_debian(*wanted)
        except BrokerError as error:
            brokers.say(f"{error}\nThe tests that need it will fail, and say so.")


def start_broker() -> None:
    global owned
    if owned or HANDLE in os.environ:
        return
    try:
        owned = brokers.get(lean=True, tls=True)
        owned.call_api("GET", "overview")
    except BrokerError as error:
        pytest.exit(str(error), returncode=2)
    os.environ[HANDLE] = owned.to_json()


def pytest_report_header() -> str:
    if HANDLE not in os.environ:
        return "broker: none yet"
    it = Broker.from_json(os.environ[HANDLE])
    return f"broker: RabbitMQ {it.version}, {it.title}"


def pytest_unconfigure() -> None:
    if owned:
        owned.close()


@pytest.fixture(scope="session")
def broker() -> Broker:
    """The broker that all tests share. It is never restarted."""
    return Broker.from_json(os.environ[HANDLE])


@pytest.fixture
def url(broker: Broker) -> Iterator[str]:
    """The URL of a fresh virtual host."""
    with broker.vhost() as fresh:
        yield fresh


@pytest.fixture
def update(request: pytest.FixtureRequest) -> bool:
    """Whether a transcript is to be written anew."""
    return bool(request.config.getoption("--update-transcripts"))


@pytest.fixture(scope="session")
def restartable() -> Iterator[brokers.OwnedBroker]:
    """Another broker, for tests that stop and kill it; running between tests."""
    try:
        started = brokers.start()
    except BrokerError as error:
        pytest.fail(str(error))
    with started:
        yield started


@pytest.fixture(scope="session")
def three_nodes() -> Iterator[Cluster]:
    try:
        with Cluster() as started:
            yield started
    except BrokerError as error:
        pytest.fail(str(error))


@pytest.fixture
def cluster(three_nodes: Cluster) -> Iterator[Cluster]:
    """Three nodes, for tests that kill, freeze and part them; whole and empty between tests."""
    if three_nodes.version.startswith("3."):
        pytest.skip("after a freeze, nodes of RabbitMQ 3.10 may stay apart: not mended yet")
    yield three_nodes
    three_nodes.repair()
    api = three_nodes.node(1)
    for vhost in {each["name"] for each in api.call_api("GET", "vhosts")} - {"/"}:
        api.call_api("DELETE", f"vhosts/{vhost}")
    for queue in api.call_api("GET", "queues/%2F"):
        api.call_api("DELETE", f"queues/%2F/{queue['name']}")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Like pytest's own, but gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="rabbitmq-by-example-test-") as folder:
        yield Path(folder)


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    """Each client in turn."""
    return request.param


@pytest.fixture(params=CLIENTS)
def other(request: pytest.FixtureRequest) -> str:
    """Each client in turn, for the other side of the queue."""
    return request.param


class Starter(Protocol):
    def __call__(
        self, chapter: str, client: str, name: str, *arguments: str | bytes, **more: Any
    ) -> Script: ...


# With what is to be replaced by what, in a dict before its arguments.
Copy = Callable[..., Script]


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Iterator[Starter]:
    """Start an example script; on failure the report shows what all printed."""
    started: list[Script] = []

    def start(
        chapter: str, client: str, name: str, *arguments: str | bytes, **more: Any
    ) -> Script:
        url = more.pop("url", None) or request.getfixturevalue("url")
        path: Path = EXAMPLES / chapter / client / name
        started.append(Script(path, *arguments, url=url, **more))
        return started[-1]

    yield start
    for script in started:
        script.close()
        print(script)  # pytest shows it when the test failed


@pytest.fixture
def copy(start: Starter, tmp_path: Path) -> Copy:
    """Start a copy of a script, with changes: by what there must be, what replaces it."""

    def started(
        chapter: str, client: str, name: str, changes: dict[str, str], *arguments: str, **more: Any
    ) -> Script:
        text = (EXAMPLES / chapter / client / name).read_text()
        for old, new in changes.items():
            assert old in text
            text = text.replace(old, new)
        path = Path(tempfile.mkdtemp(dir=tmp_path)) / name
        path.write_text(text)
        return start("", "", str(path), *arguments, **more)

    return started


@contextmanager
def connected(url: str) -> Iterator[BlockingChannel]:
    """A channel for what a test does itself, with publisher confirms."""
    parameters = pika.URLParameters(url)
    parameters.client_properties = {"connection_name": OWN}
    with pika.BlockingConnection(parameters) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        yield channel


@pytest.fixture
def channel(url: str) -> Iterator[BlockingChannel]:
    with connected(url) as opened:
        yield opened


def declare_payments(channel: BlockingChannel) -> BlockingChannel:
    """The queues of docs/production-retry.rst."""
    for each in declared_in(EXAMPLES / "production-worker/pika/declare_queues.py"):
        channel.queue_declare(each.name, **each.arguments)
    return channel


@pytest.fixture
def payments(channel: BlockingChannel) -> BlockingChannel:
    """A channel to a virtual host that has them."""
    return declare_payments(channel)


def ready(channel: BlockingChannel, queue: str) -> int:
    """How many messages wait in the queue, not counting delivered ones."""
    return channel.queue_declare(queue, passive=True).method.message_count


def subscribers(channel: BlockingChannel, queue: str) -> int:
    """How many consumers the queue has."""
    return channel.queue_declare(queue, passive=True).method.consumer_count


def subscribed(channel: BlockingChannel, queue: str, count: int = 1) -> None:
    """Wait until a queue has so many consumers: they subscribe right after "Waiting"."""
    poll(lambda: subscribers(channel, queue), count)


def close_connections(broker: Broker, url: str, reason: str, count: int = 1) -> None:
    """Close the scripts' connections to a virtual host by force, as an operator does."""
    vhost = url.rpartition("/")[2]
    closed: set[str] = set()

    def close_all() -> int:
        # The API is some seconds behind. It lists connections that have gone, and may
        # say of those, too, that they are closed now (or 404); such are the test's own.
        # And it may forget for a moment one that it has just listed.
        listed = broker.call_api("GET", f"vhosts/{vhost}/connections")
        found = {each["name"] for each in listed if each.get("user_provided_name") != OWN}
        if len(found | closed) == count:
            for name in found - closed:
                try:
                    broker.call_api("DELETE", f"connections/{name}", headers={"X-Reason": reason})
                except BrokerError as error:
                    if "404" not in str(error):
                        raise
                else:
                    closed.add(name)
        return len(closed)

    poll(close_all, count)


def poll(measure: Callable[[], Any], wanted: Any, seconds: float = PATIENCE) -> None:
    """Wait until `measure()` gives what is wanted; fail with what it gave."""
    deadline, pause = time.monotonic() + seconds, 0.03
    while (found := measure()) != wanted:
        if time.monotonic() > deadline:
            raise AssertionError(f"still {found!r}, not {wanted!r}, after {seconds} s")
        time.sleep(pause)
        pause = min(1.3 * pause, 0.2)


def assert_one_line(script: Script, *words: str, status: int = 1) -> None:
    """A script ended, and said why in one line without a password."""
    assert script.wait() == status, script
    assert len(script.stderr) == 1, script
    for word in words:
        assert word in script.stderr[0], script
    assert "guest:" not in script.stderr[0], script


def too_long(most: int, characters: int) -> dict[str, bool]:
    """Keys of more bytes than may be; and which have no more than so many characters."""
    return {"x" * (most - 1) + "ü": True, "ü" * characters: True, "ü" * (characters + 1): False}


def altered(chapter: str, client: str, name: str, old: str, new: str, folder: Path) -> Path:
    """A copy of a script with a change that the page speaks of."""
    source = (EXAMPLES / chapter / client / name).read_text()
    assert old in source
    copy = folder / name
    copy.write_text(source.replace(old, new))
    return copy
