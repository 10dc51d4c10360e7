"""What `make sabotage` breaks in backpressure, and the tests that should notice."""

from functools import partial

from cuts import cut

bound = partial(cut, "backpressure")
APP, BOUNDED, NAIVE = "produce.py", "take_bounded.py", "produce_naive.py"
STORE, TELL, STORM = "store_or_wait.py", "drop_and_tell.py", "retry_storm.py"
PIKA, AIO_PIKA = "blocked_pika.py", "blocked_aio_pika.py"
FATE, LIST = "has_its_fate", "list_that_is_too_long"
AS_RECORDED = "simulation or storm"

CUTS = [
    # Slow down
    bound("no bound", "bounded_buffer.py", "buffer or memory", ("maxsize=10", "maxsize=0")),
    bound(
        "a bound", "unbounded_buffer.py", "buffer or memory", (r"Queue\(\)", "Queue(maxsize=9)")
    ),
    bound("no prefetch", "prefetch_holds.py", "prefetch", (r" *await channel\.set_qos.*\n", "")),
    bound(
        "an end unheard",
        "prefetch_holds.py",
        "in_a_pause",
        (r"if amqp\.closing\.done\(\):", "if False:"),
    ),
    bound("no window", "publish_window.py", "window", (r" *await room\.acquire.*\n", "")),
    bound("never room again", "publish_window.py", "window", (r"room\.release\(\)", "pass")),
    # Store
    bound("no confirms", STORE, "full_queue", (r" *channel\.confirm_delivery.*\n", "")),
    bound("the oldest dropped", STORE, "full_queue", (r' *"x-overflow".*\n', "")),
    bound("what is refused forgotten", STORE, "full_queue", (r"refused \+= 1", "number += 1")),
    bound("no pauses", STORE, "pauses", (r"connection\.sleep.*", "pass")),
    bound("pauses don't grow", STORE, "pauses", (r"pause \* 2", "pause")),
    bound("pauses without end", STORE, "pauses", (r"min\(pause \* 2, 1\.0\)", "pause * 2")),
    bound("returns unheard", STORE, "deleted_meanwhile", (", stored, True", ", stored")),
    bound(
        "acks before the work",
        "slow_consumer.py",
        "slow_consumer",
        (r"        channel\.basic_ack.*\n", ""),
        (r"(        time\.sleep)", r"        channel.basic_ack(method.delivery_tag)\n\1"),
    ),
    bound("all at once", "slow_consumer.py", "slow_consumer", (r" *channel\.basic_qos.*\n", "")),
    bound(
        "the end unsaid",
        "slow_consumer.py",
        "queue_is_deleted",
        (r' *sys\.exit\("Failed: the.*', ""),
    ),
    # Drop
    bound(
        "newest refused",
        "drop_oldest.py",
        "oldest",
        (r'"x-max-length": 5', r'"x-max-length": 5, "x-overflow": "reject-publish"'),
    ),
    bound("no limit", "drop_oldest.py", "oldest", (r', "x-max-length": 5', "")),
    bound("not dead-lettered", TELL, "is_dropped_is", (r' *"x-dead-letter-.*\n', "")),
    bound("no TTL", TELL, "is_dropped_is", (r' *"x-message-ttl".*\n', "")),
    bound("dropped at once", TELL, "in_time", (r'"x-message-ttl": 1000', '"x-message-ttl": 0')),
    bound(
        "reason unsaid",
        "count_dropped.py",
        "is_dropped_is",
        (", why = told", ", why = 0 and told"),
    ),
    bound(
        "left in the queue", "count_dropped.py", "is_dropped_is", (r"channel\.basic_ack.*", "pass")
    ),
    # The broker's own
    bound("pika is not told", PIKA, "alarm", (r"\[!\] Blocked", "Stopped")),
    bound("pika is not told of the end", PIKA, "alarm", (r'print\(" \[x\] Unblocked"\)', "0")),
    bound("aio-pika is not told", AIO_PIKA, "alarm", (r"log\.handlers.*", "pass")),
    bound(
        "aio-pika unconfirmed",
        AIO_PIKA,
        "alarm",
        (r"on_return_raises=True", "publisher_confirms=False"),
    ),
    bound("returns unheard", PIKA, "deleted_meanwhile", (r" *channel\.add_on_return.*\n", "")),
    bound(
        "a closed channel unheard",
        PIKA,
        "declared_otherwise",
        (r" *channel\.add_on_close.*\n", ""),
    ),
    bound("a nack is an ack", PIKA, "refuses", (r'if "Nack" in frame\.method\.NAME', "if False")),
    bound("returns unheard", AIO_PIKA, "deleted_meanwhile", ("on_return_raises=True", "")),
    bound(
        "an end unheard",
        AIO_PIKA,
        "in_a_pause",
        (r"if amqp\.closing\.done\(\):", "if False:"),
    ),
    # An endpoint
    bound("errors let out", APP, FATE, (r"\(httpx\.ConnectError, ValueError\)", "KeyError")),
    bound(
        "odd items let out",
        APP,
        "odd_json",
        (r"\(httpx\.ConnectError, ValueError\)", "httpx.ConnectError"),
    ),
    bound("unsent is unknown", APP, FATE, ('"failed"', '"unknown"')),
    bound("a refusal is a delivery", APP, FATE, (' if answer.is_success else "refused"', "")),
    bound("200 in any case", APP, FATE, ("else 502", "else 200")),
    bound("nothing is an error", APP, FATE, (r"\{\*fates\} <= ", "{*fates} == ")),
    bound("no deadline", APP, "slow_service", (r"asyncio\.timeout\(3\)", "asyncio.timeout(60)")),
    bound(
        "workers go on",
        APP,
        "slow_service",
        (r"await asyncio\.gather\(\*four\)", "await asyncio.shield(asyncio.gather(*four))"),
        (
            "async with asyncio.timeout.*",
            "client = httpx.AsyncClient(timeout=2)\n        async with asyncio.timeout(3):",
        ),
    ),
    bound(
        "patience without end",
        APP,
        "silent",
        (r"AsyncClient\(timeout=2\)", "AsyncClient(timeout=30)"),
    ),
    bound("unknown is forgotten", APP, "silent", (r'fates\[index\] = "unknown".*', "pass")),
    bound("all requests at once", BOUNDED, "eight_at_a_time", ("1_000_000, 8", "1_000_000, 9")),
    bound("one request fewer", BOUNDED, "eight_at_a_time", ("1_000_000, 8", "1_000_000, 7")),
    bound("never free again", BOUNDED, "eight_at_a_time", ("busy -= 1", "pass")),
    bound("come again, but when", BOUNDED, "eight_at_a_time", (r', \{"Retry-After": "1"\}', "")),
    bound(
        "a traceback for who has gone",
        BOUNDED,
        "eight_at_a_time",
        (r"\(ValueError, ClientDisconnect\)", "ValueError"),
    ),
    bound("any body", BOUNDED, LIST, ("1_000_000, 8", "1_000_001, 8")),
    bound("a body too few", BOUNDED, LIST, ("1_000_000, 8", "999_999, 8")),
    bound("any JSON", BOUNDED, LIST, (r"list\[Any\]\)", "Any)")),
    bound("a slow body", BOUNDED, LIST, ("timeout=3", "timeout=90")),
    bound(
        "a taken port",
        APP,
        "port_that_is_taken",
        ("config.bind_socket.*", "__import__('socket').create_server((config.host, port))"),
    ),
    bound(
        "the naive one is told",
        NAIVE,
        "naive",
        (r"queue\.task_done\(\)", "pass"),
        (r"queue\.get\(\)", "queue.get()\n            queue.task_done()"),
    ),
    # The retry storm
    bound("no jitter", STORM, AS_RECORDED, (r"random\.uniform\(0, most\)", "most")),
    bound(
        "no budget",
        STORM,
        AS_RECORDED,
        (r'"and a budget": \(8, 30, 0\.1', '"and a budget": (8, 30, 9'),
    ),
    bound("unbounded", STORM, AS_RECORDED, ("0.1, 80", "0.1, 9999")),
]
