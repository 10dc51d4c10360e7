"""Read a journal, and tell whether what was promised is so.

It knows nothing of the scripts, of RabbitMQ or of the run, only the journal: a file of
JSON lines, each with `at` (seconds) and `event`:

    given      task, to           a publisher was given a task to send
    confirmed  task, by           it says that the broker has it
    trying     who                a publisher or worker has lost its connection
    ended      who, status        its process is gone; -9: it was killed
    booked     task, by           a worker says that it did it
    again      task, by, redelivered
                                  a worker says that it had been done before
    fault      number, kind, who  something was broken: a process, or `node`
    over       number             and that is over
    effect     task, times        how often it took effect, in the order of the effects
    ordered    prefix             tasks that begin so are to take effect in order
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

# A client may learn of a fault, and the broker take a task back, so many seconds later.
LATE = 100.0
# One that is held up (by the lock of a database, say) learns so late that it lost its own.
HELD_UP = 5.0
# What makes the others believe that a node is gone, which goes on by itself later.
PARTING = ("node cut off", "node paused")


@dataclass
class Verdict:
    """What was found. It is good when nothing is in `faults_found`."""

    given: int = 0
    confirmed: int = 0
    done: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unsent: list[str] = field(default_factory=list)
    invented: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    reordered: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)  # who ended without being killed
    explained: Counter[str] = field(default_factory=Counter)
    # By kind of fault: the longest time that a task waited for its confirm, and to be done
    # from then on, in each of them.
    waits: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def wrong(self) -> dict[str, list[str]]:
        names = ["lost", "doubled", "unsent", "invented", "unexplained", "reordered", "given_up"]
        return {name: getattr(self, name) for name in names if getattr(self, name)}


def check(lines: Iterable[str]) -> Verdict:
    """Read the whole journal."""
    events = [json.loads(line) for line in lines]
    verdict = Verdict(seconds=max((each["at"] for each in events), default=0.0))
    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        by_kind[event["event"]].append(event)
    given = [event["task"] for event in by_kind["given"]]
    confirmed = {event["task"] for event in by_kind["confirmed"]}
    effects = {event["task"]: event["times"] for event in by_kind["effect"]}
    verdict.given, verdict.confirmed = len(set(given)), len(confirmed)
    verdict.done = sum(times > 0 for times in effects.values())
    verdict.lost = sorted(task for task in confirmed if effects.get(task, 0) < 1)
    verdict.doubled = sorted(task for task, times in effects.items() if times > 1)
    verdict.unsent = sorted(set(given) - confirmed)
    verdict.invented = sorted(set(effects) - set(given))
    for prefix in sorted(event["prefix"] for event in by_kind["ordered"]):
        mine = [task for task in effects if task.startswith(prefix)]
        verdict.reordered += [task for before, task in pairwise(mine) if task < before]
    verdict.given_up = [each["who"] for each in by_kind["ended"] if each.get("status", -9) != -9]
    causes = Causes(by_kind)
    for event in by_kind["again"]:
        if cause := causes.of(event):
            verdict.explained[cause] += 1
        else:
            verdict.unexplained.append(event["task"])
    verdict.waits = waits(by_kind)
    return verdict


def waits(by_kind: dict[str, list[dict[str, Any]]]) -> dict[str, list[tuple[float, float]]]:
    """What each fault cost those tasks that were sent from just before it until its end."""
    first = {
        kind: {event["task"]: event["at"] for event in reversed(by_kind[kind])}
        for kind in ("given", "confirmed", "booked")
    }
    over = {event["number"]: event["at"] for event in by_kind["over"]}
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for fault in by_kind["fault"]:
        until = over.get(fault["number"], fault["at"])
        mine = [
            (first["confirmed"][task] - at, first["booked"][task] - first["confirmed"][task])
            for task, at in first["given"].items()
            if fault["at"] - 1 <= at <= until
            and task in first["confirmed"]
            and task in first["booked"]
        ]
        if mine:
            sent, done = zip(*mine, strict=True)
            found[fault["kind"]].append((round(max(sent), 1), round(max(done), 1)))
    return dict(found)


class Causes:
    """Why a worker may see a task that was done before."""

    def __init__(self, by_kind: dict[str, list[dict[str, Any]]]) -> None:
        self.sent: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for event in by_kind["given"]:
            self.sent[event["task"]].append(event)
        self.confirmed = {event["task"]: event for event in by_kind["confirmed"]}
        self.booked = {event["task"]: event for event in by_kind["booked"]}
        self.workers = {event["by"] for kind in ("booked", "again") for event in by_kind[kind]}
        self.losses: dict[str, list[tuple[float, str]]] = defaultdict(list)
        for event in by_kind["trying"]:
            self.losses[event["who"]].append((event["at"], "a connection was lost"))
        for event in by_kind["ended"]:
            self.losses[event["who"]].append((event["at"], "a process was killed"))
        over = {event["number"]: event["at"] for event in by_kind["over"]}
        self.faults = [
            (event["at"], over.get(event["number"], float("inf")), event)
            for event in by_kind["fault"]
        ]

    def of(self, again: dict[str, Any]) -> str:
        """The cause, or "" for none."""
        task, at = again["task"], again["at"]
        if again["redelivered"]:
            first = self.booked.get(task)
            if not first:  # who did it was killed, or lost its connection, before it said so
                begun = sent[0]["at"] if (sent := self.sent[task]) else at
                for worker in self.workers:
                    for when, why in self.losses[worker]:
                        if begun <= when <= at + 1:
                            return f"redelivered: {why}"
                return ""
            for when, why in self.losses[first["by"]]:
                if first["at"] - 1 <= when <= at + 1:
                    return f"redelivered: {why}"
            for begun, ended, fault in self.faults:
                of_it = fault["who"] in ("node", first["by"])
                if of_it and begun <= at and first["at"] <= ended + LATE:
                    return f"redelivered: {fault['kind']}"
            return ""
        sent = self.sent[task]
        if len(sent) > 1:
            return "sent again: its publisher was killed"
        until = self.confirmed.get(task, again)["at"]
        if sent and any(
            why.startswith("a conn") and sent[0]["at"] <= when <= until
            for when, why in self.losses[sent[0]["to"]]
        ):
            return "sent again: no confirm had come"
        for when, _ in self.losses[again["by"]]:
            # The task had been given to another, and this one, who had it first, was
            # the slower of the two, and did not know yet.
            if sent and sent[0]["at"] <= when <= at + HELD_UP and at <= when + 1:
                return "delivered first, done second: a connection was lost"
        for begun, ended, fault in self.faults:
            # Both leaders, the one that was and the one that is, deliver it for the first time.
            if sent and fault["kind"] in PARTING and begun <= at and sent[0]["at"] <= ended + 1:
                return f"delivered twice, and not marked: {fault['kind']}"
        return ""
