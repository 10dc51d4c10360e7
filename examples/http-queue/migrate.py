"""migrate.py: bring a database up to date, with Tortoise's migrations."""

import asyncio
import itertools

import asyncpg
from models import config
from tortoise import Tortoise
from tortoise.exceptions import OperationalError
from tortoise.migrations.executor import MigrationExecutor

# Two processes that start on one new database: one migrates, one waits.
MIGRATION_LOCK = 7_216_002


async def to_date(url: str) -> None:
    """Make the tables, or change them to what they are now."""
    settings = config(url)
    await Tortoise.init(settings, _enable_global_fallback=True)
    try:
        connection = Tortoise.get_connection("default")
        executor = MigrationExecutor(connection, settings["apps"])
        if connection.capabilities.dialect == "postgres":
            alone = await asyncpg.connect(url)
            try:
                lock = f"SELECT pg_advisory_lock({MIGRATION_LOCK})"
                await alone.execute(lock)
                return await executor.migrate()
            finally:
                await alone.close()
        for attempt in itertools.count():
            try:
                return await executor.migrate()
            except OperationalError:  # another process was first
                if attempt == 20:
                    raise
                await asyncio.sleep(0.1)
                executor = MigrationExecutor(connection, settings["apps"])
    finally:
        await Tortoise.close_connections()
