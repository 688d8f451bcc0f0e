"""A store of another process, with classes that are not here: read, selected from, exported, and never "damaged"."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import causalunet as cu
from causalunet.analysis import effects
from causalunet.cli import main
from causalunet.cli.exits import Exit
from causalunet.report import report
from causalunet.results.meaning.declaration import Declaration

UNKNOWN = {
    "the kind 'stranger_kind'",
    "the fill 'stranger_fill'",
    "the view 'stranger_view'",
    "the sampler 'stranger_sampler'",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stranger") / "s.zarr"
    root = Path(cu.__file__).parents[1]
    subprocess.run([sys.executable, "-m", "tests.results.unknown_plugins", str(path)], check=True, cwd=root)
    return path


@pytest.fixture(scope="module", params=["live", "export"])
def opened(request: pytest.FixtureRequest, store: Path, tmp_path_factory: pytest.TempPathFactory) -> cu.results.Results:
    results = cu.open_results(store)
    if request.param == "live":
        return results
    return cu.open_results(results.export(tmp_path_factory.mktemp("export") / "e.zarr"))


@pytest.mark.thorough
def test_its_coordinates_have_their_types_and_are_selected_by(opened: cu.results.Results) -> None:
    ssim = opened.outcomes.ssim
    assert ssim.sel(kind="stranger_kind", strength=slice(0.5, 1)).words.values.tolist() == ["by 0.75"]
    assert ssim.sel(mild=True).strength.values.tolist() == [0.25]
    assert ssim.sel(rank=2).sizes["intervention"] == 2
    assert ssim.sel(fill="stranger_fill", component="up.1", view="stranger_view", branch="both").shape == (1, 2)
    assert opened.trajectory.x0_distance.sel(words="by 0.25", step=slice(1, 2)).sizes["step"] == 2
    types = {name: opened.outcomes[name].dtype.kind for name in ("strength", "words", "mild", "rank")}
    assert types == {"strength": "f", "words": "T", "mild": "b", "rank": "i"}
    np.testing.assert_array_equal(opened.outcomes.strength, [0.25, 0.75, np.nan, np.nan, np.nan])
    assert opened.outcomes.mild.values.tolist() == [True, False, False, False, False]


def test_its_outcome_is_read_with_what_is_said_of_it(opened: cu.results.Results) -> None:
    found = opened.outcomes.stranger_outcome
    assert dict(found.sizes) == {"intervention": 5, "sample": 2, "token": 3}
    assert found.attrs == {"long_name": "attention to each word", "units": "1", "better": "higher"}
    assert float(found.sel(mild=True).mean()) == 0.5
    declaration = opened.declaration
    assert isinstance(declaration, Declaration)
    assert declaration.dims["token"] == "of the prompt"
    assert [one.name for one in declaration.outcomes] == ["stranger_outcome"]


@pytest.mark.sampled(1)
def test_it_is_analysed_and_reported(opened: cu.results.Results, tmp_path: Path) -> None:
    assert effects(opened)["mean"].sizes == {"intervention": 5}
    assert "stranger_kind" in report(opened, tmp_path / "page.html").read_text()


@pytest.mark.sampled(1)
def test_what_cannot_be_checked_is_told_as_that(opened: cu.results.Results, capsys: pytest.CaptureFixture[str]) -> None:
    found = opened.verify(quiet=True)
    assert found.exit_code == Exit.UNCHECKED == 4
    assert not any(finding.problems for finding in found.findings)
    assert {*UNKNOWN, "outcome"} == {name if name in UNKNOWN else name.split()[1] for name in found.unchecked}
    assert "damage" not in str(found)
    assert main(["verify", str(opened.source.location)]) == Exit.UNCHECKED
    assert main(["status", str(opened.source.location)]) == Exit.DONE
    assert main(["ls", str(opened.source.location)]) == Exit.DONE
    assert "attention to each word" in capsys.readouterr().out


def test_what_reads_the_study_back_says_what_to_import(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", str(store)]) == Exit.ERROR
    told = capsys.readouterr().err
    assert "stranger_" in told
    assert "import the modules that define them first" in told
