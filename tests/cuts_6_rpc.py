"""What `make sabotage` breaks in chapter 6, and the tests that should notice."""

from functools import partial

from cuts import Cut, cut

sabotage = partial(cut, "6-rpc")

SERVER, CLIENT, DIRECT = "rpc_server.py", "rpc_client.py", "rpc_client_direct.py"
IN_HAND = "ends_in_mid_request"


def clients(name: str, tests: str, *changes: tuple[str, str]) -> list[Cut]:
    """The same in each of the four."""
    return [
        sabotage(name, f"{client}/{script}", tests, *changes)
        for client in ("pika", "aio-pika")
        for script in (CLIENT, DIRECT)
    ]


def servers(name: str, tests: str, *changes: tuple[str, str]) -> list[Cut]:
    """The same in both."""
    return [
        sabotage(name, f"{client}/{SERVER}", tests, *changes) for client in ("pika", "aio-pika")
    ]


CUTS = [
    # The client
    *(
        sabotage("takes stray replies", f"pika/{name}", "stray", ("!= wanted", "== 0"))
        for name in (CLIENT, DIRECT)
    ),
    *(
        sabotage(
            "takes stray replies",
            f"aio-pika/{name}",
            "stray",
            (r"reply\.correlation_id == wanted and ", ""),
        )
        for name in (CLIENT, DIRECT)
    ),
    *clients("errors as results", "every_client_asks", (r'\.type == "error"', '.type == "x"')),
    *clients("never expires", "no_server", (r" *request\.expiration = .*\n", "")),
    sabotage(
        "waits for ever", f"pika/{CLIENT}", "no_server", (r" *connection\.call_later.*\n", "")
    ),
    sabotage(
        "waits for ever", f"aio-pika/{DIRECT}", "no_server", ("timeout=TIMEOUT", "timeout=None")
    ),
    sabotage("lowest priority", f"aio-pika/{CLIENT}", "served_in_order", (", priority=4", "")),
    sabotage(
        "deaf to close",
        f"aio-pika/{CLIENT}",
        "connection_closed",
        (r"\[got, amqp\.closing\]", "[got]"),
    ),
    sabotage("Ctrl-C as a traceback", f"pika/{CLIENT}", "ctrl_c", (r" *signal\.signal.*\n", "")),
    sabotage(
        "a queue after all",
        f"pika/{DIRECT}",
        "reply_queue",
        (r"    wanted = ", "    channel.queue_declare('', exclusive=True)\n    wanted = "),
    ),
    # The server
    *servers("no limit", "cannot_be_answered", (r" or int\(request\) > LIMIT", "")),
    *servers("takes any text", "cannot_be_answered", (r"not request\.isdigit\(\) or ", "")),
    *servers("any number of digits", "cannot_be_answered", (r"len\(request\) > 9 or ", "")),
    *servers("error without type", "cannot_be_answered", ('return "error"', 'return "result"')),
    *servers("no prefetch", "busy_one", (r".*prefetch_count=1.*\n", "")),
    sabotage(
        "no correlation id",
        f"aio-pika/{SERVER}",
        "official_clients",
        (r" *reply\.correlation_id = .*\n", ""),
    ),
    sabotage(
        "work that raises is the client's",
        f"aio-pika/{SERVER}",
        "work_that_raises",
        (r"async with asyncio\.TaskGroup\(\):", "if True:"),
    ),
    sabotage(
        "work that raises is the client's",
        f"pika/{SERVER}",
        "work_that_raises",
        ("except AMQPError", "except (AMQPError, ValueError)"),
    ),
    sabotage("failed and gone", f"aio-pika/{SERVER}", "work_that_raises", ("requeue=True", "")),
    sabotage(
        "ack before the work",
        f"pika/{SERVER}",
        IN_HAND,
        (r" *channel\.basic_ack.*\n", ""),
        (
            r"( *)(kind, text = answer)",
            r"\1channel.basic_ack(method.delivery_tag)\n\1\2",
        ),
    ),
    sabotage(
        "ack before the work",
        f"aio-pika/{SERVER}",
        IN_HAND,
        (r"process\(requeue=True\)", "process(ignore_processed=True)"),
        (r"( *)async with asyncio", r"\1await request.ack()\n\1async with asyncio"),
    ),
    sabotage(
        "silent end", f"pika/{SERVER}", "deleted_under", (r" *sys\.exit\(.Failed: the.*\n", "")
    ),
    sabotage(
        "deaf to cancel",
        f"aio-pika/{SERVER}",
        "deleted_under",
        (r"amqp\.on_consumer\w+\.add", "str"),
    ),
    sabotage(
        "names no reason",
        f"aio-pika/{SERVER}",
        "connection_closed",
        (r"end\[0\]\.args or ", ""),
    ),
    sabotage(
        "classic queue", f"pika/{SERVER}", "official or declare_a_name", ("quorum", "classic")
    ),
    sabotage("other words", f"aio-pika/{SERVER}", "every_client_asks", (r"\[\.\] fib", "[.] Fib")),
]
