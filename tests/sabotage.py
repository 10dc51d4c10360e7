"""Break the scripts one property at a time, and see that a test fails.

    python tests/sabotage.py              all of them (`make sabotage`, 20 minutes)
    python tests/sabotage.py confirms     those whose name contains a word

Each act of sabotage takes one promise out of one script, in a copy of the
repository, and runs the tests that should notice. One that no test notices is
a defect of the tests; the exit status is 1 then.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from chapters import ROOT


@dataclass(frozen=True)
class Sabotage:
    """What is taken out of which script, and the tests that should notice.

    `changes` are pairs of a regular expression, which must match once or more,
    and what replaces it.
    """

    name: str
    script: str
    tests: str
    changes: tuple[tuple[str, str], ...]


def cut(
    name: str, script: str, tests: str, *changes: tuple[str, str], chapter: str = "2-work-queues"
) -> Sabotage:
    return Sabotage(name, f"examples/{chapter}/{script}", tests, changes)


NEW, WORKER = "new_task.py", "tasks_worker.py"
NOT_CAUGHT = r"except \(AMQPError.*\)", "except ZeroDivisionError"
BOTH_ENDS = "quietly or mid_task"
MISTAKES = "no_broker or wrong_pass or url_that or other_arg"
FAILING = "always_fails or handler_that"
IN_HAND = "mid_task or ack_comes"

ALL = [
    # The sender
    cut("no confirms", f"pika/{NEW}", "sent_is_only", (r" *channel.confirm_delivery.*\n", "")),
    cut(
        "no confirms",
        f"aio-pika/{NEW}",
        "sent_is_only",
        ("on_return_raises=True", "publisher_confirms=False"),
    ),
    cut("not mandatory", f"pika/{NEW}", "no_queue_takes", ("mandatory=True", "mandatory=False")),
    cut("not mandatory", f"aio-pika/{NEW}", "no_queue_takes", ("on_return_raises=True", "")),
    cut("transient", f"pika/{NEW}", "official", (r"DeliveryMode\.P\w+", "DeliveryMode.Transient")),
    cut(
        "transient",
        f"aio-pika/{NEW}",
        "official",
        (r"DeliveryMode\.P\w+", "DeliveryMode.NOT_PERSISTENT"),
    ),
    cut(
        "undeclared",
        f"pika/{NEW}",
        "waits_for_the_first",
        (r" *channel\.queue_declare\((?s:.*?)\n        \)\n", ""),
    ),
    cut(
        "undeclared",
        f"aio-pika/{NEW}",
        "waits_for_the_first",
        (r" *await channel\.declare_queue\((?s:.*?)\n        \)\n", ""),
    ),
    cut("classic queue", f"pika/{NEW}", "official or declare_a_name", ("quorum", "classic")),
    cut("classic queue", f"aio-pika/{NEW}", "official or declare_a_name", ("quorum", "classic")),
    cut("lowest priority", f"aio-pika/{NEW}", "in_order", (r" *priority=4.*\n", "")),
    cut(
        "Latin-1",
        f"pika/{NEW}",
        "every_text",
        (r"os\.fsencode\(task\)", 'task.encode("latin-1", "replace")'),
    ),
    cut("usage with status 1", f"pika/{NEW}", "missing_arg", (r"sys\.exit\(2\)", "sys.exit(1)")),
    cut("mistakes as tracebacks", f"pika/{NEW}", MISTAKES, NOT_CAUGHT),
    cut("mistakes as tracebacks", f"aio-pika/{WORKER}", MISTAKES, NOT_CAUGHT),
    cut("password shown", f"pika/{NEW}", "no_broker", (r'\.rpartition\("@"\)\[2\]', "")),
    cut("aiormq's log", f"aio-pika/{NEW}", "no_broker", (r" *logging\.getLogger.*\n", "")),
    cut(
        "vhost unexplained",
        f"aio-pika/{NEW}",
        "wrong_pass",
        (r" *if isinstance\(why, InvalidFrameError.*\n.*\n", ""),
    ),
    # The worker
    cut("no prefetch", f"pika/{WORKER}", "prefetch", (r" *channel\.basic_qos.*\n", "")),
    cut("no prefetch", f"aio-pika/{WORKER}", "prefetch", (r" *await channel\.set_qos.*\n", "")),
    cut(
        "ack before the work",
        f"pika/{WORKER}",
        IN_HAND,
        (r"    channel\.basic_ack.*\n", ""),
        (
            r"    try:\n        work",
            "    channel.basic_ack(method.delivery_tag)\n    try:\n        work",
        ),
    ),
    cut(
        "ack before the work",
        f"aio-pika/{WORKER}",
        IN_HAND,
        (
            r"process\(requeue=True\):",
            "process(ignore_processed=True):\n            await message.ack()",
        ),
    ),
    cut(
        "automatic ack",
        f"pika/{WORKER}",
        IN_HAND,
        (r'"task_queue", on_message', '"task_queue", on_message, auto_ack=True'),
        (r"    channel\.basic_ack.*\n", ""),
    ),
    cut("no ack", f"pika/{WORKER}", "always_fails", (r"    channel\.basic_ack.*\n", "")),
    cut("drop on failure", f"aio-pika/{WORKER}", "cannot_even", ("requeue=True", "")),
    cut("drop on Ctrl-C", "aio-pika/tasks_worker_unfair.py", "mid_task", ("requeue=True", "")),
    cut("no redelivered mark", f"pika/{WORKER}", "mid_task", (r"method\.redelivered", "False")),
    cut(
        "no redelivered mark",
        f"aio-pika/{WORKER}",
        "mid_task",
        (r"bool\(message\.redelivered\)", "False"),
    ),
    cut("failed and gone", f"pika/{WORKER}", FAILING, (r' *channel\.basic_publish\(".*\n', "")),
    cut(
        "failed and gone", f"aio-pika/{WORKER}", FAILING, (r" *await channel\.default_ex.*\n", "")
    ),
    cut("failure uncaught", f"pika/{WORKER}", FAILING, ("except Exception", "except OSError")),
    cut("failure uncaught", f"aio-pika/{WORKER}", FAILING, ("except Exception", "except OSError")),
    cut(
        "no confirm for failed", f"pika/{WORKER}", "cannot_even", (r" *channel\.confirm_.*\n", "")
    ),
    cut("silent end", f"pika/{WORKER}", "deleted_under", (r" *raise ConnectionError.*\n", "")),
    cut(
        "silent end",
        f"aio-pika/{WORKER}",
        "under_a_worker",
        ("raise await trouble", "await trouble"),
    ),
    cut(
        "deaf to cancel",
        f"aio-pika/{WORKER}",
        "deleted_under",
        (r"amqp\.on_consumer\w+\.add", "str"),
    ),
    cut(
        "deaf to close",
        f"aio-pika/{WORKER}",
        "closed_under",
        (r" *channel\.close_callbacks.*\n", ""),
    ),
    cut(
        "Ctrl-C uncaught",
        f"pika/{WORKER}",
        BOTH_ENDS,
        ("except KeyboardInterrupt", "except OSError"),
    ),
    cut(
        "Ctrl-C uncaught",
        f"aio-pika/{WORKER}",
        BOTH_ENDS,
        ("except KeyboardInterrupt", "except OSError"),
    ),
    cut(
        "queue not durable",
        f"pika/{WORKER}",
        "official or survive",
        (r'"task_queue", durable=True, arguments=.*\n', '"task_queue", durable=False\n'),
    ),
    cut(
        "other words",
        f"pika/{WORKER}",
        "print_the_same or transcript",
        (r"\[x\] Done", "[x] done"),
    ),
    # The drafts, which must show the fault that the page shows
    cut("draft acks", "pika/tasks_worker_auto_ack.py", "draft_loses", ("auto_ack=True", "")),
    cut("draft acks", "aio-pika/tasks_worker_auto_ack.py", "draft_loses", ("no_ack=True", "")),
    cut(
        "draft is fair",
        "pika/tasks_worker_unfair.py",
        "prefetch",
        (
            r"( *)channel\.basic_consume",
            r"\1channel.basic_qos(prefetch_count=1)\n\1channel.basic_consume",
        ),
    ),
    cut(
        "draft remembers",
        "pika/tasks_worker_forgetful.py",
        "orgotten",
        (r'( *)print\(" \[x\] Done"\)\n', r"\g<0>\1channel.basic_ack(method.delivery_tag)\n"),
    ),
    cut(
        "draft confirms",
        "aio-pika/new_task_unconfirmed.py",
        "draft_says",
        ("publisher_confirms=False", "on_return_raises=True"),
    ),
    cut(
        "draft persists",
        "pika/new_task_transient.py",
        "survive or with_a_restart",
        (r"DeliveryMode\.Transient", "DeliveryMode.Persistent"),
    ),
]


def copy_repository(folder: Path) -> None:
    """The files that git knows, as they are here."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target)


def notice(sabotage: Sabotage, folder: Path) -> list[str]:
    """Commit one act of sabotage in `folder`; return the tests that fail."""
    script = folder / sabotage.script
    intact = script.read_text()
    broken = intact
    for pattern, replacement in sabotage.changes:
        broken, count = re.subn(pattern, replacement, broken)
        if not count:
            raise SystemExit(f"{sabotage.script} has no {pattern!r} for {sabotage.name!r}")
    script.write_text(broken)
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-n", "6", "--dist", "loadgroup"),
                *("--timeout", "60", "-k", sabotage.tests, "tests"),
            ],
            cwd=folder,
            capture_output=True,
            text=True,
        )
    finally:
        script.write_text(intact)
    if done.returncode not in (0, 1):
        raise SystemExit(f"pytest could not run:\n{done.stdout}{done.stderr}")
    return sorted(set(re.findall(r"^FAILED \S+::(\w+)", done.stdout, re.MULTILINE)))


def main() -> None:
    words = sys.argv[1:]
    chosen = [each for each in ALL if not words or any(word in each.name for word in words)]
    survived = 0
    with tempfile.TemporaryDirectory(prefix="rabbitmq-by-example-sabotage-") as folder:
        copy_repository(Path(folder))
        for sabotage in chosen:
            failed = notice(sabotage, Path(folder))
            survived += not failed
            script = Path(sabotage.script)
            where = f"{script.parent.name}/{script.name}"
            print(f"{'caught' if failed else 'MISSED'}  {sabotage.name} in {where}", flush=True)
            for test in failed:
                print(f"          {test}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} caught")
    sys.exit(1 if survived else 0)


if __name__ == "__main__":
    main()
