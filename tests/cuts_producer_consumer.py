"""What `make sabotage` breaks in producer-consumer, and the tests that should notice."""

from functools import partial

from cuts import cut

sabotage = partial(cut, "producer-consumer")

JOB, GROUP = "job_controller.py", "job_taskgroup.py"
ENDS = "cancelled_job or ctrl_c"

CUTS = [
    sabotage(
        "task_done() skipped",
        JOB,
        "that_raises",
        (r"except BaseException as error:\n        return error", "except OSError:\n        pass"),
    ),
    sabotage(
        "task_done() forgotten", JOB, "every_task_once", (r"self\._work_queue\.task_done\(\)", "")
    ),
    sabotage(
        "a task's CancelledError taken for ours",
        JOB,
        "task_that_raises",
        (r"if being_cancelled\(\):\n            raise", "raise"),
    ),
    sabotage(
        "our CancelledError taken for a task's",
        JOB,
        ENDS,
        (r"if being_cancelled\(\):\n            raise", "pass"),
    ),
    sabotage("deaf consumers", JOB, "swallow", (r"while not being_cancelled\(\):", "while True:")),
    sabotage(
        "deaf consumers", GROUP, "swallow", (r"while not being_cancelled\(\):", "while True:")
    ),
    sabotage(
        "cancelled and not gathered",
        JOB,
        "every_task or cancelled",
        (r" *await asyncio\.g.*\n", ""),
    ),
    sabotage("not cancelled", JOB, "every_task", (r" *consumer\.cancel\(\)\n", "    pass\n")),
    sabotage(
        "event not set on errors",
        JOB,
        "producer_that",
        (r"        finally:\n.*\n(            self\._producer_c)", r"        except OSError:\n\1"),
    ),
    sabotage(
        "no wait for the producer", JOB, "every_task", (r" *await producer_completed.*\n", "")
    ),
    sabotage("no join()", JOB, "every_task", (r" *await work_queue\.join\(\)\n", "")),
    sabotage("unbounded", JOB, "in_the_queue or memory", ("MAX_SIZE = 100", "MAX_SIZE = 0")),
    sabotage(
        "all tasks at once in memory",
        JOB,
        "memory",
        (r"in self\._tasks_batch", r"in [*self._tasks_batch]"),
    ),
    sabotage("24 workers", JOB, "25", ("NUM_WORKERS = 25", "NUM_WORKERS = 24")),
    sabotage(
        "a slow worker",
        JOB,
        "times_as_fast",
        (r"(    async def perform.*\n)", r"\1        await asyncio.sleep(0.05)\n"),
    ),
    sabotage("wall clock", JOB, "clock", (r"time\.monotonic", "time.time")),
    sabotage(
        "producer's error unsaid", JOB, "producer_that", (r"producing\.exception\(\)", "None")
    ),
    sabotage("callback's error unsaid", JOB, "callback", (r"log\.error", "log.debug")),
    sabotage(
        "callback's error uncounted", JOB, "callback", (r" *self\.result\.callbacks_f.*\n", "")
    ),
    sabotage(
        "callback not awaited",
        JOB,
        "coroutine_functions",
        (r"if inspect\.isawaitable\(outcome\)", "if False"),
    ),
    sabotage("no word after Ctrl-C", JOB, ENDS, (r"return self\.queued .*", "return 0")),
    sabotage("status 0 after Ctrl-C", JOB, "ctrl_c", ("return 130", "return 0")),
    sabotage("status 0 after a failure", JOB, "every_python", ("well else 1", "well else 0")),
    sabotage(
        "moving progress in a pipe", JOB, "in_a_pipe", (r"self\._moves = .*", "self._moves = True")
    ),
    sabotage("no progress", JOB, "progress", (r"Progress\(total\) if.*else ", "")),
    sabotage(
        "producer's error ends all",
        GROUP,
        "producer_that",
        (r"except Exception as error", "except OSError as error"),
    ),
    sabotage("queue not closed", GROUP, "every_task", (r" *await close\(work_queue\)\n", "")),
    sabotage("end not passed on", GROUP, "every_task", (r" *work_queue\.put_nowait.*\n", "")),
    # The drafts, which must show the fault that the page shows
    sabotage(
        "draft waits",
        "job_naive_empty.py",
        "naive",
        ("sleep\\(0.01\\)", "sleep(1)"),
    ),
    sabotage(
        "draft fails well",
        "job_naive.py",
        "naive",
        (
            r"            number, secs = await (?s:.*?)(            self\.work_queue\.task_done\(\))",
            r"            number, secs = await self.work_queue.get()\n            try:\n                await asyncio.sleep(float(secs))\n                self.callback(f'Task {number} done in {float(secs):.1f} s')\n            except ValueError:\n                pass\n\1",
        ),
    ),
    sabotage(
        "draft gathers",
        "job_naive.py",
        "naive",
        (r"(    still_open)", r"    await asyncio.gather(*tasks, return_exceptions=True)\n\1"),
    ),
]
