#!/usr/bin/env python3
"""Simulate what clients that retry do to a service: python retry_storm.py

A simulation: it has a clock of its own, and nothing is sent to anybody. The
service can do 100 requests a second, and gets 80. From second 10 on, for 3
seconds, it gets 240. A client waits a second for its answer. Then it gives up
and may try again; the service, which doesn't know, does the old request, too.
"""

import heapq
import random
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

SECONDS, WORKERS, SERVICE = 120.0, 10, 0.1
CALM, BURST, BURST_FROM, BURST_TO = 80.0, 240.0, 10.0, 13.0
TIMEOUT, TRIES, BUDGET = 1.0, 8, 0.1
ROOM = 80  # that may wait in a queue that is bounded: less than TIMEOUT


def at_once(retry: int) -> float:
    return 0.0


def full_jitter(retry: int) -> float:
    """A random pause of up to 1, 2, 4… 30 seconds."""
    return random.uniform(0, min(30.0, 2.0 ** (retry - 1)))


@dataclass
class Policy:
    name: str
    pause: Callable[[int], float] = at_once
    tries: int = TRIES
    budget: float = float("inf")  # retries for each first attempt
    room: int = sys.maxsize  # in the service's queue


POLICIES = [
    Policy("no retries", tries=1),
    Policy("at once"),
    Policy("backoff, jitter", full_jitter),
    Policy("and a budget", full_jitter, budget=BUDGET),
    Policy("and a bounded queue", full_jitter, budget=BUDGET, room=ROOM),
]


@dataclass
class Run:
    """By second: attempts that arrive, requests answered in time."""

    load: list[int] = field(default_factory=lambda: [0] * int(SECONDS))
    goodput: list[int] = field(default_factory=lambda: [0] * int(SECONDS))
    asked: int = 0  # requests, not attempts

    @property
    def recovered(self) -> int | None:
        """When the last five seconds in which it did not keep up are over."""
        for second in range(int(SECONDS), int(BURST_TO), -1):
            if sum(self.goodput[second - 5 : second]) < 5 * CALM * 0.8:
                return None if second == SECONDS else second
        return int(BURST_TO)


def simulate(policy: Policy, seed: int = 1) -> Run:
    random.seed(seed)
    run, tokens, free, number = Run(), 10.0, WORKERS, 0
    waiting: deque[list[float]] = deque()
    # What happens, in order: (when, a number, what, which attempt). An attempt
    # is [when it came, which try it is, 1 when it was answered in time].
    events: list[tuple[float, int, str, list[float]]] = []

    def at(when: float, what: str, attempt: list[float]) -> None:
        nonlocal number
        number += 1
        heapq.heappush(events, (when, number, what, attempt))

    def fail(now: float, attempt: list[float]) -> None:
        nonlocal tokens
        retry = int(attempt[1])
        if retry < policy.tries and (policy.budget > 1 or tokens >= 1):
            tokens -= 1
            at(now + policy.pause(retry), "attempt", [0.0, retry + 1, 0])

    at(0.0, "request", [])
    while events:
        now, _, what, attempt = heapq.heappop(events)
        if now >= SECONDS:
            break
        if what == "request":
            rate = BURST if BURST_FROM <= now < BURST_TO else CALM
            at(now + random.expovariate(rate), "request", [])
            run.asked += 1
            tokens = min(tokens + policy.budget, 10.0)
            at(now, "attempt", [0.0, 1, 0])
        elif what == "attempt":
            run.load[int(now)] += 1
            if len(waiting) >= policy.room:
                fail(now, attempt)  # refused at once
            else:
                attempt[0] = now
                at(now + TIMEOUT, "timeout", attempt)
                waiting.append(attempt)
        elif what == "timeout" and not attempt[2]:
            fail(now, attempt)
        elif what == "done":
            free += 1
            if now - attempt[0] < TIMEOUT:
                attempt[2] = 1
                run.goodput[int(now)] += 1
        while free and waiting:
            free -= 1
            at(now + SERVICE, "done", waiting.popleft())
    return run


def main() -> None:
    print(" [*] A simulation: 80 requests a second, 240 for 3 seconds")
    print(f"     {'retries':<21}attempts  answered in time  recovered")
    for policy in POLICIES:
        run = simulate(policy)
        share = sum(run.goodput) / run.asked
        secs = run.recovered
        when = "never" if secs is None else f"after {secs - BURST_TO:.0f} s"
        per = sum(run.load) / run.asked
        print(f"     {policy.name:<21}{per:>8.2f}{share:>18.0%}  {when}")


if __name__ == "__main__":
    main()
