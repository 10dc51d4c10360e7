"""What `make sabotage` breaks in chapter 3, and the tests that should notice."""

from functools import partial

from cuts import cut

sabotage = partial(cut, "3-publish-subscribe")

BOTH = ("pika", "aio-pika")
EMIT, RECEIVE = "emit_log.py", "receive_logs.py"
DURABLE = r'("logs", "fanout")', r"\1, durable=True"

CUTS = [
    # The sender
    sabotage(
        "mandatory",
        f"pika/{EMIT}",
        "nobody_listens_to",
        ('routing_key="",', 'routing_key="", mandatory=True,'),
    ),
    sabotage(
        "mandatory",
        f"aio-pika/{EMIT}",
        "nobody_listens_to",
        (", mandatory=False", ""),
        ("publisher_confirms=True", "on_return_raises=True"),
    ),
    sabotage("no confirms", f"pika/{EMIT}", "needs_a_listener", (r" *channel\.confirm_d.*\n", "")),
    sabotage("lowest priority", f"aio-pika/{EMIT}", "named_queue", (", priority=4", "")),
    sabotage(
        "undeclared", f"pika/{EMIT}", "nobody_listens_to", (r" *channel\.exchange_decl.*\n", "")
    ),
    sabotage(
        "Latin-1",
        f"pika/{EMIT}",
        "every_text",
        (r"os\.fsencode\(text\)", 'text.encode("latin-1", "replace")'),
    ),
    *(
        sabotage("another type", f"{client}/{name}", "official", ('"fanout"', '"topic"'))
        for client in BOTH
        for name in (EMIT, RECEIVE)
    ),
    *(
        sabotage("durable exchange", f"{client}/{name}", "official or not_durable", DURABLE)
        for client, name in zip(BOTH, (EMIT, RECEIVE), strict=True)
    ),
    sabotage("other words", f"aio-pika/{EMIT}", "the_same or transcript", (r"\[x\] S", "[x] s")),
    # The receiver
    sabotage(
        "one queue for all",
        f"pika/{RECEIVE}",
        "every_receiver or nothing_behind",
        ('"", exclusive=True', '"shared_logs", durable=True'),
    ),
    sabotage(
        "one queue for all",
        f"aio-pika/{RECEIVE}",
        "every_receiver or nothing_behind",
        ("exclusive=True", 'name="shared_logs", durable=True'),
    ),
    sabotage(
        "a queue that stays",
        f"pika/{RECEIVE}",
        "nothing_behind",
        ('"", exclusive=True', '"", durable=True'),
    ),
    sabotage(
        "a queue that stays",
        f"aio-pika/{RECEIVE}",
        "nothing_behind",
        ("exclusive=True", "durable=True"),
    ),
    sabotage("not bound", f"pika/{RECEIVE}", "every_receiver", (r" *channel\.queue_bind.*\n", "")),
    sabotage(
        "not bound", f"aio-pika/{RECEIVE}", "every_receiver", (r" *await queue\.bind.*\n", "")
    ),
    *(
        sabotage("strict UTF-8", f"{client}/{RECEIVE}", "any_bytes", ("errors='replace'", ""))
        for client in BOTH
    ),
    sabotage(
        "ends silently", f"pika/{RECEIVE}", "deleted_under", (r" *sys\.exit\(.Failed: the.*\n", "")
    ),
    sabotage(
        "ends silently",
        f"aio-pika/{RECEIVE}",
        "deleted_under",
        (r" *raise SystemExit\(.*end\[0\].*\n", ""),
    ),
    sabotage(
        "waits for ever", f"aio-pika/{RECEIVE}", "deleted_under", (r" *amqp\.on_consumer.*\n", "")
    ),
    sabotage(
        "names no reason", f"aio-pika/{RECEIVE}", "closed_under", (r"end\[0\]\.args or ", "")
    ),
    *(
        sabotage(
            "Ctrl-C as a traceback",
            f"{client}/{RECEIVE}",
            "nothing_behind",
            (r" *signal\.signal.*\n", ""),
        )
        for client in ("pika", "aio-pika")
    ),
]
