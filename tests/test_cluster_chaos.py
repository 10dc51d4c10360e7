"""The run that breaks things at random: its checker, its plan, and a short one."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from broker import OwnedBroker
from broker.cluster import Cluster
from chaos import demo
from chaos.broken import BROKEN, broken
from chaos.checker import Verdict, check
from chaos.plan import CLIENTS, ONE_NODE, THREE_NODES, plan
from chaos.run import SCRIPTS, OneBroker, Run
from conftest import TESTS
from rich.console import Console

# --- The checker, by journals made by hand -----------------------------------------


def journal(*more: dict[str, Any], without: str = "", order: str = "ab") -> list[str]:
    """Two tasks that are sent, confirmed and done, and more events; without some."""
    events: list[dict[str, Any]] = [{"at": 0, "event": "ordered", "prefix": "o-"}]
    for at, name in enumerate(order, 1):
        task = f"o-{name}"
        events += [
            {"at": at, "event": "given", "task": task, "to": "p"},
            {"at": at + 0.1, "event": "confirmed", "task": task, "by": "p"},
            {"at": at + 0.2, "event": "booked", "task": task, "by": "w"},
        ]
    events += [
        *more,
        *({"at": 99, "event": "effect", "task": f"o-{x}", "times": 1} for x in order),
    ]
    lines = [json.dumps(event) for event in events]
    assert not without or any(without in line for line in lines)
    return [line for line in lines if not without or without not in line]


def again(at: float, redelivered: bool) -> dict[str, Any]:
    more = {"by": "v", "redelivered": redelivered}
    return {"at": at, "event": "again", "task": "o-a", **more}


TRYING = {"at": 1.05, "event": "trying", "who": "p"}
KILLED = {"at": 5, "event": "ended", "who": "w", "status": -9}
FROZEN = {"at": 2, "event": "fault", "number": 1, "kind": "node paused", "who": "node"}
SENT_TWICE = {"at": 1.3, "event": "given", "task": "o-a", "to": "p"}


def test_a_good_journal_is_good() -> None:
    verdict = check(journal())
    assert not verdict.wrong
    assert (verdict.given, verdict.confirmed, verdict.done) == (2, 2, 2)


@pytest.mark.parametrize(
    ("lines", "wrong"),
    {
        "lost": (journal(without='"effect", "task": "o-a"'), {"lost": ["o-a"]}),
        "lost, though booked": (
            [line.replace('"o-a", "times": 1', '"o-a", "times": 0') for line in journal()],
            {"lost": ["o-a"]},
        ),
        "never confirmed": (journal(without='"confirmed", "task": "o-a"'), {"unsent": ["o-a"]}),
        "doubled": (
            [line.replace('"o-b", "times": 1', '"o-b", "times": 2') for line in journal()],
            {"doubled": ["o-b"]},
        ),
        "from nowhere": (
            journal({"at": 9, "event": "effect", "task": "x", "times": 1}),
            {"invented": ["x"]},
        ),
        "reordered": (journal(order="ba"), {"reordered": ["o-a"]}),
        "redelivered for no cause": (journal(again(9, True)), {"unexplained": ["o-a"]}),
        "sent again for no cause": (journal(again(9, False)), {"unexplained": ["o-a"]}),
        "the loss came later": (
            journal(again(3, True), KILLED),
            {"unexplained": ["o-a"]},
        ),
        "another publisher's loss": (
            journal({**TRYING, "who": "q"}, again(9, False)),
            {"unexplained": ["o-a"]},
        ),
        "a loss after the confirm": (
            journal({**TRYING, "at": 1.5}, again(9, False)),
            {"unexplained": ["o-a"]},
        ),
        "its own loss, long before": (
            journal({**TRYING, "who": "v", "at": 5}, again(9, False)),
            {"unexplained": ["o-a"]},
        ),
        "its own loss, long after": (
            journal({**TRYING, "who": "v", "at": 15}, again(9, False)),
            {"unexplained": ["o-a"]},
        ),
        "a worker that gave up": (
            journal({**KILLED, "status": 1}),
            {"given_up": ["w"]},
        ),
        "a killed node has not both": (
            journal({**FROZEN, "kind": "node killed"}, again(9, False)),
            {"unexplained": ["o-a"]},
        ),
        "a resend does not redeliver": (
            journal(SENT_TWICE, again(9, True)),
            {"unexplained": ["o-a"]},
        ),
    }.values(),
    ids=lambda value: "",
)
def test_each_wrong_is_found(lines: list[str], wrong: dict[str, list[str]]) -> None:
    assert check(lines).wrong == wrong


@pytest.mark.parametrize(
    ("events", "cause"),
    [
        ((KILLED, again(9, True)), "redelivered: a process was killed"),
        (({**KILLED, "event": "trying"}, again(9, True)), "redelivered: a connection was lost"),
        ((FROZEN, again(9, True)), "redelivered: node paused"),
        ((SENT_TWICE, again(9, False)), "sent again: its publisher was killed"),
        ((TRYING, again(9, False)), "sent again: no confirm had come"),
        *(
            (
                ({**TRYING, "who": "v", "at": at}, again(9, False)),
                "delivered first, done second: a connection was lost",
            )
            for at in (8.5, 13)  # it learns of that before the ack, or after
        ),
        (
            ({**FROZEN, "at": 0.5, "kind": "node cut off"}, again(9, False)),
            "delivered twice, and not marked: node cut off",
        ),
    ],
)
def test_each_duplicate_has_a_cause(events: tuple[dict[str, Any], ...], cause: str) -> None:
    verdict = check(journal(*events))
    assert (verdict.wrong, verdict.explained) == ({}, {cause: 1})


def test_what_a_fault_costs_the_tasks_that_were_sent_meanwhile() -> None:
    faults = ({**FROZEN, "at": 1.5}, {"at": 2.05, "event": "over", "number": 1})
    late = [line.replace('"at": 2.1,', '"at": 7,') for line in journal(*faults)]
    late = [line.replace('"at": 2.2,', '"at": 8.5,') for line in late]
    assert check(late).waits == {"node paused": [(5.0, 1.5)]}


def test_a_worker_that_was_killed_before_it_could_say_so() -> None:
    events = ({"at": 1.15, "event": "ended", "who": "w"}, again(9, True))
    assert not check(journal(*events, without='"booked", "task": "o-a"')).wrong


# --- The plan -----------------------------------------------------------------------


@pytest.mark.parametrize(("nodes", "own"), [(1, ONE_NODE), (3, THREE_NODES)])
def test_a_seed_repeats_its_plan_and_has_all_kinds(nodes: int, own: dict[str, Any]) -> None:
    drawn = plan(16, 2_000, 60, nodes)
    assert drawn == plan(16, 2_000, 60, nodes)
    assert drawn != plan(17, 2_000, 60, nodes)
    assert {fault.kind for fault in drawn} == {*CLIENTS, *own}
    assert [fault.number for fault in drawn] == [*range(1, 61)]
    assert 0 < drawn[0].due < drawn[-1].due < 2_000
    assert {fault.kind for fault in plan(1, 100, 5, nodes, ["node killed"])} == {"node killed"}
    assert max(fault.seconds for fault in plan(16, 2_000, 60, nodes, longest=2)) == 2


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("SEED", "0", "SEED=0 is not"),
        ("TASKS", "many", "TASKS=many is not a number"),
        ("FAULTS", "0", "FAULTS=0 is not"),
        ("NODES", "2", "NODES=2: 1 or 3"),
        ("KINDS", "node killed,earthquake", "KINDS=earthquake: it is none of worker killed, "),
        ("WITHOUT", "care", "WITHOUT=care: it is none of acks early, "),
    ],
)
def test_settings_that_mean_nothing(setting: str, value: str, says: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chaos"],
        cwd=TESTS,
        env={**os.environ, setting: value},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(says)
    assert len(done.stderr.splitlines()) == 1


# --- A short run ---------------------------------------------------------------------


def short_run(
    broker: OwnedBroker, file: Path, tasks: int, faults: int, *kinds: str, without: str = ""
) -> Verdict:
    told: list[str] = []
    with broker.vhost() as url:
        drawn = plan(16, tasks, faults, 1, kinds, longest=2)
        Run(
            OneBroker(broker, url),
            drawn,
            tasks,
            file,
            without=without.split(",") if without else [],
            say=told.append,
        )()
    print("\n".join(told))
    with file.open() as lines:
        verdict = check(lines)
    print(verdict)
    assert not re.search("fail|stuck", "\n".join(told)), told
    return verdict


def test_a_short_run_loses_nothing(restartable: OwnedBroker, tmp_path: Path) -> None:
    verdict = short_run(restartable, tmp_path / "journal", 2_000, 10)
    assert not verdict.wrong
    assert (verdict.given, verdict.confirmed, verdict.done) == (2_000, 2_000, 2_000)


def test_the_demo_kills_the_leader_and_counts(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "KILLED", 2)
    monkeypatch.setattr(demo, "BACK", 3)
    out = io.StringIO()
    verdict = demo.play(cluster, Console(file=out, highlight=False), 300, 8)
    *lines, last = out.getvalue().splitlines()
    assert not verdict.wrong
    assert last.startswith("300 confirmed, 300 done: 0 lost, 0 done twice. ")
    killed = next(line for line in lines if line.endswith(", the leader, is killed")).split()[1][
        :5
    ]
    before = lines[: lines.index(f"--- {killed}, the leader, is killed")]
    assert f"{killed} leads" in before[-1]
    assert f"--- {killed} is started again" in lines
    assert any(f"{killed} is down" in line for line in lines)


# --- What is broken on purpose ----------------------------------------------------------


@pytest.mark.parametrize("name", BROKEN)
def test_each_promise_can_be_taken_out(name: str) -> None:
    """Of both clients' scripts, which can still be compiled."""
    scripts = sorted(SCRIPTS.glob("*/*.py"))
    changed = {x.parent.name for x in scripts if broken(x, [name]) != x.read_text()}
    assert changed == {"pika", "aio-pika"}
    for script in scripts:
        compile(broken(script, [name]), str(script), "exec")


def test_what_is_lost_without_acks_after_the_work(
    restartable: OwnedBroker, tmp_path: Path
) -> None:
    file = tmp_path / "journal"
    verdict = short_run(restartable, file, 1_000, 12, "worker killed", without="automatic acks")
    assert verdict.lost
