"""What `make sabotage` breaks in chapter 5, and the tests that should notice."""

from functools import partial

from cuts import cut

sabotage = partial(cut, "5-topics")

SENDER, RECEIVER = "emit_log_topic.py", "receive_logs_topic.py"
LOST = "sent_is_only"
FEWER = r"len\(sys\.argv\) < 3", "len(sys.argv) < 2"
AS_OFFICIAL = 'main(sys.argv[1], " ".join(sys.argv[2:]) or "Hello World!")'

CUTS = [
    # The sender
    sabotage("not mandatory", f"pika/{SENDER}", LOST, (", mandatory=True", "")),
    sabotage("return only logged", f"aio-pika/{SENDER}", LOST, ("on_return_raises=True", "")),
    sabotage("no confirms", f"pika/{SENDER}", LOST, (r" *channel\.confirm_delivery.*\n", "")),
    sabotage(
        "durable exchange", f"pika/{SENDER}", "official", ('"topic"', '"topic", durable=True')
    ),
    sabotage(
        "message made up",
        f"pika/{SENDER}",
        "without_a_message",
        FEWER,
        (r"main\(sys.*", AS_OFFICIAL),
    ),
    sabotage(
        "usage with status 0",
        f"aio-pika/{SENDER}",
        "without_a_message",
        (r'sys\.exit\("Usage.*"\)', "sys.exit()"),
    ),
    sabotage(
        "Latin-1",
        f"pika/{SENDER}",
        "any_char",
        (r"os\.fsencode\(text\)", 'text.encode("latin-1", "replace")'),
    ),
    # The receiver
    sabotage(
        "direct exchange", f"aio-pika/{RECEIVER}", "official or gets_what", ('"topic"', '"direct"')
    ),
    sabotage(
        "one pattern only",
        f"pika/{RECEIVER}",
        "gets_what",
        ("in binding_keys:", "in binding_keys[:1]:"),
    ),
    sabotage(
        "one pattern only",
        f"aio-pika/{RECEIVER}",
        "gets_what",
        ("in binding_keys:", "in binding_keys[:1]:"),
    ),
    sabotage(
        "queue left behind",
        f"pika/{RECEIVER}",
        "leaves_nothing",
        ("exclusive=True", "durable=True"),
    ),
    sabotage("strict about text", f"pika/{RECEIVER}", "official", ('errors="replace"', "")),
    sabotage("strict about text", f"aio-pika/{RECEIVER}", "official", ('errors="replace"', "")),
    sabotage(
        "ends silently",
        f"pika/{RECEIVER}",
        "deleted_under",
        (r" *sys\.exit\(.Failed: the.*\n", ""),
    ),
    sabotage(
        "ends silently",
        f"aio-pika/{RECEIVER}",
        "deleted_under",
        (r" *raise SystemExit\(.*end\[0\].*\n", ""),
    ),
    sabotage(
        "waits for ever", f"aio-pika/{RECEIVER}", "deleted_under", (r" *amqp\.on_consumer.*\n", "")
    ),
    sabotage(
        "names no reason", f"aio-pika/{RECEIVER}", "closed_under", (r"end\[0\]\.args or ", "")
    ),
    *(
        sabotage(
            "Ctrl-C as a traceback",
            f"{client}/{RECEIVER}",
            "leaves_nothing",
            (r" *signal\.signal.*\n", ""),
        )
        for client in ("pika", "aio-pika")
    ),
]
