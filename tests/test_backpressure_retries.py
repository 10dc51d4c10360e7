"""What docs/backpressure-retries.rst says, held against its simulation."""

from __future__ import annotations

import json
from functools import partial

from record_backpressure import FOLDER, STORM, simulated, storm
from shells.chapters import figure


def test_the_simulation_is_the_same_each_time_and_as_recorded() -> None:
    assert simulated() == json.loads(STORM.read_text())["runs"]


def test_what_the_simulation_shows() -> None:
    runs = json.loads(STORM.read_text())["runs"]
    calm, trouble = slice(0, 10), slice(20, 30)

    def mean(policy: str, what: str, when: slice) -> float:
        found = runs[policy][what][when]
        return sum(found) / len(found)

    for policy in runs:
        assert mean(policy, "goodput", calm) > 70
        assert max(runs[policy]["goodput"]) <= 101  # not more than it can do
    for policy in ("at once", "backoff, jitter"):
        assert mean(policy, "load", trouble) > 4 * 80
        assert mean(policy, "goodput", slice(20, 120)) == 0
    assert mean("backoff, jitter", "load", trouble) < mean("at once", "load", trouble)
    # What the figure's description says, of its 60 seconds.
    assert min(runs["at once"]["load"][13:60]) > 500
    rising = [mean("backoff, jitter", "load", slice(n, n + 10)) for n in range(10, 60, 10)]
    assert rising == sorted(rising)
    assert max(runs["backoff, jitter"]["load"][:60]) > 500
    late = [second for second, good in enumerate(runs["and a budget"]["goodput"]) if good < 64]
    assert 13 + 29 <= late[-1] + 1 <= 13 + 31
    assert min(runs["and a bounded queue"]["goodput"][:60]) > 64
    assert mean("and a budget", "load", trouble) < 80 * 1.25
    assert mean("and a budget", "goodput", slice(60, 120)) > 70
    assert mean("and a bounded queue", "goodput", slice(10, 120)) > 75


def test_the_numbers_that_the_page_names_are_the_script_s() -> None:
    script, says = storm(), partial(figure, "backpressure-retries")
    assert says(r"B can do (\d+) requests a second") == script.TICKS
    assert says(r"requests a second and gets (\d+)") == script.CALM * script.TICKS
    assert says(r"it gets (\d+)\. A client") == script.BURST * script.TICKS
    assert says(r"covers (\w+) minutes") * 60 == script.SECONDS
    tries = {policy[0] for name, policy in script.POLICIES.items() if name != "no retries"}
    assert tries == {says(r"(?:tries up to|makes up to) (\w+) (?:times|attempts)")}
    assert 1 / says(r"For (\w+) first attempts") == script.POLICIES["and a budget"][2]
    text = (FOLDER / "retry_storm.py").read_text()
    bad = says(r"fewer than (\d+) requests")
    assert f"answered < {bad} " in text
