"""A study of a pipeline takes twelve lines of a user's."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/tutorials/9-a-pipeline.md"


def cells() -> dict[str, list[str]]:
    """Lines of code of every cell, by its tags; without blank ones."""
    found = re.findall(r"^```\{code-cell\} ipython3\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    told = [(re.match(r":tags: \[(.*)\]\n", cell), cell) for cell in found]
    return {
        tags[1] if tags else str(number): [line for line in cell.splitlines() if line.strip() and line[0] != ":"]
        for number, (tags, cell) in enumerate(told)
    }


def test_the_study_has_twelve_lines() -> None:
    lines = cells()["the-study"]
    assert len(lines) <= 12, lines
    assert lines[0] == "import causalunet as cu", "all that it needs is imported in it"
    assert ";" not in "".join(lines), "one statement is not two lines in one"
    assert max(map(len, lines)) <= 88
