"""The Python blocks of README and docs/results.md run as typed, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def python_blocks(text: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_every_block_runs_as_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = python_blocks((ROOT / "README.md").read_text())
    assert len(blocks) == 4
    blocks += python_blocks((ROOT / "docs/results.md").read_text())  # which goes on with the README's results
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "readme_example.py"
    source.write_text("\n".join(blocks))
    exec(compile(source.read_text(), source, "exec"), {"__name__": "readme"})
    printed = capsys.readouterr().out
    assert "U-Net calls" in printed
    assert "times fewer" in printed
    assert "sound and complete" in printed
    for made in ("first.zarr/refs", "first-plain.zarr/zarr.json", "search.zarr/refs", "shortcut.json"):
        assert (tmp_path / "results" / made).exists()
    assert (tmp_path / "archive/first.zarr/zarr.json").exists()


def test_the_example_is_about_twelve_lines() -> None:
    example = python_blocks((ROOT / "README.md").read_text())[0]
    assert 10 <= len([line for line in example.splitlines() if line]) <= 14


def test_pictures_and_links_exist() -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", (ROOT / "README.md").read_text())
    assert targets
    for target in targets:
        assert (ROOT / target).exists(), target
