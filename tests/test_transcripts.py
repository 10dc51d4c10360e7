"""Every console transcript on every page, once per client."""

from __future__ import annotations

import tempfile
from pathlib import Path
from urllib.parse import unquote

import pytest
from broker import Broker
from chapters import CLIENTS, EXAMPLES, chapters, page, reader_environment
from player import Player, Scenario, scenarios, write_shim

ALL = [
    pytest.param(scenario, id=f"{chapter}-{client}-{scenario.title.replace(' ', '-')}")
    for chapter in chapters()
    for client in CLIENTS
    for scenario in scenarios(page(chapter), client)
]


def play(scenario: Scenario, broker: Broker, url: str) -> None:
    directory = EXAMPLES / scenario.page.stem / scenario.client
    with tempfile.TemporaryDirectory() as folder:
        write_shim(Path(folder), broker.rabbitmqctl, unquote(url.rpartition("/")[2]))
        with Player(directory, reader_environment(url, Path(folder))) as player:
            player.play(scenario)


@pytest.mark.parametrize("scenario", [p for p in ALL if not p.values[0].restarts_broker])
def test_transcript(scenario: Scenario, broker: Broker, url: str) -> None:
    play(scenario, broker, url)


@pytest.mark.parametrize("scenario", [p for p in ALL if p.values[0].restarts_broker])
def test_transcript_with_a_restart(scenario: Scenario, restartable: Broker) -> None:
    with restartable.vhost() as url:
        play(scenario, restartable, url)
