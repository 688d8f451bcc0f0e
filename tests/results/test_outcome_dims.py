"""Outcomes with dimensions of their own: declared, stored, gone on with, selected by label, verified, and refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

import causalunet as cu
from causalunet import analysis
from causalunet.cli.exits import Exit
from causalunet.design.outcomes import FactorReading, Outcome, OutcomeDim, OutcomeVariable
from causalunet.design.outcomes.dims import brought_by, sizes_along
from causalunet.errors import CausalUNetWarning, DamageError, SpecError
from causalunet.models.text_to_image import TextToImage
from causalunet.results.guard.declared import read_declaration
from causalunet.results.meaning.declaration import ORDINARY
from causalunet.results.meaning.scored import declared_outcome
from tests.conftest import PLUGINS, installed

pytestmark = pytest.mark.usefixtures("guests")
INTERVENTIONS = (cu.AblateBlock(2, cu.Window(3, 2)), cu.SkipSteps(cu.Window(2, 1)))
COLOURS = ("red", "green", "blue")
SHAPE = (3, 16, 16)


def colours(*labels: str) -> Outcome:
    return Outcome.from_json({"name": "guests.colour_distance", "configuration": {"labels": list(labels or COLOURS)}})


def run(model: TextToImage, path: Path, seeds: int = 3, **options: Any) -> cu.results.Results:
    given = {"prompts": ["a red circle"], "seeds": list(range(seeds)), "interventions": INTERVENTIONS, **options}
    study = cu.Study(name="s", sampler=cu.DDPM(steps=4), **given)
    return study.run(path, model=model, progress=False)


def by_hand(results: xr.DataTree) -> NDArray[np.float64]:
    runs, baseline = results["outcomes/image"].values, results["baseline/image"].values
    return np.abs(runs.astype(np.float64) - baseline).mean(axis=(-2, -1))


@pytest.fixture(scope="module")
def measured(tiny_model: TextToImage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with the outcome; not to be changed."""
    path = tmp_path_factory.mktemp("dims") / "s.zarr"
    with installed(PLUGINS):
        run(tiny_model, path, outcomes=[colours()])
    return path


@pytest.mark.thorough
def test_it_is_stored_along_a_dimension_with_labels(measured: Path) -> None:
    results = cu.open_results(measured)
    found = results.outcomes["colour_distance"]
    assert found.dims == ("intervention", "sample", "colour")
    assert found["colour"].values.tolist() == list(COLOURS)
    np.testing.assert_allclose(found, by_hand(results), rtol=1e-5)
    red = results.outcomes.colour_distance.sel(kind="ablate_block", colour="red")
    np.testing.assert_allclose(red, by_hand(results)[:1, :, 0], rtol=1e-5)
    assert results.declaration.dims["colour"] == "channel of an image, by its colour"
    assert results.verify(quiet=True, deep=True).exit_code == Exit.DONE


def test_analyses_take_it_at_a_label(measured: Path) -> None:
    results = cu.open_results(measured)
    table = analysis.effects(results, "colour_distance", threshold=0.1, resamples=99, colour="blue")
    np.testing.assert_allclose(table["mean"], by_hand(results)[:, :, 2].mean(axis=1), rtol=1e-5)
    assert table.attrs["better"] == "lower"
    assert float(table["noise_floor"]) < 1e-5
    curve = analysis.curve(results, "colour_distance", kind="ablate_block", colour="green", by="start")
    np.testing.assert_allclose(curve["colour_distance"].squeeze(), by_hand(results)[0, :, 1], rtol=1e-5)
    figure = cu.report.plot_trend(
        results, {"cut": {"kind": "ablate_block", "colour": "red"}}, variable="colour_distance"
    )
    assert figure.axes
    with pytest.raises(SpecError, match=r"Say which colour: colour='red'"):
        analysis.effects(results, "colour_distance", threshold=0.1)
    with pytest.raises(SpecError, match=r"colour='pink' is no label .*red, green, blue"):
        analysis.effects(results, "colour_distance", threshold=0.1, colour="pink")


@pytest.mark.thorough
def test_it_is_added_to_what_is_there_and_measured_of_what_is_run_later(
    tiny_model: TextToImage, tmp_path: Path
) -> None:
    results = run(tiny_model, tmp_path / "s.zarr")
    assert "colour" not in results.outcomes.dims
    found = results.add_outcome(colours(), progress=False)
    np.testing.assert_allclose(found.outcomes["colour_distance"], by_hand(found), rtol=1e-5)
    grown = run(tiny_model, tmp_path / "s.zarr", 4, interventions=[*INTERVENTIONS, cu.AblateBlock(1, cu.Window(1, 1))])
    assert grown.outcomes["colour_distance"].shape == (4, 4, 3)
    assert grown.outcomes["colour"].values.tolist() == list(COLOURS)
    np.testing.assert_allclose(grown.outcomes["colour_distance"], by_hand(grown), rtol=1e-5)
    assert grown.verify(quiet=True, deep=True).exit_code == Exit.DONE
    grown.export(tmp_path / "plain")
    plain = xr.open_datatree(tmp_path / "plain", engine="zarr")
    assert plain["outcomes/colour"].values.tolist() == list(COLOURS)


@pytest.mark.thorough
def test_a_run_that_is_gone_on_with_measures_it(tiny_model: TextToImage, tmp_path: Path) -> None:
    run(tiny_model, tmp_path / "s.zarr", 1, outcomes=[colours()])
    found = run(tiny_model, tmp_path / "s.zarr", 3, outcomes=[colours()])
    np.testing.assert_allclose(found.outcomes["colour_distance"], by_hand(found), rtol=1e-5)


@dataclass(frozen=True, slots=True)
class Shades(Outcome):
    """One number per shade, with one fault."""

    name: ClassVar[str] = "shades"
    definition: ClassVar[str] = "Nothing of use."
    fault: str = ""
    dim: str = "shade"

    @property
    def variables(self) -> tuple[OutcomeVariable, ...]:
        return (OutcomeVariable(name="shades", meaning="m", dims=(self.dim,)),)

    def brings(self, image_shape: Any, factors: Any) -> tuple[Any, ...]:
        made: dict[str, Any] = {"raises": None, "brings nothing": (), "brings texts": ("shade",)}
        if self.fault == "raises":
            raise ZeroDivisionError
        return made.get(self.fault, (OutcomeDim(name=self.dim, labels=("dark", "light")),))

    def measure(self, images: Any, baseline: Any, context: Any) -> Any:
        several = (
            3
            if self.fault == "gives three"
            or (self.fault == "gives three later" and 1 in context.seeds and "a" not in context.prompts)
            else 2
        )
        return np.stack([images.mean(axis=(-3, -2, -1))] * several, axis=-1)


@pytest.mark.sampled(1)
@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("raises", r"'shades' cannot say what dimensions it brings: .*ZeroDivisionError"),
        ("brings nothing", r"'shades' has variables along 'shade', which no store has. Let brings\(\) give it"),
        ("brings texts", r"brings 'shade'; brings\(\) gives OutcomeDims"),
        ("gives three", r"gave shades of shape \(1, 2, 3\) .*along \(intervention, sample, shade of 2\)"),
    ],
)
def test_what_it_cannot_be_is_told_before_anything_runs(
    fault: str, told: str, tiny_model: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = run(tiny_model, tmp_path / "there.zarr", 1)
    with monkeypatch.context() as patched:
        patched.setattr(type(tiny_model.unet), "forward", lambda *_, **__: pytest.fail("a U-Net call"))
        with pytest.raises(SpecError, match=told):
            results.add_outcome(Shades(fault), progress=False)
    with pytest.raises(SpecError, match=told):
        run(tiny_model, tmp_path / "new.zarr", 1, outcomes=[Shades(fault)])
    assert not (tmp_path / "new.zarr").exists()
    assert len(cu.open_results(tmp_path / "there.zarr").history()) == len(results.history())


def test_a_cell_of_another_length_fails_by_itself(tiny_model: TextToImage, tmp_path: Path) -> None:
    with pytest.warns(CausalUNetWarning, match="shade of 2"):
        results = run(tiny_model, tmp_path / "s.zarr", outcomes=[Shades("gives three later")])
    np.testing.assert_array_equal(results.outcomes["shades_status"], [[1, 2, 1]] * 3)
    assert np.isnan(results.outcomes["shades"][:, 1]).all()
    assert np.isfinite(results.outcomes["shades"][:, 0]).all()


def test_one_dimension_has_the_same_labels_everywhere(measured: Path, tiny_model: TextToImage) -> None:
    shades = Shades(dim="colour")
    with pytest.raises(SpecError, match=r"brings the dimension 'colour' with the labels .*dark.*name of its own"):
        cu.open_results(measured).add_outcome(shades, progress=False)
    with pytest.raises(SpecError, match=r"brings the dimension 'colour' with the labels .*dark.*name of its own"):
        run(tiny_model, measured.parent / "none.zarr", outcomes=[colours(), shades])
    assert [*brought_by([colours(), colours()], SHAPE, {})] == ["colour"]


@pytest.mark.parametrize("given", [{"name": "step"}, {"name": "a b"}, {"labels": ()}, {"labels": ("a", "a")}])
def test_dimensions_that_none_can_be(given: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="OutcomeDim got"):
        OutcomeDim(**{"name": "shade", "labels": ("a", "b"), **given})


def test_factors_go_the_same_way() -> None:
    values = {"colour": ("red", "blue"), "shape": ("circle",)}
    assert brought_by([FactorReading()], SHAPE, values)["factor"].labels == ("colour", "shape")
    brought = brought_by([FactorReading(), colours()], SHAPE, values).values()
    assert sizes_along(brought, SHAPE, 4) == {"factor": 2, "colour": 3, "channel": 3, "y": 16, "x": 16, "step": 4}
    with pytest.raises(SpecError, match="the model has none"):
        brought_by([FactorReading()], SHAPE, {})


@pytest.mark.parametrize("fault", ["no labels", "numbers", "of nothing"])
def test_a_store_that_declares_it_otherwise_is_not_believed(fault: str) -> None:
    written = ORDINARY.with_outcome(declared_outcome(colours(), SHAPE, {})).to_json()
    assert read_declaration(written, "here", factors=True).dims["colour"]
    if fault == "no labels":
        del written["coordinates"]["colour"]
    elif fault == "numbers":
        written["coordinates"]["colour"]["colour"]["dtype"] = "int64"
    else:
        written["dims"]["shade"] = "of nothing"
    with pytest.raises(DamageError, match="is no dimension of an outcome with labels"):
        read_declaration(written, "here", factors=True)
