"""What `make sabotage` breaks in chapter 2, and the tests that should notice."""

from functools import partial

from cuts import cut

sabotage = partial(cut, "2-work-queues")

NEW, WORKER, UNFAIR = "new_task.py", "tasks_worker.py", "tasks_worker_unfair.py"
BOTH = ("pika", "aio-pika")
FAILING = "that_fails or handler_that"
IN_HAND = "mid_task or ack_comes"
GONE = r" *(sys\.exit|raise SystemExit)\(.*(gone|end\[0\]).*\n", ""
EARLY = {
    "pika": (
        (r" *channel\.basic_ack.*\n", ""),
        (
            r"( *)print\(f\" \[x\] Received",
            r'\1channel.basic_ack(method.delivery_tag)\n\1print(f" [x] Received',
        ),
    ),
    "aio-pika": (
        (r"process\(requeue=True\)", "process(ignore_processed=True)"),
        (
            r"( *)print\(f\" \[x\] Received",
            r'\1await message.ack()\n\1print(f" [x] Received',
        ),
    ),
}

CUTS = [
    # The sender
    sabotage(
        "no confirms", f"pika/{NEW}", "sent_is_only", (r" *channel.confirm_delivery.*\n", "")
    ),
    sabotage(
        "no confirms",
        f"aio-pika/{NEW}",
        "sent_is_only",
        ("on_return_raises=True", "publisher_confirms=False"),
    ),
    sabotage("not mandatory", f"pika/{NEW}", "no_queue_takes", (", mandatory=True", "")),
    sabotage("not mandatory", f"aio-pika/{NEW}", "no_queue_takes", ("on_return_raises=True", "")),
    *(
        sabotage(
            "transient", f"{client}/{NEW}", "official", ("delivery_mode=2", "delivery_mode=1")
        )
        for client in BOTH
    ),
    sabotage(
        "undeclared",
        f"pika/{NEW}",
        "waits_for_the_first",
        (r" *channel\.queue_declare\((?s:.*?)\n    \)\n", ""),
    ),
    sabotage(
        "undeclared",
        f"aio-pika/{NEW}",
        "waits_for_the_first",
        (r" *await channel\.declare_queue\((?s:.*?)\n        \)\n", ""),
    ),
    *(
        sabotage(
            "classic queue", f"{client}/{NEW}", "official or declare_a_name", ("quorum", "classic")
        )
        for client in BOTH
    ),
    sabotage("lowest priority", f"aio-pika/{NEW}", "in_order", (", priority=4", "")),
    sabotage(
        "Latin-1",
        f"pika/{NEW}",
        "every_text",
        (r"os\.fsencode\(task\)", 'task.encode("latin-1", "replace")'),
    ),
    *(
        sabotage(
            "sent, and Failed is said",
            f"{client}/{NEW}",
            "cannot_be_printed",
            (r" *sys\.stdout\.reconfigure.*\n", ""),
        )
        for client in BOTH
    ),
    # The worker
    sabotage("no prefetch", f"pika/{WORKER}", "prefetch", (r" *channel\.basic_qos.*\n", "")),
    sabotage(
        "no prefetch", f"aio-pika/{WORKER}", "prefetch", (r" *await channel\.set_qos.*\n", "")
    ),
    *(
        sabotage("ack before the work", f"{client}/{name}", IN_HAND, *EARLY[client])
        for client in BOTH
        for name in (WORKER, UNFAIR)
    ),
    sabotage(
        "automatic ack",
        f"pika/{WORKER}",
        IN_HAND,
        (r'consume\("task_queue"', 'consume("task_queue", auto_ack=True'),
        (r" *channel\.basic_ack.*\n", ""),
    ),
    sabotage("no ack", f"pika/{WORKER}", "official_senders", (r" *channel\.basic_ack.*\n", "")),
    *(
        sabotage("drop on failure", f"aio-pika/{name}", FAILING, ("requeue=True", ""))
        for name in (WORKER, UNFAIR)
    ),
    sabotage(
        "errors of the work in one line",
        f"aio-pika/{WORKER}",
        FAILING,
        (r", asyncio\.TaskGroup\(\)", ""),
    ),
    sabotage(
        "errors of the work in one line",
        f"pika/{WORKER}",
        FAILING,
        ("except AMQPError", "except (AMQPError, ValueError, OSError)"),
    ),
    *(sabotage("silent end", f"{client}/{WORKER}", "deleted_under", GONE) for client in BOTH),
    sabotage(
        "deaf to cancel",
        f"aio-pika/{WORKER}",
        "deleted_under",
        (r"amqp\.on_consumer\w+\.add", "str"),
    ),
    sabotage("names no reason", f"aio-pika/{WORKER}", "closed_under", (r"end\[0\]\.args or ", "")),
    sabotage(
        "an ack that failed",
        f"aio-pika/{WORKER}",
        "closed_under",
        (r"suppress\(aio_pika\S+\)", "suppress(KeyError)"),
    ),
    *(
        sabotage(
            "Ctrl-C as a traceback", f"{client}/{WORKER}", "quietly", (r" *signal\.signal.*\n", "")
        )
        for client in BOTH
    ),
    sabotage(
        "queue not durable",
        f"pika/{WORKER}",
        "official or survive",
        (r'"task_queue", durable=True, arguments=.*\n', '"task_queue", durable=False\n'),
    ),
    sabotage(
        "other words",
        f"pika/{WORKER}",
        "print_the_same or transcript",
        (r"\[x\] Done", "[x] done"),
    ),
    # The drafts, which must show the fault that the page shows
    sabotage(
        "draft acks", "pika/tasks_worker_auto_ack.py", "draft_loses", (", auto_ack=True", "")
    ),
    sabotage(
        "draft acks", "aio-pika/tasks_worker_auto_ack.py", "draft_loses", ("no_ack=True", "")
    ),
    sabotage(
        "draft is fair",
        f"pika/{UNFAIR}",
        "prefetch",
        (r"( *)messages: Any", r"\1channel.basic_qos(prefetch_count=1)\n\1messages: Any"),
    ),
    sabotage(
        "draft confirms",
        "aio-pika/new_task_unconfirmed.py",
        "draft_says",
        ("publisher_confirms=False", "on_return_raises=True"),
    ),
    sabotage(
        "draft persists",
        "pika/new_task_transient.py",
        "survive or with_a_restart",
        (r"DeliveryMode\.Transient", "DeliveryMode.Persistent"),
    ),
]
