"""Pages fit a laptop's screen, and tutorials carry the numbers by which other pages call them."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import causalunet
from tests.docs.blocks import fenced
from tests.docs.test_pages import DOCS, GALLERY, PAGES, ROOT, STUDY, relative

WIDEST = 88
"""Characters of a line of code that a window of 1440 pixels shows whole, between the sidebar and the contents."""
TUTORIALS = sorted(DOCS.glob("tutorials/[0-9]*.md"), key=lambda page: int(page.name.partition("-")[0]))


def too_wide(lines: list[str], first: int = 1) -> list[str]:
    return [f"line {number}: {line}" for number, line in enumerate(lines, first) if len(line) > WIDEST]


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_blocks_of_a_page_are_not_cut(page: Path) -> None:
    wide = [line for start, lines in fenced(page.read_text(encoding="utf-8")) for line in too_wide(lines, start)]
    assert not wide, "\n".join(wide)


@pytest.mark.parametrize("script", [*GALLERY, STUDY], ids=relative)
def test_scripts_that_pages_show_are_not_cut(script: Path) -> None:
    lines = script.read_text(encoding="utf-8").splitlines()
    prose = lines.index('"""', 1) if script != STUDY else 0  # the docstring of a figure becomes running text
    assert not too_wide(lines[prose:], prose + 1)


HAS_DASK = importlib.util.find_spec("distributed") is not None
OF_DASK = ("causalunet.cluster.coordinator", "causalunet.cluster.worker")
"""Modules that are imported where a client is given."""


def examples() -> Iterator[tuple[str, list[str]]]:
    modules = [one.name for one in pkgutil.walk_packages(causalunet.__path__, "causalunet.")]
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in modules:
        if not name.endswith("__main__") and (HAS_DASK or name not in OF_DASK):
            for found in finder.find(importlib.import_module(name), name):
                prompted = [f">>> {line}" for one in found.examples for line in one.source.splitlines()]
                yield found.name, prompted + [line for one in found.examples for line in one.want.splitlines()]


def test_examples_of_docstrings_are_not_cut() -> None:
    wide = [f"{name}: {line}" for name, lines in examples() for line in too_wide(lines)]
    assert not wide, "\n".join(wide)


@pytest.mark.parametrize("page", TUTORIALS, ids=relative)
def test_the_title_of_a_tutorial_has_its_number(page: Path) -> None:
    title = next(line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("# "))
    assert title.startswith(f"# {page.name.partition('-')[0]}. ")


def test_tutorials_are_numbered_in_the_order_in_which_they_stand() -> None:
    listed = re.findall(r"^(\d+)-\S+$", (DOCS / "tutorials/index.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == [str(number) for number in range(1, len(TUTORIALS) + 1)]
    assert [page.name.partition("-")[0] for page in TUTORIALS] == listed


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_a_tutorial_is_called_by_its_number(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for said, target in re.findall(r"\[([^\]]*)\]\(([^)\s]*?)\)", text):
        number = re.search(r"\b(?:tutorial|part)\s+(\d+)", said, re.IGNORECASE)
        if number:
            assert Path(target).name.startswith(f"{number[1]}-"), f"[{said}]({target})"
    assert not re.search(r"\bparts? \d", text, re.IGNORECASE), "say 'tutorial', as the site does"


def test_blocks_are_found_in_lists_and_directives() -> None:
    page = "text\n\n- item\n\n  ```shell\n  one\n  ```\n\n:::{dropdown} Solution\n```python\ntwo\nthree\n```\n:::\n"
    assert list(fenced(page)) == [(6, ["one"]), (11, ["two", "three"])]
    assert list(fenced("```{note}\nText.\n```\n```text\nfour\n```\n")) == [(5, ["four"])]
    assert list(fenced("```{code-cell} ipython3\n:tags: [x]\nfive\n```\n")) == [(2, [":tags: [x]", "five"])]
    assert (ROOT / "README.md") in PAGES
