"""models.py: the table that is the queue.

serve.py brings a database up to date when it starts. To change the table,
change this, then write the migration down and commit it:

    python -m tortoise -c models.TORTOISE makemigrations
"""

import os
from typing import Any

from tortoise import fields
from tortoise.backends.base.config_generator import expand_db_url
from tortoise.models import Model

DATABASE = os.environ.get("HTTP_QUEUE_DATABASE", "sqlite://queue.sqlite3")

# The states:
# ready:  may be claimed from `available_at` on
# leased: a worker has it until `available_at`, then anyone may claim it
# done, dead: nobody will claim it


class Message(Model):
    """One message. All times are in milliseconds since 1970."""

    id = fields.CharField(32, primary_key=True)
    payload = fields.JSONField[dict[str, Any]]()
    state = fields.CharField(6, default="ready")
    available_at = fields.BigIntField()
    attempts = fields.IntField(default=0)
    token = fields.CharField(32, null=True)
    error = fields.TextField(null=True)
    idempotency_key = fields.CharField(255, null=True, unique=True)
    upload = fields.CharField(255, null=True, db_index=True)
    row = fields.IntField(null=True)
    created_at = fields.BigIntField()
    finished_at = fields.BigIntField(null=True)

    class Meta(Model.Meta):
        table = "message"


class Upload(Model):
    """A file that came with an Idempotency-Key, and was taken."""

    key = fields.CharField(300, primary_key=True)
    digest = fields.CharField(64)
    rows = fields.IntField()
    created_at = fields.BigIntField()

    class Meta(Model.Meta):
        table = "upload"


def config(database: str) -> dict[str, Any]:
    """Tortoise's configuration, the same for both kinds of database."""
    url = database.replace("postgresql://", "postgres://", 1)
    connection = expand_db_url(url.replace("postgres://", "asyncpg://", 1))
    return {
        "connections": {"default": connection},
        "apps": {
            "queue": {
                "models": ["models"],
                "default_connection": "default",
                "migrations": "migrations",
            }
        },
    }


TORTOISE = config(DATABASE)
