"""The scripts without one promise each: what a run has to notice, or what naive ones lose.

By name: for each script of examples/cluster, pairs of what is replaced and by what. A
pattern that is only of one client changes nothing in the other's script.
"""

from __future__ import annotations

import re
from pathlib import Path

NO_ACK = [
    ("pika/worker.py", r" *channel\.basic_ack\(.*\)  # after the commit\n", ""),
    ("aio-pika/worker.py", r"message\.ack\(\)  # after the commit", "asyncio.sleep(0)"),
]
BROKEN: dict[str, list[tuple[str, str, str]]] = {
    "acks early": [
        *NO_ACK,
        (
            "pika/worker.py",
            r"( +)outcome = book",
            r"\1channel.basic_ack(method.delivery_tag)\n\g<0>",
        ),
        ("aio-pika/worker.py", r"( +)outcome = book", r"\1await message.ack()\n\g<0>"),
    ],
    "automatic acks": [
        *NO_ACK,
        ("pika/worker.py", r"consume\(QUEUE", "consume(QUEUE, auto_ack=True"),
        ("aio-pika/worker.py", r"queue\.iterator\(", "queue.iterator(no_ack=True"),
    ],
    "inbox without transaction": [
        ("worker.py", r"timeout=60\)", "timeout=60, isolation_level=None)"),
    ],
    "no inbox": [
        ("worker.py", r"if not (database\.execute\(note.*)\.rowcount:", r"if not \1:"),
    ],
    "ignores nacks": [
        (
            "pika/publisher.py",
            r"( +)except LOST as why:",
            r"\1except pika.exceptions.NackError:\n\1    break\n\g<0>",
        ),
        (
            "aio-pika/publisher.py",
            r"( +)except LOST as why:",
            r"\1except aio_pika.exceptions.DeliveryError:\n\1    break\n\g<0>",
        ),
    ],
    "forgets the unconfirmed": [
        (
            "publisher.py",
            r"( +)(await asyncio|time)\.sleep\(pause.*\n",
            r"\g<0>\1known = None\n\1break\n",
        ),
        (
            "publisher.py",
            r"        known = True\n",
            "        if known is None:\n            known = True\n            continue\n\\g<0>",
        ),
    ],
    "no confirms": [
        ("pika/publisher.py", r" *channel\.confirm_delivery\(\)\n", ""),
        ("aio-pika/publisher.py", r"on_return_raises=True", "publisher_confirms=False"),
    ],
}


def broken(script: Path, names: list[str]) -> str:
    """The text of a script without these promises. Raises ValueError for what is not there."""
    text = script.read_text(encoding="utf-8")
    place = f"{script.parent.name}/{script.name}"
    for name in names:
        if name not in BROKEN:
            raise ValueError(f"{name!r} is none of {', '.join(BROKEN)}")
        for where, pattern, replacement in BROKEN[name]:
            if where in (place, script.name):
                text, count = re.subn(pattern, replacement, text)
                if not count:
                    raise ValueError(f"{place} has no {pattern!r} for {name!r}")
    return text
