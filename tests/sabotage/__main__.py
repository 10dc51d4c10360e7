"""Break the scripts one property at a time, and see that a test fails.

    python -m sabotage              all of them (`make sabotage`)
    python -m sabotage confirms     those whose name contains a word
    python -m sabotage 6-rpc        those of a chapter

Each act of sabotage takes one promise out of one script, in a copy of the
repository, and runs the tests that should notice, up to the first that does.
One that no test notices is a defect of the tests; the exit status is 1 then.
The acts are listed beside this file (see acts.py). Several are tried at a time.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import broker as brokers
from broker import BrokerError
from conftest import HANDLE
from sabotage.acts import Act, acts
from shells.chapters import APPS, ROOT

# Beside a chapter's own: tests that look at every script of every chapter.
COMMON = ("test_transcripts", "test_scripts", "test_docs", "test_outages")
AT_A_TIME = 4


def copy_repository(folder: Path) -> None:
    """The files that git knows, as they are here."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)


def notice(act: Act, folder: Path) -> list[str]:
    """Commit one act of sabotage in `folder`; return the tests, or files of them, that fail."""
    script = folder / act.path
    intact = script.read_text()
    script.write_text(act.broken(intact))
    own = (ROOT / "tests").glob(f"test_{act.listed.replace('-', '_')}*.py")
    names = [*(path.stem for path in own), *COMMON]
    pages = act.listed == "pages"  # which are built first
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-x"),
                *("--timeout", "300" if pages else "60"),
                *("-k", act.tests, "--chapter", act.chapter),
                *(["--part", "apps"] if pages or act.chapter in APPS else []),
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
    return sorted(
        set(re.findall(r"^(?:FAILED \S+::|ERROR tests/)(\w+)", done.stdout, re.MULTILINE))
    )


def main() -> None:
    words = sys.argv[1:]
    chosen = [
        each
        for each in acts()
        if not words
        or any(word in (each.listed, each.chapter) or word in each.name for word in words)
    ]
    survived, begun = 0, time.monotonic()
    copies: SimpleQueue[Path] = SimpleQueue()
    with (
        tempfile.TemporaryDirectory(prefix="rabbitmq-by-example-sabotage-") as folder,
        brokers.get(lean=True, tls=True) as broker,
        ThreadPoolExecutor(AT_A_TIME) as pool,
    ):
        os.environ[HANDLE] = broker.to_json()
        os.environ.pop("PYTHONPATH", None)  # each copy tests itself
        for number in range(AT_A_TIME):
            copies.put(Path(folder) / str(number))
            copy_repository(Path(folder) / str(number))

        def commit(act: Act) -> list[str]:
            copy = copies.get()
            try:
                return notice(act, copy)
            finally:
                copies.put(copy)

        for act, failed in zip(chosen, pool.map(commit, chosen), strict=True):
            survived += not failed
            test = failed[0] if failed else ""
            word = "caught" if failed else "MISSED"
            print(f"{word}  {act.name} in {act.path}  {test}".rstrip(), flush=True)
    minutes = (time.monotonic() - begun) / 60
    print(f"{len(chosen) - survived} of {len(chosen)} caught in {minutes:.0f} min")
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    try:
        main()
    except BrokerError as error:
        sys.exit(str(error))
