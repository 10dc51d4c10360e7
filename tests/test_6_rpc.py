"""The promises of docs/6-rpc.rst, each with a test that can break it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aio_pika.patterns.rpc import RPCMessageType
from broker import Broker
from conftest import (
    Starter,
    altered,
    assert_one_line,
    close_connections,
    connected,
    poll,
    ready,
)
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker, NackError
from pika.spec import BasicProperties
from shells.chapters import EXAMPLES, figure, said
from shells.running import INTERRUPTED, Script

CHAPTER = "6-rpc"
QUORUM = {"x-queue-type": "quorum"}
SERVER, CLIENT, DIRECT = "rpc_server.py", "rpc_client.py", "rpc_client_direct.py"
WAITING = " [*] Waiting for requests. To exit press CTRL+C"
LARGEST = figure(CHAPTER, r"numbers up to (\d+) only")
REFUSED = f"fib takes a whole number from 0 to {LARGEST}"
PATIENCE = figure(CHAPTER, r"(?:within the|client waits) (\w+) seconds")
LATE = f" [!] No reply in {PATIENCE} s: start rpc_server.py"
# The reply's type, as the page has it: of a result, and of an error.
RESULT, ERROR = (
    said(CHAPTER, rf"; ours is {each}") for each in (r"``(\w+)`` or", r"``\w+`` or ``(\w+)``")
)

Start = Callable[..., Script]
Answer = tuple[str | None, str]  # the reply's type, and its text

both_clients = pytest.mark.parametrize("name", [CLIENT, DIRECT])


@pytest.fixture
def run(start: Starter) -> Start:
    return partial(start, CHAPTER)


def server(run: Start, client: str, **more: str) -> Script:
    """A server that is ready for requests."""
    return run(client, SERVER, **more).wait_for(WAITING)


def ended(script: Script) -> tuple[int, list[str], list[str]]:
    return script.wait(), script.stdout, script.stderr


def declare(channel: BlockingChannel) -> None:
    """The queue as the official tutorial declares it."""
    channel.queue_declare("rpc_queue", durable=True, arguments=QUORUM)


def request(channel: BlockingChannel, body: str | bytes, **properties: str | None) -> None:
    """Send a request with just these properties; without, it has none."""
    channel.basic_publish(
        exchange="",
        routing_key="rpc_queue",
        properties=BasicProperties(**properties),  # type: ignore[arg-type]
        body=body,
    )


class OfficialClient:
    """Asks as the official rpc_client.py does, and takes down what comes."""

    def __init__(self, channel: BlockingChannel) -> None:
        self.channel = channel
        declare(channel)
        self.queue = channel.queue_declare(queue="", exclusive=True).method.queue
        channel.basic_consume(
            queue=self.queue, on_message_callback=self.on_response, auto_ack=True
        )
        self.replies: dict[str | None, list[Answer]] = {}

    def on_response(self, _channel: object, _method: object, got: object, body: bytes) -> None:
        assert isinstance(got, BasicProperties)
        self.replies.setdefault(got.correlation_id, []).append((got.type, body.decode()))

    def ask(self, *bodies: str | bytes) -> None:
        """Send requests; the nth has the correlation id "n"."""
        for number, body in enumerate(bodies, 1):
            request(self.channel, body, reply_to=self.queue, correlation_id=str(number))

    def answers(self, count: int) -> list[Answer]:
        """Wait for a reply to each of `count` requests; return the first of each."""
        wanted = [str(number) for number in range(1, count + 1)]

        def answered() -> list[str]:
            self.channel.connection.process_data_events(0)  # type: ignore[attr-defined]
            return sorted(map(str, self.replies))

        poll(answered, sorted(wanted))
        found = [self.replies[number][0] for number in wanted]
        self.replies.clear()
        return found

    def call(self, *bodies: str | bytes) -> list[Answer]:
        self.ask(*bodies)
        return self.answers(len(bodies))


@pytest.fixture
def official(channel: BlockingChannel) -> OfficialClient:
    return OfficialClient(channel)


def take(channel: BlockingChannel) -> tuple[BasicProperties, bytes]:
    """Take a request as a server does, and ack it."""
    found: list[tuple[BasicProperties, bytes]] = []

    def there() -> bool:
        method, properties, body = channel.basic_get("rpc_queue", auto_ack=True)
        if method and properties and body is not None:
            found.append((properties, body))
        return bool(found)

    poll(there, True)
    return found[0]


def reply(channel: BlockingChannel, to: BasicProperties, text: str, **other: str | None) -> None:
    """Reply as the official rpc_server.py does, or with another correlation id."""
    number = other.get("correlation_id", to.correlation_id)
    assert to.reply_to
    channel.basic_publish(
        exchange="",
        routing_key=to.reply_to,
        properties=BasicProperties(correlation_id=number),
        body=text,
    )


# --- Question and answer ----------------------------------------------------


@both_clients
def test_every_client_asks_every_server(run: Start, client: str, other: str, name: str) -> None:
    asked = server(run, other)
    assert ended(run(client, name, "30")) == (
        0,
        [" [x] Requesting fib(30)", " [.] Got 832040"],
        [],
    )
    refused = ended(run(client, name, "ten"))
    assert refused == (1, [" [x] Requesting fib(ten)"], [f" [!] Error: {REFUSED}"])
    assert (asked.stdout, asked.stderr) == ([WAITING, " [.] fib(30)"], [])


@both_clients
def test_a_request_waits_for_the_server(run: Start, client: str, other: str, name: str) -> None:
    early = run(client, name, "7").wait_for("Requesting")
    server(run, other)
    assert ended(early)[1][1:] == [" [.] Got 13"]


def test_official_clients_and_our_server(
    run: Start, client: str, official: OfficialClient
) -> None:
    server(run, client)
    (_, text), (_, error) = official.call("30", "-1")
    assert int(text) == 832040
    # An error is no number, so an official client ends, and shows what it is.
    with pytest.raises(Exception, match=REFUSED) as shown:
        int(error)
    assert type(shown.value).__name__ == said(CHAPTER, r"ends with a ``(\w+)`` that shows")
    assert {RPCMessageType.RESULT.value, RPCMessageType.ERROR.value} == {RESULT, ERROR}


@both_clients
def test_our_client_and_official_servers(
    run: Start, client: str, channel: BlockingChannel, name: str
) -> None:
    declare(channel)  # must not clash with the client's own declaration
    asking = run(client, name, "30")
    properties, body = take(channel)
    assert (int(body), properties.expiration) == (30, f"{PATIENCE}000")
    unit = said(CHAPTER, rf"(?<![-\w]){client} counts ``expiration`` in (\w+)")
    given = {"milliseconds": "TIMEOUT * 1000", "seconds": " = TIMEOUT "}[unit]
    assert given in (EXAMPLES / CHAPTER / client / CLIENT).read_text()
    assert properties.correlation_id
    reply(channel, properties, "832040")
    assert ended(asking)[:2] == (0, [" [x] Requesting fib(30)", " [.] Got 832040"])


def test_requests_are_served_in_order_whoever_sends_them(
    run: Start, client: str, channel: BlockingChannel, official: OfficialClient
) -> None:
    """aio-pika's default priority would let the others' overtake, in 4.3."""
    first = run("aio-pika", CLIENT, "1").wait_for("Requesting")
    poll(lambda: ready(channel, "rpc_queue"), 1)
    official.ask("2")
    asked = server(run, client).wait_for("fib(2)")
    assert (asked.stdout[1:], first.wait()) == ([" [.] fib(1)", " [.] fib(2)"], 0)


# --- Nobody answers ---------------------------------------------------------


@both_clients
def test_no_server_and_a_request_that_is_never_computed(
    run: Start, client: str, url: str, channel: BlockingChannel, name: str, tmp_path: Path
) -> None:
    given = f"TIMEOUT = {PATIENCE} "
    copy = altered(CHAPTER, client, name, given, "TIMEOUT = 2 ", tmp_path)
    with closing(Script(copy, "9", url=url)) as alone:
        found = ended(alone)
        took = alone.times[0], time.monotonic()
    assert found == (1, [" [x] Requesting fib(9)"], [LATE.replace(str(PATIENCE), "2")])
    assert took[1] - took[0] > 1.5
    official = OfficialClient(channel)
    asked = server(run, client)
    assert official.call("8") == [(RESULT, "21")]
    assert asked.wait_for("fib(8)").stdout == [WAITING, " [.] fib(8)"]


@both_clients
def test_stray_and_duplicate_replies_are_ignored(
    run: Start, client: str, channel: BlockingChannel, name: str
) -> None:
    declare(channel)
    asking = run(client, name, "6")
    properties, _ = take(channel)
    reply(channel, properties, "stray", correlation_id="of another request")
    reply(channel, properties, "stray", correlation_id=None)
    for text in ("8", "duplicate", "duplicate"):
        with suppress(NackError):  # it may be through by then, and its queue gone
            reply(channel, properties, text)
    assert ended(asking) == (0, [" [x] Requesting fib(6)", " [.] Got 8"], [])


# --- Requests that are not as they should be --------------------------------


def test_a_request_that_cannot_be_answered_gets_an_error(
    run: Start, client: str, official: OfficialClient
) -> None:
    asked = server(run, client)
    bad = ["ten", "", "-1", str(LARGEST + 1), "1e3", "3.5", "9" * 1000, "9" * 5000, b"\xff\x00"]
    assert official.call(*bad, "0") == [(ERROR, REFUSED)] * len(bad) + [(RESULT, "0")]
    assert (asked.process.poll(), asked.stderr) == (None, [])


def test_the_largest_number_is_answered(
    client: str, url: str, official: OfficialClient, tmp_path: Path
) -> None:
    copy = altered(CHAPTER, client, SERVER, "n if n < 2 else", "n or", tmp_path)  # at once
    with closing(Script(copy, url=url)) as asked:
        asked.wait_for(WAITING)
        assert official.call(str(LARGEST)) == [(RESULT, str(LARGEST))]


@pytest.mark.parametrize("error", ["ValueError", "RuntimeError"])
def test_work_that_raises_leaves_the_request_in_the_queue(
    client: str, url: str, channel: BlockingChannel, tmp_path: Path, error: str
) -> None:
    """The reader's own work may raise anything: he sees his traceback."""
    failing = f"raise {error}('mine')  # n if n < 2"
    copy = altered(CHAPTER, client, SERVER, "return n if n < 2", failing, tmp_path)
    with closing(Script(copy, url=url)) as asked:
        asked.wait_for(WAITING)
        request(channel, "1")
        assert asked.wait() == 1
        told = "\n".join(asked.stderr)
        assert "Traceback" in told
        assert f"{error}: mine" in told
    poll(lambda: ready(channel, "rpc_queue"), 1)


def test_a_request_without_reply_to_or_correlation_id(
    run: Start, client: str, channel: BlockingChannel, official: OfficialClient
) -> None:
    asked = server(run, client)
    request(channel, "1")
    request(channel, "2", correlation_id="nobody's")
    request(channel, "ten")
    request(channel, "3", reply_to=official.queue)
    for number, name in enumerate(("", "no such queue"), 4):
        request(channel, str(number), reply_to=name, correlation_id="x")
    asked.wait_for("[.] fib(5)")

    def came() -> dict[str | None, list[Answer]]:
        official.channel.connection.process_data_events(0)  # type: ignore[attr-defined]
        return official.replies

    poll(came, {None: [(RESULT, "2")]})
    official.replies.clear()
    assert official.call("8") == [(RESULT, "21")]
    asked.wait_for("fib(8)")
    assert (asked.process.poll(), asked.stderr, len(asked.stdout)) == (None, [], 7)


@both_clients
def test_a_client_that_has_gone(
    run: Start, client: str, official: OfficialClient, name: str
) -> None:
    asked = server(run, client)
    gone = run(client, name, "33")
    asked.wait_for("fib(33)")
    gone.process.kill()
    gone.wait()
    assert official.call("8") == [(RESULT, "21")]
    assert (asked.process.poll(), asked.stderr) == (None, [])


# --- Several servers --------------------------------------------------------


def test_two_servers_share_and_a_busy_one_gets_no_more(
    run: Start, client: str, other: str, official: OfficialClient
) -> None:
    pair = [server(run, client), server(run, other)]
    official.ask("33", *"123456")
    assert official.answers(7)[1:] == [(RESULT, fib) for fib in "112358"]
    poll(lambda: sum(len(each.stdout) for each in pair), 9)
    quick, busy = sorted((each.stdout[1:] for each in pair), key=len, reverse=True)
    assert busy == [" [.] fib(33)"]
    assert quick == [f" [.] fib({number})" for number in "123456"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_server_that_ends_in_mid_request_loses_nothing(
    run: Start,
    client: str,
    other: str,
    channel: BlockingChannel,
    official: OfficialClient,
    how: signal.Signals,
) -> None:
    first = server(run, client)
    official.ask("33", "5")
    status = first.wait_for("fib(33)").signal(how)
    assert (status, first.stderr) == (-how, [])
    second = server(run, other)
    assert official.answers(2) == [(RESULT, "3524578"), (RESULT, "5")]
    second.wait_for("fib(5)")
    assert sorted(second.stdout[1:]) == [" [.] fib(33)", " [.] fib(5)"]
    # It gets the next when it has acked these, so none of them comes back.
    assert official.call("1") == [(RESULT, "1")]
    assert ready(channel, "rpc_queue") == 0


# --- Direct reply-to --------------------------------------------------------


@both_clients
def test_only_one_of_the_clients_needs_a_reply_queue(
    run: Start, client: str, broker: Broker, url: str, channel: BlockingChannel, name: str
) -> None:
    declare(channel)

    def queues() -> set[str]:
        return {each["name"] for each in broker.call_api("GET", f"queues/{vhost}")}

    vhost = url.rpartition("/")[2]
    asking = run(client, name, "6")
    properties, _ = take(channel)
    assert properties.reply_to
    if name == DIRECT:
        assert properties.reply_to.startswith("amq.rabbitmq.reply-to.")
        assert queues() == {"rpc_queue"}
    else:
        assert properties.reply_to.startswith("amq.gen-")
        assert queues() == {"rpc_queue", properties.reply_to}
    reply(channel, properties, "8")
    assert asking.wait() == 0
    poll(queues, {"rpc_queue"})


def test_what_direct_reply_to_demands(channel: BlockingChannel, url: str) -> None:
    declare(channel)
    to = said(CHAPTER, r"subscribe to the name ``([^`]+)``")
    with connected(url) as other, pytest.raises(ChannelClosedByBroker, match="cannot acknowledge"):
        other.basic_consume(to, print)
    code = said(CHAPTER, r"broker refuses the request \(``(\w+)``\)")
    with connected(url) as other, pytest.raises(ChannelClosedByBroker) as refused:
        request(other, "1", reply_to=to, correlation_id="1")
    assert refused.value.reply_text.startswith(f"{code} - fast reply consumer")
    assert ready(channel, "rpc_queue") == 0


# --- Mistakes that the reader can fix -----------------------------------------


ALL = [(CLIENT, "1"), (DIRECT, "1"), (SERVER, None)]


def run_one(run: Start, client: str, name: str, number: str | None, url: str) -> Script:
    return run(client, name, *([number] if number else []), url=url)


def test_the_queue_deleted_under_a_busy_server(
    run: Start, client: str, channel: BlockingChannel
) -> None:
    victim = server(run, client)
    request(channel, "32")
    victim.wait_for("fib(32)")
    channel.queue_delete("rpc_queue")
    assert_one_line(victim, "Failed: the queue is gone")


@pytest.mark.parametrize(("name", "number"), ALL)
def test_the_connection_closed_while_it_waits(
    run: Start, client: str, broker: Broker, url: str, name: str, number: str | None
) -> None:
    victim = run_one(run, client, name, number, url)
    victim.wait_for("Requesting" if number else WAITING)
    close_connections(broker, url, "maintenance at noon")
    assert_one_line(victim, "Failed: ", "320", "CONNECTION_FORCED - maintenance at noon")


FORWARD = """
import socket, sys, threading

def pump(source, target):
    while data := source.recv(65536):
        target.sendall(data)

listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
client, _ = listening.accept()
broker = socket.create_connection(("localhost", int(sys.argv[1])))
threading.Thread(target=pump, args=(broker, client), daemon=True).start()
pump(client, broker)
"""


@both_clients
def test_a_broker_that_freezes_while_it_waits(
    run: Start, client: str, broker: Broker, url: str, name: str
) -> None:
    """It gives up when its time is over, and does not wait for a goodbye."""
    port = str(urlsplit(broker.url).port)
    with subprocess.Popen(
        [sys.executable, "-c", FORWARD, port], stdout=subprocess.PIPE, text=True
    ) as between:
        assert between.stdout
        there = between.stdout.readline().strip()
        asking = run(client, name, "1", url=url.replace(f":{port}/", f":{there}/"))
        asking.wait_for("Requesting")
        between.send_signal(signal.SIGSTOP)
        # Three times what it is given, so as not to measure this machine.
        assert asking.wait(45) == 1
        assert (asking.stdout, asking.stderr) == ([" [x] Requesting fib(1)"], [LATE])
        between.kill()


def test_ctrl_c_ends_a_client_quietly(run: Start, client: str) -> None:
    for name in (CLIENT, DIRECT):
        alone = run(client, name, "1").wait_for("Requesting")
        assert (alone.interrupt(), len(alone.stdout), alone.stderr) == (INTERRUPTED, 1, [])
