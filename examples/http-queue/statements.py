"""statements.py: the queue, which is these statements.

Each change of a message is one statement that names the state it expects, so
that two workers, or two processes of the API, can never both succeed. Several
callers' wishes are one statement, too: they come as a JSON list of lists.

? is a parameter. What the two databases write in different ways is in braces;
see `written`. All times are in milliseconds since 1970.
"""

# A lease that has run out is as good as no lease: the message is claimed
# again, with no one needed to clean up before.
#
# wanted: a line for each message that somebody wants: [token, until]
CLAIM = """
WITH wanted AS (SELECT value, key AS line FROM {wanted}),
picked AS MATERIALIZED (
    SELECT id AS chosen, available_at AS since FROM message
    WHERE state IN ('ready', 'leased') AND available_at <= ? AND attempts < ?
    ORDER BY available_at, id LIMIT ? {skip_locked}
),
numbered AS (
    SELECT chosen, row_number() OVER (ORDER BY since, chosen) AS number
    FROM picked
)
UPDATE message
SET state = 'leased', token = value ->> 0,
    available_at = CAST(value ->> 1 AS BIGINT), attempts = attempts + 1
FROM numbered JOIN wanted ON line = number
WHERE id = chosen
RETURNING {columns}
"""
DUE = """
SELECT 1 FROM message
WHERE state IN ('ready', 'leased') AND available_at <= ? AND attempts < ?
LIMIT ?
"""
# done: a line for each message: [id, token]
COMPLETE = """
UPDATE message SET state = 'done', finished_at = ?, error = NULL
FROM (SELECT value ->> 0 AS its_id, value ->> 1 AS its_token FROM {done}) d
WHERE id = its_id AND token = its_token AND state = 'leased'
RETURNING id, token
"""
# new: a line for each message: [id, payload, time, key]
CREATE = """
INSERT INTO message (id, payload, state, available_at, attempts,
                     idempotency_key, created_at)
SELECT value ->> 0, CAST(value ->> 1 AS {json}), 'ready',
       CAST(value ->> 2 AS BIGINT), 0, value ->> 3,
       CAST(value ->> 2 AS BIGINT)
FROM {new} WHERE true
ON CONFLICT (idempotency_key) DO NOTHING
RETURNING id
"""
# Waits 1, 2, 4, ... times the backoff; << works on both databases.
FAIL = """
UPDATE message
SET state = CASE WHEN attempts >= ? THEN 'dead' ELSE 'ready' END,
    available_at = CAST(? AS BIGINT)
                 + CAST(? AS BIGINT) * (1 << (attempts - 1)),
    token = NULL, error = ?,
    finished_at = CASE WHEN attempts >= ? THEN CAST(? AS BIGINT) END
WHERE id = ? AND token = ? AND state = 'leased'
RETURNING state, available_at
"""
RELEASE = """
UPDATE message
SET state = 'ready', available_at = ?, token = NULL, attempts = attempts - 1
WHERE id = ? AND token = ? AND state = 'leased'
RETURNING id
"""
EXTEND = """
UPDATE message SET available_at = ?
WHERE id = ? AND token = ? AND state = 'leased'
RETURNING id
"""
# A lease that ran out on the last attempt: nobody may claim that any more.
BURY = """
UPDATE message SET state = 'dead', token = NULL, finished_at = ?,
    error = 'The lease ran out on the last attempt.'
WHERE state = 'leased' AND available_at <= ? AND attempts >= ?
"""
REQUEUE = """
UPDATE message
SET state = 'ready', attempts = 0, available_at = ?, finished_at = NULL
WHERE state = 'dead' AND (id = ? OR CAST(? AS INT) = 1)
RETURNING id
"""
# Some at a time, so that nobody waits for long.
PRUNE = """
DELETE FROM message WHERE id IN (
    SELECT id FROM message WHERE state = 'done' AND finished_at < ?
    LIMIT 5000 {skip_locked}
)
RETURNING id
"""

# NOTIFY: other processes may have claims that wait for a message.
CHANNEL = "http_queue"
TELL = "SELECT pg_notify('http_queue', ?)"

# --- Files -------------------------------------------------------------------

ROW_COLUMNS = (
    *("id", "payload", "state", "available_at", "attempts"),
    *("upload", "row", "created_at"),
)
# One by one in SQLite; PostgreSQL has COPY for it.
INSERT = f"""
INSERT INTO message ({", ".join(ROW_COLUMNS)})
VALUES ({", ".join("?" * len(ROW_COLUMNS))})
"""
NOTE = """
INSERT INTO upload (key, digest, rows, created_at) VALUES (?, ?, ?, ?)
ON CONFLICT (key) DO NOTHING RETURNING key
"""
NOTED = "SELECT digest, rows FROM upload WHERE key = ?"

# --- People ------------------------------------------------------------------

COLUMNS = (
    *("id", "payload", "state", "available_at", "attempts", "token", "error"),
    *("upload", '"row"', "created_at", "finished_at"),
)
GET = "SELECT {columns} FROM message WHERE id = ?"
FIRST = "SELECT {columns} FROM message WHERE idempotency_key = ?"
TOKENS = """
SELECT id, token FROM message WHERE id IN (SELECT value ->> 0 FROM {ids})
"""
# A state that is "" means any. Who looks for leased messages doesn't
# want those whose lease has run out, which are ready.
SEARCH = """
WITH shown AS (
    SELECT {columns}, CASE WHEN state = 'leased' AND available_at <= ?
                           THEN 'ready' ELSE state END AS now
    FROM message WHERE id > ?
)
SELECT {columns} FROM shown
WHERE CAST(? AS TEXT) IN ('', now) AND (CAST(? AS INT) = 0 OR upload = ?)
ORDER BY id LIMIT ?
"""
COUNT = """
SELECT CASE WHEN available_at <= ? THEN
           CASE state WHEN 'leased' THEN 'ready' ELSE state END
       ELSE CASE state WHEN 'ready' THEN 'delayed' ELSE state END
       END AS now, count(*) AS number
FROM message GROUP BY now
"""


def written(statement: str, postgresql: bool) -> str:
    """A statement as this database wants it."""
    if postgresql:
        lines = "json_array_elements(?::json) WITH ORDINALITY AS _(value, key)"
    else:
        lines = "(SELECT value, key + 1 AS key FROM json_each(?))"
    for name in ("wanted", "done", "new", "ids"):
        statement = statement.replace(f"{{{name}}}", lines)
    statement = (
        statement.replace("{columns}", ", ".join(COLUMNS))
        .replace("{json}", "JSONB" if postgresql else "TEXT")
        .replace(
            "{skip_locked}", "FOR UPDATE SKIP LOCKED" if postgresql else ""
        )
    )
    if not postgresql:
        return statement
    first, *rest = statement.split("?")
    return first + "".join(f"${n}{part}" for n, part in enumerate(rest, 1))
