"""The pages' sequence diagrams: who tells whom what, from top to bottom.

Nothing is recorded: they draw what the pages say. Letters are of 11 pixels and more on a
phone, and colour is never all that tells two things apart: what goes back is dashed, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from broker import Broker
from shells.chapters import DOCS

WIDTH, LANES, BOX = 400, (66, 200, 334), 128
LETTER, LINE, PAD = 14, 17, 12

STYLE = """
    text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif;
      text-anchor: middle; fill: #1f2328 }
    .name { font-weight: 700 }
    .box { fill: #e4e8ec; stroke: #59636e }
    .note { fill: #f6f8fa; stroke: #59636e }
    .bad { fill: #fff1e5; stroke: #8a4600; stroke-width: 2 }
    .lane { fill: none; stroke: #59636e }
    .to { fill: none; stroke: #0a5fb4; stroke-width: 2 }
    .back { fill: none; stroke: #8a4600; stroke-width: 2; stroke-dasharray: 6 4 }
    #head-to path { fill: #0a5fb4 }
    #head-back path { fill: #8a4600 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 }
      .box { fill: #2a313a; stroke: #9ba5af }
      .note { fill: #161b22; stroke: #9ba5af }
      .bad { fill: #33230f; stroke: #f0a860 }
      .lane { stroke: #9ba5af }
      .to { stroke: #79b8ff }
      .back { stroke: #f0a860 }
      #head-to path { fill: #79b8ff }
      #head-back path { fill: #f0a860 }
    }
"""


@dataclass(frozen=True)
class Arrow:
    """From lane to lane, with a text of one or more lines; back is an answer."""

    start: int
    end: int
    text: str
    back: bool = False


@dataclass(frozen=True)
class Note:
    """What happens at a lane; bad is a mishap."""

    lane: int
    text: str
    bad: bool = False


@dataclass(frozen=True)
class Sequence:
    title: str
    lanes: tuple[str, str, str]
    steps: tuple[Arrow | Note, ...]

    @property
    def says(self) -> str:
        """In words, for those who do not see it."""
        parts = []
        for step in self.steps:
            text = step.text.replace("\n", " ")
            if isinstance(step, Arrow):
                parts.append(f"{self.lanes[step.start]} to {self.lanes[step.end]}: {text}.")
            else:
                parts.append(f"At {self.lanes[step.lane]}: {text}.")
        return " ".join(parts)


SEQUENCES = {
    "ack": Sequence(
        "An ack, and a delivery again without one",
        ("worker 1", "task_queue", "worker 2"),
        (
            Arrow(1, 0, "a task"),
            Note(0, "at work"),
            Arrow(0, 1, "ack", back=True),
            Note(1, "forgets the task"),
            Arrow(1, 0, "another task"),
            Note(0, "dies before\nthe ack", bad=True),
            Note(1, "connection lost:\nthe task is back"),
            Arrow(1, 2, "redelivered"),
            Note(2, "at work"),
            Arrow(2, 1, "ack", back=True),
            Note(1, "forgets the task"),
        ),
    ),
    "confirm": Sequence(
        "The three answers to a publisher",
        ("new_task.py", "the broker", "task_queue"),
        (
            Arrow(0, 1, "a task"),
            Arrow(1, 2, "stored"),
            Arrow(1, 0, "ack", back=True),
            Note(0, "Sent"),
            Arrow(0, 1, "a task"),
            Note(2, "full", bad=True),
            Arrow(1, 0, "nack", back=True),
            Note(0, "Failed", bad=True),
            Arrow(0, 1, "a task"),
            Note(2, "not there", bad=True),
            Arrow(1, 0, "returned", back=True),
            Note(0, "Failed", bad=True),
        ),
    ),
    "prefetch": Sequence(
        "A prefetch of 1",
        ("worker 1", "task_queue", "worker 2"),
        (
            Arrow(1, 0, "heavy task"),
            Arrow(1, 2, "light task"),
            Note(1, "heavy task waits:\neach has one"),
            Arrow(2, 1, "ack", back=True),
            Arrow(1, 2, "heavy task"),
            Note(1, "light task waits"),
            Arrow(0, 1, "ack", back=True),
            Arrow(1, 0, "light task"),
        ),
    ),
    "rpc": Sequence(
        "A request, its reply, and the ack after it",
        ("rpc_client.py", "the broker", "rpc_server.py"),
        (
            Arrow(0, 1, "to rpc_queue:\nfib(30), id 7f,\nto amq.gen-X"),
            Arrow(1, 2, "request"),
            Note(2, "computes"),
            Arrow(2, 1, "to amq.gen-X:\n832040, id 7f"),
            Arrow(2, 1, "ack of\nthe request", back=True),
            Arrow(1, 0, "reply"),
            Note(0, "id 7f: my answer"),
        ),
    ),
    "retry": Sequence(
        "Tried again, later each time, then set aside",
        ("payments", "the worker", "other queues"),
        (
            Arrow(0, 1, "payment"),
            Note(1, "fails", bad=True),
            Arrow(1, 2, "copy to\npayments.retry.1"),
            Arrow(2, 1, "confirm", back=True),
            Arrow(1, 0, "ack", back=True),
            Note(2, "waits 1 s"),
            Arrow(2, 0, "dead letter"),
            Arrow(0, 1, "payment"),
            Note(1, "fails: so with retry.2\nand retry.4, until it\nis set aside", bad=True),
            Arrow(1, 2, "copy to\npayments.dead"),
            Arrow(2, 1, "confirm", back=True),
            Arrow(1, 0, "ack", back=True),
            Note(2, "stays until\nsomebody looks"),
        ),
    ),
}


def record(broker: Broker) -> None:
    """There is nothing to record."""


def lines(text: str, x: float, y: float) -> list[str]:
    """Centred lines, of which the last is at y."""
    rows = text.split("\n")
    return [
        f'  <text x="{x:g}" y="{y - LINE * (len(rows) - 1 - place):g}">{escape(row)}</text>'
        for place, row in enumerate(rows)
    ]


def draw_step(step: Arrow | Note, top: float) -> tuple[list[str], float]:
    """A step's SVG, and where the next one begins."""
    height = LINE * (step.text.count("\n") + 1)
    if isinstance(step, Note):
        kind = "bad" if step.bad else "note"
        x = LANES[step.lane]
        width = max(map(len, step.text.split("\n"))) * 7.4 + 16
        left = min(max(x - width / 2, 1), WIDTH - 1 - width)
        return [
            f'  <rect class="{kind}" x="{left:g}" y="{top:g}" width="{width:g}"'
            f' height="{height + 8}" rx="4"/>',
            *lines(step.text, left + width / 2, top + height),
        ], top + height + 8 + PAD
    y = top + height + 4
    start, end = LANES[step.start], LANES[step.end]
    way = 1 if end > start else -1
    kind = "back" if step.back else "to"
    # On the first stretch of its way: no lane runs through it.
    return [
        *lines(step.text, start + way * (LANES[1] - LANES[0]) / 2, y - 7),
        f'  <path class="{kind}" d="M{start + 2 * way} {y:g}H{end - 11 * way}"'
        f' marker-end="url(#head-{kind})"/>',
    ], y + PAD


def draw_sequence(name: str, made: Sequence) -> None:
    top = 30 + PAD
    body = []
    for step in made.steps:
        more, top = draw_step(step, top)
        body += more
    head, lanes = [], []
    for x, lane in zip(LANES, made.lanes, strict=True):
        lanes.append(f'  <path class="lane" d="M{x} 30V{top:g}"/>')
        head.append(
            f'  <rect class="box" x="{x - BOX / 2:g}" y="2" width="{BOX}" height="28" rx="4"/>'
        )
        head.append(f'  <text class="name" x="{x}" y="21">{escape(lane)}</text>')
    markers = [
        f'    <marker id="head-{kind}" viewBox="0 0 16 16" refX="4" refY="8" markerWidth="12"'
        ' markerHeight="12" markerUnits="userSpaceOnUse" orient="auto">'
        '<path d="M0 0 L16 8 L0 16 Z"/></marker>'
        for kind in ("to", "back")
    ]
    text = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 2:g}"'
        f' width="{WIDTH}" height="{top + 2:g}"',
        '     role="img" aria-labelledby="title desc">',
        f'  <title id="title">{escape(made.title)}</title>',
        f'  <desc id="desc">{escape(made.says)}</desc>',
        "  <!-- Drawn by docs/figures/record_sequences.py. -->",
        f"  <style>{STYLE}  </style>",
        "  <defs>",
        *markers,
        "  </defs>",
        *lanes,
        *head,
        *body,
        "</svg>",
        "",
    ]
    (DOCS / f"_static/sequence-{name}.svg").write_text("\n".join(text), encoding="utf-8")


def draw() -> None:
    for name, made in SEQUENCES.items():
        draw_sequence(name, made)
