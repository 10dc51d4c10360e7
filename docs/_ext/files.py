"""The caption of every excerpt is a link to its file.

To the code host, where the setting `files_url` says where the repository's files are
shown ("https://…/blob/main"); else to a copy of the file beside the pages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.directives.code import LiteralInclude

ROOT = Path(__file__).resolve().parents[2]


class LinkedInclude(LiteralInclude):
    """literalinclude with a caption that leads to the whole file."""

    def run(self) -> list[nodes.Node]:
        found = super().run()
        for caption in [each for node in found for each in node.findall(nodes.caption)]:
            link = self.link()
            link.extend(caption.children)
            caption.clear()
            caption += link
        return found

    def link(self) -> nodes.Element:
        named = self.arguments[0]
        base: str = self.config.files_url
        if not base:
            return addnodes.download_reference(reftarget=named, refdoc=self.env.docname)
        path = Path(self.env.relfn2path(named)[1]).resolve().relative_to(ROOT)
        return nodes.reference(refuri=f"{base}/{path.as_posix()}")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_config_value("files_url", "", "env", str)
    app.add_directive("literalinclude", LinkedInclude, override=True)
    return {"version": "1", "parallel_read_safe": True}
