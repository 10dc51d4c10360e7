"""What `make sabotage` breaks in the comparison's script."""

from functools import partial

from cuts import cut

sabotage = partial(cut, "which-client")

SCRIPT = "ten_at_a_time.py"

CUTS = [
    sabotage(
        "no prefetch", f"pika/{SCRIPT}", "ten_at_a_time_and", (r" *channel\.basic_qos.*\n", "")
    ),
    sabotage(
        "no prefetch",
        f"aio-pika/{SCRIPT}",
        "ten_at_a_time_and",
        (r" *await channel\.set_qos.*\n", ""),
    ),
    sabotage(
        "one at a time",
        f"pika/{SCRIPT}",
        "ten_at_a_time_and",
        ("max_workers=10", "max_workers=1"),
    ),
    sabotage(
        "no ack",
        f"pika/{SCRIPT}",
        "done_is_acked",
        (r"partial\(channel\.basic_ack, tag\)", "print"),
    ),
    sabotage(
        "ack before the work",
        f"pika/{SCRIPT}",
        "in_hand",
        (r"( *)job = pool", r"\1channel.basic_ack(method.delivery_tag)\n\1job = pool"),
        (r"partial\(channel\.basic_ack, tag\)", "print"),
    ),
    sabotage(
        "ack before the work",
        f"aio-pika/{SCRIPT}",
        "in_hand or task_that_fails",
        (r"process\(requeue=True\)", "process(ignore_processed=True)"),
        (r"( *)task = message", r"\1await message.ack()\n\1task = message"),
    ),
    sabotage(
        "failure unseen",
        f"pika/{SCRIPT}",
        "work_that_raises",
        (r"job\.result if job\.exception\(\) else ", ""),
    ),
    sabotage("failed and gone", f"aio-pika/{SCRIPT}", "work_that_raises", ("requeue=True", "")),
    sabotage(
        "silent end", f"pika/{SCRIPT}", "deleted_queue", (r" *sys\.exit\(.Failed: the.*\n", "")
    ),
    sabotage(
        "deaf to cancel",
        f"aio-pika/{SCRIPT}",
        "deleted_queue",
        (r"amqp\.on_consumer\w+\.add", "str"),
    ),
    *(
        sabotage(
            "acks that failed",
            f"{client}/{SCRIPT}",
            "connection_closed",
            (r"suppress\(.*\):", "suppress(KeyError):"),
        )
        for client in ("pika", "aio-pika")
    ),
]
