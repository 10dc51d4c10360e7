"""What `make sabotage` breaks in backpressure, and the tests that should notice."""

from functools import partial

from cuts import cut

bound = partial(cut, "backpressure")
APP, NAIVE, STORE, TELL = "produce.py", "produce_naive.py", "store_or_wait.py", "drop_and_tell.py"
FAILING = "survives"

CUTS = [
    # Slow down
    bound("no bound", "bounded_buffer.py", "buffer or memory", ("maxsize=10", "maxsize=0")),
    bound(
        "a bound", "unbounded_buffer.py", "buffer or memory", (r"Queue\(\)", "Queue(maxsize=9)")
    ),
    bound("no prefetch", "prefetch_holds.py", "prefetch", (r" *await channel\.set_qos.*\n", "")),
    bound("no window", "publish_window.py", "window", (r" *await room\.acquire.*\n", "")),
    # Store
    bound("no confirms", STORE, "full_queue", (r" *channel\.confirm_delivery.*\n", "")),
    bound("the oldest dropped", STORE, "full_queue", (r' *"x-overflow".*\n', "")),
    bound("what is refused forgotten", STORE, "full_queue", (r"refused \+= 1", "stored += 1")),
    bound("no pauses", STORE, "pauses", (r"connection\.sleep.*", "pass")),
    bound("pauses don't grow", STORE, "pauses", (r"pause \* 2", "pause")),
    bound(
        "acks before the work",
        "slow_consumer.py",
        "slow_consumer",
        (r"    channel\.basic_ack.*\n", ""),
        (r"(    time\.sleep)", r"    channel.basic_ack(method.delivery_tag)\n\1"),
    ),
    bound("all at once", "slow_consumer.py", "slow_consumer", (r" *channel\.basic_qos.*\n", "")),
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
    bound("reason unsaid", "count_dropped.py", "is_dropped_is", (r"told\[why\]", "0")),
    # The broker's own
    bound("pika is not told", "blocked_pika.py", "alarm", (r" *connection\.add_on.*\n", "")),
    bound("aio-pika is not told", "blocked_aio_pika.py", "alarm", (r"log\.handlers.*", "pass")),
    bound(
        "aio-pika unconfirmed",
        "blocked_aio_pika.py",
        "alarm",
        (r"on_return_raises=True", "publisher_confirms=False"),
    ),
    # An endpoint
    bound(
        "errors let out", APP, FAILING, ("except Exception as error", "except KeyError as error")
    ),
    bound("a refusal is a delivery", APP, FAILING, (r'"" if answer\.is_success else .*', '""')),
    bound("200 in any case", APP, FAILING, ("502 if", "200 if")),
    bound(
        "no deadline", APP, "slow_service", (r"REQUEST_SECONDS = .*", "REQUEST_SECONDS = 2.0, 60")
    ),
    bound(
        "workers go on",
        APP,
        "slow_service",
        (r"worker\.cancel\(\)", "pass"),
        (r" *await asyncio\.gather.*\n", ""),
    ),
    bound(
        "patience without end",
        APP,
        "silent",
        (r"POST_SECONDS, REQUEST_SECONDS = .*", "POST_SECONDS, REQUEST_SECONDS = 30, 60"),
    ),
    bound("all requests at once", APP, "silent", ("MAX_REQUESTS = 8", "MAX_REQUESTS = 800")),
    bound("never free again", APP, "silent", ("busy -= 1", "pass")),
    bound("any body", APP, "not_take", ("MAX_BODY = 1_000_000", "MAX_BODY = 10**9")),
    bound("deep JSON", APP, "not_take", (r"\(ValueError, RecursionError\)", "ValueError")),
    bound(
        "a slow body",
        APP,
        "not_take",
        (
            r"asyncio\.timeout\(REQUEST_SECONDS\):\n            async for",
            "asyncio.timeout(90):\n            async for",
        ),
    ),
    bound(
        "the naive one is told",
        NAIVE,
        "naive",
        (r"queue\.task_done\(\)", "pass"),
        (r"queue\.get\(\)", "queue.get()\n            queue.task_done()"),
    ),
    # The retry storm
    bound(
        "no jitter",
        "retry_storm.py",
        "simulation or storm",
        (r"random\.uniform\(0, (.*)\)\n", r"\1\n"),
    ),
    bound("no budget", "retry_storm.py", "simulation or storm", ("budget=BUDGET", "budget=9")),
    bound("unbounded", "retry_storm.py", "simulation or storm", ("room=ROOM", "room=9999")),
]
