"""The check of the built site finds what a reader would stumble over."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
BARS = "\n".join(f"U-Net calls {'━' * 40} {done}/59 12.1 calls/s 0:00:0{done % 9}" for done in range(16))


@pytest.fixture(scope="module")
def check() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_site", ROOT / "docs/_ext/check_site.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def problems(check: ModuleType, folder: Path, body: str) -> list[str]:
    (folder / "page.html").write_text(f"<html><body>{body}</body></html>", encoding="utf-8")
    return list(check.broken(folder))


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        (BARS, 16),
        ("U-Net calls \x1b[91m━━━━━\x1b[0m 3/59", 1),
        ("U-Net calls: 10 of 59, 12.1 per second, 0:00:04 left\nU-Net calls: 59 of 59", 1),
        (" 40%|████      | 4/10 [00:01<00:02,  2.1it/s]", 1),
    ],
)
def test_progress_that_was_to_be_drawn_over_is_counted(
    check: ModuleType, tmp_path: Path, lines: str, count: int
) -> None:
    found = problems(check, tmp_path, f'<div class="cell_output"><pre>{lines}</pre></div>')
    assert [problem.partition(" are shown")[0] for problem in found] == [f"page.html: {count} lines of progress"]


@pytest.mark.parametrize(
    "lines",
    [
        "U-Net calls: 59 of 59",
        "┏━━━━━━━┳━━━━━━━━┓\n┃ start ┃ 19/20  ┃\n┡━━━━━━━╇━━━━━━━━┩\n└───────┴────────┘",
        "x" * 120,
        "3 of 4, or 12.5 per second",
    ],
)
def test_what_cells_print_may_stay(check: ModuleType, tmp_path: Path, lines: str) -> None:
    assert problems(check, tmp_path, f'<div class="cell_output"><pre>{lines}</pre></div>') == []


def test_code_that_is_cut_is_found(check: ModuleType, tmp_path: Path) -> None:
    body = f'<div class="highlight"><pre>{"x" * 88}\n{"y" * 89}</pre></div>'
    assert problems(check, tmp_path, body) == [f"page.html: cut after 88 characters: {'y' * 89}"]


def test_links_and_pictures_are_looked_for(check: ModuleType, tmp_path: Path) -> None:
    found = problems(check, tmp_path, '<a href="gone.html">1</a><a href="#nowhere">2</a><img src="page.html">')
    assert found == [
        "page.html: gone.html is not there",
        "page.html: #nowhere has no such place",
        "page.html: page.html has no text for those who cannot see it",
    ]
