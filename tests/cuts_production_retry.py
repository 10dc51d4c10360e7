"""What `make sabotage` breaks on the page of retries, and the tests that should notice."""

from collections.abc import Iterator
from functools import partial

from cuts import Cut, cut

sabotage = partial(cut, "production-worker")

TTL, DELAYED, DEAD = "worker_retry_ttl.py", "worker_retry_delayed.py", "dead_letters.py"
ONCE, OUTBOX, NEW, DECLARE = "worker_once.py", "outbox.py", "new_payment.py", "declare_queues.py"
LIMIT, IN_TIME = r" *faulthandler\.dump.*\n", r" *faulthandler\.cancel.*\n"
ACK = {
    "pika": (
        r" *channel\.basic_ack\(method\.delivery_tag\).*\n",
        "channel.basic_ack(method.delivery_tag)",
    ),
    "aio-pika": (r" *await message\.ack\(\).*\n", "await message.ack()"),
}
GIVE_UP = {
    "pika": r"channel\.basic_nack\(method\.delivery_tag, requeue=False\)",
    "aio-pika": r"await message\.nack\(requeue=False\)",
}
COPIES = {
    "pika": 'channel.basic_publish("", QUEUE, text.encode(), old); '
    "channel.basic_ack(method.delivery_tag)",
    "aio-pika": "await channel.default_exchange.publish(aio_pika.Message(message.body, "
    "message_id=key), QUEUE); await message.ack()",
}
CONFIRMS = {
    "pika": (r" *channel\.confirm_delivery.*\n", ""),
    "aio-pika": ("on_return_raises=True", "publisher_confirms=False"),
}


def retries(client: str) -> Iterator[Cut]:
    def ttl(name: str, tests: str, *changes: tuple[str, str]) -> Cut:
        return sabotage(name, f"{client}/{TTL}", tests, *changes)

    ack, acked = ACK[client]
    yield ttl("always the same delay", "delays_that_grow", (r"in \(1, 2, 4\)", "in (1, 1, 1)"))
    yield ttl("no attempts counted", "delays_that_grow", (r"\[\*.*?, failure\]", "[failure]"))
    yield ttl("a copy that goes elsewhere", "fresh", (r"x-\|B\?CC\$", "x-"))
    yield ttl("the broker's headers", "fresh", (r"x-\|B\?CC\$", "B?CC$"))
    yield ttl("a copy without its key", "their_reasons", (', "message_id"', ""))
    yield ttl("a transient copy", "fresh", ("delivery_mode=2", "delivery_mode=1"))
    yield ttl("no confirm of the copy", "before_the_copy", CONFIRMS[client])
    yield ttl(
        "acked before its copy is there",
        "before_the_copy",
        (ack, ""),
        (r"( *)outcome = ", rf"\1{acked}\n\1outcome = "),
    )
    yield ttl("no time limit", "out_of_time", (LIMIT, ""))
    yield ttl(
        "one time limit for all",
        "left_alone",
        (IN_TIME, ""),
        (
            r"( *)faulthandler\.dump(.*)",
            r"\1if not globals().setdefault('on', 0):\n"
            r"\1    globals()['on'] = 1\n\1    faulthandler.dump\2",
        ),
    )
    yield ttl("it dies of it, too", "ends_four", ('"x-delivery-count"', '"x-none"'))
    yield ttl("an error ends it", "delays_that_grow", ("except Exception", "except OSError"))
    yield ttl(
        "put back, one attempt",
        "all_attempts",
        (r"NEXT\[\(.*\], copy", "NEXT[min(len(own['failures']), 4) - 1], copy"),
    )
    yield ttl("only text is looked at", "blocks_nobody", (r"errors='backslashreplace'", ""))
    yield ttl("output decides", "cannot_be_printed", (r" *sys\.stdout\.recon.*\n", ""))
    if client == "aio-pika":
        yield ttl("behind all others", "their_place", (r".*or 4.*\n", ""))
        yield ttl("deaf to its queue's end", "why_it_ends", (r" *amqp\.on_consumer.*\n", ""))
    else:
        yield ttl("no word at its queue's end", "why_it_ends", (r" *sys\.exit\(.*gone.*\n", ""))


def delayed(client: str) -> Iterator[Cut]:
    def worker(name: str, tests: str, *changes: tuple[str, str]) -> Cut:
        return sabotage(name, f"{client}/{DELAYED}", tests, *changes)

    yield worker("any broker will do", "what_it_needs", (r"< \[4, 3\]", "< [0, 0]"))
    yield worker(
        "what is nacked isn't counted",
        "waits_longer",
        (
            r"basic_reject|message\.reject",
            {"pika": "basic_nack", "aio-pika": "message.nack"}[client],
        ),
    )
    yield worker("no time limit", "waits_too", (LIMIT, ""))
    yield worker("an error ends it", "waits_longer", ("except Exception", "except OSError"))


def declared(client: str) -> Iterator[Cut]:
    def queues(name: str, tests: str, *changes: tuple[str, str]) -> Cut:
        return sabotage(name, f"{client}/{DECLARE}", tests, *changes)

    yield queues("dead letters at most once", "have_a_place", (r".*at-least-once.*\n", ""))
    yield queues("silently at most once", "have_a_place", (r".*reject-publish.*\n", ""))
    yield queues(
        "a limit for who looks",
        "bury_them or differently",
        (r", \"x-delivery-limit\": 1_000_000_000", ""),
    )
    yield queues(
        "no net", "set_aside_by_the_broker or differently", (', "x-delivery-limit": 5', "")
    )
    yield queues("no delay at rejects", "waits_longer or differently", ('"failed"', '"returned"'))


def dead(client: str) -> Iterator[Cut]:
    def letters(name: str, tests: str, *changes: tuple[str, str]) -> Cut:
        return sabotage(name, f"{client}/{DEAD}", tests, *changes)

    yield letters(
        "a copy, then an ack", "once_however or not_expire", (GIVE_UP[client], COPIES[client])
    )
    yield letters(
        "put back among the dead",
        "one_is_put_back",
        (GIVE_UP[client], GIVE_UP[client].replace("\\", "").replace("=False", "=True")),
    )
    yield letters(
        "to look is to take away",
        "the_table",
        (
            r"basic_nack\(tag\)|message\.nack\(\)",
            {"pika": "basic_ack(tag)", "aio-pika": "message.ack()"}[client],
        ),
    )
    yield letters("all instead of one", "one_is_put_back", (r'wanted in \(key, "all"\)', "True"))
    yield letters("put back twice at a time", "died_again", ("left > 0 and ", ""))
    yield letters(
        "headers of others", "somebody_else", (r" if isinstance\(noted, list\) else \[\]", "")
    )
    yield letters(
        "the broker's reasons left out",
        "set_aside_by_the_broker",
        (r", \*\(x\[\"reason\"\] for x in deaths\)", ""),
    )
    yield letters(
        "put back into nothing", "no_queue_to_go_back", (r".*there to go back to.*\n", "")
    )


def once(client: str) -> Iterator[Cut]:
    def worker(name: str, tests: str, *changes: tuple[str, str]) -> Cut:
        return sabotage(name, f"{client}/{ONCE}", tests, *changes)

    ack, acked = ACK[client]
    yield worker("no key", "booked_once", (r"(?s)        note = .*?before: .*?\n", ""))
    yield worker(
        "key and work apart",
        "between_key_and_work",
        (r"( *)\(\(now,\),\)", r"\1database.commit()\n\1((now,),)"),
    )
    yield worker("never committed", "work_and_ack or killed_again", ("with database:", "if True:"))
    yield worker(
        "acked before the work",
        "killed_again or full_in_the",
        (ack, ""),
        (r"( *)(outcome = book)", rf"\1{acked}\n\1\2"),
    )
    yield worker("booked without a key", "cannot_be_booked", (r" *if not key:\n.*\n", ""))
    yield worker("a number too large ends it", "cannot_be_booked", (r", OverflowError", ""))
    yield worker("what cannot be booked is lost", "cannot_be_booked", (GIVE_UP[client], acked))
    yield worker(
        "a full disk shows too late", "before_a_task_is_taken", (r" *PRAGMA user_version.*\n", "")
    )
    yield worker(
        "a database's error as a traceback",
        "cannot_be_used",
        (r" *except sqlite3\.Error.*\n.*\n", ""),
    )


def outbox(client: str) -> Iterator[Cut]:
    def box(name: str, tests: str, *changes: tuple[str, str]) -> Cut:
        return sabotage(name, f"{client}/{OUTBOX}", tests, *changes)

    yield box(
        "row and message apart",
        "neither_row",
        (r"( *)(database\.execute\(\"INSERT INTO outbox)", r"\1database.commit()\n\1\2"),
    )
    yield box(
        "a new key each time", "one_key", (r"message_id=key", "message_id=str(uuid.uuid4())")
    )
    too_soon = (
        r"( *)(for key, body in .*\n)",
        r"\1todo = database.execute(rows).fetchall()\n"
        r"\1database.execute('DELETE FROM outbox')\n\1database.commit()\n"
        r"\1for key, body in todo:\n",
    )
    yield box("out of the box too soon", "refuses_stays or sent_later", too_soon)
    yield box("no confirms", "refuses_stays or sent_later", CONFIRMS[client])


def sender(client: str) -> Iterator[Cut]:
    yield sabotage(
        "no key", f"{client}/{NEW}", "payment_is_sent", ("message_id=key", "message_id=None")
    )
    yield sabotage(
        "sent to nobody",
        f"{client}/{NEW}",
        "no_queues",
        {"pika": (", mandatory=True", ""), "aio-pika": ("on_return_raises=True", "")}[client],
    )


CUTS = [
    found
    for part in (retries, delayed, declared, dead, once, outbox, sender)
    for client in ("pika", "aio-pika")
    for found in part(client)
]
