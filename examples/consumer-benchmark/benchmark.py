#!/usr/bin/env python3
"""benchmark.py: measure consumers, and see that they lose and double nothing.

    python benchmark.py --consumers pika_callback,pika_select --messages 8000

Options that take a list measure every combination, round after round, each
round in another order. For each measurement it fills a new queue with numbered
messages, starts the consumer (any script that takes the arguments of
pika_callback.py), and compares what came with what was sent. The time runs
from the first delivery to when the broker had the last ack. --plan measures
what the page shows.
"""

import argparse
import datetime
import itertools
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import AMQPError, ChannelClosedByBroker
from plans import PLANS
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

AMQP_URL = os.environ.get("AMQP_URL", "amqp://guest:guest@localhost/")
HERE = Path(__file__).parent
# Consumers whose own concurrency, or whose number, lets messages overtake.
POOLS = ("pika_threads", "aio_pika_tasks", "peer_")
# They speak of tasks, not of messages, and send those themselves.
TASKS = ("peer_celery", "peer_dramatiq", "peer_faststream", "peer_taskiq")
# Seconds in which nothing is consumed: then a consumer is taken for stuck.
PATIENCE = 30.0


class Wrong(Exception):
    """A measurement that does not count; the text says why."""


@dataclass(frozen=True)
class Variant:
    """A consumer, and with which options. None: its own default."""

    consumer: str
    messages: int = 2_000
    prefetch: int | None = None
    ack_every: int | None = None
    workers: int | None = None
    work: float | None = None
    uvloop: bool | None = None
    queue: str = "classic"
    size: int = 10
    window: int = 500
    processes: int = 1

    @property
    def script(self) -> Path:
        """A file, as given or beside this one."""
        named = Path(self.consumer)
        if not named.suffix:
            return HERE / f"{named}.py"
        return named if named.exists() else HERE / named

    @property
    def name(self) -> str:
        return Path(self.consumer).stem

    @property
    def ordered(self) -> bool:
        one_by_one = not self.name.startswith(POOLS) and self.processes == 1
        concurrent = self.work and self.name.startswith("aio_pika")
        return one_by_one and not (
            concurrent and self.name != "aio_pika_iterator"
        )

    def options(self) -> list[str]:
        """For the consumer's command line."""
        names = ("prefetch", "ack_every", "workers", "work")
        given = [(name, getattr(self, name)) for name in names]
        found = [
            word
            for name, value in given
            if value is not None
            for word in (f"--{name.replace('_', '-')}", str(value))
        ]
        return [*found, "--uvloop"] if self.uvloop else found

    def shown(self, *names: str) -> str:
        """The consumer, and those of its options."""
        words = [
            f"{name.replace('_', ' ')} {getattr(self, name)}" for name in names
        ]
        return ", ".join([self.name, *words])


@contextmanager
def channel() -> Iterator[BlockingChannel]:
    connection = pika.BlockingConnection(pika.URLParameters(AMQP_URL))
    try:
        yield connection.channel()
    finally:
        # pika trips over a channel that Ctrl-C has cut short in its opening.
        with suppress(AMQPError, AttributeError):
            connection.close()


def about() -> dict[str, Any]:
    """When, where and with what; no names of hosts and no paths."""
    with pika.BlockingConnection(pika.URLParameters(AMQP_URL)) as connection:
        its: Any = connection
        properties = its._impl.server_properties
    found: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "rabbitmq": str(properties["version"]),
        "clients": {
            name: metadata.version(name)
            for name in ("pika", "aio-pika", "aiormq")
        },
    }
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line for line in lines if line.startswith("model name"))
        found["cpu"] = model.partition(":")[2].strip()
    return found


def faults(
    numbers: list[int], count: int, producers: int, ordered: bool
) -> list[str]:
    """What is wrong with the numbers that came, in this order."""
    found = []
    times = [0] * count
    strange = 0
    for number in numbers:
        if 0 <= number < count:
            times[number] += 1
        else:
            strange += 1
    missing = [number for number, seen in enumerate(times) if not seen]
    doubled = [number for number, seen in enumerate(times) if seen > 1]
    for word, which in (("missing", missing), ("twice", doubled)):
        if which:
            found.append(f"{len(which)} {word}, the first is {which[0]}")
    if strange:
        found.append(f"{strange} were never sent")
    if ordered and not found:
        # Of each producer; they send at the same time.
        latest = [-1] * producers
        for number in numbers:
            producer = number * producers // count
            if number < latest[producer]:
                return [f"out of order: {number} after {latest[producer]}"]
            latest[producer] = number
    return found


class Processes:
    """Those that run; killed when the measurement ends, however it does."""

    def __init__(self) -> None:
        self.running: list[subprocess.Popen[str]] = []

    def start(self, *command: object) -> subprocess.Popen[str]:
        started = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for us, and we tell them
        )
        self.running.append(started)
        return started

    def __enter__(self) -> "Processes":
        return self

    def kill(self) -> None:
        for process in self.running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def __exit__(self, *_: object) -> None:
        self.kill()
        for process in self.running:
            process.communicate()


def report(process: subprocess.Popen[str], who: str) -> dict[str, float]:
    """What a script has said at its end: its first and its last moment."""
    out, err = process.communicate()
    if process.returncode:
        last = (err.strip().splitlines() or ["no word"])[-1]
        raise Wrong(f"{who} failed ({process.returncode}): {last}")
    try:
        said = json.loads(out.splitlines()[-1])
        return {"first": float(said["first"]), "last": float(said["last"])}
    except (ValueError, KeyError, TypeError, IndexError):
        raise Wrong(
            f"{who} did not say when it began and ended: {out!r}"
        ) from None


def peak_mib(process: int) -> float:
    """The most memory that a process was resident with; 0 when it is gone."""
    with suppress(OSError):
        status = Path(f"/proc/{process}/status").read_text()
        if "VmHWM:" in status:
            return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    return 0.0


def cpu_seconds(process: int) -> float:
    with suppress(OSError):
        numbers = (
            Path(f"/proc/{process}/stat")
            .read_text()
            .rpartition(")")[2]
            .split()
        )
        return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


class Bench:
    """Measures variants on the broker that AMQP_URL names."""

    def __init__(
        self, python: str, producers: int, patience: float = PATIENCE
    ) -> None:
        self.python, self.producers, self.patience = (
            python,
            producers,
            patience,
        )

    def command(self, variant: Variant) -> list[str]:
        if variant.script.suffix == ".py":
            return [self.python, str(variant.script)]
        return [str(variant.script.absolute())]  # compiled

    def measure(self, variant: Variant) -> dict[str, float]:
        """One run: fill a queue, consume it, check. Raises Wrong."""
        name = f"benchmark-{random.SystemRandom().randrange(16**8):08x}"
        tasks = variant.name.startswith(TASKS)
        with tempfile.TemporaryDirectory() as folder, Processes() as processes:
            try:
                if not tasks:
                    with channel() as opened:
                        opened.queue_declare(
                            name,
                            durable=True,
                            arguments={"x-queue-type": variant.queue},
                        )
                sent = self.fill(processes, name, variant, tasks)
                if variant.name == "produce":
                    return self.result(
                        variant, sent["last"] - sent["first"], {}
                    )
                return self.consume(processes, name, variant, Path(folder))
            finally:
                processes.kill()  # they hold messages
                with suppress(AMQPError), channel() as opened:
                    opened.queue_delete(name)

    def fill(
        self, processes: Processes, queue: str, variant: Variant, tasks: bool
    ) -> dict[str, float]:
        """Send the messages, and see that the queue has them all."""
        count = variant.messages
        producers = (
            1
            if variant.name == "produce" or tasks
            else min(self.producers, count)
        )
        if tasks:
            started = [
                processes.start(
                    *self.command(variant), queue, count, "--produce"
                )
            ]
        else:
            bounds = [
                -(-place * count // producers)
                for place in range(producers + 1)
            ]
            options = (f"--window={variant.window}", f"--size={variant.size}")
            started = [
                processes.start(
                    *(sys.executable, HERE / "produce.py", queue, end - begin),
                    *(f"--start={begin}", *options),
                )
                for begin, end in itertools.pairwise(bounds)
            ]
        said = [report(each, "the producer") for each in started]
        if (there := self.left(queue)) != count:
            raise Wrong(
                f"the queue has {there} messages, not {count}, to begin with"
            )
        return {
            "first": min(each["first"] for each in said),
            "last": max(each["last"] for each in said),
        }

    def left(self, queue: str) -> int:
        with channel() as opened:
            return opened.queue_declare(
                queue, passive=True
            ).method.message_count

    def consume(
        self, processes: Processes, queue: str, variant: Variant, folder: Path
    ) -> dict[str, float]:
        count, many = variant.messages, variant.processes
        bounds = [place * count // many for place in range(many + 1)]
        started = []
        began = time.monotonic()
        for place, (begin, end) in enumerate(itertools.pairwise(bounds)):
            seen = folder / f"seen-{place}"
            command = [
                *self.command(variant),
                queue,
                end - begin,
                *variant.options(),
            ]
            started.append((processes.start(*command, "--seen", seen), seen))
        usage = self.watch(started, variant)
        said = [report(process, variant.name) for process, _ in started]
        moments = [moment for each in said for moment in each.values()]
        if not began < min(moments) <= max(moments) < time.monotonic():
            raise Wrong(f"{variant.name}: the clock that it reads is not ours")
        lines = [
            line
            for _, seen in started
            if seen.exists()
            for line in seen.read_bytes().split()
        ]
        if not all(line.isdigit() for line in lines):
            raise Wrong(
                f"{variant.name}: what it has seen are not our messages"
            )
        producers = (
            1 if variant.name.startswith(TASKS) else min(self.producers, count)
        )
        found = faults(
            [int(line) for line in lines], count, producers, variant.ordered
        )
        if left := self.left(queue):
            found.append(f"{left} are in the queue again, or still")
        if found:
            raise Wrong(f"{variant.name}: {'; '.join(found)}")
        seconds = max(each["last"] for each in said) - min(
            each["first"] for each in said
        )
        return self.result(variant, seconds, usage)

    def watch(
        self,
        started: list[tuple[subprocess.Popen[str], Path]],
        variant: Variant,
    ) -> dict[str, float]:
        """Wait for their end; return the memory and CPU time they took."""
        peak, cpu = [0.0] * len(started), [0.0] * len(started)
        size, changed = -1, time.monotonic()
        patience = self.patience + (variant.work or 0)
        while any(process.poll() is None for process, _ in started):
            for place, (process, _) in enumerate(started):
                peak[place] = max(peak[place], peak_mib(process.pid))
                cpu[place] = max(cpu[place], cpu_seconds(process.pid))
            now = sum(
                seen.stat().st_size for _, seen in started if seen.exists()
            )
            if now != size:
                size, changed = now, time.monotonic()
            elif time.monotonic() - changed > patience:
                raise Wrong(
                    f"{variant.name} is stuck after {max(size, 0) // 8}"
                )
            time.sleep(0.02)
        return {"peak MiB": round(sum(peak), 1), "cpu": round(sum(cpu), 2)}

    def result(
        self, variant: Variant, seconds: float, usage: dict[str, float]
    ) -> dict[str, float]:
        if seconds <= 0:
            raise Wrong(f"{variant.name} says that it took {seconds} s")
        rate = round(variant.messages / seconds, 1)
        return {"seconds": round(seconds, 4), "a second": rate, **usage}


@dataclass(frozen=True)
class Job:
    """A measurement to be made: of which table, and in which round."""

    table: str
    variant: Variant
    round: int

    @property
    def key(self) -> dict[str, Any]:
        """What the record says of it: no paths, and no defaults."""
        its = self.variant
        options = {
            name: getattr(its, name) for name in differing_from_default(its)
        }
        first = {
            "table": self.table,
            "round": self.round,
            "consumer": its.name,
        }
        return {**first, "messages": its.messages, **options}


def variant_of(run: dict[str, Any]) -> Variant:
    names = [field.name for field in fields(Variant)]
    return Variant(**{name: run[name] for name in names if name in run})


class Record:
    """Every single measurement; in a file, if one is named, at once."""

    def __init__(self, path: Path | None, seed: int) -> None:
        self.path, self.seed = path, seed
        self.data: dict[str, Any] = {
            "about": {},
            "seed": seed,
            "runs": [],
            "wrong": [],
        }
        self._lock = threading.Lock()

    def resume(self) -> None:
        """Go on where the file ends."""
        if self.path and self.path.exists():
            self.data = json.loads(self.path.read_text())
            self.seed = self.data["seed"]

    def has(self, job: Job) -> bool:
        return self.rate(job) is not None

    def rate(self, job: Job) -> float | None:
        for run in self.data["runs"]:
            its_place = (run["table"], run["round"], variant_of(run))
            if its_place == (job.table, job.round, variant_of(job.key)):
                return run["a second"]
        return None

    def add(self, job: Job, result: dict[str, float] | str) -> None:
        with self._lock:
            if isinstance(result, str):
                self.data["wrong"].append({**job.key, "why": result})
            else:
                self.data["runs"].append({**job.key, **result})
            self.save()

    def save(self) -> None:
        if self.path:
            runs = ",\n  ".join(json.dumps(run) for run in self.data["runs"])
            head = {
                name: value
                for name, value in self.data.items()
                if name != "runs"
            }
            text = json.dumps(head, indent=1).removesuffix("\n}")
            fresh = self.path.with_suffix(".part")
            fresh.write_text(f'{text},\n "runs": [\n  {runs}\n ]\n}}\n')
            fresh.replace(self.path)  # whole, or as it was


def jobs(tables: dict[str, dict[str, Any]], seed: int) -> list[Job]:
    """All rounds; each has every variant once, in an order of its own."""
    found = []
    for table, what in tables.items():
        variants = [Variant(**each) for each in what["variants"]]
        for number in range(1, what["rounds"] + 1):
            order = list(variants)
            random.Random(f"{seed} {table} {number}").shuffle(order)
            found += [Job(table, variant, number) for variant in order]
    return found


def differing(variants: Sequence[Variant]) -> list[str]:
    """The options in which they differ."""
    names = [
        field.name for field in fields(Variant) if field.name != "consumer"
    ]
    return [
        name
        for name in names
        if len({getattr(each, name) for each in variants}) > 1
    ]


def spread(values: Sequence[float], digits: int = 0) -> str:
    """The median, and the extremes."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def summary(runs: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """By table and variant: how many messages a second."""
    for table, group in itertools.groupby(runs, key=lambda run: run["table"]):
        measured: dict[Variant, list[float]] = {}
        for run in group:
            measured.setdefault(variant_of(run), []).append(run["a second"])
        different = differing(list(measured))
        for variant in sorted(measured, key=str):
            yield table, variant.shown(*different), spread(measured[variant])


class Screen:
    """A bar and a table on a terminal, plain lines in a pipe."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.terminal = self.console.is_terminal

    def run(
        self, work: list[Job], record: Record, measure: Callable[[Job], None]
    ) -> None:
        with Progress(
            *Progress.get_default_columns(), console=self.console,
            transient=True, disable=not self.terminal,
        ) as progress:  # fmt: skip
            task = progress.add_task("", total=len(work))

            def one(job: Job) -> None:
                progress.update(
                    task,
                    description=f"{job.table} {job.round}: {job.variant.name}",
                )
                before = len(record.data["wrong"])
                measure(job)
                progress.advance(task)
                wrong = record.data["wrong"][before:]
                self.tell(job, record, wrong[-1]["why"] if wrong else "")

            # Many of these sleep at a time, and leave the machine alone.
            waiting = [job for job in work if is_waiting(job.variant)]
            busy = [job for job in work if job not in waiting]
            with ThreadPoolExecutor(max(1, len(waiting))) as pool:
                list(pool.map(one, waiting))
            for job in busy:
                one(job)

    def tell(self, job: Job, record: Record, wrong: str) -> None:
        label = (
            f"{job.table} {job.round}: "
            if job.table
            else f"round {job.round}: "
        )
        if wrong:
            self.console.print(f"{label}WRONG {wrong}", markup=False)
        elif not self.terminal:
            what = job.variant.shown(*differing_from_default(job.variant))
            rate = record.rate(job) or 0
            self.console.print(
                f"{label}{what}: {rate:,.0f} a second", markup=False
            )

    def show(self, runs: list[dict[str, Any]]) -> None:
        rows = list(summary(runs))
        if not rows:
            return
        if not self.terminal:
            for _, what, measured in rows:
                self.console.print(
                    f"{what}: {measured} messages a second", markup=False
                )
            return
        table = Table("what", "messages a second: median (lowest to highest)")
        for _, what, measured in rows:
            table.add_row(what, measured)
        self.console.print(table)


def differing_from_default(variant: Variant) -> list[str]:
    return differing(
        [variant, Variant(variant.consumer, messages=variant.messages)]
    )


def is_waiting(variant: Variant) -> bool:
    """Whether it takes minutes, and next to nothing of the machine."""
    return (variant.work or 0) >= 0.05 and (variant.workers or 1) <= 3


def numbers(
    kind: type[int] | type[float], least: float
) -> Callable[[str], list[Any]]:
    def read(text: str) -> list[Any]:
        try:
            found = [kind(word) for word in text.split(",")]
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r} is no list of numbers"
            ) from None
        if any(number < least for number in found):
            raise argparse.ArgumentTypeError(f"{text!r} has less than {least}")
        return found

    return read


def one(kind: Callable[[str], list[Any]]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        found = kind(text)
        if len(found) != 1:
            raise argparse.ArgumentTypeError(f"{text!r} is not one number")
        return found[0]

    return read


class OneLine(argparse.ArgumentParser):
    """What is wrong, without the whole usage."""

    def error(self, message: str) -> Any:
        self.exit(
            2, f"Usage: python benchmark.py [OPTIONS], see --help: {message}\n"
        )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = OneLine(description=(__doc__ or "").partition("\n")[0])
    many, count = numbers(int, 1), one(numbers(int, 1))
    add = parser.add_argument
    add(
        "--consumers",
        default="pika_callback",
        help="names of scripts here, or paths",
    )
    add("--messages", type=many, default=[2_000], help="how many, a list")
    add("--prefetch", type=many, default=[None], help="a list")
    add(
        "--ack-every",
        type=numbers(int, 0),
        default=[None],
        help="a list; 0: no acks",
    )
    add("--workers", type=many, default=[None], help="of a pool, a list")
    add(
        "--work",
        type=one(numbers(float, 0)),
        help="seconds of sleep for each message",
    )
    add(
        "--queue-type",
        default="classic",
        help="classic or quorum, or both: a list",
    )
    add(
        "--size",
        type=numbers(int, 8),
        default=[10],
        help="bytes of a body, a list",
    )
    add("--processes", type=many, default=[1], help="of the consumer, a list")
    add(
        "--uvloop", action="store_const", const=True, help="another event loop"
    )
    add("--rounds", type=count, default=3, help="how often each is measured")
    add(
        "--warm-up",
        type=one(numbers(int, 0)),
        default=500,
        help="messages; not measured",
    )
    add(
        "--producers",
        type=count,
        default=2,
        help="processes that fill the queue",
    )
    add("--seed", type=one(numbers(int, 0)), help="of the order")
    add(
        "--patience",
        type=one(numbers(float, 0)),
        default=PATIENCE,
        help="with one that is stuck",
    )
    add(
        "--python",
        default=sys.executable,
        help="another interpreter for the consumers",
    )
    add("--json", type=Path, help="write every measurement there")
    add("--resume", action="store_true", help="go on where that file ends")
    add(
        "--plan",
        choices=sorted(PLANS),
        help="what the page shows, instead of the lists",
    )
    given = parser.parse_args(arguments)
    given.queue_types = given.queue_type.split(",")
    if unknown := set(given.queue_types) - {"classic", "quorum"}:
        parser.error(
            f"no queue type {unknown.pop()!r}; there are classic and quorum"
        )
    given.tables = PLANS[given.plan] if given.plan else {"": from_lists(given)}
    for table in given.tables.values():
        for each in table["variants"]:
            if not Variant(**each).script.is_file():
                parser.error(f"there is no consumer {each['consumer']!r}")
    if given.json and not given.json.absolute().parent.is_dir():
        parser.error(f"there is no folder for {given.json}")
    return given


def from_lists(given: argparse.Namespace) -> dict[str, Any]:
    """Every combination of what the command line lists."""
    lists = {
        "consumer": given.consumers.split(","),
        "messages": given.messages,
        "prefetch": given.prefetch,
        "ack_every": given.ack_every,
        "workers": given.workers,
        "queue": given.queue_types,
        "size": given.size,
        "processes": given.processes,
    }
    combined = itertools.product(*lists.values())
    more = {"work": given.work, "uvloop": given.uvloop}
    variants = [
        dict(zip(lists, each, strict=True)) | more for each in combined
    ]
    return {"rounds": given.rounds, "variants": variants}


def main(given: argparse.Namespace) -> int:
    seed = (
        random.SystemRandom().randrange(1000)
        if given.seed is None
        else given.seed
    )
    record = Record(given.json, seed)
    if given.resume:
        record.resume()
    bench = Bench(given.python, given.producers, given.patience)
    screen = Screen()
    found = about()
    record.data["plan"] = given.plan
    record.data["about"] = found | {"clients": clients(given.python)}
    screen.console.print(
        f"RabbitMQ {found['rabbitmq']}, order by seed {record.seed}"
    )
    todo = [
        job for job in jobs(given.tables, record.seed) if not record.has(job)
    ]

    def measure(job: Job) -> None:
        try:
            record.add(job, bench.measure(job.variant))
        except Wrong as why:
            record.add(job, str(why))

    interrupted = False
    try:
        for consumer in dict.fromkeys(job.variant.consumer for job in todo):
            first = next(
                job.variant for job in todo if job.variant.consumer == consumer
            )
            if given.warm_up and consumer != "produce":
                short = {
                    **asdict(first),
                    "messages": given.warm_up,
                    "work": None,
                }
                with suppress(Wrong):  # it will be told when it counts
                    bench.measure(Variant(**short))
        screen.run(todo, record, measure)
    except KeyboardInterrupt:
        interrupted = True
    finally:
        record.save()
    screen.show(record.data["runs"])
    if interrupted:
        screen.console.print(
            "Interrupted; this is what was measured until then"
        )
        return 130
    return 1 if record.data["wrong"] else 0


def clients(python: str) -> dict[str, str]:
    """The versions of what the consumers are made with."""
    names = (
        "pika",
        "aio-pika",
        "aiormq",
        "uvloop",
        "kombu",
        "amqpstorm",
        "celery",
    )
    names += ("dramatiq", "faststream", "taskiq", "taskiq-aio-pika")
    script = (
        "import json, sys; from importlib import metadata as m\n"
        "have = {d.name.lower() for d in m.distributions()}\n"
        "have = {n: m.version(n) for n in sys.argv[1:] if n in have}\n"
        "print(json.dumps(have))"
    )
    return json.loads(
        subprocess.check_output([python, "-c", script, *names], text=True)
    )


if __name__ == "__main__":
    arguments = parse()
    try:
        sys.exit(main(arguments))
    except KeyboardInterrupt:
        sys.exit(130)
    except (AMQPError, OSError, ValueError) as why:
        if isinstance(why, ChannelClosedByBroker):
            why = why.reply_text
        where = AMQP_URL.rpartition("@")[2]  # without the password
        sys.exit(f"Failed at {where}: {why!r}. Try make broker, make doctor")
