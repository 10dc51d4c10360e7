"""What `make sabotage` breaks in chapter 2, and the tests that should notice."""

from functools import partial

from cuts import cut

sabotage = partial(cut, "2-work-queues")

NEW, WORKER = "new_task.py", "tasks_worker.py"
NOT_CAUGHT = r"except \(AMQPError.*\)", "except ZeroDivisionError"
BOTH_ENDS = "quietly or mid_task"
MISTAKES = "no_broker or wrong_pass or url_that or other_arg"
FAILING = "always_fails or handler_that"
IN_HAND = "mid_task or ack_comes"

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
    sabotage(
        "not mandatory", f"pika/{NEW}", "no_queue_takes", ("mandatory=True", "mandatory=False")
    ),
    sabotage("not mandatory", f"aio-pika/{NEW}", "no_queue_takes", ("on_return_raises=True", "")),
    sabotage(
        "transient", f"pika/{NEW}", "official", (r"DeliveryMode\.P\w+", "DeliveryMode.Transient")
    ),
    sabotage(
        "transient",
        f"aio-pika/{NEW}",
        "official",
        (r"DeliveryMode\.P\w+", "DeliveryMode.NOT_PERSISTENT"),
    ),
    sabotage(
        "undeclared",
        f"pika/{NEW}",
        "waits_for_the_first",
        (r" *channel\.queue_declare\((?s:.*?)\n        \)\n", ""),
    ),
    sabotage(
        "undeclared",
        f"aio-pika/{NEW}",
        "waits_for_the_first",
        (r" *await channel\.declare_queue\((?s:.*?)\n        \)\n", ""),
    ),
    sabotage("classic queue", f"pika/{NEW}", "official or declare_a_name", ("quorum", "classic")),
    sabotage(
        "classic queue", f"aio-pika/{NEW}", "official or declare_a_name", ("quorum", "classic")
    ),
    sabotage("lowest priority", f"aio-pika/{NEW}", "in_order", (r" *priority=4.*\n", "")),
    sabotage(
        "Latin-1",
        f"pika/{NEW}",
        "every_text",
        (r"os\.fsencode\(task\)", 'task.encode("latin-1", "replace")'),
    ),
    sabotage(
        "usage with status 1", f"pika/{NEW}", "missing_arg", (r"sys\.exit\(2\)", "sys.exit(1)")
    ),
    sabotage("mistakes as tracebacks", f"pika/{NEW}", MISTAKES, NOT_CAUGHT),
    sabotage("mistakes as tracebacks", f"aio-pika/{WORKER}", MISTAKES, NOT_CAUGHT),
    sabotage("password shown", f"pika/{NEW}", "no_broker", (r'\.rpartition\("@"\)\[2\]', "")),
    sabotage("aiormq's log", f"aio-pika/{NEW}", "no_broker", (r" *logging\.getLogger.*\n", "")),
    sabotage(
        "vhost unexplained",
        f"aio-pika/{NEW}",
        "wrong_pass",
        (r" *if isinstance\(why, InvalidFrameError.*\n.*\n", ""),
    ),
    # The worker
    sabotage("no prefetch", f"pika/{WORKER}", "prefetch", (r" *channel\.basic_qos.*\n", "")),
    sabotage(
        "no prefetch", f"aio-pika/{WORKER}", "prefetch", (r" *await channel\.set_qos.*\n", "")
    ),
    sabotage(
        "ack before the work",
        f"pika/{WORKER}",
        IN_HAND,
        (r"    channel\.basic_ack.*\n", ""),
        (
            r"    try:\n        work",
            "    channel.basic_ack(method.delivery_tag)\n    try:\n        work",
        ),
    ),
    sabotage(
        "ack before the work",
        f"aio-pika/{WORKER}",
        IN_HAND,
        (
            r"process\(requeue=True\):",
            "process(ignore_processed=True):\n            await message.ack()",
        ),
    ),
    sabotage(
        "automatic ack",
        f"pika/{WORKER}",
        IN_HAND,
        (r'"task_queue", on_message', '"task_queue", on_message, auto_ack=True'),
        (r"    channel\.basic_ack.*\n", ""),
    ),
    sabotage("no ack", f"pika/{WORKER}", "always_fails", (r"    channel\.basic_ack.*\n", "")),
    sabotage("drop on failure", f"aio-pika/{WORKER}", "cannot_even", ("requeue=True", "")),
    sabotage(
        "drop on Ctrl-C", "aio-pika/tasks_worker_unfair.py", "mid_task", ("requeue=True", "")
    ),
    sabotage(
        "no redelivered mark", f"pika/{WORKER}", "mid_task", (r"method\.redelivered", "False")
    ),
    sabotage(
        "no redelivered mark",
        f"aio-pika/{WORKER}",
        "mid_task",
        (r"bool\(message\.redelivered\)", "False"),
    ),
    sabotage(
        "failed and gone", f"pika/{WORKER}", FAILING, (r' *channel\.basic_publish\(".*\n', "")
    ),
    sabotage(
        "failed and gone", f"aio-pika/{WORKER}", FAILING, (r" *await channel\.default_ex.*\n", "")
    ),
    sabotage(
        "failure uncaught", f"pika/{WORKER}", FAILING, ("except Exception", "except OSError")
    ),
    sabotage(
        "failure uncaught", f"aio-pika/{WORKER}", FAILING, ("except Exception", "except OSError")
    ),
    sabotage(
        "no confirm for failed", f"pika/{WORKER}", "cannot_even", (r" *channel\.confirm_.*\n", "")
    ),
    sabotage(
        "silent end", f"pika/{WORKER}", "deleted_under", (r" *raise ConnectionError.*\n", "")
    ),
    sabotage(
        "silent end",
        f"aio-pika/{WORKER}",
        "under_a_worker",
        ("raise await trouble", "await trouble"),
    ),
    sabotage(
        "deaf to cancel",
        f"aio-pika/{WORKER}",
        "deleted_under",
        (r"amqp\.on_consumer\w+\.add", "str"),
    ),
    sabotage(
        "deaf to close",
        f"aio-pika/{WORKER}",
        "closed_under",
        (r" *channel\.close_callbacks.*\n", ""),
    ),
    sabotage(
        "Ctrl-C uncaught",
        f"pika/{WORKER}",
        BOTH_ENDS,
        ("except KeyboardInterrupt", "except OSError"),
    ),
    sabotage(
        "Ctrl-C uncaught",
        f"aio-pika/{WORKER}",
        BOTH_ENDS,
        ("except KeyboardInterrupt", "except OSError"),
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
    sabotage("draft acks", "pika/tasks_worker_auto_ack.py", "draft_loses", ("auto_ack=True", "")),
    sabotage(
        "draft acks", "aio-pika/tasks_worker_auto_ack.py", "draft_loses", ("no_ack=True", "")
    ),
    sabotage(
        "draft is fair",
        "pika/tasks_worker_unfair.py",
        "prefetch",
        (
            r"( *)channel\.basic_consume",
            r"\1channel.basic_qos(prefetch_count=1)\n\1channel.basic_consume",
        ),
    ),
    sabotage(
        "draft remembers",
        "pika/tasks_worker_forgetful.py",
        "orgotten",
        (r'( *)print\(" \[x\] Done"\)\n', r"\g<0>\1channel.basic_ack(method.delivery_tag)\n"),
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
