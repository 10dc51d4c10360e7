"""The promises of docs/backpressure-http.rst, each with a test that can break it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial

import httpx
import pytest
from broker import LOOPBACK, free_ports
from conftest import Starter, poll
from shells.chapters import figure
from shells.running import INTERRUPTED, Script
from test_backpressure import CHAPTER, FOLDER, Run


@pytest.fixture
def run(start: Starter) -> Run:
    return partial(start, CHAPTER, "")


# --- An endpoint that passes things on ---------------------------------------


class Apps:
    """The consumer service and an app before it, on ports of their own."""

    def __init__(self, run: Run) -> None:
        self.port, other = free_ports(2)
        own, consumer = (f"http://{LOOPBACK}:{port}" for port in (self.port, other))
        self.url = f"{own}/produce"
        self.own, self.consumer = own, consumer
        self.run = partial(run, url="amqp://unused/", PRODUCE_URL=own, CONSUMER_URL=consumer)

    def app(self, name: str) -> Script:
        return self.warm(self.run(name).wait_for("Waiting for lists"), self.own)

    def service(self, seconds: str = "0") -> Script:
        started = self.run("consumer_service.py", seconds).wait_for("Waiting for items")
        return self.warm(started, self.consumer)

    def warm(self, server: Script, url: str) -> Script:
        """On a busy machine the first request of all takes as long as they may."""
        assert httpx.get(f"{url}/docs", timeout=20).status_code == 200
        return server

    def ask(self, items: object, seconds: float = 20) -> httpx.Response:
        return httpx.post(self.url, json=items, timeout=seconds)

    def fates(self, items: list[str]) -> tuple[int, list[str]]:
        answer = self.ask(items)
        return answer.status_code, answer.json()

    def send(self, body: bytes | Iterator[bytes]) -> int:
        kind = {"Content-Type": "application/json"}
        return httpx.post(self.url, content=body, headers=kind, timeout=20).status_code

    def unfinished(self) -> socket.socket:
        """A request of which one byte is missing, which does not come."""
        opened = socket.create_connection((LOOPBACK, self.port))
        opened.sendall(b"POST /produce HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[")
        opened.settimeout(20)
        return opened


@pytest.fixture
def apps(run: Run) -> Apps:
    return Apps(run)


def test_the_naive_one_lies_and_hangs(apps: Apps) -> None:
    service, app = apps.service(), apps.app("produce_naive.py")
    assert apps.ask(["first", "oops"]).json() == {"status": "done"}  # and it isn't
    service.interrupt()
    with pytest.raises(httpx.ReadTimeout):
        apps.ask(["second"], 1.5)
    service = apps.service()
    with pytest.raises(httpx.ReadTimeout):  # somebody else's item
        apps.ask(["third"], 1.5)
    service.wait_for("Took 'third'")
    assert app.interrupt() == INTERRUPTED


def test_each_item_has_its_fate(apps: Apps) -> None:
    app = apps.app("produce.py")

    def told(status: int, *items: str) -> None:
        """What becomes of the items; on a busy machine, if need be, the next time."""
        kinds = {"oops": "refused", "lost": "failed"}
        wanted = [kinds.get(item, "delivered") for item in items]
        poll(lambda: apps.fates(list(items)), (status, wanted))

    told(502, "lost", "lost")
    service = apps.service()
    told(502, "a", "oops", "b")
    dozen = [str(number) for number in range(12)]
    told(200, *dozen)
    told(200)
    taken = {f" [x] Took {item!r}" for item in ["a", "b", *dozen]}
    poll(lambda: {line for line in service.stdout if "Took" in line}, taken)
    with ThreadPoolExecutor(2) as pool:  # and no request waits for another's items
        both = [pool.submit(told, 502, "oops", "oops"), pool.submit(told, 200, "c", "c")]
        for each in both:
            each.result()
    assert service.interrupt() == INTERRUPTED
    told(502, "lost")
    apps.service()
    told(200, "d")
    assert (app.interrupt(), app.stderr) == (INTERRUPTED, [])


def test_a_slow_service_gets_an_answer_in_time(apps: Apps) -> None:
    """0.1 s each makes 100 in 10 s; the app has 3 s, and this test's patience 20."""
    app, service = apps.app("produce.py"), apps.service("0.1")
    poll(lambda: apps.fates(["first"]), (200, ["delivered"]))
    status, fates = apps.fates([f"item {number}" for number in range(100)])
    assert status == 502
    assert set(fates) == {"delivered", "unknown", "not tried"}
    delivered, unknown = fates.count("delivered"), fates.count("unknown")
    assert 1 <= delivered <= 35
    assert unknown <= 8  # what the workers had in hand
    assert fates[delivered + unknown :] == ["not tried"] * (100 - delivered - unknown)
    # The workers have ended: nothing more comes but what they had in hand.
    for count in range(1, 6):
        assert apps.fates(["more"]) == (200, ["delivered"])
        service.wait_for("Took 'more'", count)
    took = sum("Took 'item" in line for line in service.stdout)
    assert delivered <= took <= delivered + unknown
    assert (app.interrupt(), app.stderr) == (INTERRUPTED, [])


def test_a_silent_service_gets_an_answer_too(apps: Apps) -> None:
    """2 s for each item, 3 s for all; four at a time."""
    app = apps.app("produce.py")
    apps.service("60")

    def unknown() -> int:
        status, fates = apps.fates(["a"] * 9)
        count = fates.count("unknown")
        assert (status, fates) == (502, ["unknown"] * count + ["not tried"] * (9 - count))
        return count

    poll(unknown, 8)  # on a busy machine the second four may come too late
    assert (app.interrupt(), app.stderr) == (INTERRUPTED, [])


def test_odd_json_is_passed_on_or_not(apps: Apps) -> None:
    """What JSON can say and this app cannot pass on keeps nothing from its fate."""
    app = apps.app("produce.py")
    apps.service()
    poll(lambda: apps.fates(["first"]), (200, ["delivered"]))
    for body, status in {
        b"": 422,
        b"{}": 422,
        b'"a"': 422,
        b"\xff": 400,
        b"[" * 100_000: 400,
        b"[1" + b"0" * 5000 + b"]": 400,
        b"[" * 500 + b"]" * 500: 200,
        b'["\\ud800", NaN, 1e999]': 502,
    }.items():
        assert apps.send(body) == status, body[:20]
    odd = httpx.post(
        apps.url,
        content=b'["\\ud800", "a", NaN, {"b": [null]}]',
        headers={"Content-Type": "application/json"},
    )
    assert odd.json() == ["failed", "delivered", "failed", "delivered"]
    assert (app.interrupt(), app.stderr) == (INTERRUPTED, [])


def test_no_list_that_is_too_long(apps: Apps) -> None:
    app = apps.app("take_bounded.py")

    def chunks(count: int) -> Iterator[bytes]:
        """A body whose length is not said before."""
        yield b"[" + b" " * (count - 2)
        yield b"]"

    for body, status in {
        b"[]": 200,
        b"[1, 2]": 200,
        b"[" + b" " * 999_998 + b"]": 200,
        b"[" + b" " * 999_999 + b"]": 413,
        b"": 400,
        b"{}": 400,
        b'"a"': 400,
        b"\xff": 400,
        b"[" * 100_000: 400,
        b"[1" + b"0" * 5000 + b"]": 400,
    }.items():
        assert apps.send(body) == status, (len(body), body[:20])
    assert apps.send(chunks(1_000_000)) == 200
    assert apps.send(chunks(1_000_001)) == 413
    assert apps.ask(["a", "b", "c"]).json() == 3
    with closing(apps.unfinished()) as slow:
        assert b" 408 " in slow.recv(100)
    assert (app.interrupt(), app.stderr) == (INTERRUPTED, [])


def test_no_more_requests_than_eight_at_a_time(apps: Apps) -> None:
    app = apps.app("take_bounded.py")

    def beside(others: int) -> int:
        """What a request is answered while so many others are at work."""
        with ExitStack() as stack:
            for _ in range(others):
                stack.enter_context(closing(apps.unfinished()))
            answer = apps.ask(["item"])
        if answer.status_code == 503:
            assert answer.headers["Retry-After"] == "1"
        return answer.status_code

    assert beside(7) == 200
    poll(lambda: beside(8), 503)  # again, if they took too long and were given up
    poll(lambda: beside(0), 200)  # and then there is room again
    poll(lambda: beside(7), 200)
    assert (app.interrupt(), app.stderr) == (INTERRUPTED, [])


def test_the_limits_that_the_page_names_are_the_scripts() -> None:
    for said, script, code in (
        (r"gives up after (\w+) seconds, so", "ask", "PATIENCE = {}.0"),
        (r"(\w+) seconds for a POST", "produce", "AsyncClient(timeout={})"),
        (r"for a POST, (\w+) for the request", "produce", "asyncio.timeout({})"),
        (r"list, (\w+) items are sent at a time", "produce", "range({})"),
        (r"body of more than (\d) MB", "take_bounded", "MAX_REQUESTS = {}_000_000,"),
        (r"With (\w+) requests at work", "take_bounded", "000, {}  # bytes"),
        (r"that takes more than (\w+) seconds", "take_bounded", "(request), timeout={})"),
    ):
        text = (FOLDER / f"{script}.py").read_text()
        assert code.format(figure("backpressure-http", said)) in text, said


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("produce.py", []),
        ("produce_naive.py", []),
        ("take_bounded.py", []),
        ("consumer_service.py", ["0"]),
    ],
)
def test_a_port_that_is_taken(apps: Apps, script: str, arguments: list[str]) -> None:
    first = apps.run(script, *arguments).wait_for("Waiting for ")
    second = apps.run(script, *arguments)
    assert second.wait() != 0
    assert second.stdout == []
    assert ["Address already in use" in line for line in second.stderr] == [True]
    assert first.interrupt() == INTERRUPTED


def test_ask_says_what_is_missing(apps: Apps) -> None:
    ended = apps.run("ask.py", "item")
    assert ended.wait() == 1
    assert [line.startswith("Failed at http://") for line in ended.stderr] == [True]
