"""The moving picture of README and index: `make demo`, as it was recorded.

The record also gives the pages' windows the times at which they play.
"""

from __future__ import annotations

import json
import tempfile
import time
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from broker import Broker
from plotting import FIGURES, about, made_with
from shells.chapters import CLIENTS, EXAMPLES, page, reader_environment
from shells.player import BREAK, Player, Scenario, Shell, final_scenario, write_rabbitmqctl

CHAPTER = "2-work-queues"
RECORD = FIGURES / "demo.json"
# What each shell does, and how many lines of it are seen at a time; from top to bottom.
WINDOWS = {
    "shell3": ("sends tasks: a dot is a second of work", 4),
    "shell1": ("a worker", 6),
    "shell2": ("another worker", 6),
}
# Letters of 13.6 in 440 are 11 pixels where the picture is as wide as a phone.
WIDTH, LETTER, LINE, TITLE, GAP, INSET = 440, 14, 18, 24, 8, 10
# Seconds before the first command, after the last line, and how often it plays.
BEFORE, AFTER, TIMES = 0.6, 5.0, 3

STYLE = """
    svg { color-scheme: light dark }
    text { font: 14px ui-monospace, "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono",
      "Liberation Mono", monospace; fill: #1f2328; white-space: pre }
    .title, .made { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial,
      sans-serif }
    .title tspan, .typed { font-weight: 700 }
    .made { fill: #59636e }
    .got { fill: #0a5fb4 }
    .done { fill: #8a4600 }
    .window { fill: #f6f8fa; stroke: #59636e }
    .bar { fill: #e4e8ec; stroke: #59636e }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 }
      .made { fill: #9ba5af }
      .got { fill: #79b8ff }
      .done { fill: #f0a860 }
      .window { fill: #161b22; stroke: #9ba5af }
      .bar { fill: #2a313a; stroke: #9ba5af }
    }
    @media (prefers-reduced-motion: reduce) {
      svg * { animation: none !important }
    }
"""


def play(broker: Broker, scenario: Scenario) -> list[list[Any]]:
    """Seconds, shell and text of every line, in the order in which they came."""
    rows: list[list[Any]] = []

    def note(shell: Shell, text: str, typed: bool) -> None:
        rows.append([time.monotonic(), shell.name, f"$ {text}" if typed else text])

    with broker.vhost() as url, tempfile.TemporaryDirectory() as folder:
        write_rabbitmqctl(Path(folder), broker.rabbitmqctl, unquote(url.rpartition("/")[2]))
        environment = reader_environment(url, Path(folder))
        with Player(EXAMPLES / CHAPTER / scenario.client, environment, note) as player:
            player.play(scenario)
    # The player's own Ctrl-C at the end is not in the transcript.
    ends = next(place for place, (_, _, text) in enumerate(rows) if text == BREAK)
    start = rows[0][0]
    return [[round(when - start, 2), *rest] for when, *rest in rows[:ends]]


def record(broker: Broker) -> None:
    plays = []
    for client in CLIENTS:
        scenario = final_scenario(page(CHAPTER), client)
        rows = ",\n  ".join(map(json.dumps, play(broker, scenario)))
        plays.append(f' "{CHAPTER}/{scenario.title}/{client}": [\n  {rows}\n ]')
    text = f'{{"about": {json.dumps(about(broker))},\n"plays": {{\n' + ",\n".join(plays)
    RECORD.write_text(text + "\n}}\n")


def kind(text: str) -> str:
    """The class of a line: typed, or what a worker says."""
    if text.startswith("$ "):
        return "typed"
    if "Received" in text:
        return "got"
    return "done" if "Done" in text else "said"


def keyframes(name: str, changes: list[tuple[float, str]], total: float) -> str:
    """A CSS animation that jumps: by second, what is so from then on."""
    steps = []
    for (when, value), (until, _) in zip(changes, [*changes[1:], (total, "")], strict=True):
        start = 100 * when / total
        end = 100 * until / total - (0.01 if until < total else 0)
        steps.append(f"{start:.2f}%,{end:.2f}%{{{value}}}")
    return f"    @keyframes {name}{{{''.join(steps)}}}"


def draw_window(
    shell: str, top: float, rows: list[tuple[float, str]], total: float
) -> tuple[list[str], list[str]]:
    """One shell: its CSS, and its SVG. A line comes at its time, and old ones scroll away."""
    title, high = WINDOWS[shell]
    css, svg = [], []
    height = TITLE + high * LINE + INSET
    scrolls = [(0.0, "transform:translateY(0px)")]
    for place, (when, text) in enumerate(rows):
        name = f"{shell}-{place}"
        css.append(keyframes(name, [(0, "opacity:0"), (when, "opacity:1")], total))
        y = top + TITLE + (place + 1) * LINE
        svg.append(
            f'      <text class="{kind(text)}" x="{INSET}" y="{y:g}"'
            f' style="animation-name:{name}">{escape(text)}</text>'
        )
        if place >= high:
            scrolls.append((when, f"transform:translateY({-LINE * (place + 1 - high)}px)"))
    css.append(keyframes(shell, scrolls, total))
    last = scrolls[-1][1]
    below = f"{top + TITLE:g}"
    seen = f'y="{top + TITLE + 5:g}" height="{height - TITLE - 6}"'
    box = f'x="1" width="{WIDTH - 2}"'
    bar = f"M1 {below}V{top + 6:g}q0-6 6-6H{WIDTH - 7}q6 0 6 6V{below}Z"
    return css, [
        f'  <rect class="window" {box} y="{top:g}" height="{height}" rx="6"/>',
        f'  <path class="bar" d="{bar}"/>',
        f'  <text class="title" x="{INSET}" y="{top + 17:g}">'
        f"<tspan>{shell}</tspan> {title}</text>",
        f'  <clipPath id="in-{shell}"><rect {box} {seen}/></clipPath>',
        f'  <g clip-path="url(#in-{shell})">',
        f'    <g class="play" style="{last};animation-name:{shell}">',
        *svg,
        "    </g>",
        "  </g>",
    ]


def draw() -> None:
    data = json.loads(RECORD.read_text())
    (rows, *_) = data["plays"].values()
    total = round(rows[-1][0] + BEFORE + AFTER, 1)
    css, svg = [], []
    top = 1.0
    for shell, (_, high) in WINDOWS.items():
        own = [(when + BEFORE, text) for when, name, text in rows if name == shell]
        more, drawn = draw_window(shell, top, own, total)
        css += more
        svg += drawn
        top += TITLE + high * LINE + INSET + GAP
    made = f"make demo, recorded {made_with(data['about'])}".splitlines()
    for line in made:
        top += LINE
        svg.append(f'  <text class="made" x="{INSET}" y="{top - 6:g}">{escape(line)}</text>')
    height = round(top + 2)
    says = "; ".join(
        f"{shell}: {', '.join(text.strip() for _, name, text in rows if name == shell)}"
        for shell in WINDOWS
    )
    text = "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
            f' width="{WIDTH}" height="{height}"',
            '     role="img" aria-labelledby="title desc">',
            '  <title id="title">Three shells: one sends tasks, two work on them</title>',
            f'  <desc id="desc">{escape(says)}</desc>',
            "  <!-- Made by docs/figures/record_demo.py from demo.json. -->",
            f"  <style>{STYLE}"
            f"    .play, .play text {{ animation: {total}s step-end {TIMES} both }}",
            *css,
            "  </style>",
            *svg,
            "</svg>",
            "",
        ]
    )
    RECORD.with_suffix(".svg").write_text(text, encoding="utf-8")
