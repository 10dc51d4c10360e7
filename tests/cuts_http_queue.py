"""What `make sabotage` breaks in http-queue, and the tests that should notice."""

from functools import partial

from cuts import cut

queue = partial(cut, "http-queue")
TABLE, BROKER, API = "table_queue.py", "broker_queue.py", "api.py"
TOKEN = r"WHERE id = \? AND token = \? AND state = 'leased'"


CUTS = [
    queue("tokens ignored", TABLE, "runs_out", (TOKEN, "WHERE id = ? AND ? != ''")),
    queue(
        "leases for ever",
        TABLE,
        "runs_out or kills_its",
        (r"state IN \('ready', 'leased'\) AND", "state = 'ready' AND"),
    ),
    queue("leases not kept", TABLE, "nobody_elses", (r"now \+ int\(lease \* 1000\)", "now")),
    queue("attempts not counted", TABLE, "is_dead", (r", attempts = attempts \+ 1", "")),
    queue("never dead", TABLE, "is_dead", (r"attempts >= \? THEN 'dead'", "? < 0 THEN 'dead'")),
    queue("no backoff", TABLE, "waits_its_time", (r"\(1 << \(attempts - 1\)\)", "0")),
    queue("backoff not doubled", TABLE, "waits_longer", (r"\(1 << \(attempts - 1\)\)", "1")),
    queue("giving back counts", TABLE, "given_back", (r", attempts = attempts - 1", "")),
    queue("not buried", TABLE, "kills_its", ("WHERE state = 'leased' AND a", "WHERE 1 = 0 AND a")),
    queue("key reused", TABLE, "idempotency", (r'if first\["payload"\] != payload:', "if False:")),
    queue("no paging", TABLE, "in_pages", (r"if after is not None:", "if False:")),
    queue("no wake-up", API, "waits_for_a", (r"self\.arrived\.notify\(count\)", "pass")),
    queue("no copy", BROKER, "on_a_broker", (r"await self\._publish\(name, m.*", "pass")),
    queue("no timer", BROKER, "lease_on_a", (r"loop\.call_at\(lease\.until, lapse\)", "None")),
]
