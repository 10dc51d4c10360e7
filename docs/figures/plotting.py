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
# Colours that read on a white page and on a dark one.
GREY, RED, BLUE = "#7a7a7a", "#c2410c", "#0e7490"


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
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")
