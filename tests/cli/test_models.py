"""The command line: what it prints, and how it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from causalunet.cli import main


def test_models_lists_parameters_and_anatomy(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    printed = capsys.readouterr().out
    for part in ("shapes", "glide", "385,030,726", "16 + 1 + 16"):
        assert part in printed.replace("\n", " "), part


def test_evaluate_prints_every_factor_and_writes_the_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.png"
    assert main(["evaluate", "shapes", "--prompts", "2", "--steps", "3", "--held-out", "--sheet", str(sheet)]) == 0
    printed = capsys.readouterr().out
    for factor in ("texture", "colour", "shape", "position", "background", "all five"):
        assert factor in printed
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_a_wrong_checkpoint_is_told_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "shapes", "--checkpoint", str(tmp_path / "none.safetensors")]) == 2
    error = capsys.readouterr().err
    assert "There is no weights file" in error
    assert "Traceback" not in error


def test_training_can_be_tried_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert main(["train", "reader", "--directory", str(tmp_path), "--iterations", "1"]) == 0
    assert "iteration 1" in capsys.readouterr().out
    assert (tmp_path / "reader.safetensors").exists()


def test_a_missing_extra_is_named(tmp_path: Path) -> None:
    blocker = "import sys; sys.modules['torch'] = None\nfrom causalunet.cli import main\nsys.exit(main(['models']))"
    done = subprocess.run([sys.executable, "-c", blocker], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "causalunet[run]" in done.stderr
    assert "Traceback" not in done.stderr
