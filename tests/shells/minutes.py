"""How long a page takes, and the tables that say so: `PYTHONPATH=tests python -m shells.minutes`.

A reader reads the prose once, and types every command of one client's transcripts.
README and the index name the minutes; this writes them there, and the tests hold them.
"""

from __future__ import annotations

import re
from itertools import pairwise
from math import ceil
from pathlib import Path

from shells.chapters import DOCS, ROOT
from shells.player import scenarios

# Slow enough for a technical text in a second language.
WORDS_A_MINUTE = 130
# To type or copy it, and to look at what the shells print.
SECONDS_A_COMMAND = 20
# Nobody's reading is known more exactly.
STEP = 5

TABLE = re.compile(r"^\.\. list-table::\n(?:(?:   .*)?\n)+", re.MULTILINE)
ROW = re.compile(r"^   \* - .*\n(?:     .*\n)+", re.MULTILINE)
# Directives that hold text of their own; and those that do so outside tables and captions.
HOLDERS = (
    *("tab-set", "tab-item", "dropdown", "note", "warning", "seealso", "glossary"),
    *("figure", "list-table"),
)
PLAIN = HOLDERS[:-2]
RULE = re.compile(r"([=+~^-])\1{2,}$")


def prose(page: Path, holders: tuple[str, ...] = HOLDERS) -> list[str]:
    """The words of a page that are neither titles, code, nor directives."""
    words, hidden = [], -1
    text = re.sub(r"\s+<[^>\n]+>`", "`", page.read_text(encoding="utf-8"))  # a link's target
    lines = text.splitlines()
    for line, after in pairwise([*lines, ""]):
        indent = len(line) - len(line.lstrip())
        if not line.strip() or (hidden >= 0 and indent > hidden):
            continue
        hidden = -1
        if found := re.match(r"\s*(?:\.\. (?:([\w-]+)::)?|:[\w-]+:(?: |$))", line):
            hidden = -1 if found[1] in holders else indent
        elif not RULE.match(line) and not RULE.match(after):
            words += [word for word in line.split() if re.search(r"\w", word)]
    return words


def minutes(page: Path) -> int:
    """Of the two clients, the one with more to type."""
    typed = max(
        sum(len(found.steps) for found in scenarios(page, client))
        for client in ("pika", "aio-pika")
    )
    exact = len(prose(page)) / WORDS_A_MINUTE + typed * SECONDS_A_COMMAND / 60
    return ceil(exact / STEP) * STEP


def page_of(row: str) -> Path:
    """The page that a row of README, or of the index, is about."""
    if named := re.match(r"   \* - `([\w-]+)`__", row):
        return DOCS / f"{named[1]}.rst"
    label = re.search(r":ref:`([\w-]+)`", row)
    assert label, row
    return next(
        path for path in DOCS.glob("*.rst") if path.read_text().startswith(f".. _{label[1]}:")
    )


def timed(text: str) -> str:
    """The text with the minutes in the last of three columns, in tables that have them.

    And with those of the first chapter, which its first lines name.
    """

    def row(found: re.Match[str]) -> str:
        if "- Minutes" in found[0]:
            return found[0]
        cells = re.split(r"(?=^     - )", found[0], flags=re.MULTILINE)
        return "".join(cells[:2]) + f"     - {minutes(page_of(found[0]))}\n"

    def table(found: re.Match[str]) -> str:
        return ROW.sub(row, found[0]) if "     - Minutes" in found[0] else found[0]

    first = f"takes {minutes(FIRST)} minutes"
    return re.sub(r"takes \d+ minutes", first, TABLE.sub(table, text))


FIRST = DOCS / "1-hello-world.rst"
PLACES = (ROOT / "README.rst", DOCS / "index.rst", FIRST)

if __name__ == "__main__":
    for place in PLACES:
        place.write_text(timed(place.read_text(encoding="utf-8")), encoding="utf-8")
