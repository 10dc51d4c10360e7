"""What `make sabotage` breaks in chapter 1, and the tests that should notice."""

from functools import partial

from cuts import cut

sabotage = partial(cut, "1-hello-world")

PIKA, AIO_PIKA = "pika", "aio-pika"
BOTH = (PIKA, AIO_PIKA)
NOT_CAUGHT = r"except \(AMQPError.*\)", "except ZeroDivisionError"
MISTAKES = "no_broker or wrong_pass or url_that"
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
    sabotage("not mandatory", "pika/send.py", "no_queue_takes", (r" *mandatory=True.*\n", "")),
    sabotage("not mandatory", "aio-pika/send.py", "no_queue_takes", ("on_return_raises=True", "")),
    *(sabotage("undeclared", f"{client}/send.py", "waits_for_a_rec", DECLARED) for client in BOTH),
    *(
        sabotage("classic queue", f"{client}/{name}.py", "official", ("quorum", "classic"))
        for client in BOTH
        for name in ("send", "receive")
    ),
    sabotage("lowest priority", "aio-pika/send.py", "in_order", (r" *priority=4.*\n", "")),
    sabotage("other words", "aio-pika/send.py", "the_same or waits", (r"\[x\] Sent", "[x] sent")),
    # The receiver
    sabotage("undeclared", "pika/receive.py", "waits_for_a_mess", DECLARED),
    sabotage("manual ack", "pika/receive.py", "forgotten", ("auto_ack=True", "")),
    sabotage("manual ack", "aio-pika/receive.py", "forgotten", ("no_ack=True", "")),
    *(
        sabotage("strict UTF-8", f"{client}/receive.py", "any_bytes", ("errors='replace'", ""))
        for client in BOTH
    ),
    sabotage(
        "ends silently", "pika/receive.py", "deleted_under", (r" *raise ConnectionError.*\n", "")
    ),
    sabotage(
        "waits for ever", "aio-pika/receive.py", "deleted_under", (r" *amqp\.on_consumer.*\n", "")
    ),
    sabotage(
        "waits for ever", "aio-pika/receive.py", "closed_under", (r" *channel\.close_ca.*\n", "")
    ),
    *(
        sabotage(
            "Ctrl-C as a traceback",
            f"{client}/receive.py",
            "quietly",
            (r"except KeyboardInterrupt", "except ZeroDivisionError"),
        )
        for client in BOTH
    ),
    # Both, and the one that looks
    *(
        sabotage("mistakes as tracebacks", f"{client}/{name}.py", MISTAKES, NOT_CAUGHT)
        for client, name in (("pika", "send"), ("aio-pika", "receive"), ("aio-pika", "count"))
    ),
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
