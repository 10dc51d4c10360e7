"""Simulate what clients that retry do to a service: python retry_storm.py

The service does one request a tick. A client waits a second, then may retry.
"""

import random
from collections import defaultdict
from typing import Any, NamedTuple

SECONDS, TICKS = 120, 100  # in a second: what the service can do
CALM, BURST = 0.8, 2.4  # new requests each tick


class Policy(NamedTuple):
    name: str
    tries: int = 8
    longest: int = 0  # pause before a retry
    budget: float = 9  # retries for each new request
    room: int = 10**9  # in the service's queue


POLICIES = [
    Policy("no retries", 1),
    Policy("at once"),
    Policy("backoff, jitter", 8, 30),
    Policy("and a budget", 8, 30, 0.1),
    Policy("and a bounded queue", 8, 30, 0.1, 80),
]


def simulate(policy: Policy) -> tuple[list[int], list[int]]:
    """By second: attempts that arrive, and requests answered in time."""
    random.seed(1)
    load, good = [0] * SECONDS, [0] * (SECONDS + 1)
    due: Any = defaultdict(list)  # by tick: the tries that are made,
    failed: Any = defaultdict(list)  # and those that fail
    waiting, tokens = 0, 10.0
    for now in range(SECONDS * TICKS):
        waiting = max(waiting - 1, 0)
        rate = BURST if 10 * TICKS <= now < 13 * TICKS else CALM
        new = int(rate + random.random())
        tokens = min(tokens + new * policy.budget, max(10.0, policy.budget))
        for tries in failed.pop(now, []):
            if tries < policy.tries and tokens >= 1:
                tokens -= 1
                most = min(policy.longest, 2 ** (tries - 1)) * TICKS
                due[now + round(random.uniform(0, most))].append(tries + 1)
        for tries in [1] * new + due.pop(now, []):
            load[now // TICKS] += 1
            if waiting >= policy.room:
                failed[now + 1].append(tries)  # refused at once
                continue
            waiting += 1  # which is how many ticks it waits
            if waiting <= TICKS:
                good[(now + waiting) // TICKS] += 1
            else:
                failed[now + TICKS].append(tries)
    return load, good[:SECONDS]


if __name__ == "__main__":
    print(" [*] A simulation: 80 requests a second, 240 for 3 seconds")
    for policy in POLICIES:
        load, good = simulate(policy)
        bad = [s for s, answered in enumerate(good) if answered < 0.8 * 80]
        print(f"     {policy.name:<20}{sum(load):>6}{sum(good):>6}", *bad[-1:])
