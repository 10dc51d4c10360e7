"""docs/what-happens.rst: every cell of its tables, tried again and compared."""

from __future__ import annotations

import json
from contextlib import closing

import broker as brokers
import fates
import pika
import pytest
import record_what_happens as pages
from broker import Broker
from fates import Fate
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker
from shells.chapters import figure, said, version
from test_errors import assert_quoted


@pytest.mark.parametrize(("name", "client"), fates.cases(""))
def test_an_ending(broker: Broker, name: str, client: str) -> None:
    expected = fates.recorded(broker.version)[name, client]
    assert fates.experience(broker, name, client, expected) == expected


def compare(found: dict[tuple[str, str], Fate], version: str) -> None:
    expected = fates.recorded(version)
    assert found == {case: expected[case] for case in found}
    assert found


def test_endings_by_restart(restartable: brokers.OwnedBroker) -> None:
    """All at once: one restart for all that need it."""
    expected = fates.recorded(restartable.version)
    compare(fates.with_restart(restartable, expected), restartable.version)


def test_endings_by_ack_timeout(restartable: brokers.OwnedBroker) -> None:
    """And what the page of errors quotes of it."""
    expected = fates.recorded(restartable.version)
    with fates.short_timeout(restartable), restartable.vhost() as url:
        compare(fates.with_timeout(restartable, expected), restartable.version)
        with closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
            channel = connection.channel()
            channel.queue_declare("tasks", durable=True, arguments=fates.QUORUM)
            channel.basic_publish("", "tasks", b"task")
            channel.basic_consume("tasks", lambda *_: None)
            if fates.number(restartable.version) >= (4, 3):
                channel.start_consuming()  # returns: cancelled, without a message
            else:
                with pytest.raises(ChannelClosedByBroker) as caught:
                    channel.start_consuming()
                assert_quoted("timeout", caught.value)


def test_transient_queues_can_be_forbidden(restartable: brokers.OwnedBroker) -> None:
    """As the page of errors has it; Debian allows them by default, even in 4.3.

    It stays so on this broker, where no other test has use for them.
    """
    refused: list[object] = []

    def declare(**more: object) -> None:
        try:
            with pika.BlockingConnection(pika.URLParameters(restartable.url)) as connection:
                connection.channel().queue_declare("tasks", **more)  # type: ignore[arg-type]
                connection.channel().queue_delete("tasks")
        except ConnectionClosedByBroker as error:
            refused.append(error)

    declare()
    if fates.number(restartable.version) < (4, 3):
        assert not refused
        return  # 3.10 has no such setting, and 4.0 doesn't start with it
    allowed = restartable.ctl(
        "eval", "rabbit_deprecated_features:is_permitted(transient_nonexcl_queues)."
    )
    assert ("true" in allowed) != bool(refused)
    # What is denied by default says so, here of another feature, where Debian allows this one.
    declare(durable=True, arguments={"x-queue-master-locator": "random"})
    setting = "#{transient_nonexcl_queues => false}"
    restartable.ctl("eval", f"application:set_env(rabbit, permit_deprecated_features, {setting}).")
    restartable.ctl("stop_app")
    restartable.ctl("start_app")
    restartable.wait_for_api()
    declare()
    assert_quoted("transient", *refused)


def test_what_counts_toward_the_delivery_limit() -> None:
    """The glossary says what the record has."""
    every = said("glossary", r"On (\d\.\d) every return counts")
    since = said("glossary", r"Since (\d\.\d) these count: a :term:`reject`, and a consumer whose")
    for name in ("crash", "reject", "nack"):
        for client in ("pika", "aio-pika"):
            assert "dropped" in str(fates.recorded(every)[f"limit_{name}", client])
            counts = "dropped" in str(fates.recorded(since)[f"limit_{name}", client])
            assert counts == (name != "nack")
    most = figure("glossary", r"(\d+) times by default since RabbitMQ 4\.0")
    assert figure("production-worker", r"since RabbitMQ 4\.0 the (\d+)st ends") == most + 1


def test_versions_that_were_not_tried() -> None:
    """Of what is newer the pages only say what its release notes do."""
    versions = json.loads(fates.RECORD.read_text())["versions"].values()
    newest = max(version(each["rabbitmq"]) for each in versions)
    setting = version(said("errors", r"Since (\d\.\d\.\d), which is newer than what we tried"))
    assert setting > newest
    assert setting == version(said("what-happens", r"Since (\d\.\d\.\d) a setting of the broker"))


def test_every_ending_is_recorded_for_every_version() -> None:
    versions = json.loads(fates.RECORD.read_text())["versions"]
    assert list(versions) == ["3.10", "4.0", "4.3"]
    wanted = {(name, client) for name, e in fates.ENDINGS.items() for client in e.clients}
    for each in versions:
        assert set(fates.recorded(each)) == wanted


def test_a_version_between_two_is_held_against_the_older() -> None:
    assert fates.recorded("4.2.1") == fates.recorded("4.0")
    assert fates.recorded("4.10.0") == fates.recorded("4.3")
    assert fates.recorded("3.10.8") != fates.recorded("4.0.5") != fates.recorded("4.3.6")


def test_the_tables_are_those_of_the_record() -> None:
    page = pages.PAGE.read_text()
    assert pages.rendered(page) == page, "record_what_happens.py --render"
