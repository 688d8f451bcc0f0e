"""What a store says of itself: written, read back, and added to by outcomes of its own."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import causalunet as cu
from causalunet.design import AblateBlock, Window
from causalunet.errors import SpecError, StoreError
from causalunet.results.engine.location import Location
from causalunet.results.engine.repository import Repository
from causalunet.results.engine.writer import StudyWriter
from causalunet.results.guard.declared import read_declaration
from causalunet.results.meaning.declaration import EARLIER, ORDINARY, Declaration, DeclaredDim, DeclaredOutcome
from causalunet.results.meaning.schema import COMPLETE, FAILED, Variable
from tests.analysis.synthetic import write_results
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
    brings=(DeclaredDim("token", 5, "of the prompt"),),
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
