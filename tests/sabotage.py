"""Break the scripts one property at a time, and see that a test fails.

    python tests/sabotage.py              all of them (`make sabotage`)
    python tests/sabotage.py confirms     those whose name contains a word
    python tests/sabotage.py 6-rpc        those of a chapter

Each act of sabotage takes one promise out of one script, in a copy of the
repository, and runs the tests that should notice, up to the first that does.
One that no test notices is a defect of the tests; the exit status is 1 then.
The acts are listed in cuts_<chapter>.py. Several are tried at a time.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import broker as brokers
from broker import BrokerError
from chapters import APPS, ROOT, chapters, companions, pages
from conftest import HANDLE
from cuts import Cut

# Beside a chapter's own: tests that look at every script of every chapter.
COMMON = ("test_transcripts", "test_scripts", "test_docs", "test_outages")
# Pages that are no chapters: their acts name files from the top of the repository.
PAGES = ("what-happens", "errors")
AT_A_TIME = 4


def all_cuts() -> list[Cut]:
    """The acts of sabotage of all chapters that have some."""
    own = {path.stem for each in (*chapters(), *companions()) for path in pages(each)}
    modules = (f"cuts_{page.replace('-', '_')}" for page in (*sorted(own), *PAGES))
    here = Path(__file__).parent
    return [
        found
        for module in modules
        if (here / f"{module}.py").exists()
        for found in importlib.import_module(module).CUTS
    ]


def where(sabotage: Cut) -> str:
    """The file that is broken, from the top of the repository."""
    if sabotage.chapter in PAGES:
        return sabotage.script
    return f"examples/{sabotage.chapter}/{sabotage.script}"


def copy_repository(folder: Path) -> None:
    """The files that git knows, as they are here."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)


def notice(sabotage: Cut, folder: Path) -> list[str]:
    """Commit one act of sabotage in `folder`; return the tests that fail."""
    script = folder / where(sabotage)
    intact = script.read_text()
    broken = intact
    for pattern, replacement in sabotage.changes:
        broken, count = re.subn(pattern, replacement, broken)
        if not count:
            raise SystemExit(f"{sabotage.script} has no {pattern!r} for {sabotage.name!r}")
    script.write_text(broken)
    stems = {sabotage.chapter, *(path.stem for path in pages(sabotage.chapter))}
    patterns = [f"test_{stem.replace('-', '_')}*.py" for stem in sorted(stems)]
    own = [path.stem for pattern in patterns for path in (ROOT / "tests").glob(pattern)]
    names = [*own, *COMMON]
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-x", "--timeout", "60"),
                *("-k", sabotage.tests),
                *(["--apps"] if sabotage.chapter in APPS else []),
                *(f"tests/{name}.py" for name in names),
            ],
            cwd=folder,
            capture_output=True,
            text=True,
        )
    finally:
        script.write_text(intact)
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest could not run:\n{done.stdout}{done.stderr}")
    return sorted(set(re.findall(r"^FAILED \S+::(\w+)", done.stdout, re.MULTILINE)))


def main() -> None:
    words = sys.argv[1:]
    chosen = [
        each
        for each in all_cuts()
        if not words or any(word == each.chapter or word in each.name for word in words)
    ]
    survived = 0
    copies: SimpleQueue[Path] = SimpleQueue()
    with (
        tempfile.TemporaryDirectory(prefix="rabbitmq-by-example-sabotage-") as folder,
        brokers.get() as broker,
        ThreadPoolExecutor(AT_A_TIME) as pool,
    ):
        os.environ[HANDLE] = broker.to_json()
        for number in range(AT_A_TIME):
            copies.put(Path(folder) / str(number))
            copy_repository(Path(folder) / str(number))

        def commit(sabotage: Cut) -> list[str]:
            copy = copies.get()
            try:
                return notice(sabotage, copy)
            finally:
                copies.put(copy)

        for sabotage, failed in zip(chosen, pool.map(commit, chosen), strict=True):
            survived += not failed
            test = failed[0] if failed else ""
            word = "caught" if failed else "MISSED"
            print(f"{word}  {sabotage.name} in {where(sabotage)}  {test}".rstrip(), flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} caught")
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    try:
        main()
    except BrokerError as error:
        sys.exit(str(error))
