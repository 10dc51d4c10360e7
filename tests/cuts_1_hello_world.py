"""What `make sabotage` breaks in chapter 1, and the tests that should notice."""

from functools import partial

from cuts import cut

sabotage = partial(cut, "1-hello-world")

PIKA, AIO_PIKA = "pika", "aio-pika"
BOTH = (PIKA, AIO_PIKA)
# What holds for every script's frame is tried with this chapter's.
FRAME = "its_frame or no_broker or wrong_pass or says_nothing or url_that"
DECLARED = r" *(queue = )?(await )?channel\.(queue_declare|declare_queue)\((?s:.*?)\n *\)\n", ""

CUTS = [
    # The sender
    sabotage(
        "no confirms", "pika/send.py", "the_broker_refuses", (r" *channel.confirm_d.*\n", "")
    ),
    sabotage(
        "no confirms",
        "aio-pika/send.py",
        "the_broker_refuses",
        ("on_return_raises=True", "publisher_confirms=False"),
    ),
    sabotage("not mandatory", "pika/send.py", "no_queue_takes", (", mandatory=True", "")),
    sabotage("not mandatory", "aio-pika/send.py", "no_queue_takes", ("on_return_raises=True", "")),
    *(sabotage("undeclared", f"{client}/send.py", "waits_for_a_rec", DECLARED) for client in BOTH),
    *(
        sabotage("classic queue", f"{client}/{name}.py", "official", ("quorum", "classic"))
        for client in BOTH
        for name in ("send", "receive")
    ),
    sabotage("lowest priority", "aio-pika/send.py", "in_order", (", priority=4", "")),
    sabotage("other words", "aio-pika/send.py", "the_same or waits", (r"\[x\] Sent", "[x] sent")),
    # The receiver
    sabotage("undeclared", "pika/receive.py", "waits_for_a_mess", DECLARED),
    sabotage("manual ack", "pika/receive.py", "forgotten", ("auto_ack=True", "")),
    sabotage("manual ack", "aio-pika/receive.py", "forgotten", ("no_ack=True", "")),
    sabotage("strict UTF-8", "pika/receive.py", "any_bytes", ("errors='replace'", "")),
    sabotage("strict UTF-8", "aio-pika/receive.py", "any_bytes", ('errors="replace"', "")),
    sabotage("ends silently", "pika/receive.py", "deleted_under", (r" *sys\.exit\(.Fail.*\n", "")),
    sabotage(
        "ends silently",
        "aio-pika/receive.py",
        "deleted_under",
        (r" *raise SystemExit\(.*end\[0\].*\n", ""),
    ),
    sabotage(
        "waits for ever", "aio-pika/receive.py", "deleted_under", (r" *amqp\.on_consumer.*\n", "")
    ),
    sabotage(
        "names no reason", "aio-pika/receive.py", "closed_under", (r"end\[0\]\.args or ", "")
    ),
    *(
        sabotage(
            "Ctrl-C as a traceback",
            f"{client}/receive.py",
            "stops_quietly",
            (r" *signal\.signal.*\n", ""),
        )
        for client in BOTH
    ),
    *(
        sabotage(
            "loses what it cannot print",
            f"{client}/receive.py",
            "cannot_show",
            (r" *sys\.stdout\.reconfigure.*\n", ""),
        )
        for client in BOTH
    ),
    # Both, and the one that looks
    sabotage(
        "mistakes as tracebacks",
        "pika/send.py",
        "no_broker or url_that",
        ("except Exception", "except OSError"),
    ),
    sabotage(
        "password shown",
        "pika/send.py",
        "url_that and not frame",
        (r"\{type\(error\).__name__\}", "{error!r}"),
    ),
    sabotage(
        "mistakes as tracebacks",
        "aio-pika/send.py",
        "url_that",
        (", ValueError", ""),
    ),
    sabotage("waits for ever", "aio-pika/count.py", "says_nothing", (", timeout=15", "")),
    sabotage("aiormq's log", "aio-pika/count.py", "no_broker", (r" *logging\.getL.*\n", "")),
    sabotage("an empty URL is localhost", "pika/count.py", "no_broker", (r' or "no"', "")),
    sabotage("a frame of its own", "pika/count.py", FRAME, ("Failed: ", "Oh: ")),
    *(
        sabotage(
            "count makes the queue",
            f"{client}/count.py",
            "changes_nothing",
            ("passive=True", 'durable=True, arguments={"x-queue-type": "quorum"}'),
        )
        for client in BOTH
    ),
    *(
        sabotage(
            "count mixed up",
            f"{client}/count.py",
            "this_moment",
            ("consumer_count", "message_count"),
        )
        for client in BOTH
    ),
]
