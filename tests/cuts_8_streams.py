"""What `make sabotage` breaks in chapter 8, and the tests that should notice."""

from functools import partial

from cuts import cut

sabotage = partial(cut, "8-streams")

APPEND, READ, SINCE, RESUME = "append.py", "read.py", "read_since.py", "read_resuming.py"
SEE_ALL = "every_reader or where_to_begin"

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
    sabotage("no ack", f"aio-pika/{SINCE}", "more_events_than", (r" *await message\.ack.*\n", "")),
    sabotage(
        "always first", f"pika/{READ}", "where_to_begin", ('-offset": start', '-offset": "first"')
    ),
    sabotage(
        "always first",
        f"aio-pika/{READ}",
        "where_to_begin",
        ('-offset": start', '-offset": "first"'),
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
    sabotage(
        "UTC",
        f"pika/{SINCE}",
        "from_a_time",
        (r"isoformat\(since\)", r"\g<0>.replace(tzinfo=UTC)"),
    ),
    sabotage("before 1970", f"aio-pika/{SINCE}", "from_a_time", (r"max\(0, moment\)", "moment")),
    sabotage(
        "any interval", f"aio-pika/{SINCE}", "beginning_that", (r"\[1-9\]\\d\{0,3\}", r"\\d*")
    ),
    sabotage("status 1", f"pika/{READ}", "beginning_that", (r"sys\.exit\(2\)", "sys.exit(1)")),
    sabotage("deaf to cancel", f"aio-pika/{READ}", "deleted_under", (r" *amqp\.on_con.*\n", "")),
    sabotage(
        "deaf to close",
        f"aio-pika/{RESUME}",
        "closed_under",
        (r" *channel\.close_callbacks.*\n", ""),
    ),
    sabotage("silent end", f"pika/{READ}", "deleted_under", (r" *raise ConnectionError.*\n", "")),
    # Going on
    *(
        sabotage(
            "saved before the work",
            f"{client}/{RESUME}",
            "in_hand",
            (r"( +)((?:await )?work\(.*\n)( +save\(.*\n)", r"\3\1\2"),
        )
        for client in ("pika", "aio-pika")
    ),
    *(
        sabotage(
            "never saved", f"{client}/{RESUME}", "goes_on", (r" +save\(place, offset\).*\n", "")
        )
        for client in ("pika", "aio-pika")
    ),
    sabotage(
        "written in place",
        f"pika/{RESUME}",
        "mid_write",
        (r"draft = .*", "draft = place"),
        (r" *draft\.replace.*\n", ""),
    ),
    sabotage("half a number", f"aio-pika/{RESUME}", "damaged", (r"18\}\\n", "18}\\\\n?")),
    sabotage(
        "done twice",
        f"aio-pika/{RESUME}",
        "goes_on",
        ("if not resuming or offset != done", "if True"),
    ),
    sabotage(
        "not resumed with the last",
        f"pika/{RESUME}",
        "goes_on",
        ('"first" if done is None else done', '"first" if done is None else done + 1'),
    ),
    sabotage("silent gap", f"pika/{RESUME}", "retention_has", (r" +if resuming and.*\n.*\n", "")),
    sabotage(
        "silent gap", f"aio-pika/{RESUME}", "retention_has", (r" +if resuming and.*\n.*\n", "")
    ),
    sabotage(
        "waits for ever",
        f"pika/{RESUME}",
        "another_stream",
        ("inactivity_timeout=10", "inactivity_timeout=99"),
    ),
    sabotage(
        "waits for ever", f"aio-pika/{RESUME}", "another_stream", ("timeout\\(10", "timeout(99")
    ),
    # The draft, which must show the fault that the page shows
    sabotage(
        "draft is limited",
        "pika/read_unlimited.py",
        "draft_forgets or Reading",
        (r"( +)channel\.basic_consume", r"\1channel.basic_qos(prefetch_count=9)\n\g<0>"),
    ),
]
