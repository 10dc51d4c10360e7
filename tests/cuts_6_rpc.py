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
    *clients("takes stray replies", "stray", (r"!= request\.correlation_id", "== 0")),
    *clients("errors as results", "every_client_asks", (r'\.type == "error"', '.type == "x"')),
    *clients("never expires", "no_server", (r" *expiration=.*\n", "")),
    sabotage(
        "waits for ever",
        f"pika/{CLIENT}",
        "no_server",
        (r"time\.monotonic\(\) < deadline", "True"),
    ),
    sabotage(
        "waits for ever",
        f"aio-pika/{DIRECT}",
        "no_server",
        (r"timeout\(TIMEOUT\)", "timeout(None)"),
    ),
    sabotage(
        "lowest priority", f"aio-pika/{CLIENT}", "served_in_order", (r" *priority=4.*\n", "")
    ),
    sabotage(
        "silent end",
        f"aio-pika/{CLIENT}",
        "connection_closed",
        (r" *raise ConnectionError.*\n", ""),
    ),
    sabotage(
        "Ctrl-C uncaught", f"pika/{CLIENT}", "ctrl_c", ("except Keyboard.*", "except OSError:")
    ),
    sabotage(
        "any arguments", f"pika/{DIRECT}", "two_numbers", (r"len\(sys\.argv\) != 2", "False")
    ),
    sabotage(
        "a queue after all",
        f"pika/{DIRECT}",
        "reply_queue",
        (r"    replies: ", "    channel.queue_declare('', exclusive=True)\n    replies: "),
    ),
    # The server
    *servers("no limit", "cannot_be_answered", (r" or int\(request\) > LIMIT", "")),
    *servers("takes any text", "cannot_be_answered", (r"not request\.isdigit\(\) or ", "")),
    *servers("dies of an error", "raises_is_an", (r"except Exception", "except ValueError")),
    *servers("error without type", "cannot_be_answered", ('return "error"', 'return "result"')),
    *servers("no prefetch", "busy_one", (r".*prefetch_count=1.*\n", "")),
    *servers(
        "no correlation id", "official_clients", (r"correlation_id=[\w.]+", "message_id='x'")
    ),
    sabotage(
        "needs reply_to",
        f"pika/{SERVER}",
        "without_reply_to",
        (r"if properties\.reply_to", "if 1"),
    ),
    sabotage(
        "needs reply_to",
        f"aio-pika/{SERVER}",
        "without_reply_to",
        (r"if request\.reply_to", "if 1"),
    ),
    sabotage(
        "ack before the work",
        f"pika/{SERVER}",
        IN_HAND,
        (r"    channel\.basic_ack.*\n", ""),
        (r"    done: ", "    channel.basic_ack(method.delivery_tag)\n    done: "),
    ),
    sabotage(
        "ack before the work",
        f"aio-pika/{SERVER}",
        IN_HAND,
        (
            r"process\(requeue=True\):",
            "process(ignore_processed=True):\n        await request.ack()",
        ),
    ),
    sabotage("drop on Ctrl-C", f"aio-pika/{SERVER}", IN_HAND, ("requeue=True", "")),
    sabotage(
        "no heartbeats", f"pika/{SERVER}", "heartbeats", (r" *channel\.connection\.proc.*\n", "")
    ),
    sabotage(
        "no heartbeats",
        f"aio-pika/{SERVER}",
        "heartbeats",
        (r"await asyncio\.to_thread\(answer, ", "answer("),
    ),
    sabotage(
        "silent end", f"pika/{SERVER}", "deleted_under", (r" *raise ConnectionError.*\n", "")
    ),
    sabotage(
        "deaf to cancel",
        f"aio-pika/{SERVER}",
        "deleted_under",
        (r"amqp\.on_consumer\w+\.add", "str"),
    ),
    sabotage(
        "deaf to close",
        f"aio-pika/{SERVER}",
        "connection_closed",
        (r" *channel\.close_callbacks.*\n", ""),
    ),
    sabotage(
        "classic queue", f"pika/{SERVER}", "official or declare_a_name", ("quorum", "classic")
    ),
    sabotage("other words", f"aio-pika/{SERVER}", "every_client_asks", (r"\[\.\] fib", "[.] Fib")),
]
