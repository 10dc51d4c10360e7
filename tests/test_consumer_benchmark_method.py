"""The promises of docs/consumer-benchmark-method.rst, each with a test that can break it."""

from __future__ import annotations

import importlib.util
import json
import random
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType

import pika
import pytest
from broker import Broker
from conftest import Starter, connected, poll, ready
from pika.adapters.blocking_connection import BlockingChannel
from shells.chapters import EXAMPLES, ROOT, figure
from shells.running import Script

CHAPTER = "consumer-benchmark"
FOLDER = EXAMPLES / CHAPTER
CONSUMERS = (
    "pika_callback.py",
    "pika_generator.py",
    "pika_select.py",
    "pika_asyncio.py",
    "pika_fastest.py",
    "pika_threads.py",
    "aio_pika_callback.py",
    "aio_pika_iterator.py",
    "aio_pika_tasks.py",
    "aio_pika_fastest.py",
)
# Each needs its client, and some of them a second argument to be themselves.
PEERS = (
    "peer_amqpstorm.py",
    "peer_celery.py",
    "peer_dramatiq.py",
    "peer_faststream.py",
    "peer_kombu.py",
    "peer_taskiq.py",
)
Run = Callable[..., Script]
every = pytest.mark.parametrize("name", CONSUMERS)


def load(name: str) -> ModuleType:
    """A module of the tool; http-queue has one of the same name."""
    spec = importlib.util.spec_from_file_location(f"consumer_{name}", FOLDER / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


sys.path.insert(0, str(FOLDER))
benchmark = load("benchmark")
plans = load("plans")
sys.path.remove(str(FOLDER))
sys.modules.pop("plans", None)


@pytest.fixture
def run(start: Starter) -> Run:
    return partial(start, CHAPTER, "")


@pytest.fixture
def bench(run: Run) -> Run:
    """benchmark.py (with the plans of plans.py), quick, on a virtual host of its own."""
    return partial(run, "benchmark.py", "--warm-up=0", "--producers=1")


def shown(script: Script) -> str:
    return "\n".join([*script.stdout, *script.stderr])


def publish(url: str, count: int, queue: str = "bench", kind: str = "classic") -> None:
    """Messages as produce.py numbers them."""
    with connected(url) as channel:
        channel.queue_declare(queue, durable=True, arguments={"x-queue-type": kind})
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        for number in range(count):
            channel.basic_publish("", queue, b"%07d .." % number)
        poll(lambda: ready(channel, queue), count)


def numbers(seen: Path) -> list[int]:
    return [int(line) for line in seen.read_bytes().split()] if seen.exists() else []


def leftovers(channel: BlockingChannel, queue: str = "bench") -> list[int]:
    """What the queue still has, once the consumer is gone."""
    found = partial(channel.queue_declare, queue, passive=True)
    poll(lambda: found().method.consumer_count, 0)
    bodies = []
    while (body := channel.basic_get(queue, auto_ack=True)[2]) is not None:
        bodies.append(int(body[:7]))
    return bodies


# --- The consumers ------------------------------------------------------------


@every
def test_every_message_exactly_once(
    run: Run, url: str, channel: BlockingChannel, tmp_path: Path, name: str
) -> None:
    """On a classic queue, and on a quorum queue."""
    for kind in ("classic", "quorum"):
        publish(url, 300, kind, kind)
        ended = run(name, kind, "300", f"--seen={tmp_path / kind}")
        assert ended.wait() == 0, ended
        assert ended.stderr == []
        times = json.loads(ended.stdout[0])
        assert times["first"] < times["last"]
        in_order = benchmark.Variant(Path(name).stem).ordered
        assert benchmark.faults(numbers(tmp_path / kind), 300, 1, in_order) == []
        assert leftovers(channel, kind) == []


@every
def test_a_consumer_without_its_queue_says_so(run: Run, name: str) -> None:
    ended = run(name, "nowhere", "1")
    assert ended.wait() == 1, ended
    assert len(ended.stderr) == 1, ended
    assert "no queue 'nowhere'" in ended.stderr[0]
    assert "guest:" not in ended.stderr[0]


def killed(
    run: Run, url: str, folder: Path, name: str, *options: str, after: int = 30
) -> set[int]:
    """Kill a consumer of 200 messages in their middle; what it had done by then."""
    seen = folder / "seen"
    publish(url, 200)
    script = run(name, "bench", "200", f"--seen={seen}", "--work=0.01", *options, url=url)
    poll(lambda: len(numbers(seen)) >= after, True)
    script.process.send_signal(signal.SIGKILL)
    script.wait()
    done = numbers(seen)
    assert len(done) < 200, "it was through"
    assert len(set(done)) == len(done)
    return set(done)


# By script and options: how many messages that were done may be delivered once more
# after a kill that comes when so many are done.
TWICE = {
    ("pika_callback.py", "--ack-every=1 --prefetch=40"): (0, 1, 30),
    ("pika_generator.py", "--ack-every=1 --prefetch=40"): (0, 1, 30),
    ("aio_pika_iterator.py", "--prefetch=40"): (0, 1, 30),
    ("pika_callback.py", "--ack-every=50 --prefetch=60"): (2, 50, 120),
    # Its acks leave when the loop has its turn: after all that has come in. How many
    # of them are out at the moment of the kill is chance.
    ("pika_select.py", "--ack-every=1 --prefetch=40"): (0, 40, 30),
    ("pika_fastest.py", "--ack-every=50 --prefetch=60"): (2, 60, 30),
    # As many at a time as are prefetched.
    ("aio_pika_fastest.py", "--ack-every=50 --prefetch=60 --work=0.3"): (0, 60, 60),
}


@pytest.mark.parametrize(("name", "options"), TWICE)
def test_a_kill_loses_nothing_and_repeats_what_was_not_acked(
    run: Run, url: str, channel: BlockingChannel, tmp_path: Path, name: str, options: str
) -> None:
    least, most, after = TWICE[name, options]
    done = killed(run, url, tmp_path, name, *options.split(), after=after)
    left = set(leftovers(channel))
    assert done | left == set(range(200)), "lost"
    assert least <= len(done & left) <= most


@pytest.mark.parametrize("name", ["pika_threads.py", "aio_pika_tasks.py"])
def test_a_killed_pool_loses_nothing(
    run: Run, url: str, channel: BlockingChannel, tmp_path: Path, name: str
) -> None:
    done = killed(run, url, tmp_path, name, "--workers=4")
    left = set(leftovers(channel))
    assert done | left == set(range(200)), "lost"
    assert len(done & left) <= 4


@pytest.mark.parametrize("name", ["pika_callback.py", "pika_select.py", "aio_pika_callback.py"])
def test_without_acks_a_kill_loses_what_was_on_its_way(
    run: Run, url: str, channel: BlockingChannel, tmp_path: Path, name: str
) -> None:
    """Which is why it is the fastest. The prefetch holds nothing back, either."""
    more = "--work=0.5" if name.startswith("aio") else "--work=0.02"
    seen = tmp_path / "seen"
    publish(url, 200)
    script = run(name, "bench", "200", f"--seen={seen}", more, "--ack-every=0", "--prefetch=10")
    poll(lambda: ready(channel, "bench"), 0)
    script.process.send_signal(signal.SIGKILL)
    script.wait()
    assert len(numbers(seen)) < 150, "it was through"
    assert leftovers(channel) == []


@pytest.mark.parametrize("name", ["pika_fastest.py", "aio_pika_fastest.py"])
def test_an_ack_does_not_wait_for_company(
    run: Run, url: str, channel: BlockingChannel, name: str
) -> None:
    """Or else a batch that is larger than the prefetch would never be full."""
    publish(url, 30)
    ended = run(name, "bench", "30", "--ack-every=10", "--prefetch=4")
    assert ended.wait() == 0, ended
    assert leftovers(channel) == []


# --- What the tool catches ----------------------------------------------------

WRITE = "            seen.write(body[:8])\n"
BAD = {
    "drops": ("            if done != 70:\n                seen.write(body[:8])\n", "1 missing"),
    "doubles": (f"{WRITE}            if done == 70:\n    {WRITE}", "1 twice, the first is"),
    "invents": ("            seen.write(b'9999999 ' if done == 70 else body[:8])\n", "never sent"),
    "babbles": ("            seen.write(b'nonsense')\n", "not our messages"),
    "leaves early": (f"{WRITE}            if done == 70: sys.exit()\n", "did not say when"),
    "raises": (f"{WRITE}            if done == 70: raise ValueError('oops')\n", "oops"),
}


def bad_consumer(folder: Path, old: str, new: str, source: str = "pika_callback.py") -> Path:
    text = (FOLDER / source).read_text()
    assert old in text
    copy = folder / "mine.py"
    copy.write_text(text.replace(old, new, 1))
    return copy


def wrong(bench: Run, copy: Path, *options: str) -> str:
    """What the tool says of a consumer that must not pass."""
    given = ("--messages=100", "--rounds=1", *options)
    ended = bench(f"--consumers={copy}", *given)
    assert ended.wait() == 1, ended
    assert not any("messages a second" in line for line in ended.stdout), ended
    (line,) = [line for line in ended.stdout if "WRONG" in line]
    return line


@pytest.mark.parametrize("what", BAD)
def test_a_consumer_that_is_caught(bench: Run, tmp_path: Path, what: str) -> None:
    replacement, word = BAD[what]
    assert word in wrong(bench, bad_consumer(tmp_path, WRITE, replacement))


def test_one_that_reorders_is_caught(bench: Run, tmp_path: Path) -> None:
    held = (
        "            if done == 70: given.held = body[:8]\n"
        "            elif done == 75: seen.write(body[:8] + given.held)\n"
        "            else: seen.write(body[:8])\n"
    )
    assert "out of order" in wrong(bench, bad_consumer(tmp_path, WRITE, held))


def test_the_evidence_is_as_long_as_the_page_says() -> None:
    length = figure("consumer-benchmark-method", r"the first (\w+) bytes of each message")
    assert f"[:{length}]" in WRITE


def test_one_that_does_not_ack_all_is_caught(bench: Run, tmp_path: Path) -> None:
    copy = bad_consumer(tmp_path, "if given.ack_every and", "if done != 70 and")
    assert "1 are in the queue again" in wrong(bench, copy)


def test_one_that_is_stuck_is_caught(bench: Run, tmp_path: Path) -> None:
    copy = bad_consumer(tmp_path, WRITE, f"{WRITE}            if done == 70: time.sleep(600)\n")
    # As long as Python may take to start on a busy machine.
    assert "stuck after 71" in wrong(bench, copy, "--patience=15")


def test_one_that_says_it_took_no_time_is_caught(bench: Run, tmp_path: Path) -> None:
    copy = bad_consumer(tmp_path, '"last": time.monotonic()', '"last": first')
    assert "took 0.0 s" in wrong(bench, copy)


def test_a_time_longer_than_the_run_is_caught(bench: Run, tmp_path: Path) -> None:
    """Or shorter than it can be: the clock is the consumer's own, so it is compared."""
    copy = bad_consumer(tmp_path, '"first": first', '"first": first - 1000')
    assert "the clock" in wrong(bench, copy)


def test_faults_of_any_order() -> None:
    """Against the plain definition, on many random receptions."""
    source = random.Random(5)
    for _ in range(300):
        count, producers = source.randint(1, 12), source.randint(1, 3)
        producers = min(producers, count)
        came = [source.randrange(count) for _ in range(count)]
        if source.random() < 0.7:
            came = source.sample(range(count), count)
        if source.random() < 0.3:
            came = sorted(came)
        once = sorted(came) == list(range(count))
        share = [[n for n in came if n * producers // count == p] for p in range(producers)]
        in_order = all(part == sorted(part) for part in share)
        assert (not benchmark.faults(came, count, producers, ordered=False)) == once
        both = once and in_order
        assert (not benchmark.faults(came, count, producers, ordered=True)) == both


# --- The tool -----------------------------------------------------------------


def test_every_option(bench: Run, tmp_path: Path) -> None:
    """A list for each makes every combination; the record has each measurement."""
    record = tmp_path / "record.json"
    ended = bench(
        "--consumers=pika_callback,pika_select", "--messages=100", "--prefetch=10,50",
        "--ack-every=10", "--queue-type=classic", "--size=100", "--processes=1", "--rounds=2",
        "--producers=1", "--seed=7", f"--json={record}",
    )  # fmt: skip
    assert ended.wait() == 0, ended
    assert ended.stdout[0].endswith("order by seed 7")
    data = json.loads(record.read_text())
    assert data["seed"] == 7
    assert data["wrong"] == []
    assert {"date", "machine", "python", "rabbitmq", "clients"} <= set(data["about"])
    keys = [(r["round"], r["consumer"], r["messages"], r["prefetch"]) for r in data["runs"]]
    assert len(keys) == len(set(keys)) == 8
    for one in data["runs"]:
        # Both are rounded.
        assert one["a second"] * one["seconds"] == pytest.approx(one["messages"], rel=0.05)
        assert one["peak MiB"] > 5
        assert one["ack_every"] == 10
        assert one["size"] == 100
    text = record.read_text()
    assert "/" not in text.replace("\\/", "").replace(r" / ", ""), "a path"


def test_work_and_workers(bench: Run) -> None:
    """Four workers are faster than one could be, and not faster than four can be."""
    ended = bench(
        "--consumers=pika_threads,aio_pika_tasks", "--messages=40", "--workers=4",
        "--work=0.25", "--rounds=1",
    )  # fmt: skip
    assert ended.wait() == 0, ended
    rates = [line for line in ended.stdout if "messages a second" in line]
    for line in rates:
        assert 4 < float(line.partition(": ")[2].split()[0]) <= 16, line
    assert len(rates) == 2


def test_several_processes_share_a_queue(bench: Run) -> None:
    ended = bench(
        "--messages=400", "--processes=3", "--prefetch=20", "--rounds=1", "--producers=2"
    )
    assert ended.wait() == 0, ended


def test_a_round_has_every_variant_in_an_order_of_its_own() -> None:
    variants = [{"consumer": "pika_callback", "messages": n} for n in range(1, 9)]
    tables = {"t": {"rounds": 4, "variants": variants}}
    found = benchmark.jobs(tables, 7)
    rounds = [[job.variant for job in found if job.round == n] for n in (1, 2, 3, 4)]
    assert [job.round for job in found] == sorted(job.round for job in found)
    assert all(len(set(each)) == 8 for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    assert found == benchmark.jobs(tables, 7)
    assert found != benchmark.jobs(tables, 8)


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("--messages=many", "'many'"),
        ("--messages=0", "less than 1"),
        ("--prefetch=1,x", "'1,x'"),
        ("--ack-every=-1", "less than 0"),
        ("--size=7", "less than 8"),
        ("--rounds=1,2", "not one number"),
        ("--work=-1", "less than 0"),
        ("--consumers=nobody", "no consumer 'nobody'"),
        ("--queue-type=lifo", "no queue type 'lifo'"),
        ("--plan=none", "'none'"),
        ("--json=/nowhere/at/all.json", "no folder"),
        ("--nonsense", "--nonsense"),
    ],
)
def test_a_wrong_option_is_one_line(option: str, word: str) -> None:
    process = Script(FOLDER / "benchmark.py", option, url="amqp://unused/")
    try:
        assert process.wait() == 2, process
        assert process.stdout == []
        assert len(process.stderr) == 1, process
        assert word in process.stderr[0]
    finally:
        process.close()


def test_an_option_that_the_consumer_does_not_have(bench: Run) -> None:
    ended = bench("--consumers=pika_threads", "--ack-every=5", "--messages=10", "--rounds=1")
    assert ended.wait() == 1, ended
    assert "unrecognized arguments: --ack-every 5" in shown(ended)
    assert "Traceback" not in shown(ended)


@pytest.mark.parametrize("name", ["benchmark.py", "produce.py", "pika_callback.py"])
def test_no_broker_is_one_line(run: Run, name: str) -> None:
    arguments = [] if name == "benchmark.py" else ["bench", "10"]
    ended = run(name, *arguments, url="amqp://guest:secret@localhost:1/")
    assert ended.wait() == 1, ended
    assert len(ended.stderr) == 1, ended
    assert "localhost:1/" in ended.stderr[0]
    assert "make broker" in ended.stderr[0]
    assert "secret" not in ended.stderr[0]


def test_ctrl_c_keeps_what_was_measured_and_resume_goes_on(
    bench: Run, channel: BlockingChannel, tmp_path: Path
) -> None:
    record = tmp_path / "record.json"
    given = ("--messages=50", "--rounds=3", "--work=0.01", "--seed=7", f"--json={record}")
    script = bench(*given).wait_for("round 1: ")
    script.process.send_signal(signal.SIGINT)
    assert script.wait() == 130, script
    assert script.stderr == []
    assert any("messages a second" in line for line in script.stdout)
    kept = json.loads(record.read_text())["runs"]
    assert 1 <= len(kept) < 3
    again = bench(*given, "--resume")
    assert again.wait() == 0, again
    runs = json.loads(record.read_text())["runs"]
    assert runs[: len(kept)] == kept
    assert [one["round"] for one in runs] == [1, 2, 3]


def test_it_leaves_no_queue_and_no_process(bench: Run, broker: Broker, url: str) -> None:
    script = bench("--messages=200", "--work=0.05", "--rounds=1")
    vhost = url.rpartition("/")[2]
    queues = partial(broker.call_api, "GET", f"queues/{vhost}")
    poll(lambda: any(each.get("consumers") for each in queues()), True)
    script.process.send_signal(signal.SIGINT)
    assert script.wait() == 130, script
    assert queues() == []
    poll(lambda: broker.call_api("GET", f"vhosts/{vhost}/connections"), [])


def test_the_producer_fills_the_window_and_no_more(run: Run, channel: BlockingChannel) -> None:
    channel.queue_declare("bench", durable=True, arguments={"x-queue-type": "quorum"})
    for window in (1, 7, 1000):
        ended = run("produce.py", "bench", "300", f"--window={window}", "--start=5")
        assert ended.wait() == 0, ended
        assert leftovers(channel) == list(range(5, 305))
    ended = run("produce.py", "nowhere", "3")
    assert ended.wait() == 1, ended
    assert "no such queue" in ended.stderr[0]


def test_the_plans_are_what_the_page_shows() -> None:
    for plan in plans.PLANS.values():
        for table in plan.values():
            for each in table["variants"]:
                variant = benchmark.Variant(**each)
                assert variant.name.startswith("peer_") or variant.script.exists(), each
    full = plans.PLANS["full"]
    assert {each["prefetch"] for each in full["prefetch"]["variants"]} == {*range(100, 1301, 200)}
    assert {each["messages"] for each in full["length"]["variants"]} == {2_000, 8_000, 80_000}
    pools = [*full["pool: waiting"]["variants"], *full["pool"]["variants"]]
    assert {each["workers"] for each in pools} == {1, 2, 3, 8, 16, 32}
    assert {each["work"] for each in pools} == {0.1}
    assert max(each["messages"] for each in full["growth"]["variants"]) == 800_000


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_takes_what_the_tool_gives(name: str) -> None:
    """They run where make bench-peers has installed them: here only their arguments."""
    source = (FOLDER / name).read_text()
    compile(source, name, "exec")
    words = ["queue", "count", "--prefetch", "--seen"]
    words += ["--produce" if name.removesuffix(".py") in benchmark.TASKS else "--ack-every"]
    for word in words:
        assert f'add_argument("{word}"' in source, word
    wanted = (FOLDER / "requirements-peers.txt").read_text()
    client = name.removeprefix("peer_").removesuffix(".py")
    assert client in wanted
    assert client not in (ROOT / "requirements.txt").read_text()
