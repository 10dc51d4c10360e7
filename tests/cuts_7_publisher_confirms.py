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
NOT_CAUGHT = "suppress(ZeroDivisionError)"
UNHEARD = ("on_return_raises=True", "")
NOT_MANDATORY = ("mandatory=True", "mandatory=False")
SUPPRESS = r"suppress\(aio_pika\.exceptions\.DeliveryError\)"

CUTS = [
    # How many are unconfirmed
    sabotage("larger window", f"pika/{ASYNC}", "never_more", ("WINDOW = 100", "WINDOW = 101")),
    sabotage("smaller window", f"pika/{ASYNC}", "never_more", ("WINDOW = 100", "WINDOW = 99")),
    sabotage("larger window", f"aio-pika/{ASYNC}", "never_more", ("WINDOW = 100", "WINDOW = 101")),
    sabotage(
        "no window", f"pika/{ASYNC}", "never_more", (r"WINDOW - len\(self\.unanswered\)", "None")
    ),
    sabotage(
        "window that waits",
        f"pika/{ASYNC}",
        "slides",
        (r"WINDOW - len\(self\.unanswered\)", "0 if self.unanswered else WINDOW"),
    ),
    sabotage("smaller batch", f"aio-pika/{BATCHES}", "never_more", ("BATCH = 100", "BATCH = 99")),
    sabotage(
        "batch that does not wait",
        f"pika/{BATCHES}",
        "a_batch_waits",
        ("0 if self.unanswered else", "0 if len(self.unanswered) > 1 else"),
    ),
    sabotage(
        "return as an answer",
        f"pika/{BATCHES}",
        "came_back",
        (r"self\.returned\.add", "self.unanswered.discard"),
    ),
    sabotage("no multiple", f"pika/{ASYNC}", "slides", (r" or \(upto and n < tag\)", "")),
    sabotage("all multiple", f"pika/{BATCHES}", "a_batch_waits", (r"upto and n < tag", "n < tag")),
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
    # What is counted
    sabotage(
        "nack as ack", f"pika/{BATCHES}", "full_queue", (r"if isinstance\(frame.*", "if True:")
    ),
    sabotage("nack uncaught", f"aio-pika/{ASYNC}", "full_queue", (SUPPRESS, NOT_CAUGHT)),
    sabotage(
        "return unheard", f"pika/{ASYNC}", "what_comes_back", (r" *channel\.add_on_return.*\n", "")
    ),
    sabotage("return unheard", f"aio-pika/{BATCHES}", "what_comes_back", UNHEARD),
    sabotage("return unheard", f"aio-pika/{ONE}", "what_comes_back", UNHEARD),
    sabotage("not mandatory", f"pika/{ONE}", "what_comes_back", NOT_MANDATORY),
    sabotage("not mandatory", f"pika/{EXPLAIN}", "explained", NOT_MANDATORY),
    sabotage("unheard", f"aio-pika/{EXPLAIN}", "explained", UNHEARD),
    sabotage(
        "published as confirmed",
        f"aio-pika/{ASYNC}",
        "in_the_middle",
        (
            r"( +)(await channel\.default_exchange.*\n) +(confirmed\.append.*\n)",
            r"\1\3\1\2",
        ),
    ),
    sabotage(
        "published as confirmed",
        f"pika/{ONE}",
        "in_the_middle",
        (r"( +)(channel\.basic_publish.*\n) +(done \+= 1\n)", r"\1\3\1\2"),
    ),
    sabotage(
        "no account at the end",
        f"aio-pika/{BATCHES}",
        "in_the_middle",
        ("finally:", "except ZeroDivisionError:"),
    ),
    sabotage(
        "silent end",
        f"pika/{ASYNC}",
        "in_the_middle or closed_in",
        (r"self\.end\(f\"Failed: \{why.*", "self.end(1)"),
    ),
    sabotage(
        "deaf to the channel",
        f"pika/{BATCHES}",
        "other_arguments",
        (r" *channel\.add_on_close.*\n", ""),
    ),
    sabotage("status 0", f"pika/{ASYNC}", "full_queue", (r"sys\.exit\(status\)", "sys.exit(0)")),
    sabotage("status 0", f"aio-pika/{ASYNC}", "full_queue", ("if done < count:", "if False:")),
    # What is stored
    sabotage("transient", f"pika/{ONE}", "in_order", ("delivery_mode=2", "delivery_mode=1")),
    sabotage("lowest priority", f"aio-pika/{ASYNC}", "in_order", (r", priority=4", "")),
    sabotage(
        "classic queue",
        f"aio-pika/{BATCHES}",
        "other_arg or declare_a_name",
        ('"quorum"', '"classic"'),
    ),
]
