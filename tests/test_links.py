"""What the pages show leads to where it is from."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from shells.chapters import DOCS, EXAMPLES

PAGES = sorted(DOCS.glob("*.rst"))
INCLUDE = re.compile(r"^( *)\.\. literalinclude:: (\S+)\n((?:\1   :.*\n)*)", re.MULTILINE)
SCRIPT = "1-hello-world/pika/send.py"
HOST = "https://code.example/us/it/blob/main"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_script_on_a_page_leads_to_its_file(page: Path) -> None:
    """By its caption, or by a link beside it."""
    text = page.read_text(encoding="utf-8")
    for found in INCLUDE.finditer(text):
        if ":caption:" not in found[3]:
            assert f"<{found[2]}>`" in text, found[2]


def test_the_pages_that_readme_lists_are_where_it_says() -> None:
    text = (DOCS.parent / "README.rst").read_text(encoding="utf-8")
    listed = re.findall(r"`([\w-]+)`__", text)
    assert listed
    assert listed == re.findall(r"^__ docs/([\w-]+)\.rst$", text, re.MULTILINE)


@pytest.mark.parametrize("host", ["", HOST])
def test_captions_and_pages_lead_to_what_they_show(tmp_path: Path, host: str) -> None:
    """In pages built with our settings, with a code host and without."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    (tmp_path / "index.rst").write_text(
        "Title\n=====\n\n"
        f".. literalinclude:: examples/{SCRIPT}\n   :caption: send.py\n   :pyobject: main\n"
    )
    conf = DOCS / "conf.py"
    (tmp_path / "conf.py").write_text(
        f"__file__ = {str(conf)!r}\nexec(open(__file__).read())\n"
        "html_static_path = html_css_files = []\n"
    )
    subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-n",
            "-W",
            "-q",
            "-b",
            "html",
            tmp_path,
            tmp_path / "out",
        ],
        env={"FILES_URL": host, "PATH": "", "HOME": str(tmp_path)},
        check=True,
    )
    html = (tmp_path / "out/index.html").read_text()
    caption = re.search(r'code-block-caption.*?href="([^"]+)".*?send\.py', html, re.DOTALL)
    assert caption
    if host:
        assert caption[1] == f"{host}/examples/{SCRIPT}"
        assert f'href="{host}/docs/index.rst"' in html
    else:
        copied = tmp_path / "out" / caption[1]
        assert copied.read_text() == (EXAMPLES / SCRIPT).read_text()
        assert 'href="_sources/index.rst.txt"' in html
