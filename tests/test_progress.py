"""Progress is shown as fits the place: nowhere do lines pile up that were meant to be drawn over."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import causalunet as cu
from causalunet import progress
from causalunet.cli import models
from causalunet.models.text_to_image import TextToImage

ESCAPE = "\x1b"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ipykernel sets for its cells, and for every process that they start."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("CLICOLOR_FORCE", "1")
    monkeypatch.setenv("TERM", "xterm-color")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in its only entry."""
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def study() -> cu.Study:
    return cu.Study(
        name="shown",
        prompts=["a red circle"],
        sampler=cu.DDPM(steps=6),
        interventions=cu.sweep(cu.SkipSteps, start=(5, 3, 2), length=1),
    )


@pytest.mark.usefixtures("forced")
def test_a_run_writes_no_bars_where_there_is_no_terminal(
    tiny_model: TextToImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study().run(tmp_path / "x.zarr", model=tiny_model)
    printed = capsys.readouterr().out
    assert ESCAPE not in printed
    assert re.fullmatch(r"U-Net calls: (\d+) of \1\n", printed)


@pytest.mark.thorough
@pytest.mark.usefixtures("forced")
def test_a_search_writes_no_bars_where_there_is_no_terminal(
    tiny_model: TextToImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study().search(tmp_path / "x.zarr", model=tiny_model)
    printed = capsys.readouterr().out
    assert ESCAPE not in printed
    assert re.fullmatch(r"U-Net calls: \d+\nSearch by start: .*\n", printed)


@pytest.mark.usefixtures("forced")
def test_the_command_line_writes_no_bars_into_pipes(capsys: pytest.CaptureFixture[str]) -> None:
    with models._bar("images", 300) as advance:
        for _ in range(300):
            advance(1)
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "images: 300 of 300\n")


@pytest.mark.thorough
def test_nothing_is_shown_unless_asked(
    tiny_model: TextToImage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study().search(tmp_path / "x.zarr", model=tiny_model, progress=False)
    study().run(tmp_path / "x.zarr", model=tiny_model, progress=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("step", [0.01, 1.0, 25.0])
def test_without_a_terminal_there_is_a_sign_of_life(
    clock: list[float], capsys: pytest.CaptureFixture[str], step: float
) -> None:
    with progress.show_progress("U-Net calls", 100) as shown:
        for _ in range(100):
            clock[0] += step
            shown.advance(1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + min(100, round(100 * step) // 10)
    assert all("per second" in line and line.endswith("left") for line in lines[:-1])
    assert lines[-1] == "U-Net calls: 100 of 100"


def test_a_call_that_takes_long_is_no_silence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.05)
    with progress.show_progress("U-Net calls", 3) as shown:
        time.sleep(0.5)
        shown.advance(3)
    lines = capsys.readouterr().out.splitlines()
    assert 3 <= lines.count("U-Net calls: 0 of 3, 0.0 per second") <= 10
    assert lines[-1] == "U-Net calls: 3 of 3"
    time.sleep(0.2)
    assert capsys.readouterr().out == "", "nothing is told after the end"


def test_what_is_left_is_told_in_hours(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.show_progress("U-Net calls", 3_000) as shown:
        clock[0] = 20.0
        shown.advance(10)
    assert capsys.readouterr().out.splitlines()[0] == "U-Net calls: 10 of 3,000, 0.5 per second, 1:39:40 left"


def test_an_interrupted_run_says_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        with progress.show_progress("U-Net calls", 9) as shown:
            shown.advance(4)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert capsys.readouterr().out == "U-Net calls: 4 of 9\n"


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with progress.show_progress("U-Net calls", 3) as shown:
        shown.advance(3)
        shown.say("[a] sentence")
    assert ESCAPE in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    assert "[a] sentence" in terminal.getvalue()


def test_a_terminal_that_cannot_draw_has_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "dumb")
    with progress.show_progress("U-Net calls", 3):
        pass
    assert terminal.getvalue() == "U-Net calls: 0 of 3\n"


def test_a_closed_output_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with progress.show_progress("U-Net calls", 3) as shown:
        shown.advance(3)
        shown.say("a sentence")


KERNEL = """
from time import sleep
from causalunet.progress import show_progress

with show_progress("U-Net calls", 40) as shown:
    for _ in range(40):
        sleep(0.03)
        shown.advance(1)
    shown.say("a sentence")
"""
STARTED = """
import subprocess, sys
code = "from causalunet.progress import show_progress\\nwith show_progress('images', 9) as shown: shown.advance(9)"
print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
"""


def executed(*cells: str) -> list[list[dict[str, Any]]]:
    """Outputs of cells in a kernel, as a stored notebook has them."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    environment = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "NO_COLOR")}
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute(env=environment)
    return [cell.outputs for cell in notebook.cells]


def test_a_cell_has_one_line_that_renews_itself() -> None:
    shown, started = executed(KERNEL, STARTED)
    assert [output["output_type"] for output in shown] == ["display_data", "stream"]
    assert shown[0]["data"] == {"text/plain": "U-Net calls: 40 of 40"}
    assert shown[1]["text"] == "a sentence\n"
    assert [output["text"] for output in started] == ["images: 9 of 9\n\n"]


def test_showing_progress_needs_no_ipython() -> None:
    code = (
        "import sys; sys.modules['IPython'] = None\nfrom causalunet.progress import show_progress as show\nshow('a', 1)"
    )
    subprocess.run([sys.executable, "-c", f"{code}.__enter__()"], check=True)
