"""The repository is complete, and what it says of itself is so."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from statistics import median
from xml.etree import ElementTree

import pytest
from broker import DEFAULT_IMAGE
from shells import minutes
from shells.chapters import (
    CLIENTS,
    DOCS,
    EXAMPLES,
    NUMBERS,
    ROOT,
    chapters,
    clients,
    companions,
    declarations,
    figure,
    numbered,
    page,
    pages,
    said,
    scripts,
)
from shells.player import scenarios

README = (ROOT / "README.rst").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.rst").read_text(encoding="utf-8")
PAGES = sorted(DOCS.glob("*.rst"))
TESTS = ROOT / "tests"
# Pages that are no chapter, with scripts of their own.
BESIDE_THE_CHAPTERS = {"set-up", "cheat-sheet", "versions", "what-happens", "errors", "glossary"}


# What README has the clone called.
CLONE = "rabbitmq-by-example"

SOURCES = {".py", ".txt", ".yaml"}
NAME = re.compile(r"\w+=[\w.]+|[A-Z]\w*[a-z]\w*[A-Z]\w+|\w+_\w+|\bx-[a-z-]+|[A-Z]{3,}")
# Of other libraries and chapters, in tables that a test reads, in an example of a name.
OTHERS = {
    *("ExceptionGroup", "PYTHONUNBUFFERED=1", "task_queue", "to_thread", "perf_counter", "RPC"),
    *("tx_select", "tx_commit", "connect_robust", "INTERNAL_ERROR", "F6vdosn44fgIbw980"),
    *("ChannelClosedByBroker", "ChannelNotFoundEntity", "rabbitmq_prometheus"),
    *("x-max-length-bytes", "x-dead-letter-strategy", "consumer_timeout"),
    *("ProbableAuthenticationError", "TimeoutStopSec", "GracePeriodSeconds"),
    *("await_online_quorum_plus_one", "net_ticktime", "SEED"),
    *("TLS=1", "EXTERNAL", "no_verify_ssl=1", "NO_CERTIFICATE_OR_CRL_FOUND"),
    "StartLimitIntervalSec=0",
}


def test_there_are_chapters() -> None:
    assert chapters()


def test_a_chapter_to_watch_is_one() -> None:
    texts = (README, *(each.read_text(encoding="utf-8") for each in PAGES))
    named = {name for text in texts for name in re.findall(r"CHAPTER=([\w-]+)", text)}
    assert named
    assert named <= {*chapters()}


@pytest.mark.parametrize("chapter", [*chapters(), *companions()])
class TestChapter:
    def test_has_a_page_and_a_test_of_its_name(self, chapter: str) -> None:
        assert page(chapter).exists()
        assert (TESTS / f"test_{chapter.replace('-', '_')}.py").exists()

    def test_is_in_readme_and_in_the_contents(self, chapter: str) -> None:
        assert f"`{chapter}`__" in README
        assert f"docs/{chapter}.rst" in README
        for path in pages(chapter):
            label = re.match(r"\.\. _(.+):", path.read_text())
            assert label
            assert f":ref:`{label[1]}`" in (DOCS / "index.rst").read_text()

    def test_has_every_script_for_each_client(self, chapter: str) -> None:
        first, *others = (
            {path.name for path in (EXAMPLES / chapter / client).glob("*.py")}
            for client in clients(chapter)
        )
        assert all(other == first for other in others)

    def test_has_no_orphan(self, chapter: str) -> None:
        """Every script is shown on a page and run by a test or a transcript."""
        own = pages(chapter)
        text = "".join(path.read_text() for path in own)
        named = [TESTS / f"test_{path.stem.replace('-', '_')}.py" for path in own]
        tests = "".join(path.read_text() for path in named)
        played = [found for path in own for found in scenarios(path, clients(chapter)[0])]
        typed = [step.command for found in played for step in found.steps]
        for script in (EXAMPLES / chapter).glob("**/*.py"):
            path = script.relative_to(ROOT)
            assert f".. literalinclude:: ../{path}" in text, path
            assert script.name in tests or any(script.name in line for line in typed), path

    def test_names_what_there_is(self, chapter: str) -> None:
        """Codes, classes, options and settings in its prose are those of scripts or tests."""
        own = pages(chapter)
        text = "".join(path.read_text() for path in own)
        files = [each for each in (EXAMPLES / chapter).glob("**/*") if each.suffix in SOURCES]
        for name in (*(path.stem.replace("-", "_") for path in own), "scripts"):
            files += TESTS.glob(f"test_{name}*.py")
        known = "".join(path.read_text() for path in files)
        for pattern in re.findall(r'r"([^"\n]*\(\\[wS]\+\)[^"\n]*)"', known):
            known += str(re.findall(pattern.replace(" ", r"\s+"), text))  # what a test reads
        block = re.compile(r"^( *)\.\. code-block::.*\n(?:\1 +.*\n|\n)+", re.MULTILINE)
        known += "".join(each[0] for each in block.finditer(text))
        prose = " ".join(re.findall(r"``([^`]+)``", block.sub("", text)))
        bare, known = prose.replace('"', ""), known.replace('"', "")
        there = {x for each in (NAME, r"\w+", r"x-[a-z-]+") for x in re.findall(each, known)}
        assert {*NAME.findall(bare)} <= there | OTHERS

    def test_is_true_in_its_docstrings(self, chapter: str) -> None:
        """A script's own instructions name itself, or a script beside it."""
        for script in (EXAMPLES / chapter).glob("**/*.py"):
            docstring = ast.get_docstring(ast.parse(script.read_text())) or ""
            named = re.findall(r"\w+\.py", docstring)
            assert script.name in named, script
            for name in named:
                beside = [script.parent, EXAMPLES / "2-work-queues" / script.parent.name]
                assert any((folder / name).exists() for folder in beside), f"{script}: {name}"


def test_no_example_folder_is_a_package() -> None:
    """A folder `pika` with an __init__.py shadows the library."""
    assert not list(EXAMPLES.glob("**/__init__.py"))


def test_the_versions_on_the_pages_are_those_that_are_tried() -> None:
    """The broker's in the record of what happens, the clients' installed."""
    texts = "\n".join(path.read_text() for path in PAGES)
    record = json.loads((DOCS / "figures/what-happens.json").read_text())
    measured = re.findall(r"with\s+RabbitMQ\s+([\d.]+, [\d.]+ and\s+[\d.]+)\b", texts)
    assert len(measured) > 4
    for versions in measured:
        series = [".".join(each.split(".")[:2]) for each in re.findall(r"[\d.]+\d", versions)]
        assert series == list(record["versions"]), versions
    for client, given in re.findall(r"(?<!-)\b(pika|aio-pika) (\d+\.\d+)(?:\.\d+)?\b", texts):
        assert metadata.version(client).startswith(f"{given}."), (client, given)


ROOM = re.compile(
    r"[Yy]ou need (?:a broker and )?(\w+) shells? in\s+``examples/([\w/-]+)``".replace(" ", r"\s+")
)


def test_the_shells_that_a_page_asks_for_are_those_that_it_uses() -> None:
    asking = {path: ROOM.findall(path.read_text()) for path in PAGES}
    for path, found in asking.items():
        for many, where in found:
            shells = {n for c in CLIENTS for s in scenarios(path, c) for n in s.shells}
            assert len(shells) == NUMBERS[many], (path.name, shells)
            assert (EXAMPLES / where).is_dir(), path.name
    assert sum(map(bool, asking.values())) > 15


@pytest.mark.parametrize("chapter", ["1-hello-world", "2-work-queues", "6-rpc"])
def test_how_each_client_says_that_it_will_not_ack(chapter: str) -> None:
    for client, where in zip(CLIENTS, ("pika", "aio-pika"), strict=True):
        name = said(chapter, rf"(?:\(|, )``(\w+)`` in {where}[,)]")
        scripts_of = (EXAMPLES / chapter / client).glob("*.py")
        assert any(f"{name}=True" in path.read_text() for path in scripts_of), client


def test_every_page_has_its_place() -> None:
    assert {path.stem for path in PAGES} == {
        "index",
        *(path.stem for each in (*chapters(), *companions()) for path in pages(each)),
        *BESIDE_THE_CHAPTERS,
    }


def test_the_chapters_of_the_tutorial_link_to_the_glossary() -> None:
    """That the terms exist is for sphinx to say, which runs with -n -W."""
    for chapter in numbered():
        assert ":term:`" in page(chapter).read_text(), chapter


def test_every_test_of_a_chapter_has_its_chapter() -> None:
    named = {f"test_{chapter.replace('-', '_')}" for chapter in numbered()}
    tests = {path.stem for path in TESTS.glob("test_[0-9]*.py")}
    assert named <= tests
    assert all(test.startswith(tuple(named)) for test in tests)


def test_no_two_scripts_declare_a_name_differently() -> None:
    known: dict[tuple[str, str], object] = {}
    for found in declarations():
        key = (found.kind, found.name)
        assert known.setdefault(key, found.arguments) == found.arguments, found
    assert ("queue", "task_queue") in known


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([\w-]+):.*## ", makefile, re.MULTILINE))
    texts = [README, CONTRIBUTING, *(path.read_text() for path in [*PAGES, *scripts()])]
    texts += [path.read_text() for path in TESTS.glob("*.py")]
    texts += [(ROOT / ".github/workflows/test.yml").read_text(), (ROOT / ".ci/run").read_text()]
    # As a command of its own: in literals, at the start of a line, after a colon.
    named = {
        target
        for text in texts
        for target in re.findall(r"(?:``|^ *|run: |: |try |or )make ([a-z-]+)", text, re.MULTILINE)
    }
    assert {"demo", "test", "broker", "doctor", "reset", "check"} <= named
    assert named <= targets | {"it"}, named - targets


def test_every_file_that_readme_links_to_exists() -> None:
    linked = re.findall(r"^(?:__|\.\. _[^:]+:) (?!https?:)(\S+)$", README, re.MULTILINE)
    linked += re.findall(r"`[^`<]+\s<(?!https?:)([^>]+)>`__", README)
    assert {"docs/glossary.rst", "docs/set-up.rst", "CONTRIBUTING.rst"} <= {*linked}
    for path in linked:
        assert (ROOT / path).exists(), path


def test_every_folder_that_readers_are_sent_to_exists() -> None:
    sent = re.compile(r"^\s*cd (\S+)$|shells?\s+in\s+``(examples/[^`]+)``", re.MULTILINE)
    for text in [README, *(path.read_text() for path in PAGES)]:
        for folder in sent.findall(text):
            assert (ROOT / "".join(folder).removeprefix(CLONE)).is_dir(), folder


def test_the_minutes_are_computed() -> None:
    for place in minutes.PLACES:
        text = place.read_text(encoding="utf-8")
        assert minutes.timed(text) == text, f"{place.name}: make minutes"
    assert "     - Minutes" in README
    assert f"takes {minutes.minutes(minutes.FIRST)} minutes" in README


def test_the_minutes_follow_words_and_commands(tmp_path: Path) -> None:
    def written(words: int, commands: int) -> int:
        path = tmp_path / "page.rst"
        block = "   shell1$ true\n    [x] not a word\n" * commands
        block = block and f".. code-block:: console\n\n{block}"
        path.write_text("Title\n=====\n\n" + "word " * words + "\n\n" + block)
        return minutes.minutes(path)

    for words, commands, wanted in ((650, 0, 5), (651, 0, 10), (10, 14, 5), (10, 15, 10)):
        assert written(words, commands) == wanted, (words, commands)


PROSE = """
Title
=====

A line of prose, :ref:`and
more <page>` of it.

- an item, and
  more of it

.. figure:: drawing.svg
   :alt: What it shows
         to who cannot see it

   {caption}

.. code-block:: python

   never = read

.. note::

   :term:`Read`, too.
{table}"""
TABLE = ".. list-table::\n   :header-rows: 1\n\n   * - In a\n     - table\n"


def test_what_counts_as_prose(tmp_path: Path) -> None:
    path = tmp_path / "page.rst"
    path.write_text(PROSE.format(caption="", table=""))
    text = "A line of prose, :ref:`and more` of it. an item, and more of it :term:`Read`, too."
    assert minutes.prose(path, minutes.PLAIN) == minutes.prose(path) == text.split()
    path.write_text(PROSE.format(caption="A caption", table=TABLE))
    assert minutes.prose(path, minutes.PLAIN) == text.split()
    assert len(minutes.prose(path)) == len(text.split()) + 5


# Pages to look things up in may be longer.
READ = [path for path in PAGES if path.stem not in {"errors", "glossary"}]


@pytest.mark.parametrize("path", READ, ids=lambda path: path.stem)
def test_a_page_is_not_longer_than_one_reads(path: Path) -> None:
    assert len(minutes.prose(path, minutes.PLAIN)) <= 1500


def test_readme_shows_what_a_page_has() -> None:
    blocks = re.findall(r"code-block:: console\n\n((?:   .*\n)+)", README)
    shown = [line for block in blocks for line in block.splitlines()]
    assert len(shown) > 10
    assert {*shown} <= {*page("2-work-queues").read_text().splitlines()}


def test_set_up_names_what_is_used() -> None:
    text = page("set-up").read_text()
    assert said("set-up", r"15672:15672 (\S+)") == DEFAULT_IMAGE
    needed = said("set-up", r"Python ([\d.]+) or later")
    asked = f"sys.version_info < ({needed.replace('.', ', ')})"
    assert asked in (ROOT / ".ci/setup.sh").read_text()
    listed = (ROOT / ".github/workflows/test.yml").read_text()
    tried = said("set-up", r"CI on Ubuntu with ([\d., and]+\d)\.")
    assert sorted(re.findall(r'python: "([\d.]+)"', listed)) == re.findall(r"\d\.\d+", tried)
    transcript = re.search(r"code-block:: text\n\n((?:   .*\n)+)", text)
    assert transcript
    played = {line.strip() for line in page("1-hello-world").read_text().splitlines()} | {"^C"}
    for line in transcript[1].splitlines():
        assert re.sub(r"^shell\d", "", line.strip()) in {
            re.sub(r"^shell\d", "", each) for each in played
        }, line


def test_the_picture_of_a_queue_shows_its_record() -> None:
    record = json.loads((DOCS / "figures/set-up.json").read_text())
    assert record["about"]["rabbitmq"] == said("set-up", r"UI of RabbitMQ ([\d.]+):")
    assert record["queue"] == said("set-up", r"\*Queues and Streams\*, and there ``(\w+)``\.")
    assert record["counts"] == {
        name: said("set-up", rf"{name} (\d+)[,.]") for name in ("Ready", "Unacked", "Total")
    }
    sent = figure("set-up", r"has sent (\w+) tasks")
    assert record["counts"]["Total"] == record["counts"]["Ready"] == f"{sent}"
    assert (DOCS / "figures/set-up.png").stat().st_size < 100_000


def test_without_a_browser_no_figure_is_begun(tmp_path: Path) -> None:
    command = [sys.executable, str(DOCS / "figures/record.py"), "set-up"]
    environment = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    needed = "There is no chromium: sudo apt-get install chromium chromium-driver"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{needed}\n")


def test_the_dev_container_has_what_the_page_says() -> None:
    folder = ROOT / ".devcontainer"
    about = json.loads((folder / "devcontainer.json").read_text())
    made = (folder / about["build"]["dockerfile"]).read_text()
    for package in said("set-up", r"sudo apt-get install ([\w -]+)\n").split():
        assert f" {package} " in made, package
    assert about["postCreateCommand"] == "make .venv/ready"


def texts(svg: Path) -> str:
    nodes = ElementTree.parse(svg).iter()
    return " ".join("".join(node.itertext()) for node in nodes if node.tag.endswith("text"))


@pytest.mark.parametrize("drawing", sorted((DOCS / "figures").glob("*.svg")), ids=lambda p: p.stem)
def test_a_figure_says_when_and_with_what_it_was_recorded(drawing: Path) -> None:
    about = json.loads(drawing.with_suffix(".json").read_text())["about"]
    if "rabbitmq" in about:
        made_with = [about["rabbitmq"], *about["clients"].values()]
    else:  # without a broker it is Python's own version that counts
        made_with = [about["python"]]
    for fact in (about["date"], *made_with):
        assert fact in texts(drawing), f"{drawing}: make figures"


@pytest.mark.parametrize("name", ["fair", "unfair"])
def test_the_figures_of_chapter_2_show_their_record(name: str) -> None:
    record = DOCS / f"figures/2-work-queues-{name}.json"
    data = json.loads(record.read_text())
    text = texts(record.with_suffix(".svg"))
    assert data["script"] in text
    for run in data["runs"].values():
        assert f"{max(task['to'] for task in run):.1f} s" in text


def test_the_figure_of_chapter_7_shows_its_record() -> None:
    record = DOCS / "figures/7-publisher-confirms.json"
    for run in json.loads(record.read_text())["runs"].values():
        for measured in run.values():  # by script; the middle one is shown
            assert f"{median(measured):,.0f}" in texts(record.with_suffix(".svg"))


def test_the_figures_of_chapter_2_show_what_the_page_says_of_them() -> None:
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

    quarters = figure("2-work-queues", r"is idle for (\w+) quarters of")
    for heavy, share in spread("unfair"):
        assert heavy == figure("2-work-queues", r"(?:1 does|2 does) (\w+) (?:heavy|light)")
        # All light tasks take a quarter of the time of all heavy ones.
        assert quarters / 4 < share < quarters / 4 + 0.1
    for heavy, share in spread("fair"):
        assert heavy == figure("2-work-queues", r"workers do (\w+) heavy and \w+ light")
        assert share < 0.55
