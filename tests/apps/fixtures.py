"""Where the tests of http-queue keep the queue: fixtures, as a plugin of pytest."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from apps.postgres import Postgres, PostgresError


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for this process; xdist keeps its tests in one."""
    try:
        server = Postgres()
    except PostgresError as error:
        pytest.fail(str(error))
    with server:
        yield server


@pytest.fixture
def option(request: pytest.FixtureRequest) -> Iterator[str]:
    """An option of serve.py that says so; the parameter is what begins it."""
    if request.param == "--queue":
        yield f"--queue={request.getfixturevalue('url')}"
    elif request.param == "--database=sqlite":
        yield f"--database=sqlite://{request.getfixturevalue('tmp_path')}/q.sqlite3"
    else:
        with request.getfixturevalue("postgres").database() as url:
            yield f"--database={url}"
