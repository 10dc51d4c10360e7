"""What `make sabotage` breaks in producer-consumer, and the tests that should notice."""

from functools import partial

from cuts import cut

job = partial(cut, "producer-consumer")
JOB, DEMO, GROUP, EMPTY, NAIVE = (
    f"job_{name}.py" for name in ("controller", "demo", "taskgroup", "naive_empty", "naive")
)
ENDS = "cancelled_job or ctrl_c"
IF_US = r" and being_cancelled\(\):"
DEAF = (r"while not being_cancelled\(\):", "while True:")
ALL_ERRORS = r"except BaseException as error:\n        # Are we"
IN_FINALLY = r"        finally:\n.*\n(            self\.producer_c)"


def without(pattern: str) -> tuple[str, str]:
    """A change that takes out the lines that begin so."""
    return rf" *{pattern}.*\n", ""


CUTS = [
    # Whatever raises
    job("errors let out", JOB, "that_raises", (ALL_ERRORS, "except OSError as error:\n        #")),
    job(
        "Exception only",
        JOB,
        "that_raises",
        (ALL_ERRORS, "except Exception as error:\n        #"),
    ),
    job("no task_done()", JOB, "every_task", (r"self\.work_queue\.task_done\(\)", "pass")),
    job("a task's cancellation taken for ours", JOB, "task_that_raises", (IF_US, ":")),
    job("our cancellation taken for a task's", JOB, ENDS, (IF_US, " and False:")),
    job(
        "event only in the end", JOB, "producer_that", (IN_FINALLY, r"        except OSError:\n\1")
    ),
    job("producer's error unsaid", JOB, "producer_t", (r"producing\.exception\(\)", "None")),
    job("producer's error ends all", GROUP, "producer_t", ("except Exception", "except OSError")),
    job("callback's error unsaid", JOB, "callback", (r"log\.error", "log.debug")),
    job("callback's error uncounted", JOB, "callback", without(r"self\.result\.callbacks_f")),
    job("callback not awaited", JOB, "coroutine", (r"if inspect\.isawaitable.*:", "if False:")),
    # The end
    job("deaf consumers", JOB, "swallow", DEAF),
    job("deaf consumers", GROUP, "swallow", DEAF),
    job(
        "cancelled and not gathered", JOB, "every_task or cancelled", without(r"await asyncio\.g")
    ),
    job("not cancelled", JOB, "every_task", (r"task\.cancel\(\)", "pass")),
    job("no wait for the producer", JOB, "every_task", without(r"await completed\.")),
    job("no join()", JOB, "every_task", without(r"await work_queue\.join")),
    job("queue not closed", GROUP, "every_task", without(r"await close\(")),
    job("end not passed on", GROUP, "every_task", without(r"work_queue\.put_nowait\(")),
    job("what is not done unsaid", JOB, ENDS, (r"return self\.queued .*", "return 0")),
    job("status 0 after Ctrl-C", DEMO, "ctrl_c", (r"exit\(130\)", "exit(0)")),
    job("status 0 after a failure", DEMO, "every_python", ("1 if job", "0 if job")),
    # How many, how fast, how much
    job("unbounded", JOB, "in_the_queue", ("MAX_SIZE = 100", "MAX_SIZE = 0")),
    job("unbounded in memory", JOB, "memory", ("MAX_SIZE = 100", "MAX_SIZE = 0")),
    job("all in memory", JOB, "memory", (r"in self\.tasks_batch", "in [*self.tasks_batch]")),
    job("24 workers", JOB, "25", ("NUM_WORKERS = 25", "NUM_WORKERS = 24")),
    job(
        "slow workers",
        JOB,
        "as_fast",
        (r"(async def perform.*\n)", r"\1        await asyncio.sleep(0.05)\n"),
    ),
    job("wall clock", JOB, "clock", (r"time\.monotonic", "time.time")),
    job("moving progress in a pipe", DEMO, "in_a_pipe", (r"_moves = .*", "_moves = True")),
    job("plain progress on a terminal", DEMO, "on_a_term", (r"_moves = .*", "_moves = False")),
    job("no progress", DEMO, "progress", (r"Shown\(total\) if.*else ", "")),
    job("a bar for three tasks", DEMO, "no_bar", ("if total > 50", "if total")),
    job(
        "a bar cut up by what is printed",
        DEMO,
        "is_a_bar",
        (r"redirect_stdout=.*", "redirect_stdout=False,"),
    ),
    # The drafts, which must show the fault that the page shows
    job("draft waits", EMPTY, "naive", (r"sleep\(0\.01\)", "sleep(1)")),
    job(
        "draft fails well", NAIVE, "naive", (r"float\(secs\)", "float(secs.replace('oops', '0'))")
    ),
    job(
        "draft gathers",
        NAIVE,
        "naive",
        (r"(    still_open)", r"    await asyncio.gather(*tasks, return_exceptions=True)\n\1"),
    ),
]
