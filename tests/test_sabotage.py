"""The lists of sabotage fit the scripts, pages and tests, so that `make sabotage` runs."""

from __future__ import annotations

import subprocess
import sys

from _pytest.mark.expression import Expression
from sabotage.__main__ import COMMON
from sabotage.acts import acts
from shells.chapters import APPS, ROOT


def test_each_act_finds_what_it_takes_out() -> None:
    assert acts()  # which raises SystemExit for one that does not


def test_each_act_names_tests_that_there_are() -> None:
    """Of the apps' own, which want more installed, it takes their word."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n0"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    tests = [line.lower() for line in listed.stdout.splitlines() if "::" in line]
    for act in acts():
        if act.listed == "pages" or act.chapter in APPS:
            continue
        files = [f"tests/{name}.py::" for name in COMMON]
        files += [f"tests/test_{act.listed.replace('-', '_')}"]
        wanted = Expression.compile(act.tests)
        assert any(
            wanted.evaluate(lambda word, **_: word.lower() in test)  # noqa: B023
            for test in tests
            if test.startswith(tuple(files))
        ), f"{act.name} in {act.path}: no test is {act.tests!r}"
