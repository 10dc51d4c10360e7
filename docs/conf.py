"""Sphinx configuration; build with `make docs`."""

import os
import re
import sys
from difflib import unified_diff
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.directives.code import LiteralIncludeReader

project = "RabbitMQ by Example"
author = "the RabbitMQ by Example authors"
copyright = f"2026, {author}"

# Our own extensions; that of transcripts reads them as the tests do that play them.
sys.path += [str(Path(__file__).parent / "_ext"), str(Path(__file__).parents[1] / "tests")]
extensions = ["sphinx_copybutton", "sphinx_design", "transcripts", "files"]
exclude_patterns = ["_build"]
nitpicky = True
highlight_language = "python"
# An excerpt may end in blank lines, before the name that ends it.
highlight_options = {"python": {"stripnl": True}}

# Where the code host shows the repository's files; who publishes the pages says so.
files_url = os.environ.get("FILES_URL", "")
if clone := os.environ.get("READTHEDOCS_GIT_CLONE_URL"):
    commit = os.environ["READTHEDOCS_GIT_COMMIT_HASH"]
    files_url = f"{clone.removesuffix('.git')}/blob/{commit}"

html_theme = "furo"
# Each page leads to its source: there, or to a copy.
html_theme_options = {"source_view_link": f"{files_url}/docs/{{filename}}"} if files_url else {}
html_title = project
html_static_path = ["_static"]
templates_path = [str(Path(__file__).parent / "_templates")]
html_css_files = ["page.css"]
html_js_files = [("page.js", {"defer": "defer"})]

# What is copied from a transcript is what the reader types.
copybutton_prompt_text = r"(?:shell\d)?\$ "
copybutton_prompt_is_regexp = True


def show_diff(self: LiteralIncludeReader, location: tuple[str, int] | None = None) -> list[str]:
    """What changed between two scripts, from their imports on, with little around it.

    Sphinx's own names both files with the paths that they have on this machine.
    """
    old, new = (self.read_file(name) for name in (self.options["diff"], str(self.filename)))
    for lines in old, new:
        del lines[: next(i for i, line in enumerate(lines) if line.startswith("import "))]
    changed = list(unified_diff(old, new, n=1))[3:]
    return ["…\n" if line.startswith("@@") else line for line in changed]


LiteralIncludeReader.show_diff = show_diff


def say_what_headings_are(
    app: Sphinx, name: str, template: str, context: dict[str, Any], tree: object
) -> None:
    """For screen readers: how deep a heading is, and that an empty cell is none."""
    for part in ("body", "furo_navigation_tree"):
        if context.get(part):
            caption = '<p class="caption" role="heading"'
            text = context[part].replace(f"{caption}>", f'{caption} aria-level="2">')
            context[part] = re.sub(r'<th (class="head[ \w]*")></th>', r"<td \1></td>", text)


def setup(app: Sphinx) -> None:
    app.connect("html-page-context", say_what_headings_are, priority=900)  # after the theme
