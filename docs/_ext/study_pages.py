"""Pages below studies/ show the README beside each study's script."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

_STUDIES = Path(__file__).parents[2] / "studies"


def show_readme(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the README in place of the page that stands for it, with links as they are on the site."""
    folder, _, name = docname.rpartition("/")
    top, _, inside = folder.partition("/")
    readme = _STUDIES / inside / name / "README.md"
    if top != "studies" or not readme.is_file():
        return
    app.env.note_dependency(str(readme))
    images = "](" + "../" * len(folder.split("/")) + "images/"
    text = readme.read_text(encoding="utf-8")
    text = re.sub(r"\]\((?:\.\./)+docs/images/", images, text)
    source[0] = re.sub(r"\]\(\.\./(\w+)\)", r"](\1.md)", text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Listen for pages that are read."""
    app.connect("source-read", show_readme)
    return {"parallel_read_safe": True}
