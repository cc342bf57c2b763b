"""What the site needs beyond its pages: links to files of the checkout, and the reference of the command line."""

from __future__ import annotations

import os.path
import re
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
_LINK = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, /, *, page: Any, **_: Any) -> str:
    """Write a link that leaves the documentation as the path of the file."""
    folder = (_ROOT / "docs" / page.file.src_uri).parent

    def plain(found: re.Match[str]) -> str:
        target = Path(os.path.normpath(folder / found[2]))
        if target.is_relative_to(_ROOT / "docs") or not target.exists():
            return found[0]  # in the site, or broken: mkdocs tells
        return f"{found[1]} (`{target.relative_to(_ROOT)}`)"

    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", _commands())
    return _LINK.sub(plain, markdown)


def _commands() -> str:
    # Here, as mkdocs takes back what is changed while it imports this file.
    sys.path.insert(0, str(_ROOT))
    from scripts.docs_commands import render

    return render()
