"""0001_initial.py: the first migration, which makes the tables."""

import functools
from json import dumps, loads

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

# For the claim's question alone; what is done or dead isn't in it.
CLAIMABLE = """
CREATE INDEX message_claimable ON message (available_at, id)
WHERE state IN ('ready', 'leased')
"""


class Migration(migrations.Migration):
    initial = True
    operations = [  # noqa: RUF012
        ops.CreateModel(
            name="Message",
            fields=[
                (
                    "id",
                    fields.CharField(
                        primary_key=True,
                        unique=True,
                        db_index=True,
                        max_length=32,
                    ),
                ),
                (
                    "payload",
                    fields.JSONField(
                        encoder=functools.partial(
                            dumps, separators=(",", ":")
                        ),
                        decoder=loads,
                    ),
                ),
                ("state", fields.CharField(default="ready", max_length=6)),
                ("available_at", fields.BigIntField()),
                ("attempts", fields.IntField(default=0)),
                ("token", fields.CharField(null=True, max_length=32)),
                ("error", fields.TextField(null=True, unique=False)),
                (
                    "idempotency_key",
                    fields.CharField(null=True, unique=True, max_length=255),
                ),
                (
                    "upload",
                    fields.CharField(null=True, db_index=True, max_length=255),
                ),
                ("row", fields.IntField(null=True)),
                ("created_at", fields.BigIntField()),
                ("finished_at", fields.BigIntField(null=True)),
            ],
            options={
                "table": "message",
                "app": "queue",
                "pk_attr": "id",
                "table_description": "One message. All times are in "
                "milliseconds since 1970.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="Upload",
            fields=[
                (
                    "key",
                    fields.CharField(
                        primary_key=True,
                        unique=True,
                        db_index=True,
                        max_length=300,
                    ),
                ),
                ("digest", fields.CharField(max_length=64)),
                ("rows", fields.IntField()),
                ("created_at", fields.BigIntField()),
            ],
            options={
                "table": "upload",
                "app": "queue",
                "pk_attr": "key",
                "table_description": "A file that came with an "
                "Idempotency-Key, and was taken.",
            },
            bases=["Model"],
        ),
        ops.RunSQL(CLAIMABLE, "DROP INDEX message_claimable"),
    ]
