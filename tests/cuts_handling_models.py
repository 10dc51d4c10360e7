"""What `make sabotage` breaks in handling-models, and the tests that should notice."""

from functools import partial

from cuts import Cut, cut

model = partial(cut, "handling-models")
SINGLE, THREADS, PROCESSES = "one_at_a_time.py", "thread_pool.py", "process_pool.py"
TASKS, BLOCKING, ADAPTER = "asyncio_tasks.py", "asyncio_to_thread.py", "asyncio_with_pika.py"
KILLED, AFTER, WAVES = "killed_worker and {}", "after_the_work and {}", "as_many and {}"
ENDS, OPERATOR = "(deleted or connection_is_lost) and {}", "operator and {}"
CTRL_C, RAISES = "at_ctrl_c and {}", "raises_ends and {}"
SCREEN = "screen_lacks and {}"
EARLY = (
    (r"( +)job = os\.fsdecode", r"\1await message.ack()\n\1job = os.fsdecode"),
    (r"process\(requeue=True\)", "process(requeue=True, ignore_processed=True)"),
)
AUTOMATIC = (
    (r'consume\("jobs"\)', 'consume("jobs", auto_ack=True)'),
    (r"channel\.basic_ack\(.*\)", "pass"),
)


def of(tests: str, script: str) -> str:
    return tests.format(script.removesuffix(".py"))


def act(name: str, script: str, tests: str, *changes: tuple[str, str]) -> Cut:
    return model(name, script, of(tests, script), *changes)


def without(pattern: str) -> tuple[str, str]:
    """A change that takes out the lines that begin so."""
    return rf"\n +{pattern}[^\n]*", ""


CUTS = [
    # The ack comes after the work
    act(
        "acked when begun",
        THREADS,
        KILLED,
        (r"pool\.submit", "channel.basic_ack(method.delivery_tag); pool.submit"),
        (r"future = channel\.basic_ack\((.*?)\); ", r"channel.basic_ack(\1); future = "),
        (r"(\[x\] Done.*)\n *channel.basic_ack\(tag\)", r"\1"),
    ),
    act("acked when begun", TASKS, AFTER, *EARLY),
    act("acked when begun", BLOCKING, KILLED, *EARLY),
    act(
        "acked when begun",
        ADAPTER,
        AFTER,
        (r"async with slots", "channel.basic_ack(tag)\n        async with slots"),
        (r"(\[x\] Done.*)\n *if channel.*\n *channel.basic_ack\(tag\)", r"\1"),
    ),
    act("automatic ack", SINGLE, KILLED, *AUTOMATIC),
    act("automatic ack", PROCESSES, KILLED, *AUTOMATIC),
    # Concurrency, reached and bounded
    act("one worker", THREADS, WAVES, (r"ThreadPoolExecutor\(workers\)", "ThreadPoolExecutor(1)")),
    act(
        "one worker", PROCESSES, WAVES, (r"ProcessPoolExecutor\(workers", "ProcessPoolExecutor(1")
    ),
    act("one worker", TASKS, WAVES, (r"Semaphore\(workers\)", "Semaphore(1)")),
    act(
        "the default executor",
        BLOCKING,
        WAVES,
        (r"ThreadPoolExecutor\(workers\)", "ThreadPoolExecutor()"),
    ),
    act("no semaphore", TASKS, WAVES, (r"Semaphore\(workers\)", "Semaphore(1000)")),
    act("no prefetch", THREADS, WAVES, without(r"channel\.basic_qos")),
    act("no prefetch", TASKS, WAVES, without(r"await channel\.set_qos")),
    act("no prefetch", ADAPTER, WAVES, without(r"channel\.basic_qos")),
    act("no prefetch", SINGLE, "test_one_at_a_time", without(r"channel\.basic_qos")),
    # Heartbeats
    act(
        "work on the connection's thread",
        THREADS,
        "heartbeats and {}",
        (r"pool\.submit\(work, job\)", "(pool.submit(lambda: None), work(job))[0]"),
    ),
    act(
        "blocks the loop",
        TASKS,
        "heartbeats and {}",
        (r"await asyncio\.sleep", "__import__('time').sleep"),
    ),
    act(
        "blocks the loop",
        BLOCKING,
        "heartbeats and {}",
        (r"await loop\.run_in_executor\(pool, work, job\)", "work(job)"),
    ),
    # Ctrl-C
    act("Ctrl-C is a traceback", SINGLE, CTRL_C, without(r"signal\.signal")),
    act("Ctrl-C is a traceback", TASKS, CTRL_C, without(r"signal\.signal")),
    act("children outlive their parent", PROCESSES, KILLED, (r"os\._exit\(1\)", "pass")),
    # What goes wrong
    act("a job fails in silence", THREADS, RAISES, without(r"future\.result\(\)")),
    act("a job fails in silence", PROCESSES, RAISES, without(r"future\.result\(\)")),
    act(
        "a broken pool is nobody's fault",
        PROCESSES,
        "process_of_the_pool",
        without(r"future\.res"),
    ),
    act("lost when it raises", TASKS, RAISES, (r"process\(requeue=True\)", "process()")),
    act("lost when it raises", BLOCKING, RAISES, (r"process\(requeue=True\)", "process()")),
    act("raises unheard", ADAPTER, RAISES, (r"tasks\.create_task", "asyncio.create_task")),
    act("taken for the client's", SINGLE, RAISES, (r"except AMQPError", "except Exception")),
    act("deaf to a deleted queue", TASKS, ENDS, without(r"amqp\.on_consumer_cancel")),
    act("deaf to a deleted queue", ADAPTER, ENDS, without(r"channel\.add_on_cancel")),
    act("deaf to a closed channel", ADAPTER, "another and {}", without(r"channel\.add_on_close")),
    act("the reason thrown away", BLOCKING, OPERATOR, (r"end\[0\]\.args or ", "")),
    act("quiet about its end", SINGLE, ENDS, (r"\n    sys\.exit\(\"Failed: the[^\n]*", "")),
    act(
        "a traceback for each lost ack",
        THREADS,
        "connection_is_lost and {}",
        (r"suppress\(ConnectionWrongStateError\)", "suppress()"),
    ),
    # What the screen cannot show
    act("the screen decides", TASKS, SCREEN, without(r"sys\.stdout\.reconfigure")),
    act("the screen decides", BLOCKING, SCREEN, without(r"sys\.stdout\.reconfigure")),
    act("the screen decides", PROCESSES, SCREEN, without(r"sys\.stdout\.reconfigure")),
    # The sender
    act("no confirms", "send_jobs.py", "sender_does_not", without(r"channel\.confirm_delivery")),
]
