"""The Python blocks of README and docs/results.md run as typed, one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import find, run

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"


def test_every_block_runs_as_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(list(find(README.read_text()))) == 4
    monkeypatch.chdir(tmp_path)
    # The page on results goes on with those of the README.
    run(ROOT / "docs/results.md", namespace=run(README))
    printed = capsys.readouterr().out
    assert "U-Net calls" in printed
    assert "times fewer" in printed
    assert "sound and complete" in printed
    for made in ("first.zarr/refs", "first-plain.zarr.zip", "search.zarr/refs", "shortcut.json"):
        assert (tmp_path / "results" / made).exists()
    assert (tmp_path / "archive/first.zarr/zarr.json").exists()


def test_the_example_is_about_fifteen_lines() -> None:
    for page in (README, ROOT / "docs/index.md"):
        example = next(find(page.read_text())).code
        assert 10 <= len([line for line in example.splitlines() if line]) <= 16
