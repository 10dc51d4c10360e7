"""Every console transcript on every page: once per client, a companion's once.

But for the last ones of the numbered chapters, "Putting it all together", which
test_all_chapters.py plays on one virtual host.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

import pytest
from broker import LOOPBACK, Broker, BrokerError, free_ports
from broker.cluster import Cluster
from shells.chapters import (
    EXAMPLES,
    chapters,
    clients,
    companions,
    folder,
    numbered,
    pages,
    reader_environment,
)
from shells.player import FINAL, Player, Scenario, scenarios, write_rabbitmqctl

ALL = [
    scenario
    for chapter in (*chapters(), *companions())
    for client in clients(chapter)
    for path in pages(chapter)
    for scenario in scenarios(path, client)
    if not (scenario.title == FINAL and chapter in numbered())
]


def parametrize(found: list[Scenario]) -> pytest.MarkDecorator:
    names = ["-".join(filter(None, (s.page.stem, s.client, *s.title.split()))) for s in found]
    return pytest.mark.parametrize("scenario", found, ids=names)


def play(
    scenario: Scenario, broker: Broker, url: str, update: bool, cluster: Cluster | None = None
) -> None:
    if scenario.uses_rabbitmqctl and not broker.rabbitmqctl:
        pytest.skip("rabbitmqctl of the broker that AMQP_URL names is out of reach")
    if scenario.over_tls and not broker.tls_url:
        pytest.skip("whether the broker that AMQP_URL names has TLS is not known")
    url = broker.over_tls(url) if scenario.over_tls else url
    directory = EXAMPLES / folder(scenario.page) / scenario.client
    with tempfile.TemporaryDirectory() as temporary:
        write_rabbitmqctl(Path(temporary), broker.rabbitmqctl, unquote(url.rpartition("/")[2]))
        environment = reader_environment(url, Path(temporary))
        # Programs that serve HTTP get ports that nobody else has.
        names = ("PRODUCE_URL", "CONSUMER_URL", "HTTP_QUEUE_URL")
        ports = dict(zip(names, free_ports(len(names)), strict=True))
        environment |= {name: f"http://{LOOPBACK}:{port}" for name, port in ports.items()}
        environment["HTTP_QUEUE_PORT"] = str(ports["HTTP_QUEUE_URL"])
        environment["CA_FILE"] = broker.ca_file
        environment["HTTP_PORT"] = str(ports["HTTP_QUEUE_URL"])
        if cluster:  # with what `make cluster` has its readers type
            environment |= cluster.environment
            environment["PATH"] = f"{cluster.bin}{os.pathsep}{environment['PATH']}"
            environment["DATABASE"] = f"{temporary}/accounts.sqlite3"
        environment["TMPDIR"] = temporary  # what they make there goes with it
        try:
            with Player(directory, environment) as player:
                if update:
                    player.update(scenario)
                else:
                    player.play(scenario)
        finally:
            for user in scenario.users:
                with suppress(BrokerError):  # it may not have come so far
                    broker.call_api("DELETE", f"users/{user}")


@parametrize(
    [each for each in ALL if not (each.restarts_broker or each.uses_cluster or each.users)]
)
def test_transcript(scenario: Scenario, broker: Broker, url: str, update: bool) -> None:
    play(scenario, broker, url, update)


@pytest.mark.xdist_group("users")  # whose names are the broker's, not a virtual host's
@parametrize([scenario for scenario in ALL if scenario.users])
def test_transcript_with_users(scenario: Scenario, broker: Broker, url: str, update: bool) -> None:
    play(scenario, broker, url, update)


@parametrize([scenario for scenario in ALL if scenario.restarts_broker])
def test_transcript_with_a_restart(scenario: Scenario, restartable: Broker, update: bool) -> None:
    with restartable.vhost() as url:
        play(scenario, restartable, url, update)


@parametrize([scenario for scenario in ALL if scenario.uses_cluster])
def test_transcript_of_a_cluster(scenario: Scenario, cluster: Cluster, update: bool) -> None:
    play(scenario, cluster.node(1), cluster.urls[0], update, cluster)
