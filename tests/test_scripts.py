"""What holds for every script of every chapter that comes in both clients."""

from __future__ import annotations

import ast
import re
import shlex
import sys
from functools import partial
from pathlib import Path

import broker as brokers
import pytest
from chapters import CLIENTS, EXAMPLES, chapters
from conftest import Starter, assert_one_line

SCRIPTS = [
    script
    for chapter in chapters()
    for client in CLIENTS
    for script in sorted((EXAMPLES / chapter / client).glob("*.py"))
]
# More lines than a reader takes in at a glance, and why.
LONG = {
    "2-work-queues/pika/tasks_worker.py": "sets failing tasks aside",
    "2-work-queues/aio-pika/tasks_worker.py": "and is told when its queue is deleted",
    "which-client/pika/ten_at_a_time.py": "what threads take, which is its point",
    "which-client/aio-pika/ten_at_a_time.py": "and what it takes to hear of trouble",
    "6-rpc/pika/rpc_server.py": "answers errors, and computes in a thread",
    "6-rpc/aio-pika/rpc_server.py": "answers errors, and computes in a thread",
    "6-rpc/aio-pika/rpc_client.py": "waits with a timeout; aio-pika's longer tail",
    "6-rpc/aio-pika/rpc_client_direct.py": "waits with a timeout; aio-pika's longer tail",
    "7-publisher-confirms/pika/publish_in_batches.py": "callbacks; an account of every message",
    "7-publisher-confirms/pika/publish_asynchronously.py": "likewise",
    "7-publisher-confirms/aio-pika/publish_individually.py": "nacked, returned, unknown",
    "7-publisher-confirms/aio-pika/publish_in_batches.py": "an account of every message",
    "7-publisher-confirms/aio-pika/publish_asynchronously.py": "likewise",
    "8-streams/pika/read_resuming.py": "keeps its place, and sees whether it is still there",
    "8-streams/aio-pika/read_resuming.py": "and is told when its stream is deleted",
    "8-streams/aio-pika/read_since.py": "is told when its stream is deleted",
}

every_script = pytest.mark.parametrize(
    "script", SCRIPTS, ids=lambda path: str(path.relative_to(EXAMPLES))
)


def usage(script: Path) -> list[str]:
    """The arguments with which its docstring says to run it."""
    docstring = ast.get_docstring(ast.parse(script.read_text())) or ""
    found = re.search(rf"python {script.name}(?P<arguments>.*)$", docstring, re.MULTILINE)
    assert found, f"{script}: its docstring does not say how to run it"
    return shlex.split(found["arguments"])


@every_script
def test_it_needs_only_its_client(script: Path) -> None:
    """It can be copied out of here: standard library plus one client."""
    own = {"pika": "pika", "aio-pika": "aio_pika"}[script.parent.name]
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        else:
            continue
        for module in modules:
            top = module.partition(".")[0]
            assert top == own or top in sys.stdlib_module_names, f"{script}: {module}"


@every_script
def test_it_is_short(script: Path) -> None:
    lines = len(script.read_text().splitlines())
    assert lines <= 60 or str(script.relative_to(EXAMPLES)) in LONG, lines


@every_script
def test_no_broker(start: Starter, script: Path) -> None:
    """Run as its docstring says, it says in one line what is missing.

    By an interpreter of its own, so that it is seen to import what it uses.
    """
    (port,) = brokers.free_ports(1)
    run = partial(start, script.parent.parent.name, script.parent.name, script.name)
    url = f"amqp://guest:secret@localhost:{port}/"
    ended = run(*usage(script), url=url, PYTHONNOUSERSITE="1")
    assert_one_line(ended, f"localhost:{port}/", "make broker")
    assert "secret" not in ended.stderr[0]
    assert ended.stdout == []


@every_script
def test_missing_arguments(start: Starter, script: Path) -> None:
    if "Usage: " not in script.read_text():
        assert not usage(script), f"{script} takes arguments, and does not say which"
        return
    run = partial(start, script.parent.parent.name, script.parent.name, script.name)
    # Where none is needed, "[N]", the first is a number.
    optional = f"Usage: python {script.name} [" in script.read_text()
    ended = run(*(["no number"] if optional else []), url="amqp://unused/")
    assert (ended.wait(), ended.stdout) == (2, [])
    assert len(ended.stderr) == 1
    assert ended.stderr[0].startswith(f"Usage: python {script.name} "), ended
