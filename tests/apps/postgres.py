"""A throwaway PostgreSQL server for the tests and figures of http-queue.

POSTGRES_URL names one to use, in which databases are made and dropped. Else an
installed PostgreSQL is run in a temporary folder, on a port of its own, and is
gone afterwards: see reaper.py. It refuses to run as root, so root runs it as
the user nobody. There is no third way: where there is none it is an error that
says what to install.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
from broker import LOOPBACK, PREFIX, free_ports, reaper, shown

REMEDIES = """\
There is no PostgreSQL to use here. Either of these fixes it:
  1. install one (it needn't run):  sudo apt-get install postgresql, or
  2. name a running one:  export POSTGRES_URL=postgres://user:password@host/database"""
START_SECONDS = 60


class PostgresError(Exception):
    """No server, or not this one; the text says why and how to fix it."""


def programs() -> Path | None:
    """The folder with initdb and postgres; Debian keeps it out of PATH."""
    found = [Path(place).resolve().parent] if (place := shutil.which("initdb")) else []
    debian = Path("/usr/lib/postgresql").glob("*/bin")
    found += sorted(debian, key=lambda path: int(path.parent.name.partition(".")[0]), reverse=True)
    return next((folder for folder in found if (folder / "initdb").exists()), None)


def ordinary_user() -> list[str]:
    """What to put before a command so that it isn't run by root."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


class Postgres:
    """A server that is up, at `url`. `fsync` says whether it survives a power cut."""

    def __init__(self, fsync: bool = False) -> None:
        self._reaper: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self.fsync = fsync
        self.url = os.environ.get("POSTGRES_URL", "").replace("postgresql://", "postgres://", 1)
        if not self.url:
            self._start()
        try:
            self.version = str(asyncio.run(self.ask("SHOW server_version"))).split()[0]
        except (OSError, asyncpg.PostgresError) as error:
            raise PostgresError(f"Cannot use PostgreSQL at {shown(self.url)}: {error}") from None

    def _start(self) -> None:
        folder_of_programs = programs()
        if not folder_of_programs:
            raise PostgresError(REMEDIES)
        tag = f"{PREFIX}-postgres-{uuid.uuid4().hex[:8]}"
        folder = Path(tempfile.mkdtemp(prefix=f"{tag}-"))
        self._reaper = subprocess.Popen(
            [sys.executable, str(Path(reaper.__file__)), tag, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._reaper.stdout
        self._reaper.stdout.readline()
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
        (port,) = free_ports(1)
        environment = {**os.environ, reaper.TAG_VARIABLE: tag, "LC_ALL": "C.UTF-8"}
        data, log = folder / "data", folder / "log"
        initdb = [folder_of_programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N"]
        made = subprocess.run(
            [*ordinary_user(), *map(str, initdb)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        if made.returncode:
            self.close()
            raise PostgresError(f"initdb failed:\n{made.stdout}{made.stderr}")
        settings = {
            "listen_addresses": LOOPBACK,
            "port": port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "fsync": "on" if self.fsync else "off",
            "log_min_messages": "fatal",
        }
        server = [*ordinary_user(), str(folder_of_programs / "postgres"), "-D", str(data)]
        for name, value in settings.items():
            server += ["-c", f"{name}={value}"]
        with log.open("wb") as output:
            self._server = running = subprocess.Popen(
                server,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.url = f"postgres://postgres@{LOOPBACK}:{port}/postgres"
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                asyncio.run(self.ask("SELECT 1"))
                return
            except (OSError, asyncpg.PostgresError) as error:
                if running.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                told = log.read_text(errors="replace")
                self.close()
                raise PostgresError(f"PostgreSQL did not start: {error!r}\n{told}") from None

    async def ask(self, statement: str) -> object:
        """Run one statement; the first value that it gives."""
        connection = await asyncpg.connect(self.url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    @contextmanager
    def database(self) -> Iterator[str]:
        """Make a database, yield its URL, and drop it."""
        name = f"queue_{uuid.uuid4().hex[:12]}"
        asyncio.run(self.ask(f"CREATE DATABASE {name}"))
        try:
            yield f"{self.url.rpartition('/')[0]}/{name}"
        finally:
            asyncio.run(self.ask(f"DROP DATABASE {name} WITH (FORCE)"))

    def close(self) -> None:
        """Stop the server and remove what it left, if it is ours."""
        if self._reaper:
            assert self._reaper.stdin
            assert self._reaper.stdout
            self._reaper.stdin.close()
            self._reaper.wait()
            self._reaper.stdout.close()
        if self._server:
            self._server.wait()

    def __enter__(self) -> Postgres:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
