"""The repository's chapters: their scripts, their pages, what they declare."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
DOCS = ROOT / "docs"
CLIENTS = ("pika", "aio-pika")
# Apps rather than scripts; what they declare depends on how they are run.
APPS = ("http-queue",)
BENCHMARK = "consumer-benchmark"
# Not lessons: there every mishap is met, at the length that it takes.
PRODUCTION = ("production-worker", "cluster")


def chapters() -> list[str]:
    """The names of the chapters that come in both clients."""
    return sorted(folder.parent.name for folder in EXAMPLES.glob("*/pika"))


def numbered() -> list[str]:
    """The chapters of the tutorial, in order."""
    return [chapter for chapter in chapters() if chapter[0].isdigit()]


def companions() -> list[str]:
    """The names of the companion chapters, whose scripts come once."""
    folders = {script.parent.name for script in EXAMPLES.glob("*/*.py")}
    return sorted(folders - set(chapters()))


def clients(chapter: str) -> tuple[str, ...]:
    """The folders its scripts are in; a companion's are in the chapter's own."""
    return CLIENTS if chapter in chapters() else ("",)


def scripts() -> list[Path]:
    """Every example script."""
    return sorted(EXAMPLES.glob("**/*.py"))


def page(chapter: str) -> Path:
    return DOCS / f"{chapter}.rst"


def said(name: str, pattern: str) -> str:
    """What a page says at the one group of a pattern, for a test to try: "up to (\\d+) bytes".

    A space matches any white space. Raises AssertionError unless all places where
    the page says so say the same.
    """
    return _said(name, pattern, str)


def _said(name: str, pattern: str, reading: Callable[[str], Any]) -> Any:
    text = page(name).read_text(encoding="utf-8")
    words = re.findall(pattern.replace(" ", r"\s+"), text)
    found = set(map(reading, words))
    assert len(found) == 1, f"{page(name).name} says {words or 'nothing'} for {pattern!r}"
    return found.pop()


# As far as the pages count in words.
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"]
NUMBERS = {word: number for number, word in enumerate(WORDS, 1)}
NUMBERS |= {"a": 1, "fifteen": 15, "hundred": 100}


def figure(name: str, pattern: str) -> int:
    """The number that a page says so, wherever it does: "6", "10,000" or "six"."""

    def reading(word: str) -> int:
        known = NUMBERS.get(word.casefold())
        return int(word.replace(",", "")) if known is None else known

    return _said(name, pattern, reading)


def version(text: str) -> tuple[int, ...]:
    """To compare: that of "4.3" is not more than that of "4.3.6"."""
    return tuple(map(int, text.split(".")))


def folder(page: Path) -> str:
    """The chapter that a page is of: by its name, else by the first script that it shows."""
    if (EXAMPLES / page.stem).is_dir():
        return page.stem
    shown = re.search(r"literalinclude:: \.\./examples/([\w-]+)/", page.read_text("utf-8"))
    return shown[1] if shown else ""


def pages(chapter: str) -> list[Path]:
    """The page of its name, and others that are of it."""
    return [path for path in sorted(DOCS.glob("*.rst")) if folder(path) == chapter]


def reader_environment(url: str, *more_path: Path) -> dict[str, str]:
    """The environment of a reader's shell whose broker is at `url`."""
    path = [*map(str, more_path), str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "PYTHONPATH"))},
        "PATH": os.pathsep.join(path),
        "AMQP_URL": url,
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        "LC_ALL": "C.UTF-8",
    }


@dataclass(frozen=True)
class Declaration:
    """A named queue or exchange that a script declares.

    `arguments` is what the broker compares: a later declaration of the same
    name with others is refused with PRECONDITION_FAILED.
    """

    kind: str  # "queue" or "exchange"
    name: str
    arguments: dict[str, Any]
    script: Path


# By method: what it declares, and the names of its first two parameters.
DECLARING = {
    "queue_declare": ("queue", "queue", ""),
    "declare_queue": ("queue", "name", ""),
    "exchange_declare": ("exchange", "exchange", "exchange_type"),
    "declare_exchange": ("exchange", "name", "type"),
}


def declarations() -> list[Declaration]:
    """All that the example scripts declare by name, read from their source.

    Raises ValueError for a declaration that cannot be read so: the name and
    every argument are made of literals, constants of the module, and what a loop
    takes from a constant. Without the apps and the benchmark, whose queues are made
    for one run and have names of their own.
    """
    without = (*APPS, BENCHMARK)
    read = (script for script in scripts() if script.parent.name not in without)
    return [found for script in read for found in declared_in(script)]


def evaluate(node: ast.expr, known: dict[str, Any]) -> Any:
    """The value of an expression of literals and known names. Raises ValueError."""
    try:
        return eval(ast.unparse(node), {"__builtins__": {}}, dict(known))
    except Exception as error:
        raise ValueError(str(error)) from None


def reached(node: ast.AST, known: dict[str, Any]) -> Iterator[tuple[ast.AST, dict[str, Any]]]:
    """Every node with the names known there; a loop over a constant is gone through."""
    yield node, known
    rounds = [known]
    if isinstance(node, ast.For):
        with suppress(ValueError):
            values = evaluate(node.iter, known)
            targets = [each.id for each in ast.walk(node.target) if isinstance(each, ast.Name)]
            taken = [value if len(targets) > 1 else (value,) for value in values]
            rounds = [{**known, **dict(zip(targets, each, strict=True))} for each in taken]
    for names in rounds:
        for child in ast.iter_child_nodes(node):
            yield from reached(child, names)


def declared_in(script: Path) -> list[Declaration]:
    tree = ast.parse(script.read_text(encoding="utf-8"), str(script))
    constants: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            with suppress(ValueError):
                constants[node.targets[0].id] = evaluate(node.value, constants)

    def value(node: ast.expr, known: dict[str, Any]) -> Any:
        if isinstance(node, ast.Attribute):  # ExchangeType.FANOUT, in either client
            return node.attr.lower()
        try:
            return evaluate(node, known)
        except ValueError:
            place = f"{script.relative_to(ROOT)}:{node.lineno}"
            raise ValueError(f"{place}: make it a literal, or a module's constant") from None

    found = []
    for node, known in reached(tree, constants):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr not in DECLARING:
            continue
        if any(each.arg == "passive" for each in node.keywords):
            continue  # that only looks
        kind, first, second = DECLARING[node.func.attr]
        arguments = [value(each, known) for each in node.args]
        given = dict(zip((first, second), arguments, strict=False))
        given |= {
            str(each.arg): value(each.value, known)
            for each in node.keywords
            if each.arg != "callback"
        }
        name = given.pop(first, "")
        if name:
            if second in given:
                given["type"] = given.pop(second)
            found.append(Declaration(kind, name, given, script))
    return found
