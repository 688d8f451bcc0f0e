"""Stores of every format version, made by the package of their time: read, analysed, verified, exported and grown."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import causalunet as cu
from causalunet.cli import main
from causalunet.cli.exits import Exit
from causalunet.errors import DamageError, StoreError
from causalunet.report import report
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.meaning.declaration import DeclaredOutcome
from causalunet.results.meaning.schema import COMPLETE, FORMAT_VERSION, Variable
from tests.analysis.synthetic import edited
from tests.results.golden.make import FOLDER, STUDIES, golden_model, told
from tests.results.opened import arrays_of

VERSIONS = sorted(path.name.removesuffix(".tar.xz") for path in FOLDER.glob("format-*.tar.xz"))


@pytest.fixture(scope="module", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def golden(version: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The live store; not to be changed."""
    return _unpacked(version, tmp_path_factory.mktemp(version))


@pytest.fixture
def copy(version: str, tmp_path: Path) -> Path:
    return _unpacked(version, tmp_path)


def _unpacked(version: str, folder: Path) -> Path:
    with tarfile.open(FOLDER / f"{version}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "golden.zarr"


@pytest.fixture
def study(version: str) -> cu.Study:
    return STUDIES[int(version.removeprefix("format-"))]


def expected(version: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{version}.json").read_text())
    return found


def test_there_is_one_for_every_version() -> None:
    assert VERSIONS == [f"format-{number}" for number in STUDIES] == ["format-2", f"format-{FORMAT_VERSION}"]


def test_it_tells_what_it_told_when_it_was_made(version: str, study: cu.Study, golden: Path) -> None:
    found, then = told(cu.open_results(golden)), expected(version)
    assert found.keys() == then.keys()
    for name, value in then.items():
        if name == "effects":
            for part in value:  # computed now, from what is stored
                np.testing.assert_allclose(found[name][part], value[part], rtol=1e-6, atol=1e-9)
        elif name == "study":
            assert cu.Study.from_stored(found[name]) == cu.Study.from_stored(value) == study
        else:
            assert found[name] == value, name


def test_it_is_selected_from(golden: Path) -> None:
    outcomes = cu.open_results(golden).outcomes
    assert outcomes.ssim.sel(kind="ablate_block", bottom=2).shape == (1, 2)
    assert outcomes.ssim.sel(component="mid", fill=cu.Scale(0.5), branch="cond").intervention.item().startswith("edit")
    assert cu.open_results(golden).trajectory.x0_distance.sel(step=slice(3, 2)).sizes["step"] == 2


@pytest.mark.sampled(1)
def test_it_is_sound_and_complete(golden: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cu.open_results(golden).verify(deep=True, quiet=True).verdict == "sound and complete"
    assert main(["verify", str(golden)]) == main(["status", str(golden)]) == Exit.DONE
    assert main(["ls", str(golden)]) == Exit.DONE
    assert "structural similarity" in capsys.readouterr().out


@pytest.mark.sampled(1)
def test_what_is_wrong_with_it_is_still_found(copy: Path) -> None:
    with edited(copy) as root:
        root["outcomes/ssim"][1, 0] = 0.123  # type: ignore[index]
    found = cu.open_results(copy).verify(deep=True, quiet=True)
    assert found.exit_code == 1
    assert "ssim is 0.123" in str(found)
    for file in (copy / "chunks").iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DamageError):
        cu.open_results(copy).load()


def test_its_history_and_tag_are_there(golden: Path) -> None:
    tagged = cu.open_results(golden, at="golden")
    assert [commit.tags for commit in tagged.history() if commit.tags] == [("golden",)]
    first = next(commit for commit in tagged.history() if commit.message == "a study laid out")
    assert not cu.open_results(golden, at=first.id).outcomes.status.any()


@pytest.mark.thorough
def test_an_export_of_it_is_the_same(golden: Path, tmp_path: Path) -> None:
    results = cu.open_results(golden)
    exported = cu.open_results(results.export(tmp_path / "export.zarr"))
    assert told(exported) == told(results)
    assert exported.verify(deep=True, quiet=True).verdict == "sound and complete"
    plain = xr.open_datatree(tmp_path / "export.zarr", engine="zarr")  # type: ignore[no-untyped-call]
    np.testing.assert_array_equal(plain["outcomes/ssim"], results["outcomes/ssim"])


@pytest.mark.sampled(1)
def test_it_is_reported(study: cu.Study, golden: Path, tmp_path: Path) -> None:
    page = report(cu.open_results(golden), tmp_path / "page.html").read_text()
    assert all(item.label in page for item in study.interventions)


@pytest.mark.thorough
def test_it_is_gone_on_with_and_grows(version: str, study: cu.Study, copy: Path) -> None:
    """Nothing is run again, and what was stored stays as it is."""
    model, before = golden_model(), cu.open_results(copy).load()
    commits = len(cu.open_results(copy).history())
    study.run(copy, model=model, progress=False)
    assert len(cu.open_results(copy).history()) == commits, "there was nothing to do"
    assert cu.open_results(copy).attrs == before.attrs
    more = cu.AblateSkip(1, cu.Window(2, 1))
    grown = replace(
        study,
        interventions=[*study.interventions, more],
        prompts=[*study.prompts, "a green square"],
        record=replace(study.record, summary=("up.*", "mid")),
        seeds=None,
    )
    results = grown.run(copy, model=model, progress=False)
    count = len(study.interventions)
    assert results.outcomes.ssim.shape == (count + 1, 3)
    np.testing.assert_array_equal(results.outcomes.ssim[:count, :2], before.outcomes.ssim)
    np.testing.assert_array_equal(results.baseline.x_t[:2], before.baseline.x_t)
    assert results.outcomes.kind.values.tolist() == [*expected(version)["kind"], "ablate_skip"]
    assert results.outcomes.view.values.tolist() == [*expected(version).get("view", ["whole"] * count), "whole"]
    assert results.attrs["format_version"] == FORMAT_VERSION
    assert results.verify(deep=True, quiet=True).verdict == "sound and complete"
    tagged = cu.open_results(copy, at="golden")
    assert tagged.attrs["format_version"] == before.attrs["format_version"]
    assert told(tagged)["ssim"] == expected(version)["ssim"], "as it was"


@pytest.mark.sampled(1)
def test_a_run_that_was_cut_off_goes_on_in_its_own_format(version: str, study: cu.Study, copy: Path) -> None:
    """An earlier version may still be at work on the store: nothing may shut it out."""
    with edited(copy) as root:
        root["outcomes/status"][2, :] = 0  # type: ignore[index]
        root["baseline/status"][1] = 0  # type: ignore[index]
        root["outcomes/status"][:, 1] = 0  # type: ignore[index]
    before = cu.open_results(copy)
    results = study.run(copy, model=golden_model(), progress=False)
    assert results.attrs["format_version"] == before.attrs["format_version"]
    assert {path: array.shape for path, array in arrays_of(copy).items()} == {
        path: array.shape for path, array in arrays_of(copy, "golden").items()
    }
    assert results.verify(deep=True, quiet=True).verdict == "sound and complete"
    np.testing.assert_allclose(results.outcomes.ssim, expected(version)["ssim"], atol=1e-4)


@pytest.mark.sampled(1)
def test_an_outcome_is_added_to_it(copy: Path) -> None:
    """Format 2 has no outcomes of a study's own, so the store gets the newest format; no U-Net is needed."""
    writer = StudyWriter(Repository.open(Location.parse(copy)))
    variable = Variable(
        group="outcomes", name="mine", dims=("intervention", "sample"), dtype="float32", meaning="mine", outcome="mine"
    )
    writer.declare(DeclaredOutcome(name="mine", variables=(variable,)))
    writer.write("outcomes/mine", (), np.float32(1))
    writer.write("outcomes/mine_status", (), np.array(COMPLETE))
    writer.commit("measured", {})
    results = cu.open_results(copy)
    assert results.attrs["format_version"] == FORMAT_VERSION
    assert (results.outcomes.mine.sel(kind="edit", component="mid") == 1).all()
    found = results.verify(deep=True, quiet=True)
    assert not any(finding.problems for finding in found.findings)
    assert len(found.unchecked) == 1
    assert told(results)["ssim"] == told(cu.open_results(copy, at="golden"))["ssim"]


def test_another_study_is_refused_there(study: cu.Study, copy: Path) -> None:
    with pytest.raises(StoreError, match=r"holds another study: sampler\.steps is 4 there and 5 here"):
        replace(study, sampler=cu.DDPM(steps=5)).run(copy, model=golden_model(), progress=False)
