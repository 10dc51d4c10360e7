"""The promises of docs/production-secure.rst, each with a test that can break it."""

from __future__ import annotations

import ast
import datetime as dt
import re
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import broker as brokers
import pika
import pytest
import trustme
from broker import Broker
from conftest import Starter, assert_one_line, poll, ready, subscribed
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import ChannelClosedByBroker
from shells.chapters import EXAMPLES, figure, page, said, version
from shells.proxy import Proxy
from shells.running import INTERRUPTED, Script
from test_scripts import MALFORMED, imported

CHAPTER, PAGE = "production-worker", "production-secure"
WORKER, PUBLISHER, DECLARE = "worker_secure.py", "publisher_secure.py", "declare_orders.py"
NAMES = (WORKER, PUBLISHER, DECLARE)
ARGUMENTS = {PUBLISHER: ["A task."]}
WAITING = " [*] Waiting for messages. To exit press CTRL+C"
TEXT = page(PAGE).read_text(encoding="utf-8")
every_script = pytest.mark.parametrize("name", NAMES)


@dataclass
class Site:
    """URLs over TLS of a virtual host, for those whom the page makes."""

    guest: str
    worker: str
    publisher: str
    ca_file: str


@pytest.fixture
def site(broker: Broker, url: str) -> Iterator[Site]:
    """The page's users with the page's rights, under names that nobody else has."""
    if not broker.tls_url:
        pytest.skip("whether the broker that AMQP_URL names has TLS is not known")
    guest = broker.over_tls(url)
    vhost = url.rpartition("/")[2]
    urls = {"guest": guest}
    rights = re.findall(r"set_permissions --quiet (\w+) '(\S+)' '(\S+)' '(\S+)'", TEXT)
    for user, configure, write, read in rights:
        name = f"{user}-{vhost[-12:]}"
        broker.call_api("PUT", f"users/{name}", {"password": "s3cret", "tags": ""})
        given = {"configure": configure, "write": write, "read": read}
        broker.call_api("PUT", f"permissions/{vhost}/{name}", given)
        urls[user] = guest.replace("guest:guest", f"{name}:s3cret")
    yield Site(**urls, ca_file=broker.ca_file)
    for user, *_ in rights:
        broker.call_api("DELETE", f"users/{user}-{vhost[-12:]}")


Run = Callable[..., Script]


@pytest.fixture
def run(start: Starter, site: Site) -> Run:
    """Start a script over TLS, as guest unless told otherwise."""

    def run(client: str, name: str, *arguments: str, **more: str) -> Script:
        more = {"url": site.guest, "CA_FILE": site.ca_file, **more}
        return start(CHAPTER, client, name, *(arguments or ARGUMENTS.get(name, [])), **more)

    return run


@pytest.fixture
def orders(channel: BlockingChannel) -> BlockingChannel:
    """A channel of guest's to a virtual host that has what declare_orders.py makes."""
    channel.exchange_declare("orders", "direct", durable=True)
    channel.queue_declare("orders", durable=True, arguments={"x-queue-type": "quorum"})
    channel.queue_bind("orders", "orders", "task")
    return channel


@contextmanager
def limited(url: str, ca_file: str) -> Iterator[BlockingChannel]:
    """A channel over TLS, for what the user of the URL may do."""
    parameters = pika.URLParameters(url)
    context = ssl.create_default_context(cafile=ca_file)
    parameters.ssl_options = pika.SSLOptions(context, "localhost")
    with pika.BlockingConnection(parameters) as connection:
        yield connection.channel()


# --- What they may do -------------------------------------------------------------


def test_a_task_goes_through_with_few_rights(
    run: Run, site: Site, client: str, other: str
) -> None:
    """A publisher of one client, a worker of the other."""
    declare = run(client, DECLARE)
    assert (declare.wait(), declare.stdout, declare.stderr) == (0, [" [x] Declared orders"], [])
    worker = run(other, WORKER, url=site.worker).wait_for("Waiting")
    ascii_only = {"PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    sender = run(client, PUBLISHER, "Grüße", "\udcff.", url=site.publisher, **ascii_only)
    assert (sender.wait(), sender.stderr) == (0, [])
    assert sender.stdout == [r" [x] Sent 'Gr\xfc\xdfe \udcff.'"]
    worker.wait_for("Done")
    assert worker.stdout == [WAITING, r" [x] Received 'Grüße \udcff.'", " [x] Done"]
    assert (worker.interrupt(), worker.stderr) == (INTERRUPTED, [])


def refused(url: str, ca_file: str, what: Callable[[BlockingChannel], object]) -> bool:
    with limited(url, ca_file) as channel:
        channel.confirm_delivery()
        with suppress(ChannelClosedByBroker):
            what(channel)
        return channel.is_closed


def test_neither_may_do_more(site: Site, orders: BlockingChannel) -> None:
    """By the table on the page, which has the rights that the users are given there."""
    table = dict(re.findall(r"\* - (\w+)\n +- .*\n +- ``(.*)``\n +- ``.*``", TEXT))
    rows = re.findall(r"\* - (configure|write|read)\n +- .*\n +- ``(.*)``\n +- ``(.*)``", TEXT)
    given = dict(re.findall(r"set_permissions --quiet (\w+) (.+)", TEXT))
    for number, user in enumerate(("worker", "publisher"), 1):
        assert " ".join(f"'{row[number]}'" for row in rows) == given[user]
    assert list(table) == ["configure", "write", "read"]
    quorum = {"x-queue-type": "quorum"}
    may_not = {
        "declare": lambda ch: ch.queue_declare("orders", durable=True, arguments=quorum),
        "delete": lambda ch: ch.queue_delete("orders"),
        "exchange": lambda ch: ch.exchange_declare("orders", "direct", durable=True),
        "bind": lambda ch: ch.queue_bind("orders", "orders", "more"),
        "default": lambda ch: ch.basic_publish("", "orders", b"", mandatory=True),
    }
    for name, what in may_not.items():
        for user in (site.worker, site.publisher):
            assert refused(user, site.ca_file, what), (name, user)
    orders.queue_declare("others", durable=True, arguments=quorum)
    write = lambda ch: ch.basic_publish("orders", "task", b"")  # noqa: E731
    assert refused(site.worker, site.ca_file, write)
    assert not refused(site.publisher, site.ca_file, write)
    for queue, users in {"orders": [site.worker], "others": []}.items():
        for user in (site.worker, site.publisher):
            get = lambda ch, queue=queue: ch.basic_get(queue)  # noqa: E731
            assert refused(user, site.ca_file, get) == (user not in users)


def test_who_may_ask_whether_a_queue_is_there(
    broker: Broker, url: str, site: Site, orders: BlockingChannel
) -> None:
    user = site.worker.partition("//")[2].partition(":")[0]
    since = said(PAGE, r"RabbitMQ ([\d.]+) answers whoever has one of the three rights")
    before = said(PAGE, r"one of the three rights to that queue, (.+) answer everybody")
    is_new = version(broker.version) >= version(since)
    assert is_new or broker.version.startswith(tuple(re.findall(r"[\d.]+", before)))
    rights = ("configure", "write", "read")
    for right in (*rights, "none"):
        given = {each: "^orders$" if each == right else "^$" for each in rights}
        broker.call_api("PUT", f"permissions/{url.rpartition('/')[2]}/{user}", given)
        asked = refused(
            site.worker, site.ca_file, lambda x: x.queue_declare("orders", passive=True)
        )
        assert asked == (is_new and right == "none"), right


def test_the_default_exchange_reaches_every_queue(
    broker: Broker, url: str, site: Site, orders: BlockingChannel
) -> None:
    name = said(PAGE, r"right to write to it \(``(.+)``\)")
    given = {"configure": "^$", "write": f"^{re.escape(name)}$", "read": "^$"}
    user = site.publisher.partition("//")[2].partition(":")[0]
    broker.call_api("PUT", f"permissions/{url.rpartition('/')[2]}/{user}", given)
    with limited(site.publisher, site.ca_file) as channel:
        channel.confirm_delivery()
        channel.basic_publish("", "orders", b"a task", mandatory=True)
    poll(lambda: ready(orders, "orders"), 1)


@pytest.mark.parametrize(
    ("name", "who"), [(PUBLISHER, "worker"), (WORKER, "publisher"), (DECLARE, "worker")]
)
def test_no_right_is_one_line(
    run: Run, site: Site, client: str, orders: BlockingChannel, name: str, who: str
) -> None:
    script = run(client, name, url=getattr(site, who))
    assert_one_line(script, *line("No right to do it"))
    assert script.stdout == [WAITING][: name == WORKER]


def test_a_user_that_is_deleted_is_out_at_once(
    run: Run, site: Site, client: str, broker: Broker, url: str, orders: BlockingChannel
) -> None:
    worker = run(client, WORKER, url=site.worker).wait_for("Waiting")
    subscribed(orders, "orders")
    user = site.worker.partition("//")[2].partition(":")[0]
    broker.call_api("DELETE", f"users/{user}")
    assert_one_line(worker, "Failed: ", "320", "CONNECTION_FORCED", f"user '{user}' is deleted")
    broker.call_api("PUT", f"users/{user}", {"password": "s3cret", "tags": ""})


# --- What is refused --------------------------------------------------------------


def line(mishap: str) -> list[str]:
    """The pieces of what the page's table has a script say then."""
    found = re.search(rf"\* - {re.escape(mishap)}\n +- ``(.+)``", TEXT)
    assert found, mishap
    return [piece for piece in found[1].split("…") if piece]


def test_all_connect_alike(client: str) -> None:
    """So it is enough to try what goes wrong with one of them."""

    def functions(name: str) -> list[str]:
        tree = ast.parse((EXAMPLES / CHAPTER / client / name).read_text())
        nodes = [x for x in tree.body if getattr(x, "name", "") in ("trusted", "connect")]
        return [ast.unparse(x) for x in nodes]

    assert len(functions(WORKER)) == 2
    assert functions(WORKER) == functions(PUBLISHER) == functions(DECLARE)


@pytest.mark.parametrize(
    ("mishap", "ca_file"),
    [
        ("``CA_FILE`` names no file", "no-such-file.pem"),
        ("The file can't be read", "/proc/self/mem"),  # not even by root
        ("The file holds no certificate", __file__),
        ("The authority is not ours", ""),
    ],
)
@every_script
def test_a_file_that_is_none(run: Run, client: str, name: str, mishap: str, ca_file: str) -> None:
    script = run(client, name, CA_FILE=ca_file)
    assert_one_line(script, *(piece.strip() for piece in line(mishap)), ca_file)
    assert script.stdout == []


def test_an_authority_that_is_not_the_broker_s(run: Run, client: str, tmp_path: Path) -> None:
    other = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    assert_one_line(run(client, WORKER, CA_FILE=str(other)), "Not our broker: ")
    unreadable = tmp_path
    assert_one_line(run(client, WORKER, CA_FILE=str(unreadable)), "CA_FILE=", "directory")


def test_a_name_that_the_certificate_does_not_have(run: Run, site: Site, client: str) -> None:
    script = run(client, WORKER, url=site.worker.replace("localhost", "127.0.0.1"))
    assert_one_line(script, "Not our broker: ", "not valid for '127.0.0.1'")


@contextmanager
def impostor(
    tmp_path: Path, host: str, expires: dt.datetime | None = None
) -> Iterator[tuple[str, str, list[bytes]]]:
    """A TLS server with a certificate for that host: URL, authority, what it was told."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    born = expires and expires - dt.timedelta(days=1)
    authority.issue_cert(host, not_after=expires, not_before=born).configure_cert(context)
    told: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listening.accept()
                with client, suppress(OSError), context.wrap_socket(client, True) as wrapped:
                    told.append(wrapped.recv(8))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = listening.getsockname()[1]
        yield f"amqps://guest:s3cret@localhost:{port}/", str(tmp_path / "ca.pem"), told
        listening.shutdown(socket.SHUT_RDWR)
    thread.join()


PAST = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)


@pytest.mark.parametrize(
    ("mishap", "host", "expires"),
    [
        ("The certificate is too old", "localhost", PAST),
        ("The certificate is for another host", "elsewhere.example", None),
    ],
)
def test_a_broker_that_is_not_ours_gets_no_password(
    run: Run, client: str, tmp_path: Path, mishap: str, host: str, expires: dt.datetime | None
) -> None:
    with impostor(tmp_path, host, expires) as (url, ca_file, told):
        assert_one_line(run(client, WORKER, url=url, CA_FILE=ca_file), *line(mishap))
    assert not any(told)


def test_with_the_right_certificate_the_impostor_is_talked_to(
    run: Run, client: str, tmp_path: Path
) -> None:
    """So that the tests above fail for their reason alone."""
    with impostor(tmp_path, "localhost") as (url, ca_file, told):
        script = run(client, WORKER, url=url, CA_FILE=ca_file)
        assert_one_line(script, "Failed: ")
    assert told[0] == b"AMQP\0\0\x09\x01"


def test_nothing_in_the_url_switches_it_off(run: Run, site: Site, client: str) -> None:
    word = said(PAGE, r"``CERT_NONE``, ``(\w+=1)``")
    for more in (word, f"{word}&verify=ignore", quote("ssl_options={'cert_reqs':0}", "=")):
        script = run(client, WORKER, url=f"{site.worker}?{more}", CA_FILE="")
        assert script.wait() == 1
        assert re.match("Not our broker|AMQP_URL wants", script.stderr[0]), script
        assert_one_line(script)


def test_both_clients_verify_by_themselves(start: Starter, site: Site, client: str) -> None:
    """What the scripts of other chapters do with a URL over TLS."""
    script = start("1-hello-world", client, "send.py", url=site.guest)
    assert_one_line(script, "CertVerification" if client == "pika" else "CERTIFICATE_VERIFY")
    name = said(PAGE, r"``(\w+)=\$CA_FILE python send.py``")
    told = start("1-hello-world", client, "send.py", url=site.guest, **{name: site.ca_file})
    assert (told.wait(), told.stderr) == (0, [])


def test_tls_on_the_plain_port_and_none_on_that_of_tls(
    run: Run, site: Site, client: str, url: str, start: Starter
) -> None:
    script = run(client, WORKER, url=url.replace("amqp:", "amqps:"))
    assert_one_line(script, *line("``amqps://`` on a port without TLS"))
    plain = start("1-hello-world", client, "send.py", url=site.guest.replace("amqps:", "amqp:"))
    assert_one_line(plain, "IncompatibleProtocol" if client == "pika" else "Server connection")


@every_script
def test_never_a_password_without_tls(run: Run, client: str, name: str) -> None:
    with Proxy("amqp://guest:s3cret@localhost/") as proxy:
        for url in (proxy.url, "", *MALFORMED):
            script = run(client, name, url=url)
            assert_one_line(script, *line("``amqp://``, or no URL at all"))
            assert not re.search("s3|cret", script.stderr[0])
    assert proxy.attempts == []
    port = re.search(r"host:(\d+)/", line("``amqp://``, or no URL at all")[0])
    assert port
    assert int(port[1]) == figure(PAGE, r"listens on port (\d+)")


def test_who_watches_the_network_reads_all_or_nothing(
    run: Run, site: Site, client: str, orders: BlockingChannel, start: Starter, url: str
) -> None:
    with Proxy(site.publisher) as proxy:
        over_tls = proxy.url.replace("amqp:", "amqps:")
        assert run(client, PUBLISHER, "a secret", url=over_tls).wait() == 0
        assert len(proxy.seen) > 1000
        assert not re.search(rb"s3cret|a secret|orders|PLAIN", bytes(proxy.seen))
    with Proxy(url) as proxy:
        assert start("1-hello-world", client, "send.py", url=proxy.url).wait() == 0
        assert re.search(rb"guest\0guest|guest.{5}guest", bytes(proxy.seen), re.DOTALL)
        assert b"Hello World!" in proxy.seen


@pytest.mark.parametrize("who", ["guest:s3cret", "nobody:s3cret"])
def test_a_wrong_user_or_password(run: Run, site: Site, client: str, who: str) -> None:
    script = run(client, WORKER, url=site.guest.replace("guest:guest", who))
    assert_one_line(script, *line("Wrong user, or password"))
    assert "s3cret" not in script.stderr[0]


def test_a_virtual_host_that_is_not_theirs(run: Run, site: Site, client: str) -> None:
    script = run(client, WORKER, url=site.worker.rpartition("/")[0] + "/")
    assert_one_line(script, "Failed: ", "NOT_ALLOWED" if client == "pika" else "OpenOk")


def test_no_such_queue(run: Run, site: Site, client: str, channel: BlockingChannel) -> None:
    worker = run(client, WORKER, url=site.worker)
    assert_one_line(worker, *line("No such queue"))
    assert_one_line(run(client, PUBLISHER, url=site.publisher), "NOT_FOUND", "exchange 'orders'")
    channel.exchange_declare("orders", "direct", durable=True)  # and nothing bound to it
    lost = run(client, PUBLISHER, url=site.publisher)
    assert_one_line(lost, "Failed: ", "Unroutable" if client == "pika" else "NO_ROUTE")
    assert worker.stdout == lost.stdout == []


@pytest.mark.long
def test_a_broker_that_is_silent_or_away(run: Run, client: str) -> None:
    (port,) = brokers.free_ports(1)
    with Proxy("amqp://guest:s3cret@localhost/", state="closed") as proxy:
        closed = run(client, WORKER, url=proxy.url.replace("amqp:", "amqps:"))
        assert_one_line(closed)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port_of = silent.getsockname()[1]
        waiting = run(client, WORKER, url=f"amqps://guest:s3cret@localhost:{port_of}/")
        away = run(client, WORKER, url=f"amqps://guest:s3cret@localhost:{port}/")
        assert_one_line(away, "Failed: ", "onnect")
        assert_one_line(waiting, "Failed: ", "Time")


# --- What holds for workers and scripts -----------------------------------------------


def test_a_killed_worker_loses_nothing(
    run: Run, site: Site, client: str, orders: BlockingChannel
) -> None:
    worker = run(client, WORKER, url=site.worker).wait_for("Waiting")
    orders.basic_publish("orders", "task", b"a long one" + b"." * 60)
    worker.wait_for("Received")
    assert worker.interrupt() == INTERRUPTED
    poll(lambda: ready(orders, "orders"), 1)
    killed = run(client, WORKER, url=site.worker).wait_for("Received")
    assert killed.signal(signal.SIGKILL) == -signal.SIGKILL
    poll(lambda: ready(orders, "orders"), 1)


def test_what_is_done_is_acked_and_one_is_in_hand(
    run: Run, site: Site, client: str, orders: BlockingChannel
) -> None:
    for task in (b"first", b"second" + b"." * 60, b"third"):
        orders.basic_publish("orders", "task", task)
    run(client, WORKER, url=site.worker).wait_for("Received 'second")
    poll(lambda: ready(orders, "orders"), 1)


def test_the_queue_deleted_under_it(
    run: Run, site: Site, client: str, orders: BlockingChannel
) -> None:
    worker = run(client, WORKER, url=site.worker).wait_for("Waiting")
    subscribed(orders, "orders")
    orders.queue_delete("orders")
    assert_one_line(worker, "Failed: the queue is gone")


def test_what_is_sent_outlives_the_broker(
    run: Run, site: Site, client: str, orders: BlockingChannel
) -> None:
    assert run(client, PUBLISHER, url=site.publisher).wait() == 0
    _, properties, body = orders.basic_get("orders", auto_ack=True)
    assert (properties and properties.delivery_mode, body) == (2, b"A task.")


def test_a_full_queue_refuses_and_the_sender_says_so(
    run: Run, site: Site, client: str, channel: BlockingChannel
) -> None:
    channel.exchange_declare("orders", "direct", durable=True)
    full = {"x-max-length": 0, "x-overflow": "reject-publish"}
    channel.queue_declare("full", arguments=full, exclusive=True)
    channel.queue_bind("full", "orders", "task")
    sender = run(client, PUBLISHER, url=site.publisher)
    assert_one_line(sender, "Failed: ", "Nack")
    assert sender.stdout == []


@every_script
def test_it_can_be_copied_out(client: str, name: str) -> None:
    script = EXAMPLES / CHAPTER / client / name
    own = {"pika": "pika", "aio-pika": "aio_pika"}[client]
    assert imported(script) <= {own, *sys.stdlib_module_names}
    lines = script.read_text().splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 79


def test_no_task_is_a_usage(start: Starter, client: str) -> None:
    with closing(Script(EXAMPLES / CHAPTER / client / PUBLISHER, url="amqps://unused/")) as ended:
        assert_one_line(ended, "Usage: python publisher_secure.py TASK")
        assert ended.stdout == []
