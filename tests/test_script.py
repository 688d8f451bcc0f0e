"""Study scripts: sizes, errors in one line, results of earlier studies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import xarray as xr
from rich.console import Console

import causalunet as cu
from causalunet.errors import CausalUNetWarning, StoreError
from causalunet.execute.fill.recorder import Recorder
from causalunet.models.base import MODELS
from causalunet.models.text_to_image import TextToImage
from causalunet.script import Folder, run_script


@pytest.fixture(autouse=True)
def tiny_by_name(tiny_model: TextToImage) -> Iterator[None]:
    with MODELS.scoped(tiny=lambda: tiny_model):
        yield


def small(folder: Folder) -> cu.Study:
    """Two steps."""
    return cu.Study(
        name="script",
        model="tiny",
        prompts=("a red circle",),
        sampler=cu.DDPM(steps=3),
        interventions=(cu.SkipSteps(cu.Window(1, 1)),),
    )


def after(folder: Folder) -> cu.Study:
    """100 % of what came first."""
    folder.earlier("first")
    return small(folder)


def script_in(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / "studies" / name
    folder.mkdir(parents=True)
    return folder / "study.py"


@pytest.mark.thorough
def test_a_script_plans_runs_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn: list[tuple[int, Folder]] = []

    def draw(results: xr.DataTree, folder: Folder, console: Console) -> None:
        drawn.append((results["baseline"].sizes["sample"], folder))
        console.print("drawn")

    script = script_in(tmp_path, "first")
    run_script(script, "A study.", {"quick": small, "full": after}, draw, [])
    printed = capsys.readouterr().out
    assert "Study 'script' on tiny" in printed
    assert "drawn" in printed
    ((samples, folder),) = drawn
    assert samples == 1
    assert folder.store == script.parent / "results" / "quick.zarr"
    assert folder.store.is_dir()
    assert "A study." in (folder.figures / "report.html").read_text()
    assert str(folder.store) in printed.replace("\n", "")


@pytest.mark.thorough
def test_a_later_study_reads_the_earlier_one_of_its_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    later = script_in(tmp_path, "later")
    with pytest.raises(SystemExit) as ended:
        run_script(later, "A study.", {"quick": after}, lambda *_: None, [])
    assert ended.value.code == 2
    told = capsys.readouterr().err.replace("\n", " ")
    assert "Run that one first: python studies/first/study.py --quick" in told
    run_script(script_in(tmp_path, "first"), "A study.", {"quick": small}, lambda *_: None, [])
    run_script(later, "A study.", {"quick": after}, lambda *_: None, ["--quick"])
    assert (later.parent / "results" / "quick.zarr").is_dir()


def test_earlier_results_elsewhere(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "studies" / "later", "quick", tmp_path / "elsewhere" / "later" / "out")
    with pytest.raises(StoreError, match=str(tmp_path / "elsewhere" / "first" / "out" / "quick.zarr")):
        folder.earlier("first")


def test_ctrl_c_and_help(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(folder: Folder) -> cu.Study:
        stopped = KeyboardInterrupt()
        stopped.add_note("8 of 12 cells are safe in [somewhere]")
        raise stopped

    script = script_in(tmp_path, "first")
    with pytest.raises(SystemExit) as ended:
        run_script(script, "A study.", {"quick": interrupted}, lambda *_: None, [])
    assert ended.value.code == 130
    told = capsys.readouterr().out
    assert told == "Interrupted. 8 of 12 cells are safe in [somewhere]; the same command goes on after it.\n"
    with pytest.raises(SystemExit):
        run_script(script, "What it asks.", {"quick": small, "full": after}, lambda *_: None, ["--help"])
    told = capsys.readouterr().out
    assert "What it asks." in told
    assert "--full" in told
    assert "100 % of what came first." in told


@pytest.mark.thorough
def test_a_script_of_several_studies_has_a_store_and_a_page_for_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[list[str]] = []

    def draw(results: dict[str, xr.DataTree], folder: Folder, console: Console) -> None:
        drawn.append([name for name, found in results.items() if found["baseline"].sizes["sample"] == 1])

    def two(folder: Folder) -> dict[str, cu.Study]:
        """Two of them."""
        recording = replace(small(folder), interventions=(), record=cu.Record(summary=("mid",)))
        return {"one": small(folder), "other": recording}

    script = script_in(tmp_path, "pair")
    run_script(script, "Two studies.", {"quick": two}, draw, [])
    folder = Folder(script.parent, "quick", script.parent / "results")
    assert drawn == [["one", "other"]]
    assert capsys.readouterr().out.count("Study 'script' on tiny") == 2
    for name in ("one", "other"):
        assert folder.store_of(name) == script.parent / "results" / f"quick-{name}.zarr"
        assert folder.store_of(name).is_dir()
        assert (folder.figures / f"report-{name}.html").is_file()
    beside = Folder(script_in(tmp_path, "next").parent, "quick", script.parent.parent / "next" / "results")
    assert beside.earlier("pair", "other")["baseline"].sizes["sample"] == 1
    with pytest.raises(StoreError, match=r"quick-third\.zarr"):
        beside.earlier("pair", "third")


@pytest.mark.thorough
def test_scripts_try_failed_cells_again_where_that_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, seen = Recorder.write, []

    def failing(recorder: Recorder) -> None:
        recorder.failed[0, 0] = "made to fail"
        write(recorder)

    def draw(results: xr.DataTree, folder: Folder, console: Console) -> None:
        seen.append((int(results.outcomes.status[0, 0]), folder.retry_failed))

    script = script_in(tmp_path, "first")
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "write", failing)
        patch.setattr("causalunet.script._write_page", lambda *_: None)
        with pytest.warns(CausalUNetWarning, match="made to fail"):
            run_script(script, "A study.", {"quick": small}, draw, [])
        with pytest.warns(CausalUNetWarning, match="made to fail"):
            run_script(script, "A study.", {"quick": small}, draw, [])
    run_script(script, "A study.", {"quick": small}, draw, ["--retry-failed"])
    assert seen == [(2, False), (2, False), (1, True)]
