"""What benchmark.py measures for the page: python benchmark.py --plan quick

plans.py has the plans by name; a plan has tables; a table has rounds, and the
variants that each round measures once.
"""

from typing import Any

Table = dict[str, Any]
BLOCKING = ("pika_callback", "pika_generator")
ASYNCHRONOUS = (
    "pika_select",
    "pika_asyncio",
    "aio_pika_callback",
    "aio_pika_iterator",
)
POOLS = ("pika_threads", "aio_pika_tasks")
PREFETCHES = (100, 300, 500, 700, 900, 1100, 1300)
WORKERS = (1, 2, 3, 8, 16, 32)


def table(rounds: int, *variants: dict[str, Any]) -> Table:
    return {"rounds": rounds, "variants": list(variants)}


def prefetch(count: int, rounds: int, *values: int) -> Table:
    """The seed's first question: blocking or asynchronous, by prefetch."""
    consumers = ("pika_callback", "pika_asyncio", "aio_pika_callback")
    return table(
        rounds,
        *(
            {"consumer": each, "messages": count, "prefetch": value}
            for each in consumers
            for value in values
        ),
    )


def length(rounds: int, *counts: int) -> Table:
    """The same for more and more messages, and for every consumer."""
    return table(
        rounds,
        *(
            {"consumer": each, "messages": count, "prefetch": 500}
            for each in (*BLOCKING, *ASYNCHRONOUS)
            for count in counts
        ),
    )


def pool(rounds: int, count: int, *workers: int) -> Table:
    return table(
        rounds,
        *(
            {
                "consumer": each,
                "messages": count,
                "workers": value,
                "work": 0.1,
            }
            for each in POOLS
            for value in workers
        ),
    )


def levers(rounds: int, count: int) -> dict[str, Table]:
    """How to go faster, one lever at a time."""

    def of(consumer: str, **more: Any) -> dict[str, Any]:
        return {
            "consumer": consumer,
            "messages": count,
            "prefetch": 500,
        } | more

    three = ("pika_callback", "pika_fastest", "aio_pika_fastest")
    return {
        "lever: prefetch": table(
            rounds,
            *(
                of(
                    each,
                    prefetch=value,
                    messages=count // 10 if value == 1 else count,
                )
                for each in (
                    "pika_callback",
                    "pika_select",
                    "aio_pika_callback",
                )
                for value in (1, 10, 100, 1000)
            ),
        ),
        "lever: acks": table(
            rounds,
            *(
                of(each, ack_every=value)
                for each in three
                for value in (1, 10, 100, 0)
            ),
        ),
        "lever: queue type": table(
            rounds,
            *(
                of("pika_fastest", ack_every=every, queue=kind)
                for kind in ("classic", "quorum")
                for every in (1, 100)
            ),
        ),
        "lever: body": table(
            rounds,
            *(
                of(
                    "pika_fastest",
                    ack_every=100,
                    size=size,
                    messages=count // 4,
                )
                for size in (10, 1_000, 10_000, 100_000)
            ),
        ),
        "lever: processes": table(
            rounds,
            *(of("pika_callback", processes=value) for value in (1, 2, 3)),
        ),
        "lever: window": table(
            rounds,
            *(
                of(
                    "produce",
                    window=value,
                    messages=count // 10 if value == 1 else count,
                )
                for value in (1, 10, 100, 1_000)
            ),
        ),
    }


def growth(rounds: int, *counts: int) -> Table:
    return table(
        rounds,
        *(
            {
                "consumer": each,
                "messages": count,
                "prefetch": 500,
                "ack_every": 100,
            }
            for each in ("pika_fastest", "aio_pika_fastest")
            for count in counts
        ),
    )


def peers(rounds: int, count: int, tasks: int) -> dict[str, Table]:
    """Others, in the same run as ours; and what needs uvloop."""

    def of(
        consumer: str, messages: int = count, **more: Any
    ) -> dict[str, Any]:
        return {
            "consumer": consumer,
            "messages": messages,
            "prefetch": 500,
        } | more

    clients = ("peer_librabbitmq.bin", "peer_amqpstorm", "peer_kombu")
    ours = ("pika_select", "pika_callback", "aio_pika_callback")
    return {
        "clients, each acked": table(
            rounds,
            *(
                of(each, ack_every=1)
                for each in (*clients, *ours, "aio_pika_fastest")
            ),
            of("aio_pika_fastest", ack_every=1, uvloop=True),
        ),
        "clients, 100 acked at once": table(
            rounds,
            *(
                of(each, ack_every=100)
                for each in (
                    "peer_librabbitmq.bin",
                    "pika_fastest",
                    "pika_callback",
                )
            ),
            of("aio_pika_fastest", ack_every=100),
            of("aio_pika_fastest", ack_every=100, uvloop=True),
        ),
        "tasks": table(
            rounds,
            *(
                of(each, tasks)
                for each in (
                    "peer_celery",
                    "peer_dramatiq",
                    "peer_faststream",
                    "peer_taskiq",
                )
            ),
            *(of(each, tasks, ack_every=1) for each in ours),
            *(of(f"{each}_fastest", tasks) for each in ("pika", "aio_pika")),
        ),
        "lever: uvloop": table(
            rounds,
            *(
                of(each, count // 2, uvloop=value)
                for each in (
                    "pika_asyncio",
                    "aio_pika_callback",
                    "aio_pika_fastest",
                )
                for value in (None, True)
            ),
        ),
    }


PLANS: dict[str, dict[str, Table]] = {
    "full": {
        "prefetch": prefetch(2_000, 3, *PREFETCHES),
        "length": length(3, 2_000, 8_000, 80_000),
        "pool: waiting": pool(1, 300, 1, 2, 3),
        "pool": pool(3, 2_000, 8, 16, 32),
        **levers(3, 10_000),
        "growth": growth(1, 2_000, 8_000, 80_000, 800_000),
    },
    "quick": {
        "prefetch": prefetch(1_000, 1, 100, 500, 1300),
        "length": length(1, 1_000, 4_000),
        "pool: waiting": pool(1, 60, 1, 2, 3),
        "pool": pool(1, 320, 8, 16, 32),
        **levers(1, 2_000),
        "growth": growth(1, 2_000, 8_000),
    },
    "peers": peers(3, 40_000, 10_000),
    "peers-quick": peers(1, 3_000, 500),
}
