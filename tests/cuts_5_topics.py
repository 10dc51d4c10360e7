"""What `make sabotage` breaks in chapter 5, and the tests that should notice."""

from functools import partial

from cuts import cut

sabotage = partial(cut, "5-topics")

SENDER, RECEIVER = "emit_log_topic.py", "receive_logs_topic.py"
NOT_CAUGHT = r"except \(AMQPError.*\)", "except ZeroDivisionError"
MISTAKES = "no_broker or another_type"
LOST = "sent_is_only"
FEWER = r"len\(sys\.argv\) < 3", "len(sys.argv) < 2"
AS_OFFICIAL = 'main(sys.argv[1], " ".join(sys.argv[2:]) or "Hello World!")'

CUTS = [
    # The sender
    sabotage("not mandatory", f"pika/{SENDER}", LOST, (r" *mandatory=True.*\n", "")),
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
        "usage with status 1",
        f"aio-pika/{SENDER}",
        "without_a_message",
        (r"sys\.exit\(2\)", "sys.exit(1)"),
    ),
    sabotage(
        "Latin-1",
        f"pika/{SENDER}",
        "any_char",
        (r"os\.fsencode\(text\)", 'text.encode("latin-1", "replace")'),
    ),
    sabotage("wide key uncaught", f"aio-pika/{SENDER}", "256", ("TypeError, ", "")),
    sabotage("wide key uncaught", f"aio-pika/{RECEIVER}", "256", ("TypeError, ", "")),
    sabotage("mistakes as tracebacks", f"aio-pika/{SENDER}", MISTAKES, NOT_CAUGHT),
    sabotage("mistakes as tracebacks", f"pika/{RECEIVER}", MISTAKES, NOT_CAUGHT),
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
        "a queue for each key",
        f"pika/{RECEIVER}",
        "comes_once",
        (
            r"        channel\.queue_bind\(queue.*\n",
            '        queue = channel.queue_declare("", exclusive=True).method.queue\n'
            '        channel.queue_bind(queue, "topic_logs", routing_key=key)\n'
            "        channel.basic_consume(queue, on_message, auto_ack=True)\n",
        ),
        (r"    # An ack.*\n.*\n", ""),
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
        "leaves_nothing",
        ("except KeyboardInterrupt", "except OSError"),
    ),
    sabotage(
        "Ctrl-C uncaught",
        f"aio-pika/{RECEIVER}",
        "leaves_nothing",
        ("except KeyboardInterrupt", "except OSError"),
    ),
]
