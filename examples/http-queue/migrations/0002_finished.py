"""0002_finished.py: an index for what is done, to be forgotten in time."""

from tortoise import migrations
from tortoise.migrations import operations as ops

FINISHED = """
CREATE INDEX message_finished ON message (finished_at) WHERE state = 'done'
"""


class Migration(migrations.Migration):
    dependencies = [("queue", "0001_initial")]  # noqa: RUF012
    operations = [  # noqa: RUF012
        ops.RunSQL(FINISHED, "DROP INDEX message_finished"),
    ]
