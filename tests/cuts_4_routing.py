"""What `make sabotage` breaks in chapter 4, and the tests that should notice."""

from functools import partial

from cuts import cut

sabotage = partial(cut, "4-routing")

SENDER, DRAFT = "emit_log_direct.py", "emit_log_direct_silent.py"
RECEIVER = "receive_logs_direct.py"
LOST = "sent_is_only"
FEWER = r"len\(sys\.argv\) < 3", "len(sys.argv) < 2"
AS_OFFICIAL = 'main(sys.argv[1], " ".join(sys.argv[2:]) or "Hello World!")'

CUTS = [
    # The sender
    sabotage("not mandatory", f"pika/{SENDER}", LOST, (", mandatory=True", "")),
    sabotage(
        "not mandatory",
        f"aio-pika/{SENDER}",
        LOST,
        ("routing_key=severity", "routing_key=severity, mandatory=False"),
    ),
    sabotage("no confirms", f"pika/{SENDER}", LOST, (r" *channel\.confirm_delivery.*\n", "")),
    sabotage("return only logged", f"aio-pika/{SENDER}", LOST, ("on_return_raises=True", "")),
    sabotage("fanout", f"pika/{SENDER}", "official or gets_what", ('"direct"', '"fanout"')),
    sabotage(
        "durable exchange",
        f"aio-pika/{SENDER}",
        "official",
        ('"direct"', '"direct", durable=True'),
    ),
    sabotage(
        "severity ignored",
        f"pika/{SENDER}",
        "gets_what",
        ('_logs", severity, body', '_logs", "error", body'),
    ),
    sabotage(
        "message made up",
        f"pika/{SENDER}",
        "without_a_message",
        FEWER,
        (r"main\(sys.*", AS_OFFICIAL),
    ),
    sabotage("message made up", f"aio-pika/{SENDER}", "without_a_message", FEWER),
    sabotage(
        "usage with status 0",
        f"aio-pika/{SENDER}",
        "without_a_message",
        (r'sys\.exit\("Usage.*"\)', "sys.exit()"),
    ),
    sabotage(
        "Latin-1",
        f"pika/{SENDER}",
        "any_text",
        (r"os\.fsencode\(text\)", 'text.encode("latin-1", "replace")'),
    ),
    # The draft, which must show the fault that the page shows
    sabotage(
        "draft is mandatory",
        f"pika/{DRAFT}",
        "draft_says",
        ("severity, body", "severity, body, mandatory=True"),
    ),
    sabotage(
        "draft raises",
        f"aio-pika/{DRAFT}",
        "draft_says",
        (r"channel\(\)", "channel(on_return_raises=True)"),
    ),
    # The receiver
    sabotage(
        "one severity only",
        f"pika/{RECEIVER}",
        "gets_what",
        ("in severities:", "in severities[:1]:"),
    ),
    sabotage(
        "one severity only",
        f"aio-pika/{RECEIVER}",
        "gets_what",
        ("in severities:", "in severities[:1]:"),
    ),
    sabotage(
        "one queue for all",
        f"pika/{RECEIVER}",
        "gets_what",
        (r'"", exclusive=True', '"logs", durable=True'),
    ),
    sabotage(
        "queue left behind",
        f"aio-pika/{RECEIVER}",
        "leaves_nothing",
        ("exclusive=True", "durable=True"),
    ),
    sabotage("strict about text", f"pika/{RECEIVER}", "not_text", ('errors="replace"', "")),
    sabotage("strict about text", f"aio-pika/{RECEIVER}", "not_text", ('errors="replace"', "")),
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
            "quietly",
            (r" *signal\.signal.*\n", ""),
        )
        for client in ("pika", "aio-pika")
    ),
]
