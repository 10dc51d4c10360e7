"""The whole tutorial on one virtual host, in order, with one client after the other."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from broker import Broker
from conftest import TESTS
from shells.chapters import CLIENTS, declarations, numbered, page
from shells.player import final_scenario
from test_transcripts import play


def queues(broker: Broker, url: str) -> set[str]:
    return {queue["name"] for queue in broker.call_api("GET", f"queues/{url.rpartition('/')[2]}")}


@pytest.mark.long
@pytest.mark.timeout(400)  # it takes a minute and a half when the machine is idle
def test_all_chapters_on_one_virtual_host(broker: Broker, url: str, update: bool) -> None:
    """No declarations clash, and nothing is left that a second run trips over."""
    for client in CLIENTS:
        for chapter in numbered():
            play(final_scenario(page(chapter), client), broker, url, update)
    named = {each.name for each in declarations() if each.kind == "queue"}
    assert queues(broker, url) <= named
    looked = subprocess.run(
        [sys.executable, "-m", "shells.doctor"],
        cwd=TESTS,
        env={**os.environ, "AMQP_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert looked.returncode == 0, looked
