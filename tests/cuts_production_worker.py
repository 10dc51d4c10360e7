"""What `make sabotage` breaks in production-worker, and the tests that should notice."""

from functools import partial

from cuts import cut

sabotage = partial(cut, "production-worker")

WORKER, STOPPING = "worker_reconnecting.py", "worker_stopping.py"
PUBLISHER = "publisher_reconnecting.py"
BOTH = ("pika", "aio-pika")
ALL = (WORKER, PUBLISHER, STOPPING)
CLOSED_BY_FORCE = "closed_by_force"

CUTS = [
    # Stay connected
    *(
        sabotage(
            "pause without chance",
            f"{client}/{name}",
            "the_pause",
            (r"random\.uniform\(0, ", "max(0, "),
        )
        for client in BOTH
        for name in ALL
    ),
    *(
        sabotage(
            "pause without bound", f"{client}/{name}", "the_pause", (r"min\(LONGEST, ", "max(0, ")
        )
        for client in BOTH
        for name in ALL
    ),
    *(
        sabotage(
            "a pause that overflows",
            f"{client}/{name}",
            "the_pause",
            (r"min\(failures, 10\)", "failures"),
        )
        for client in BOTH
        for name in ALL
    ),
    *(
        sabotage(
            "no pause",
            f"{client}/{name}",
            "not_there_yet or thrown_out",
            (r" *(await asyncio|time)\.sleep\(pause.*\n", ""),
        )
        for client in BOTH
        for name in ALL
    ),
    *(
        sabotage(
            "no growth for one thrown out",
            f"{client}/{name}",
            "thrown_out",
            (r"> LONGEST else", "> 0 else"),
        )
        for client in BOTH
        for name in (WORKER, STOPPING)
    ),
    *(
        sabotage(
            "a line for each attempt",
            f"{client}/{name}",
            "not_there_yet",
            (r"if not lost( and not signals)?:", "if True:"),
        )
        for client in BOTH
        for name in (WORKER, STOPPING)
    ),
    *(
        sabotage(
            "a line for each attempt",
            f"{client}/{PUBLISHER}",
            "not_there_yet",
            (r"if failures == 1:", "if True:"),
        )
        for client in BOTH
    ),
    *(
        sabotage(
            "all to the first node",
            f"{client}/{name}",
            "not_all_go",
            (r"random\.sample\(nodes, len\(nodes\)\)", "nodes"),
        )
        for client in BOTH
        for name in ALL
    ),
    *(
        sabotage(
            "only one node",
            f"{client}/{name}",
            "another_node",
            (r"random\.sample\(nodes, len\(nodes\)\)", "nodes[:1]"),
        )
        for client in BOTH
        for name in ALL
    ),
    *(
        sabotage(
            "tries for ever what is refused",
            f"{client}/{name}",
            "no_retry or other_arguments",
            (r"if not known and ", "if False and "),
        )
        for client in BOTH
        for name in ALL
    ),
    *(
        sabotage(
            "believes pika",
            f"pika/{name}",
            "handshake",
            (r"REFUSED\|NOT_A\w*\|PRECOND", "Probable|PRECOND"),
        )
        for name in ALL
    ),
    *(
        sabotage(
            "shows a bad URL",
            f"{client}/{name}",
            "no_retry",
            (r'sys\.exit\("AMQP_URLS wants', 'sys.exit(AMQP_URLS + "'),
        )
        for client in BOTH
        for name in ALL
    ),
    *(
        sabotage("no heartbeat", f"{client}/{name}", "network_fails and silent", change)
        for client, change in (
            ("pika", (r"heartbeat = 5", "heartbeat = 0")),
            ("aio-pika", (r"heartbeat=5", "heartbeat=0")),
        )
        for name in (WORKER,)
    ),
    sabotage(
        "errors of the task are a loss",
        f"pika/{WORKER}",
        "error_of_the_task",
        (r"except AMQPError as", "except (AMQPError, OSError) as"),
    ),
    sabotage(
        "errors of the task are a loss",
        f"aio-pika/{WORKER}",
        "error_of_the_task",
        (r", asyncio\.TaskGroup\(\)", ""),
    ),
    *(
        sabotage(
            "errors of the task are a loss",
            f"{client}/{STOPPING}",
            "error_of_the_task",
            (r"raise BaseExceptionGroup\(.*", "raise error"),
        )
        for client in BOTH
    ),
    sabotage(
        "deaf to cancel",
        f"pika/{WORKER}",
        "deleted_under",
        (r" *raise AMQPConnectionError\(\"the.*\n", "    time.sleep(1000)\n"),
    ),
    *(
        sabotage(
            "deaf to cancel",
            f"aio-pika/{name}",
            "deleted_under",
            (r"amqp\.on_consumer\w+\.add", "str"),
        )
        for name in (WORKER, STOPPING)
    ),
    sabotage(
        "names no reason", f"aio-pika/{WORKER}", "closed_by_force", (r"end\[0\]\.args or ", "")
    ),
    *(
        sabotage("no ack", f"{client}/{WORKER}", "nothing_in_the_way", change)
        for client, change in (
            ("pika", (r" *channel\.basic_ack.*\n", "")),
            ("aio-pika", (r"message\.process\(requeue=True\), ", "")),
        )
    ),
    *(
        sabotage(
            "queue not durable",
            f"{client}/{name}",
            "nothing_in_the_way or other_arguments or declare",
            (r'"x-queue-type": "quorum"', '"x-queue-type": "classic"'),
        )
        for client in BOTH
        for name in ALL
    ),
    # The publisher
    sabotage(
        "a new id for each attempt",
        f"pika/{PUBLISHER}",
        "id_that_it_had",
        (r"message_id=number", "message_id=None"),
    ),
    sabotage(
        "a new id for each attempt",
        f"aio-pika/{PUBLISHER}",
        "id_that_it_had",
        (r"message_id=number", "message_id=None"),
    ),
    sabotage(
        "no confirms",
        f"pika/{PUBLISHER}",
        "id_that or never_comes",
        (r" *channel\.confirm_delivery.*\n", ""),
    ),
    sabotage(
        "no confirms",
        f"aio-pika/{PUBLISHER}",
        "id_that or never_comes",
        (r"on_return_raises=True", "publisher_confirms=False"),
    ),
    sabotage(
        "no time limit", f"pika/{PUBLISHER}", "never_comes", (r"signal\.alarm\(20\)", "str(20)")
    ),
    sabotage(
        "no time limit",
        f"aio-pika/{PUBLISHER}",
        "never_comes",
        (r"asyncio\.timeout\(20\)", "suppress()"),
        (r"async with suppress", "with suppress"),
    ),
    sabotage(
        "reads all its input",
        f"pika/{PUBLISHER}",
        "reads_no_input",
        (r"in sys\.stdin\.buffer:", "in sys.stdin.buffer.readlines():"),
    ),
    sabotage(
        "reads all its input",
        f"aio-pika/{PUBLISHER}",
        "reads_no_input",
        (
            r"    while line := await asyncio\.to_thread\(sys\.stdin\.buffer\.readline\):",
            "    for line in await asyncio.to_thread(sys.stdin.buffer.readlines):",
        ),
    ),
    sabotage(
        "leaves connections behind",
        f"aio-pika/{PUBLISHER}",
        "full_queue",
        (r"await asyncio\.wait_for\(connection\.close\(\), 2\)", "pass"),
    ),
    sabotage(
        "gives up",
        f"pika/{PUBLISHER}",
        "network_fails and cut",
        (r"channel = None  # not closed.*", "break"),
    ),
    # Stop in time
    sabotage(
        "ack before cancel",
        f"pika/{STOPPING}",
        "finishes_what",
        (r" *if signals:\n *channel\.cancel\(\).*\n", ""),
    ),
    sabotage(
        "ack before cancel",
        f"aio-pika/{STOPPING}",
        "finishes_what",
        (r" *if signals:\n *await messages\.close\(\).*\n", ""),
    ),
    sabotage(
        "stops in the middle",
        f"pika/{STOPPING}",
        "finishes_what",
        (r"len\(signals\) < 2", "not signals"),
    ),
    sabotage(
        "stops in the middle",
        f"aio-pika/{STOPPING}",
        "finishes_what",
        (r"len\(signals\) < 2", "not signals"),
    ),
    *(
        sabotage("no deadline", f"{client}/{STOPPING}", "too_long", change)
        for client, change in (
            ("pika", (r" *signal\.alarm\(patience\).*\n", "")),
            ("aio-pika", (r" *asyncio\.get_running_loop\(\)\.call_later.*\n", "")),
        )
    ),
    *(
        sabotage(
            "deaf to the second signal",
            f"{client}/{STOPPING}",
            "second_signal",
            (
                r"    signals\.append\((number|1)\)\n",
                "    signals.append(1) if not signals else None\n",
            ),
        )
        for client in BOTH
    ),
    *(
        sabotage(
            "rejects what it gives back", f"{client}/{STOPPING}", "count_as_a_failure", change
        )
        for client, change in (
            ("pika", (r"basic_nack\(method\.delivery_tag\)", "basic_reject(method.delivery_tag)")),
            ("aio-pika", (r"message\.nack\(\)", "message.reject(requeue=True)")),
        )
    ),
    *(
        sabotage(
            "SIGTERM kills", f"{client}/{STOPPING}", "finishes_what", (r", signal\.SIGTERM", "")
        )
        for client in BOTH
    ),
    *(
        sabotage(
            "waits for the idle",
            f"{client}/{STOPPING}",
            "nothing_in_hand",
            (r"if not in_hand or len\(signals\) > 2:", "if len(signals) > 2:"),
        )
        for client in BOTH
    ),
    *(
        sabotage(
            "kept by a silent broker",
            f"{client}/{STOPPING}",
            "silent_does",
            (r"if not in_hand or len\(signals\) > 2:", "if not in_hand and len(signals) < 2:"),
        )
        for client in BOTH
    ),
    sabotage(
        "no heartbeats during a task",
        f"pika/{STOPPING}",
        "heartbeats_go_on",
        (r" *channel\.connection\.process_data_events\(\).*\n", "            pass\n"),
    ),
    *(
        sabotage(
            "any deadline",
            f"{client}/{STOPPING}",
            "deadline_that_is_none",
            (r"if not STOP_WITHIN.*:", "if False:"),
        )
        for client in BOTH
    ),
    *(
        sabotage(
            "what can't be printed is not done",
            f"{client}/{name}",
            "any_bytes",
            (r'errors="backslashreplace"', "errors=None"),
        )
        for client in BOTH
        for name in (WORKER, STOPPING)
    ),
    sabotage(
        "other words",
        f"pika/{WORKER}",
        "print_the_same or nothing_in_the_way",
        (r"\[x\] Done", "[x] done"),
    ),
]
