"""What the chapters' figures have in common (`make figures`)."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from broker import Broker
from shells.chapters import CLIENTS, DOCS

FIGURES = DOCS / "figures"
# Blue and orange differ for the colour-blind, too. On a dark page they are others.
GREY, RED, BLUE = "#59636e", "#c2410c", "#0e7490"
WHITE = "#ffffff"
DARK = {GREY: "#9ba5af", RED: "#f08a5a", BLUE: "#4fb6d0", WHITE: "#131416"}
# Inches, and points: on a phone these are letters of 11 pixels.
WIDTH, SMALL = 4.4, 10


def about(broker: Broker | None) -> dict[str, Any]:
    """When, where and with what a record is made; without a broker, if it had none."""
    found = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
    }
    if not broker:
        return found
    return {
        **found,
        "rabbitmq": broker.version,
        "clients": {name: version(name) for name in CLIENTS},
    }


def made_with(about: dict[str, Any]) -> str:
    """The lines under a figure that say when and with what it was recorded."""
    if "rabbitmq" not in about:
        return f"{about['date']}, Python {about['python']}, {about['machine']}"
    versions = ", ".join(f"{name} {number}" for name, number in about["clients"].items())
    return f"{about['date']}\nRabbitMQ {about['rabbitmq']}, {versions}"


def save(figure: Any, path: Path) -> None:
    """Write an SVG that is the same whenever it is drawn from the same record."""
    import matplotlib  # here, because the tests of the records need it not

    settings: dict[Any, Any] = {"svg.hashsalt": path.stem, "svg.fonttype": "none", "font.size": 11}
    with matplotlib.rc_context(settings):
        figure.savefig(path, transparent=True, metadata={"Date": None})
    # "none" leaves text as text; let the browser choose its own sans-serif.
    text = path.read_text().replace("DejaVu Sans", "system-ui")
    text = themed(text)
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def themed(svg: str) -> str:
    """With the colours of the page that the drawing is on: light, or dark."""
    names = {colour: f"--c{place}" for place, colour in enumerate(DARK)}
    for colour, name in names.items():
        svg = svg.replace(colour, f"var({name})")
    light, dark = (
        "".join(f"{name}: {chosen[colour]}; " for colour, name in names.items())
        for chosen in ({colour: colour for colour in DARK}, DARK)
    )
    rules = f"svg {{ {light}}} @media (prefers-color-scheme: dark) {{ svg {{ {dark}}} }}\n"
    return svg.replace('<style type="text/css">', f'<style type="text/css">{rules}', 1)
