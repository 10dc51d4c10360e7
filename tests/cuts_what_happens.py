"""What `make sabotage` breaks in the page of endings, and the tests that should notice.

Its promise is that each cell is what the broker does: an ending that does
something else, or a record that says something else, must not agree.
"""

from functools import partial

from cuts import cut

sabotage = partial(cut, "what-happens")

PIKA, AIO = "tests/endings_pika.py", "tests/endings_aio_pika.py"

CUTS = [
    sabotage("forgets the ack", PIKA, "an_ending[ack-pika", (r"(def ack.*\n) .*", r"\1    pass")),
    sabotage("forgets the ack", AIO, "an_ending[ack-aio", (r"(def ack.*\n) .*", r"\1    pass")),
    sabotage(
        "nack drops",
        PIKA,
        "an_ending and nack",
        (r"basic_nack\(tag\)", "basic_nack(tag, requeue=False)"),
    ),
    sabotage(
        "nack drops",
        AIO,
        "an_ending and nack",
        (r"message\.nack\(\)", "message.nack(requeue=False)"),
    ),
    sabotage(
        "reject requeues",
        PIKA,
        "an_ending and reject_drop",
        (r"basic_reject\(tag, requeue=False\)", "basic_reject(tag)"),
    ),
    sabotage(
        "reject requeues",
        AIO,
        "an_ending and reject_drop",
        (r"message\.reject\(requeue=False\)", "message.reject(requeue=True)"),
    ),
    sabotage(
        "automatic ack off",
        PIKA,
        "an_ending and auto_ack",
        (r'auto_ack=ENDING == "auto_ack"', "auto_ack=False"),
    ),
    sabotage(
        "automatic ack off",
        AIO,
        "an_ending and auto_ack",
        (r'no_ack=ENDING == "auto_ack"', "no_ack=False"),
    ),
    sabotage(
        "exception swallowed",
        PIKA,
        "an_ending and raises",
        (r'raise RuntimeError\("the work fails"\)', "pass"),
    ),
    sabotage(
        "process requeues",
        AIO,
        "an_ending and process_raises",
        (r"message\.process\(\)", "message.process(requeue=True)"),
    ),
    sabotage(
        "process does not requeue",
        AIO,
        "an_ending and process_requeue",
        (r"process\(requeue=True\)", "process()"),
    ),
    sabotage(
        "acked before the end",
        PIKA,
        "an_ending and (kill or interrupt)",
        (r"( +)while not FILE", r"\1channel.basic_ack(tag)\n\1while not FILE"),
    ),
    sabotage(
        "channel stays open",
        PIKA,
        "an_ending and closes_channel",
        (r"channel\.close\(\)", "pass"),
    ),
    sabotage(
        "connects again by itself",
        AIO,
        "an_ending and connection_closed",
        (r"connect\(url\) if ROBUST else aio_pika\.connect\(url\)", "connect(url)"),
    ),
    sabotage(
        "a cell that is not so",
        "docs/what-happens.rst",
        "tables_are_those",
        (r"\*\*dropped\*\* \(``rejected``\)", "**back**"),
    ),
    sabotage(
        "a record that is not so",
        "docs/what-happens.json",
        "an_ending",
        (r'"dropped: rejected"', '"back"'),
    ),
]
