"""The repository is complete, and what it says of itself is so."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from chapters import CLIENTS, DOCS, EXAMPLES, ROOT, chapters, declarations, page, scripts
from player import scenarios

README = (ROOT / "README.rst").read_text(encoding="utf-8")
PAGES = sorted(DOCS.glob("*.rst"))
TESTS = ROOT / "tests"
# Pages that are no chapter, with scripts of their own.
BESIDE_THE_CHAPTERS: set[str] = {"what-happens", "errors"}


def test_there_are_chapters() -> None:
    assert chapters()


@pytest.mark.parametrize("chapter", chapters())
class TestChapter:
    def test_has_a_page_and_a_test_of_its_name(self, chapter: str) -> None:
        assert page(chapter).exists()
        assert (TESTS / f"test_{chapter.replace('-', '_')}.py").exists()

    def test_is_in_readme_and_in_the_contents(self, chapter: str) -> None:
        assert f"`{chapter}`__" in README
        assert f"docs/{chapter}.rst" in README
        label = re.match(r"\.\. _(.+):", page(chapter).read_text())
        assert label
        assert f":ref:`{label[1]}`" in (DOCS / "index.rst").read_text()

    def test_has_every_script_in_both_clients(self, chapter: str) -> None:
        pika, aio_pika = (
            {path.name for path in (EXAMPLES / chapter / client).iterdir()} for client in CLIENTS
        )
        assert pika == aio_pika

    def test_has_no_orphan(self, chapter: str) -> None:
        """Every script is shown on the page and run by a test or a transcript."""
        text = page(chapter).read_text()
        tests = (TESTS / f"test_{chapter.replace('-', '_')}.py").read_text()
        typed = [
            step.command for found in scenarios(page(chapter), "pika") for step in found.steps
        ]
        for script in (EXAMPLES / chapter).glob("*/*.py"):
            path = script.relative_to(ROOT)
            assert f".. literalinclude:: ../{path}" in text, path
            assert script.name in tests or any(script.name in line for line in typed), path

    def test_is_true_in_its_docstrings(self, chapter: str) -> None:
        """A script's own instructions name itself, or a script beside it."""
        for script in (EXAMPLES / chapter).glob("*/*.py"):
            docstring = ast.get_docstring(ast.parse(script.read_text())) or ""
            named = re.findall(r"\w+\.py", docstring)
            assert script.name in named, script
            for name in named:
                assert (script.parent / name).exists(), f"{script}: {name}"


def test_no_example_folder_is_a_package() -> None:
    """A folder `pika` with an __init__.py shadows the library."""
    assert not list(EXAMPLES.glob("**/__init__.py"))


def test_every_page_has_its_place() -> None:
    assert {path.stem for path in PAGES} == {"index", *chapters(), *BESIDE_THE_CHAPTERS}


def test_every_test_of_a_chapter_has_its_chapter() -> None:
    numbered = {path.stem for path in TESTS.glob("test_[0-9]*.py")}
    assert numbered == {f"test_{chapter.replace('-', '_')}" for chapter in chapters()}


def test_no_two_scripts_declare_a_name_differently() -> None:
    known: dict[tuple[str, str], object] = {}
    for found in declarations():
        key = (found.kind, found.name)
        assert known.setdefault(key, found.arguments) == found.arguments, found
    assert ("queue", "task_queue") in known


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^(\w+):.*## ", makefile, re.MULTILINE))
    texts = [README, *(path.read_text() for path in [*PAGES, *scripts()])]
    texts += [path.read_text() for path in TESTS.glob("*.py")]
    texts += [(ROOT / ".github/workflows/test.yml").read_text(), (ROOT / ".ci/run").read_text()]
    # As a command of its own: in literals, at the start of a line, after a colon.
    named = {
        target
        for text in texts
        for target in re.findall(r"(?:``|^ *|run: |: |try |or )make ([a-z]+)", text, re.MULTILINE)
    }
    assert {"demo", "test", "broker", "doctor", "reset", "check"} <= named
    assert named <= targets | {"it"}, named - targets


def test_every_folder_that_readers_are_sent_to_exists() -> None:
    for text in [README, *(path.read_text() for path in PAGES)]:
        for folder in re.findall(r"^\s*cd (\S+)$", text, re.MULTILINE):
            assert (ROOT / folder).is_dir(), folder


@pytest.mark.parametrize("record", sorted((DOCS / "figures").glob("*.json")), ids=lambda p: p.stem)
def test_a_figure_shows_its_record(record: Path) -> None:
    data = json.loads(record.read_text())
    svg = ElementTree.parse(record.with_suffix(".svg"))
    text = " ".join("".join(node.itertext()) for node in svg.iter() if node.tag.endswith("text"))
    about = data["about"]
    for fact in (about["date"], about["rabbitmq"], *about["clients"].values(), data["script"]):
        assert fact in text, f"{record}: make figures"
    for run in data["runs"].values():
        assert f"{max(task['to'] for task in run):.1f} s" in text


def test_the_figures_show_what_the_page_says_of_them() -> None:
    def spread(name: str) -> list[tuple[int, float]]:
        """By client: heavy tasks of worker 1, and its share of all the time."""
        runs = json.loads((DOCS / f"figures/2-work-queues-{name}.json").read_text())["runs"]
        assert set(runs) == set(CLIENTS)
        return [
            (
                sum(t["task"].startswith("Heavy") for t in run if t["worker"] == 1),
                max(t["to"] for t in run) / sum(t["task"].count(".") for t in run),
            )
            for run in runs.values()
        ]

    for heavy, share in spread("unfair"):
        assert heavy == 4
        assert share > 0.75
    for heavy, share in spread("fair"):
        assert heavy == 2
        assert share < 0.55
