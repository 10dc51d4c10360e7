"""What `make sabotage` breaks in chapter 7, and the tests that should notice."""

from functools import partial

from cuts import cut

sabotage = partial(cut, "7-publisher-confirms")

ONE, BATCHES, ASYNC = (
    "publish_individually.py",
    "publish_in_batches.py",
    "publish_asynchronously.py",
)
EXPLAIN = "publish_or_explain.py"
MIDDLE = "in_the_middle"
NOT_CAUGHT = "except ZeroDivisionError"
UNHEARD = ("on_return_raises=True", "")
NOT_MANDATORY = ("mandatory=True", "mandatory=False")

CUTS = [
    # How many are unconfirmed
    sabotage("larger window", f"pika/{ASYNC}", "never_more", ("WINDOW = 100", "WINDOW = 101")),
    sabotage("larger window", f"aio-pika/{ASYNC}", "never_more", ("WINDOW = 100", "WINDOW = 101")),
    sabotage(
        "no window", f"pika/{ASYNC}", "never_more", (r"len\(self\.unconfirmed\) < W\w+ and ", "")
    ),
    sabotage(
        "window that waits",
        f"pika/{ASYNC}",
        "slides",
        (
            r"( +)while len\(self\.u",
            r"\1if len(self.unconfirmed) > 1:\n\1    return\n\1while len(self.u",
        ),
    ),
    sabotage("smaller batch", f"aio-pika/{BATCHES}", "never_more", ("BATCH = 100", "BATCH = 99")),
    sabotage(
        "batch that does not wait",
        f"pika/{BATCHES}",
        "a_batch_waits",
        (r"if self\.unconfirmed:", "if len(self.unconfirmed) > 1:"),
    ),
    sabotage("no multiple", f"pika/{ASYNC}", "slides", (r"if answer\.multiple:.*", "if False:")),
    sabotage(
        "no confirms",
        f"pika/{ONE}",
        "one_by_one_goes or never_more",
        (r" *channel\.confirm_delivery.*\n", ""),
    ),
    sabotage(
        "no confirms",
        f"aio-pika/{ASYNC}",
        "slides or full_queue",
        ("on_return_raises=True", "publisher_confirms=False"),
    ),
    # What is said of them
    sabotage(
        "nack as ack", f"pika/{BATCHES}", "full_queue", ('else "Nacked"', 'else "Confirmed"')
    ),
    sabotage(
        "nack uncaught",
        f"pika/{ONE}",
        "full_queue",
        ("except NackError", NOT_CAUGHT),
    ),
    sabotage(
        "nack uncaught",
        f"aio-pika/{ASYNC}",
        "full_queue",
        ("except DeliveryError", NOT_CAUGHT),
    ),
    sabotage(
        "return unheard", f"pika/{ASYNC}", "comes_back", (r" *channel\.add_on_return.*\n", "")
    ),
    sabotage(
        "return then ack",
        f"pika/{BATCHES}",
        "comes_back",
        (r'if self\.fates\[tag\] == "Unknown":', "if True:"),
    ),
    sabotage("return unheard", f"aio-pika/{BATCHES}", "comes_back", UNHEARD),
    sabotage("return unheard", f"aio-pika/{ONE}", "comes_back", UNHEARD),
    sabotage("not mandatory", f"pika/{ONE}", "comes_back", NOT_MANDATORY),
    sabotage(
        "not mandatory", f"pika/{EXPLAIN}", "explained", ("mandatory=True", "mandatory=False")
    ),
    sabotage("unheard", f"aio-pika/{EXPLAIN}", "explained", UNHEARD),
    sabotage(
        "unknown as confirmed", f"aio-pika/{ASYNC}", MIDDLE, (r'= "Unknown".*', '= "Confirmed"')
    ),
    sabotage("unknown untold", f"pika/{ASYNC}", MIDDLE, (r', "Unknown":', ":")),
    sabotage("unknown untold", f"pika/{ONE}", MIDDLE, (r' *print\(f" \[!\] Unknown.*\n', "")),
    sabotage(
        "no account at the end",
        f"aio-pika/{BATCHES}",
        MIDDLE,
        ("finally:", f"{NOT_CAUGHT}:"),
    ),
    sabotage(
        "silent end",
        f"pika/{ASYNC}",
        f"{MIDDLE} or closed_in",
        (r" *raise publisher\.why\n", "        sys.exit(1)\n"),
    ),
    sabotage(
        "deaf to the channel",
        f"pika/{BATCHES}",
        "other_arguments",
        (r" *channel\.add_on_close.*\n", ""),
    ),
    sabotage("status 0", f"pika/{ASYNC}", "full_queue", (r"else 1\)", "else 0)")),
    sabotage("status 0", f"aio-pika/{ONE}", "full_queue", (r"else 1\)", "else 0)")),
    sabotage(
        "traceback on Ctrl-C",
        f"pika/{ASYNC}",
        MIDDLE,
        ("except KeyboardInterrupt", NOT_CAUGHT),
    ),
    # What is stored
    sabotage(
        "transient", f"pika/{ONE}", "in_order", (r"DeliveryMode\.P\w+", "DeliveryMode.Transient")
    ),
    sabotage("lowest priority", f"aio-pika/{ASYNC}", "in_order", (r" *priority=4.*\n", "")),
    sabotage(
        "classic queue",
        f"aio-pika/{BATCHES}",
        "other_arg or declare_a_name",
        ('"quorum"', '"classic"'),
    ),
]
