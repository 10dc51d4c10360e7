"""What `make sabotage` breaks in consumer-benchmark, and the tests that should notice."""

from functools import partial

from cuts import cut

act = partial(cut, "consumer-benchmark")
TOOL, ONCE = "benchmark.py", "exactly_once and {}"
CAUGHT, KILL = "is_caught or that_is_caught", "a_kill and {}"

CUTS = [
    # The consumers
    act("no acks", "pika_callback.py", "a_kill and pika_callback",
        (r"auto_ack=not given.ack_every", "auto_ack=True"),
        (r"if given.ack_every and \(last", "if False and (last")),
    act("acks what is not done", "aio_pika_fastest.py", "a_kill and aio_pika_fastest",
        (r"while upto \+ 1 in ended:\n *ended.remove\(upto := upto \+ 1\)",
         "upto = max(ended)"),
        (r"        first = first or", "        ended.add((message.delivery_tag or 0) + 40)\n"
         "        first = first or")),
    act("no acks", "pika_fastest.py", "a_kill and pika_fastest",
        (r"auto_ack=not ack_every", "auto_ack=True"),
        (r"if unacked and ack_every and", "if False and")),
    act("waits until it has many", "pika_fastest.py", "company", (r"= 0.01", "= 1000")),
    act("waits until it has many", "aio_pika_fastest.py", "company", (r"= 0.01", "= 1000")),
    act("acks before the work", "pika_threads.py", "killed_pool and pika_threads",
        (r"            job = pool.submit", "            channel.basic_ack(method.delivery_tag)\n"
         "            job = pool.submit"),
        (r"            channel.basic_ack\(tag\)\n", "")),
    act("acks before the work", "aio_pika_tasks.py", "killed_pool and aio_pika_tasks",
        (r"                await message.ack\(\)\n", ""),
        (r"                async with slots", "                await message.ack()\n"
         "                async with slots")),
    act("drops what it was to requeue", "aio_pika_iterator.py", "exactly_once and iterator",
        (r"seen.write\(message.body\[:8\]\)", "seen.write(message.body[:8] * 2)")),
    act("leaves a message", "pika_generator.py", "exactly_once and generator",
        (r"if last:\n", "if done == given.count - 1:\n")),
    act("leaves the last batch unacked", "pika_select.py", "every_option",
        (r"\(last or done % ack_every == 0\)", "done % (ack_every + 1) == 0")),
    act("a worker too few", "pika_threads.py", "work_and_workers",
        (r"ThreadPoolExecutor\(given.workers\)", "ThreadPoolExecutor(1)")),
    act("no slots", "aio_pika_tasks.py", "work_and_workers",
        (r"Semaphore\(given.workers\)", "Semaphore(1000)")),
    act("confirms are not awaited", "produce.py", "producer_fills",
        (r"if error:", "if False:")),
    # The tool
    act("forgives what is missing", TOOL, CAUGHT, (r"if not seen\b", "if seen < 0")),
    act("forgives what came twice", TOOL, CAUGHT, (r"if seen > 1", "if seen > 9")),
    act("forgives the order", TOOL, CAUGHT, (r"if ordered and not found", "if False")),
    act("does not look into the queue", TOOL, CAUGHT, (r"if left := self.left\(queue\)",
                                                     "if left := 0")),
    act("waits for ever", TOOL, CAUGHT, (r"> patience", "> patience + 1000")),
    act("believes any clock", TOOL, CAUGHT, (r"if not began < ", "if False and began < ")),
    act("believes any time", TOOL, CAUGHT, (r"if seconds <= 0", "if seconds < 0")),
    act("the same order each round", TOOL, "order_of_its_own",
        (r'f"\{seed\} \{table\} \{number\}"', 'f"{seed}"')),
    act("Ctrl-C forgets", TOOL, "ctrl_c",
        (r"    finally:\n        record.save", "    finally:\n        record.data['runs'] = []\n"
         "        record.save")),
    act("begins again", TOOL, "ctrl_c", (r"record.resume\(\)", "pass")),
    act("leaves its queue", TOOL, "leaves_no_queue", (r"opened.queue_delete\(name\)", "pass")),
    act("leaves its processes", TOOL, "is_stuck", (r"os.killpg\(.*?\)", "pass")),
]  # fmt: skip
