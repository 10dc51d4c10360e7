"""What `make sabotage` breaks in http-queue, and the tests that should notice."""

from functools import partial

from cuts import cut

queue = partial(cut, "http-queue")
TABLE, BROKER, API = "table_queue.py", "broker_queue.py", "api.py"
INTAKE, SHEET, SERVE, CLIENT = "intake.py", "spreadsheet.py", "serve.py", "client.py"
TOKEN = r"WHERE id = \? AND token = \? AND state = 'leased'"

# What everybody writes first: read which are free, then mark them.
READ_THEN_WRITE = """picked = await self.run(
            "SELECT id FROM message WHERE state IN ('ready', 'leased') AND available_at <= ?"
            " AND attempts < ? ORDER BY available_at, id LIMIT ?", now, most, count)
        found = []
        for each in picked:
            found += await self.run(
                "UPDATE message SET state = 'leased', token = ?, available_at = ?,"
                " attempts = attempts + 1 WHERE id = ? RETURNING *", token, until, each["id"])"""
IN_WAVES = """wave = []
    async for row in rows:
        wave.append(row)
        if len(wave) == size:
            await asyncio.gather(*map(create, wave))
            wave = []
    await asyncio.gather(*map(create, wave))
    return
    """


CUTS = [
    queue(
        "read, then write",
        TABLE,
        "four_processes or nobody_elses",
        (r"found = await self\.run\(CLAIM.*", READ_THEN_WRITE),
    ),
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
    queue("key ignored", TABLE, "idempotency", (r"id, body, now, key,", "id, body, now, None,")),
    queue("missed while looking", API, "claim_looks", (r"if desk\.arrivals == seen:", "if True:")),
    queue(
        "all said to be completed",
        API,
        "several_are_completed",
        (r"return NotCompleted\(.*", "return None"),
    ),
    queue(
        "upload's key ignored", API, "taken_once", (r"key = idempotency_key and.*", "key = None")
    ),
    queue("upload's key for any", TABLE, "taken_once", (r"found and found\[.*:", "False:")),
    queue("upload twice at once", TABLE, "taken_once", (r"raise TakenMeanwhile.*", "pass")),
    queue(
        "half a file",
        TABLE,
        "stores_nothing",
        (r"self\._context\.__aexit__\(\*error\)", "self._context.__aexit__(None, None, None)"),
    ),
    queue(
        "a row dropped",
        INTAKE,
        "whole_and_in_order",
        (r"made\.append\(row\)", "made.extend([row] if row.number != 9 else [])"),
    ),
    queue("in waves", INTAKE, "not_in_waves", (r"queue: asyncio\.Queue\[R.*", IN_WAVES)),
    queue("bombs unpacked", SHEET, "bad_file", (r"> MAX_UNPACKED", "> 2**60")),
    queue("formulas taken", SHEET, "bad_file", (r'\(FORMULA, "a formula"\), ', "")),
    queue("wrong rows left out", SHEET, "bad_file", (r"faults \+= faults_of.*", "pass")),
    queue("no token", API, "a_token_and", (r"if wanted and not", "if False and not")),
    queue("other sites", API, "another_site", (r"if origin and ", "if False and ")),
    queue("open to all", SERVE, "open_to_others", (r"if given\.host not in L.*", "if False:")),
    queue("not given back", CLIENT, "ctrl_c", (r'await self\._tell\(id, "release".*', "pass")),
]
