"""What goes wrong in a run, and when: the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

# Of each kind: how often it comes, beside the others, and between how many seconds it lasts.
CLIENTS = {
    "worker killed": (4, 0, 0.5),  # it hangs for so long, and dies
    "publisher killed": (3, 0, 0.5),
    "worker frozen": (2, 3, 14),  # longer, or not, than the broker waits for a heartbeat
    "publisher frozen": (1, 3, 14),
    "connections closed": (2, 0, 0),
}
ONE_NODE = {
    "node killed": (2, 0, 3),
    "node restarted": (2, 0, 1),
    "node paused": (2, 2, 14),
    "memory alarm": (1, 1, 4),
    "disk alarm": (1, 1, 4),
    "queue full": (2, 2, 5),
}
THREE_NODES = {
    **ONE_NODE,
    "node killed": (3, 1, 10),
    "node paused": (3, 2, 25),
    "node cut off": (3, 4, 25),
    "majority lost": (1, 1, 6),
}


@dataclass(frozen=True)
class Fault:
    """One of them. `target` chooses among what is there; it begins once `due` tasks are sent."""

    number: int
    kind: str
    target: int
    seconds: float
    due: int

    @property
    def of_clients(self) -> bool:
        return self.kind in CLIENTS

    @property
    def planned(self) -> float:
        """Seconds that it takes, about, until things are as before."""
        starts = self.kind in ("node killed", "node restarted", "majority lost")
        return self.seconds + (6 if starts else 1.5)


def plan(
    seed: int,
    tasks: int,
    faults: int,
    nodes: int,
    kinds: Iterable[str] = (),
    longest: float = 60,
) -> list[Fault]:
    """All faults of a run, in order; only of some kinds if any are given."""
    chance = random.Random(seed)
    known = {**CLIENTS, **(ONE_NODE if nodes == 1 else THREE_NODES)}
    chosen = {kind: known[kind] for kind in (kinds or known)}
    weights = [weight for weight, _, _ in chosen.values()]
    # Each kind once before any comes twice, as far as there are faults enough.
    first = chance.sample(sorted(chosen), len(chosen))
    rest = chance.choices(list(chosen), weights, k=max(0, faults - len(first)))
    drawn = [*first, *rest][:faults]
    chance.shuffle(drawn)
    return [
        Fault(
            number,
            kind,
            chance.randrange(1_000),
            min(longest, round(chance.uniform(*chosen[kind][1:]), 1)),
            round(tasks * (number - 0.5) / faults),
        )
        for number, kind in enumerate(drawn, 1)
    ]
