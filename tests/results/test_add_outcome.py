"""An outcome that is added to finished results: no U-Net call, no torch, nothing measured twice, failures marked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import wasserstein_distance

import causalunet as cu
from causalunet import analysis
from causalunet.cli.exits import Exit
from causalunet.design.outcomes import (
    OUTCOMES,
    EstimateDistance,
    HistogramDistance,
    MultiScaleSSIM,
    NoiseDistance,
    Outcome,
    OutcomeContext,
)
from causalunet.errors import CausalUNetWarning, SpecError, StoreError
from causalunet.models.text_to_image import TextToImage
from causalunet.results.engine import scoring
from causalunet.results.engine.export import regions
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.engine.writer import StudyWriter

INTERVENTIONS = (cu.AblateBlock(2, cu.Window(3, 2)), cu.SkipSteps(cu.Window(2, 1)))
CALLS: list[tuple[int, int]] = []
STOP = [1 << 30]


@dataclass(frozen=True, slots=True)
class Counting(Outcome):
    """Mean absolute difference; counts what it is asked, and fails as it is told to."""

    name: ClassVar[str] = "counting"
    title: ClassVar[str] = "difference"
    definition: ClassVar[str] = "Mean absolute difference."
    better: ClassVar[Any] = "lower"
    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)
    units: ClassVar[str] = "u"
    fault: str = ""

    def measure(
        self, images: NDArray[np.float32], baseline: NDArray[np.float32], context: OutcomeContext
    ) -> NDArray[np.float64]:
        CALLS.append(images.shape[:2])
        if context.prompts != ("a", "b"):  # of the rehearsal
            if len(CALLS) > STOP[0]:
                raise KeyboardInterrupt
            if self.fault == "seed 1" and 1 in context.seeds:
                raise RuntimeError("no seed 1")
        return np.abs(images - baseline).mean(axis=(-3, -2, -1), dtype=np.float64)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    CALLS.clear()
    STOP[0] = 1 << 30
    monkeypatch.setattr(scoring, "_SECONDS", 0.0)
    with OUTCOMES.scoped():
        yield


def study(**options: Any) -> cu.Study:
    given = {"prompts": ["a red circle"], "seeds": [0, 1, 2], "interventions": INTERVENTIONS}
    return cu.Study(name="s", sampler=cu.DDPM(steps=4), **(given | options))


@pytest.fixture
def results(tiny_model: TextToImage, tmp_path: Path) -> cu.results.Results:
    return study().run(tmp_path / "s.zarr", model=tiny_model, progress=False)


def by_hand(results: xr.DataTree) -> NDArray[np.float64]:
    runs, baseline = results["outcomes/image"].values, results["baseline/image"].values
    return np.abs(runs - baseline).mean(axis=(-3, -2, -1), dtype=np.float64)


def forbid_calls(monkeypatch: pytest.MonkeyPatch, model: TextToImage) -> None:
    def called(*_: Any, **__: Any) -> None:
        raise AssertionError("a U-Net call")

    monkeypatch.setattr(type(model.unet), "forward", called)


def test_it_is_measured_of_what_is_stored(
    results: cu.results.Results, tiny_model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: one.copy(deep=True) for name, one in results["outcomes"].to_dataset().load().data_vars.items()}
    forbid_calls(monkeypatch, tiny_model)
    found = results.add_outcome(Counting(), progress=False)
    np.testing.assert_allclose(found.outcomes["counting"], by_hand(results))
    np.testing.assert_array_equal(found.outcomes["counting_status"], 1)
    assert found.outcomes["counting"].attrs["units"] == "u"
    assert found.outcomes["counting"].attrs["better"] == "lower"
    for name, values in before.items():
        np.testing.assert_array_equal(found.outcomes[name], values)
    assert "counting" not in results.outcomes, "what is open stays as it was opened"
    assert found.verify(quiet=True, deep=True).exit_code == Exit.DONE
    table = analysis.effects(found, "counting", threshold=0.1, resamples=99)
    assert table.attrs["better"] == "lower"
    assert str(analysis.mean_curve(found, "counting", by="intervention")["mean"].attrs["units"]) == "u"
    assert cu.report.plot_trend(found, {"cut": {"kind": "skip_steps"}}, variable="counting").axes


@pytest.mark.thorough
def test_own_outcomes_need_no_model(results: cu.results.Results) -> None:
    for outcome in (MultiScaleSSIM(1), HistogramDistance(), EstimateDistance(1), NoiseDistance(4)):
        results = results.add_outcome(outcome, progress=False)
    runs, baseline = results["outcomes/image"].values, results["baseline/image"].values
    for row, sample in np.ndindex(*runs.shape[:2]):
        expected = [
            wasserstein_distance(a.ravel(), b.ravel()) for a, b in zip(runs[row, sample], baseline[sample], strict=True)
        ]
        assert results["outcomes/histogram_distance"].values[row, sample] == pytest.approx(np.mean(expected), rel=1e-6)
    np.testing.assert_allclose(results.outcomes["x0_distance_1"], results.trajectory["x0_distance"].sel(step=1))
    np.testing.assert_allclose(results.outcomes["eps_distance_4"], results.trajectory["eps_distance"].sel(step=4))
    assert results.verify(quiet=True, deep=True).exit_code == Exit.DONE


def test_a_step_that_a_run_skips_is_marked_and_the_rest_goes_on(results: cu.results.Results) -> None:
    with pytest.warns(CausalUNetWarning, match=r"'x0_distance_2' failed on 3 of 9 cells: .*no U-Net call at step 2"):
        found = results.add_outcome(EstimateDistance(2), progress=False)
    status = found.outcomes["x0_distance_2_status"]
    np.testing.assert_array_equal(status.sel(kind="skip_steps"), 2)
    assert (status == 1).sum() == 6
    assert "skips" in str(found.outcomes["x0_distance_2_failure"].sel(kind="skip_steps").values.ravel()[0])
    with pytest.raises(StoreError, match="failed"):
        analysis.effects(found, "x0_distance_2", threshold=0.1)
    assert found.verify(quiet=True).exit_code != Exit.DONE, "told as incomplete"
    assert analysis.effects(found, resamples=99)["mean"].size == 3, "and other outcomes are whole"


@pytest.mark.thorough
def test_an_interruption_loses_nothing_committed(
    results: cu.results.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "regions", lambda shape, _: regions(shape, (1, 2)))
    STOP[0] = 4
    with pytest.raises(KeyboardInterrupt):
        results.add_outcome(Counting(), progress=False)
    half = cu.open_results(tmp_path / "s.zarr")
    done = half.outcomes["counting_status"].values == 1
    assert done.sum() == 5, "a rehearsal, and three regions of two, one and two samples"
    np.testing.assert_allclose(half.outcomes["counting"].values[done], by_hand(half)[done])
    STOP[0] = 1 << 30
    assert half.verify(quiet=True).exit_code == Exit.INCOMPLETE
    CALLS.clear()
    whole = half.add_outcome(Counting(), progress=False)
    np.testing.assert_allclose(whole.outcomes["counting"], by_hand(whole))
    assert sum(samples for _, samples in CALLS[1:]) == 4, "what was committed is not measured again"


def test_scorers_that_raise_are_marked_by_cell(results: cu.results.Results) -> None:
    with pytest.warns(CausalUNetWarning, match=r"failed on 3 of 9 cells: RuntimeError: no seed 1 \(3\)"):
        found = results.add_outcome(Counting("seed 1"), progress=False)
    np.testing.assert_array_equal(found.outcomes["counting_status"], [[1, 2, 1]] * 3)
    expected = by_hand(results)
    expected[:, 1] = np.nan
    np.testing.assert_allclose(found.outcomes["counting"], expected)
    table = analysis.effects(found, "counting", threshold=0.1, allow_incomplete=True, resamples=99)
    assert table.attrs["samples"] == 2


@pytest.mark.thorough
def test_what_cannot_be_added_is_told_before_anything_is_written(results: cu.results.Results, tmp_path: Path) -> None:
    history = len(results.history())
    with pytest.raises(SpecError, match="at least 176 x 176"):
        results.add_outcome("ms_ssim", progress=False)
    with pytest.raises(SpecError, match="the run has the steps 4"):
        results.add_outcome(EstimateDistance(9), progress=False)
    with pytest.raises(StoreError, match="Every store holds 'ssim'"):
        results.add_outcome("ssim", progress=False)
    with pytest.raises(SpecError, match="no outcome 'nothing'"):
        results.add_outcome("nothing", progress=False)
    with pytest.raises(SpecError, match="model's own reader"):
        results.add_outcome("factors", progress=False)
    assert len(results.history()) == history
    results.export(tmp_path / "plain")
    with pytest.raises(StoreError, match="export"):
        cu.open_results(tmp_path / "plain").add_outcome(Counting(), progress=False)
    results.add_outcome(Counting(), progress=False)
    with pytest.raises(StoreError, match="of another definition"):
        results.add_outcome(Counting("other"), progress=False)


@pytest.mark.thorough
def test_what_was_run_later_is_measured_too(
    results: cu.results.Results, tiny_model: TextToImage, tmp_path: Path
) -> None:
    results.add_outcome(Counting(), progress=False)
    more = study(interventions=[*INTERVENTIONS, cu.AblateSkip(2, cu.Window(2, 1))], seeds=[0, 1, 2, 3])
    found = more.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    assert found.outcomes["counting"].shape == (4, 4)
    np.testing.assert_allclose(found.outcomes["counting"], by_hand(found))
    assert found.verify(quiet=True).exit_code == Exit.DONE


@pytest.mark.thorough
def test_a_study_names_outcomes_of_its_own(
    tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = study(outcomes=[Counting(), "ssim", HistogramDistance()])
    assert own.outcomes == (Counting(), HistogramDistance()), "SSIM is measured in any case"
    assert cu.Study.from_json(own.to_json()) == own
    assert "outcomes" not in study().to_json()
    found = own.run(tmp_path / "own.zarr", model=tiny_model, progress=False)
    np.testing.assert_allclose(found.outcomes["counting"], by_hand(found))
    assert found.verify(quiet=True, deep=True).exit_code == Exit.DONE
    later = study().run(tmp_path / "later.zarr", model=tiny_model, progress=False)
    np.testing.assert_allclose(later["outcomes/image"], found["outcomes/image"], atol=1e-6)
    forbid_calls(monkeypatch, tiny_model)
    again = own.run(tmp_path / "later.zarr", model=tiny_model, progress=False)
    np.testing.assert_allclose(again.outcomes["counting"], found.outcomes["counting"], atol=1e-6)


def test_a_scorer_that_fails_during_a_run_does_not_stop_it(tiny_model: TextToImage, tmp_path: Path) -> None:
    with pytest.warns(CausalUNetWarning, match="no seed 1"):
        found = study(outcomes=[Counting("seed 1")]).run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    np.testing.assert_array_equal(found.outcomes["status"], 1)
    np.testing.assert_array_equal(found.outcomes["counting_status"], [[1, 2, 1]] * 3)
    assert np.isfinite(found.outcomes["ssim"]).all()


def test_a_bad_outcome_is_refused_before_any_call(
    tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid_calls(monkeypatch, tiny_model)
    with pytest.raises(SpecError, match=r"'histogram_distance'.*Give it once"):
        study(outcomes=["histogram_distance", HistogramDistance()])
    with pytest.raises(SpecError, match="no outcome 'lpipz'"):
        study(outcomes="lpipz")


def test_a_search_asks_for_an_outcome_of_the_study(tiny_model: TextToImage, tmp_path: Path) -> None:
    sweep = cu.sweep(cu.AblateBlock, bottom=2, start=(4, 3, 2), length=1)
    asked = study(interventions=sweep, outcomes=[Counting()])
    criterion = analysis.Criterion(variable=Counting(), threshold=0.9)
    found = asked.search(tmp_path / "s.zarr", criterion=criterion, model=tiny_model, progress=False)
    assert found["step"].values.tolist() == [4.0], "no image is as different as that"


@pytest.mark.thorough
def test_numbers_that_are_not_those_of_the_images_are_found(results: cu.results.Results, tmp_path: Path) -> None:
    results.add_outcome(HistogramDistance(), progress=False).add_outcome(Counting(), progress=False)
    for name, status in (("counting", Exit.UNCHECKED), ("histogram_distance", Exit.PROBLEMS)):
        writer = StudyWriter(Repository.open(Location.parse(tmp_path / "s.zarr")))
        writer.write(f"outcomes/{name}", (0, slice(1, 2)), np.array([0.5]))
        writer.commit("tampered", {})
        found = cu.open_results(tmp_path / "s.zarr").verify(quiet=True, deep=True)
        assert found.exit_code == status, "the class of somebody else's may have changed"
        lines = [line for finding in found.findings for line in (*finding.problems, *finding.unchecked)]
        assert any(f"{name} is 0.5, and what is stored gives" in line for line in lines)


@pytest.mark.thorough
def test_a_process_that_knows_nothing_of_it_opens_and_grows_the_store(
    results: cu.results.Results, tiny_model: TextToImage, tmp_path: Path
) -> None:
    results.add_outcome(Counting(), progress=False)
    with OUTCOMES.scoped(counting=None):
        opened = cu.open_results(tmp_path / "s.zarr")
        np.testing.assert_allclose(opened.outcomes["counting"], by_hand(opened))
        assert opened.verify(quiet=True).exit_code == Exit.UNCHECKED
        assert analysis.effects(opened, "counting", threshold=0.1, resamples=99).attrs["better"] == "lower"
        with pytest.warns(CausalUNetWarning, match="the outcome 'counting'.*is not measured of what is run now"):
            grown = study(seeds=[0, 1, 2, 3]).run(tmp_path / "s.zarr", model=tiny_model, progress=False)
        np.testing.assert_array_equal(grown.outcomes["counting_status"].isel(sample=3), 0)
    whole = grown.add_outcome(Counting(), progress=False)
    np.testing.assert_allclose(whole.outcomes["counting"], by_hand(whole))
