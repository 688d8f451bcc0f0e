"""What a store says of itself: written, read back, and added to by outcomes of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import xarray as xr

import causalunet as cu
from causalunet.bound import BoundStudy
from causalunet.design import AblateBlock, Intervention, Window
from causalunet.design.interventions import KINDS
from causalunet.design.outcomes import OutcomeDim
from causalunet.design.study import StudySpec
from causalunet.errors import SpecError, StoreError
from causalunet.plan import make_plan
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.guard.checked_store import read_stored, stored_grid
from causalunet.results.guard.declared import read_declaration
from causalunet.results.meaning.declaration import EARLIER, ORDINARY, Declaration, DeclaredOutcome
from causalunet.results.meaning.layout import Layout
from causalunet.results.meaning.schema import COMPLETE, FAILED, Variable
from causalunet.schedule import Schedule, cosine_alpha_bar
from tests.analysis.synthetic import IMAGE, small_anatomy, write_results
from tests.results.opened import arrays_of, root_of

CELL = ("intervention", "sample")


def variable(name: str, dims: tuple[str, ...] = (), **fields: object) -> Variable:
    told = {"dtype": "float32", "meaning": "mine", "outcome": "lpips", **fields}
    return Variable(group="outcomes", name=name, dims=(*CELL, *dims), **told)  # type: ignore[arg-type]


LPIPS = DeclaredOutcome(
    name="lpips",
    variables=(variable("lpips", range=(0.0, math.inf), better="lower", meaning="a distance of features"),),
    definition="features of a network",
    digest="0123456789abcdef",
    written={"name": "theirs.lpips", "configuration": {}},
)
TOKENS = DeclaredOutcome(
    name="attention",
    variables=(
        variable("attention", ("step", "token"), outcome="attention"),
        variable("attention_mean", ("factor",), outcome="attention", dtype="float64"),
    ),
    brings=(OutcomeDim(name="token", labels=tuple("abcde"), meaning="of the prompt"),),
)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "s.zarr"
    write_results(path, [AblateBlock(2, Window(4, 2)), AblateBlock(3, Window(3, 1))], samples=4, steps=4, block=2)
    return path


def declare(path: Path, outcome: DeclaredOutcome) -> StudyWriter:
    writer = StudyWriter(Repository.open(Location.parse(path)))
    writer.declare(outcome)
    return writer


@pytest.mark.parametrize("declaration", [ORDINARY, ORDINARY.with_outcome(LPIPS).with_outcome(TOKENS)])
def test_a_declaration_comes_back_from_json(declaration: Declaration) -> None:
    written = json.loads(json.dumps(declaration.to_json(), allow_nan=False))
    read = read_declaration(written, "here", factors=True)
    assert read.to_json() == written
    assert {*read.variables} == {*declaration.variables}
    assert {*read.coordinates} == {*declaration.coordinates}
    assert read.dims == declaration.dims


def test_a_store_declares_every_array_that_it_has_and_no_other(small: Path, store: Path) -> None:
    for path in (small, store):
        arrays, declaration = arrays_of(path), cu.open_results(path).declaration
        held = {name for name in arrays if declaration.variable_at(name) is not None}
        coordinates = {name for name in arrays if name.rpartition("/")[2] in declaration.coordinate_names}
        assert held | coordinates == arrays.keys()
        assert not held & coordinates
        assert {one.path for one in declaration.variables} == {
            f"activations/*/{name.rpartition('/')[2]}" if name.startswith("activations/") else name for name in held
        }
        assert {dim for one in declaration.variables for dim in one.dims} <= declaration.dims.keys()
        for name in held:
            told = declaration.variable_at(name)
            assert told is not None
            assert arrays[name].metadata.dimension_names == told.dims
            assert (arrays[name].dtype.kind in "TO") == (told.dtype == "str")
            assert told.dtype in ("str", arrays[name].dtype.name)
    assert cu.open_results(path).declaration.variable_at("activations/mid/baseline").dtype == "float32"  # type: ignore[union-attr]


@pytest.mark.thorough
def test_an_outcome_is_added_to_a_finished_store(small: Path, tmp_path: Path) -> None:
    before = cu.open_results(small)
    writer = declare(small, LPIPS)
    asked = cu.open_results(small)
    assert asked.outcomes.lpips.attrs == {"long_name": "a distance of features", "units": "1", "better": "lower"}
    assert np.isnan(asked.outcomes.lpips).all()
    assert not asked.outcomes.lpips_status.any()
    xr.testing.assert_identical(asked.outcomes.ssim.load(), before.outcomes.ssim.load())
    told = asked.declaration.outcome("lpips")
    assert told == LPIPS
    values = np.linspace(0, 1, asked.outcomes.lpips.size, dtype=np.float32).reshape(asked.outcomes.lpips.shape)
    writer.write("outcomes/lpips", (slice(None), slice(0, 4)), values)
    writer.write("outcomes/lpips_status", (slice(None), slice(0, 4)), np.array(COMPLETE))
    writer.commit("lpips measured", {})
    done = cu.open_results(small)
    np.testing.assert_array_equal(done.outcomes.lpips, values)
    np.testing.assert_array_equal(done.outcomes.lpips.sel(bottom=3), values[1:2])
    exported = cu.open_results(done.export(tmp_path / "export.zarr"))
    assert exported.declaration == done.declaration
    np.testing.assert_array_equal(exported.outcomes.lpips, values)
    assert [commit.message for commit in done.history()][:2] == ["lpips measured", "outcome lpips declared"]
    assert "lpips" not in cu.open_results(small, at=before.source.commit).outcomes


def test_an_outcome_with_dimensions_of_its_own(small: Path) -> None:
    declare(small, TOKENS)
    outcomes = cu.open_results(small).outcomes
    assert dict(outcomes.attention.sizes) == {"intervention": 3, "sample": 4, "step": 4, "token": 5}
    assert outcomes.attention.sel(step=slice(2, 3)).sizes["step"] == 2
    assert outcomes.attention.log_snr.dims == ("step",)
    assert dict(outcomes.attention_mean.sizes) == {"intervention": 3, "sample": 4, "factor": 5}
    assert cu.open_results(small).declaration.dims["token"] == "of the prompt"
    assert root_of(small)["outcomes"].attrs["coordinates"].split().count("log_snr") == 1


def test_the_same_outcome_is_added_once_and_another_is_refused(small: Path) -> None:
    declare(small, LPIPS)
    commits = len(cu.open_results(small).history())
    declare(small, LPIPS)
    assert len(cu.open_results(small).history()) == commits
    with pytest.raises(StoreError, match=r"holds the outcome 'lpips' of another definition.*0{16} here"):
        declare(small, replace(LPIPS, digest="0" * 16))


TAKEN = {
    "a variable": (variable("ssim"), "'ssim' stands for two things in outcomes"),
    "a coordinate": (variable("bottom"), "'bottom' stands for two things in outcomes"),
    "an unknown dimension": (variable("x", ("head",)), "'head', which is not declared"),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", TAKEN)
def test_names_that_stand_for_something_else_are_refused_before_anything_is_written(name: str, small: Path) -> None:
    own, message = TAKEN[name]
    commits = len(cu.open_results(small).history())
    with pytest.raises(SpecError, match=message):
        declare(small, replace(LPIPS, variables=(own,)))
    assert len(cu.open_results(small).history()) == commits


MEASURED = {
    "nothing": (0, 0.5, 4),
    "all": (COMPLETE, 0.5, 4),
    "out of range": (COMPLETE, -0.5, 1),
    "not finite": (COMPLETE, np.nan, 1),
    "failed": (FAILED, np.nan, 4),
    "an unknown status": (7, 0.5, 1),
}


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", MEASURED)
def test_outcomes_of_its_own_are_verified_as_declared(name: str, copied: Callable[[], Path]) -> None:
    """An outcome that is not known here cannot be made again, so all is well is never said of it."""
    status, value, code = MEASURED[name]
    path = copied()
    writer = declare(path, LPIPS)
    writer.write("outcomes/lpips", (), np.float32(value))
    writer.write("outcomes/lpips_status", (), np.array(status))
    if status == FAILED:
        writer.write("outcomes/lpips_failure", (), np.array("no face was found", dtype=object))
    writer.commit("measured", {})
    found = cu.open_results(path).verify(quiet=True)
    assert found.exit_code == code, str(found)
    assert found.unchecked == ("the outcome 'lpips'",)
    if name == "failed":
        assert "cells failed" in str(found)
    if name == "nothing":
        assert "not measured yet" in str(found)


def test_stores_of_format_2_have_no_outcomes_of_their_own() -> None:
    assert EARLIER.outcomes == ()
    assert {one.name for one in EARLIER.coordinates} < {one.name for one in ORDINARY.coordinates}


@pytest.fixture
def rated() -> Iterator[type[Intervention]]:
    """A kind with a coordinate whose type follows from its value."""
    with KINDS.scoped():

        @dataclass(frozen=True, slots=True)
        class Rated(Intervention):
            kind: ClassVar[str] = "rated in a test"
            rate: float = 0

            def edits(self) -> tuple[cu.Edit, ...]:
                return (cu.Edit("mid", Window(3, 1), cu.Scale(self.rate)),)

            def coordinates(self) -> dict[str, Any]:
                return {**Intervention.coordinates(self), "rate": self.rate}

        yield Rated


def grow(path: Path, *items: Intervention, samples: int = 4) -> None:
    """Lay a store out anew with more interventions, as a study does that is run into it."""
    writer = StudyWriter(Repository.open(Location.parse(path)))
    stored = read_stored(writer.root.store, path)
    grid = stored_grid(stored, path)
    spec = StudySpec.from_stored(writer.known.study).with_stored((*grid.interventions, *items))
    schedule = Schedule.spaced(cosine_alpha_bar(), spec.sampler.steps)
    plan = make_plan(BoundStudy(spec, small_anatomy(), schedule, IMAGE))
    layout = Layout(plan, stored.brought, 2, stored=stored.declaration)
    writer.lay_out(layout, replace(writer.known, layout_id=None), "grown")


@pytest.mark.thorough
def test_outcomes_of_its_own_grow_with_a_store(small: Path) -> None:
    writer = declare(small, TOKENS)
    writer.write("outcomes/attention", (), np.float32(2))
    writer.write("outcomes/attention_status", (), np.array(COMPLETE))
    writer.commit("measured", {})
    before = cu.open_results(small)
    grow(small, cu.AblateSkip(1, Window(2, 1)))
    outcomes = cu.open_results(small).outcomes
    assert dict(outcomes.attention.sizes) == {"intervention": 4, "sample": 4, "step": 4, "token": 5}
    assert (outcomes.attention[:3] == 2).all()
    assert np.isnan(outcomes.attention[3]).all()
    assert outcomes.attention_status.values.tolist() == [[1] * 4] * 3 + [[0] * 4]
    assert cu.open_results(small).declaration == before.declaration
    assert cu.open_results(small).attrs["layout_id"] != before.attrs.get("layout_id")


def test_a_coordinate_gets_the_type_that_holds_what_is_added(small: Path, rated: Any) -> None:
    grow(small, rated(rate=2))
    whole = cu.open_results(small).outcomes
    assert whole.rate.values.tolist() == [0, 0, 0, 2]
    assert whole.rate.dtype.kind == "i"
    grow(small, rated(rate=0.5))
    results = cu.open_results(small)
    np.testing.assert_array_equal(results.outcomes.rate, [np.nan, np.nan, np.nan, 2, 0.5])
    np.testing.assert_array_equal(results.audit.rate, results.outcomes.rate)
    assert results.outcomes.ssim.sel(rate=0.5).intervention.values.tolist() == ["rated in a test rate=0.5"]
    told = results.declaration.coordinate("rate", "intervention")
    assert told is not None
    assert told.dtype == "float64"
    assert told.meaning
