"""An act of sabotage: one promise taken out of one script."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cut:
    """What is taken out of which script, and the tests that should notice.

    `tests` is an expression for pytest's `-k`. `changes` are pairs of a regular
    expression, which must match once or more, and what replaces it.
    """

    chapter: str
    name: str
    script: str
    tests: str
    changes: tuple[tuple[str, str], ...]


def cut(chapter: str, name: str, script: str, tests: str, *changes: tuple[str, str]) -> Cut:
    return Cut(chapter, name, script, tests, changes)
