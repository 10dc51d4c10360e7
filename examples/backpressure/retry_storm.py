"""Simulate what clients that retry do to a service: python retry_storm.py

The service does one request a tick. A client waits a second, then may retry.
"""

import random
from collections import defaultdict

SECONDS, TICKS = 120, 100  # in a second: what the service can do
CALM, BURST = 0.8, 2.4  # new requests each tick
POLICIES = {  # tries, longest pause, retries per new request, room to wait
    "no retries": (1, 0, 9, 10**9),
    "at once": (8, 0, 9, 10**9),
    "backoff, jitter": (8, 30, 9, 10**9),
    "and a budget": (8, 30, 0.1, 10**9),
    "and a bounded queue": (8, 30, 0.1, 80),
}


def simulate(
    tries: int, longest: int, budget: float, room: int
) -> tuple[list[int], list[int]]:
    """By second: attempts that arrive, and requests answered in time."""
    random.seed(1)
    load, good = [0] * SECONDS, [0] * (SECONDS + 1)
    due: defaultdict[int, list[int]] = defaultdict(list)  # by tick: retries
    waiting, tokens = 0, 10.0
    for now in range(SECONDS * TICKS):
        waiting = max(waiting - 1, 0)
        rate = BURST if 10 * TICKS <= now < 13 * TICKS else CALM
        new = int(rate + random.random())
        tokens = min(tokens + new * budget, 10.0)
        for attempt in [1] * new + due.pop(now, []):
            load[now // TICKS] += 1
            told = now + 1  # when it is refused: at once
            if waiting < room:
                waiting += 1  # which is how many ticks it waits
                told = now + TICKS  # then its client gives up
                if waiting <= TICKS:
                    good[(now + waiting) // TICKS] += 1
                    continue
            if attempt < tries and tokens >= 1:
                tokens -= 1
                most = min(longest, 2 ** (attempt - 1)) * TICKS
                due[told + round(random.uniform(0, most))].append(attempt + 1)
    return load, good[:SECONDS]


if __name__ == "__main__":
    print(" [*] A simulation: 80 requests a second, 240 for 3 seconds")
    print(f"     {'retries':<20}attempts  in time  bad seconds")
    for name, policy in POLICIES.items():
        load, good = simulate(*policy)
        bad = sum(answered < 64 for answered in good)
        print(f"     {name:<20}{sum(load):>8}{sum(good):>9}{bad:>13}")
