"""The acts of sabotage, as the lists beside this file have them.

A chapter's list is TOML, an act in it

    ['no confirms', 'new_task.py', 'sent_is_only',
      ' *channel.confirm_delivery.*\n', '',
      'on_return_raises=True', 'publisher_confirms=False'],

that is: its name; the scripts that it breaks, one after the other (a file name
alone is that of both clients); the tests that should notice, for pytest's `-k`
(`{}` is the script's name); then pairs of a regular expression and what replaces
it. Each script has to match one of them or more, and each of them one script.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from shells.chapters import CLIENTS, DOCS, EXAMPLES, ROOT, folder

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Act:
    """One promise taken out of one file."""

    listed: str  # in the list of this name
    chapter: str
    name: str
    path: str  # from the top of the repository
    tests: str
    changes: tuple[tuple[str, str], ...]

    def broken(self, text: str) -> str:
        for pattern, replacement in self.changes:
            text = re.sub(pattern, replacement, text)
        return text


def places(chapter: str, scripts: str) -> Iterator[Path]:
    """The files that are named so in a list."""
    own = EXAMPLES / chapter
    for script in scripts.split():
        if (own / "pika").is_dir() and "/" not in script:
            yield from (own / client / script for client in CLIENTS)
        else:  # a page or a record, named from the top of the repository, or a script
            yield ROOT / script if (ROOT / script).exists() else own / script


def acts() -> list[Act]:
    """All of them. Raises SystemExit for one that breaks nothing."""
    return [
        act
        for listed in sorted(HERE.glob("*.toml"))
        for line in tomllib.loads(listed.read_text())["acts"]
        for act in one_act(listed.stem, *line)
    ]


def one_act(listed: str, name: str, scripts: str, tests: str, *given: str) -> list[Act]:
    page = DOCS / f"{listed}.rst"
    chapter = folder(page) if page.exists() else ""  # of all the pages
    changes = tuple(zip(given[::2], given[1::2], strict=True))
    idle = {pattern for pattern, _ in changes}
    found = []
    for place in places(chapter, scripts):
        path = str(place.relative_to(ROOT))
        act = Act(listed, chapter, name, path, tests.format(place.stem), changes)
        text = place.read_text()
        for pattern, replacement in changes:
            text, count = re.subn(pattern, replacement, text)
            idle -= {pattern} if count else set()
        if text == place.read_text():
            raise SystemExit(f"{path} has nothing to change for {name!r}")
        if place.suffix == ".py":
            ast.parse(text)  # a script that cannot start is caught by any test
        found.append(act)
    if idle:
        raise SystemExit(f"{listed}: nowhere is {idle.pop()!r} for {name!r}")
    return found
