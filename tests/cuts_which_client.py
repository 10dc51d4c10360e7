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
    sabotage("no ack", f"pika/{SCRIPT}", "done_is_acked", (r" *channel\.basic_ack\(tag\)\n", "")),
    sabotage(
        "ack before the work",
        f"pika/{SCRIPT}",
        "in_hand",
        (r"    pool\.submit", "    channel.basic_ack(method.delivery_tag)\n    pool.submit"),
        (r" *channel\.basic_ack\(tag\)\n", ""),
    ),
    sabotage(
        "ack before the work",
        f"aio-pika/{SCRIPT}",
        "in_hand or task_that_fails",
        (r" *await message\.ack\(\)\n", ""),
        ("    try:\n        await work", "    await message.ack()\n    try:\n        await work"),
    ),
    sabotage(
        "failure unseen", f"pika/{SCRIPT}", "work_that_raises", (r" *job\.result\(\).*\n", "")
    ),
    sabotage(
        "failure unseen",
        f"aio-pika/{SCRIPT}",
        "work_that_raises",
        (r"trouble\.put_nowait\(error\)", "pass"),
    ),
    sabotage(
        "silent end", f"pika/{SCRIPT}", "deleted_queue", (r" *raise ConnectionError.*\n", "")
    ),
    sabotage(
        "deaf to cancel",
        f"aio-pika/{SCRIPT}",
        "deleted_queue",
        (r"amqp\.on_consumer\w+\.add", "str"),
    ),
    sabotage("waits for its threads", f"pika/{SCRIPT}", "in_hand", (r"os\._exit\(0\)", "raise")),
]
