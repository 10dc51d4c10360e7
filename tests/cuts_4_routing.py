"""What `make sabotage` breaks in chapter 4, and the tests that should notice."""

from functools import partial

from cuts import cut

sabotage = partial(cut, "4-routing")

SENDER, DRAFT = "emit_log_direct.py", "emit_log_direct_silent.py"
RECEIVER = "receive_logs_direct.py"
NOT_CAUGHT = r"except \(AMQPError.*\)", "except ZeroDivisionError"
MISTAKES = "no_broker or wrong_pass or another_type"
LOST = "sent_is_only"
FEWER = r"len\(sys\.argv\) < 3", "len(sys.argv) < 2"
AS_OFFICIAL = 'main(sys.argv[1], " ".join(sys.argv[2:]) or "Hello World!")'

CUTS = [
    # The sender
    sabotage("not mandatory", f"pika/{SENDER}", LOST, (r" *mandatory=True.*\n", "")),
    sabotage(
        "not mandatory",
        f"aio-pika/{SENDER}",
        LOST,
        (
            r"            \)\n        except",
            "                mandatory=False,\n            )\n        except",
        ),
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
        ("routing_key=severity", 'routing_key="error"'),
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
        "usage with status 1",
        f"aio-pika/{SENDER}",
        "without_a_message",
        (r"sys\.exit\(2\)", "sys.exit(1)"),
    ),
    sabotage("usage on stdout", f"pika/{RECEIVER}", "missing_arg", (", file=sys.stderr", "")),
    sabotage(
        "Latin-1",
        f"pika/{SENDER}",
        "any_text",
        (r"os\.fsencode\(text\)", 'text.encode("latin-1", "replace")'),
    ),
    sabotage("wide key uncaught", f"aio-pika/{SENDER}", "that_is_none", ("TypeError, ", "")),
    sabotage("wide key uncaught", f"aio-pika/{RECEIVER}", "that_is_none", ("TypeError, ", "")),
    sabotage("mistakes as tracebacks", f"pika/{SENDER}", MISTAKES, NOT_CAUGHT),
    sabotage("mistakes as tracebacks", f"aio-pika/{RECEIVER}", MISTAKES, NOT_CAUGHT),
    # The draft, which must show the fault that the page shows
    sabotage(
        "draft is mandatory",
        f"pika/{DRAFT}",
        "draft_says",
        (r"(body=.*\n)", r"\1            mandatory=True,\n"),
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
        "a queue for each key",
        f"pika/{RECEIVER}",
        "twice",
        (
            r"        channel\.queue_bind\(queue.*\n",
            '        queue = channel.queue_declare("", exclusive=True).method.queue\n'
            '        channel.queue_bind(queue, "direct_logs", routing_key=severity)\n'
            "        channel.basic_consume(queue, on_message, auto_ack=True)\n",
        ),
        (r"    # An ack.*\n.*\n", ""),
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
        "silent end", f"pika/{RECEIVER}", "deleted_under", (r" *raise ConnectionError.*\n", "")
    ),
    sabotage(
        "deaf to cancel",
        f"aio-pika/{RECEIVER}",
        "deleted_under",
        (r"amqp\.on_consumer\w+\.add", "str"),
    ),
    sabotage(
        "deaf to close",
        f"aio-pika/{RECEIVER}",
        "closed_under",
        (r" *channel\.close_callbacks.*\n", ""),
    ),
    sabotage(
        "Ctrl-C uncaught",
        f"pika/{RECEIVER}",
        "quietly",
        ("except KeyboardInterrupt", "except OSError"),
    ),
    sabotage(
        "Ctrl-C uncaught",
        f"aio-pika/{RECEIVER}",
        "quietly",
        ("except KeyboardInterrupt", "except OSError"),
    ),
]
