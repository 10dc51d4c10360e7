"""What `make sabotage` breaks in handling-models, and the tests that should notice."""

from functools import partial

from cuts import Cut, cut

model = partial(cut, "handling-models")
SINGLE, THREADS, PROCESSES = "one_at_a_time.py", "thread_pool.py", "process_pool.py"
TASKS, BLOCKING, ADAPTER = "asyncio_tasks.py", "asyncio_to_thread.py", "asyncio_with_pika.py"
KILLED, AFTER, WAVES = "killed_worker and {}", "after_the_work and {}", "as_many and {}"
FINISH, ENDS = "finishes_what and {}", "(deleted or connection_is_lost) and {}"
FAILS, AT_ONCE = "job_that_fails and {}", "second_ctrl and {}"


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
        (r"pool\.submit", "channel.basic_ack(tag); pool.submit"),
        (r"(\[x\] Done.*)\n *channel.basic_ack\(tag\)", r"\1"),
    ),
    act(
        "acked when begun",
        TASKS,
        AFTER,
        (r"async with slots", "await message.ack()\n                async with slots"),
        (r"(\[x\] Done.*)\n *await message.ack\(\)", r"\1"),
    ),
    act(
        "acked when begun",
        BLOCKING,
        KILLED,
        (
            r"await asyncio\.to_thread",
            "await message.ack()\n                await asyncio.to_thread",
        ),
        (r"(\[x\] Done.*)\n *await message.ack\(\)", r"\1"),
    ),
    act(
        "acked when begun",
        ADAPTER,
        AFTER,
        (r"await work\(job\)", "channel.basic_ack(tag)\n        await work(job)"),
        (r"(\[x\] Done.*)\n *channel.basic_ack\(tag\)", r"\1"),
    ),
    act(
        "automatic ack",
        SINGLE,
        KILLED,
        (r'"jobs", on_message\)', '"jobs", on_message, auto_ack=True)'),
        (r"channel\.basic_ack\(.*\)", "pass"),
    ),
    act(
        "acked by automatic ack",
        PROCESSES,
        KILLED,
        (r'"jobs", on_message\)', '"jobs", on_message, auto_ack=True)'),
        (r"channel\.basic_ack\(.*\)", "pass"),
    ),
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
        "waits without serving",
        THREADS,
        "heartbeats and {}",
        (r"while in_hand:", "pool.shutdown()\n        while in_hand:"),
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
        (r"await asyncio\.to_thread\(work, job\)", "work(job)"),
    ),
    # Ctrl-C and SIGTERM
    act("leaves what is in hand", THREADS, FINISH, (r"while in_hand:", "while False:")),
    act("leaves what is in hand", PROCESSES, FINISH, (r"while in_hand:", "while False:")),
    act("leaves what is in hand", TASKS, FINISH, without(r"await asyncio\.gather")),
    act("leaves what is in hand", BLOCKING, FINISH, without(r"await asyncio\.gather")),
    act("leaves what is in hand", ADAPTER, FINISH, without(r"await asyncio\.gather")),
    act("goes on consuming", TASKS, FINISH, without(r"await queue\.cancel")),
    act(
        "SIGTERM forgotten",
        SINGLE,
        FINISH,
        (r"for each in signal\.SIGINT, signal\.SIGTERM", "for each in (signal.SIGINT,)"),
    ),
    act(
        "SIGTERM forgotten",
        ADAPTER,
        FINISH,
        (r"for each in signal\.SIGINT, signal\.SIGTERM", "for each in (signal.SIGINT,)"),
    ),
    act(
        "the second Ctrl-C like the first",
        THREADS,
        AT_ONCE,
        without(r"signal\.signal\(each, signal\.SIG_DFL\)"),
        (r"stopped = True\n        for[^\n]*\n", "stopped = True\n"),
    ),
    act(
        "children feel Ctrl-C",
        PROCESSES,
        "A-pool-of-processes",
        without(r"signal\.signal\(signal\.SIGINT, signal\.SIG_IGN\)"),
    ),
    act("children outlive their parent", PROCESSES, KILLED, (r"os\._exit\(1\)", "pass")),
    # What goes wrong
    act("requeued when it fails", THREADS, FAILS, ("requeue=False", "requeue=True")),
    act("requeued when it fails", TASKS, FAILS, ("requeue=False", "requeue=True")),
    act(
        "fails in silence",
        THREADS,
        FAILS,
        (r"if error := future\.exception\(\)", "if error := None"),
    ),
    act("not set aside", ADAPTER, FAILS, (r'"x-dead-letter-exchange": "",\n', "")),
    act(
        "a broken pool is the job's fault",
        PROCESSES,
        "process_of_the_pool",
        (r"isinstance\(error, BrokenProcessPool\)", "False"),
    ),
    act("deaf to a deleted queue", TASKS, ENDS, without(r"amqp\.on_consumer_cancel")),
    act("deaf to a deleted queue", ADAPTER, ENDS, without(r"channel\.add_on_cancel")),
    act("deaf to a lost channel", BLOCKING, ENDS, without(r"channel\.close_callbacks")),
    act("quiet about its end", SINGLE, ENDS, (r"if not stopped:", "if False:")),
    act(
        "a traceback for each lost ack",
        THREADS,
        "connection_is_lost and {}",
        (r"suppress\(ConnectionWrongStateError\)", "suppress()"),
    ),
    act(
        "all is well when it could not ack",
        TASKS,
        "while_it_finishes and {}",
        (r"or channel\.is_closed", ""),
    ),
    # The sender
    act("no confirms", "send_jobs.py", "sender_says", without(r"channel\.confirm_delivery")),
]
