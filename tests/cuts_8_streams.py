"""What `make sabotage` breaks in chapter 8, and the tests that should notice."""

from functools import partial

from cuts import cut

sabotage = partial(cut, "8-streams")

APPEND, READ, SINCE, RESUME = "append.py", "read.py", "read_since.py", "read_resuming.py"
SEE_ALL = "every_reader or where_to_begin"

BOTH = ("pika", "aio-pika")

CUTS = [
    # The sender
    sabotage(
        "not mandatory", f"pika/{APPEND}", "no_stream_takes", ("mandatory=True", "mandatory=False")
    ),
    sabotage("not mandatory", f"aio-pika/{APPEND}", "no_stream_takes", ("on_return_r.*e", "")),
    sabotage("a queue", f"pika/{APPEND}", "other_programs", ('"stream"', '"quorum"')),
    sabotage("no limit", f"aio-pika/{APPEND}", "other_programs", (', "x-max.*', "}")),
    sabotage(
        "UTF-8 only", f"pika/{APPEND}", "every_text", (r"os\.fsencode\((\w+)\)", r"\1.encode()")
    ),
    # The readers
    sabotage("no prefetch", f"pika/{READ}", SEE_ALL, (r" *channel\.basic_qos.*\n", "")),
    sabotage("no prefetch", f"aio-pika/{READ}", SEE_ALL, (r" *await channel\.set_qos.*\n", "")),
    sabotage("no ack", f"pika/{READ}", "more_events_than", (r" *channel\.basic_ack.*\n", "")),
    sabotage("no ack", f"aio-pika/{SINCE}", "more_events_than", (r" *await event\.ack.*\n", "")),
    *(
        sabotage(
            "always first",
            f"{client}/{READ}",
            "where_to_begin",
            ('-offset": start', '-offset": "first"'),
        )
        for client in BOTH
    ),
    sabotage(
        "offset as text", f"pika/{READ}", "where_to_begin", (r"int\(start\) if.*e start", "start")
    ),
    sabotage(
        "text is UTF-8",
        f"aio-pika/{READ}",
        "every_text",
        (r"os\.fsdecode\((.*)\)", r"\1.decode()"),
    ),
    sabotage("UTC", f"pika/{SINCE}", "from_a_time", (r"astimezone\(UTC", "replace(tzinfo=UTC")),
    sabotage(
        "any beginning", f"pika/{READ}", "beginning_that", (r" *if not re\.full.*\n.*\n", "")
    ),
    *(
        sabotage(
            "silent end",
            f"{client}/{READ}",
            "deleted_under",
            (r' *(sys\.exit|raise SystemExit)\(f?"Failed: (the|\{end).*\n', ""),
        )
        for client in BOTH
    ),
    *(
        sabotage(
            "deaf to cancel", f"aio-pika/{name}", "deleted_under", (r" *amqp\.on_con.*\n", "")
        )
        for name in (READ, SINCE, RESUME)
    ),
    sabotage("no reason", f"aio-pika/{READ}", "closed_under", (r"end\[0\]\.args or ", "")),
    sabotage(
        "no reason in mid-task",
        f"aio-pika/{RESUME}",
        "closed_under",
        (r"suppress\(.*\)", "suppress()"),
    ),
    *(
        sabotage(
            "Ctrl-C as a traceback",
            f"{client}/{RESUME}",
            "quietly or in_hand",
            (r" *signal\.signal.*\n", ""),
        )
        for client in BOTH
    ),
    # Going on
    sabotage(
        "saved before the work",
        f"pika/{RESUME}",
        "in_hand or raises",
        (r"( +time\.sleep.*\n.*\n)((?: +#.*\n)(?: +saved.*\n)+)", r"\2\1"),
    ),
    sabotage(
        "saved before the work",
        f"aio-pika/{RESUME}",
        "in_hand or raises",
        (r"( +async with asyncio\.Task(?s:.*?)Done.*\n)((?: +#.*\n)(?: +saved.*\n)+)", r"\2\1"),
    ),
    *(
        sabotage(
            "never saved", f"{client}/{RESUME}", "goes_on", (r" +saved\.with.*replace.*\n", "")
        )
        for client in BOTH
    ),
    *(
        sabotage(
            "written in place",
            f"{client}/{RESUME}",
            "mid_write",
            (r"saved\.with_suffix\(.*\)\.write", "saved.write"),
            (r" +saved\.with.*replace.*\n", ""),
        )
        for client in BOTH
    ),
    *(
        sabotage(
            "the last one again",
            f"{client}/{RESUME}",
            "goes_on",
            (r"read_text\(\)\) \+ 1", "read_text())"),
        )
        for client in BOTH
    ),
    sabotage(
        "the work's failure is the client's",
        f"aio-pika/{RESUME}",
        "work_that_raises",
        (r"async with asyncio\.TaskGroup\(\)", "if True"),
    ),
]
