"""Declarations of strangers: a store cannot declare its way around the checks."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import causalunet as cu
from causalunet.dims import FACTOR
from causalunet.errors import StoreError
from causalunet.results.meaning.attributes import StoreAttributes
from causalunet.results.meaning.declaration import EARLIER, ORDINARY, DeclaredOutcome
from tests.results.hostile.strangers import Document, assert_refused, both, put_back, read, rewrite, without

SSIM, STATUS = "outcomes/ssim", "outcomes/status"
OWN = {
    "dtype": "float64",
    "dims": ["intervention", "sample"],
    "meaning": "mine",
    "units": "1",
    "role": "outcome",
    "range": [0, None],
    "better": "lower",
    "infinite": False,
    "outcome": "mine",
}
MINE = {"definition": "", "digest": "", "written": {}}


def with_own(told: Document, **changes: Any) -> None:
    """Declare an outcome, well but for the changes."""
    made = DeclaredOutcome(name="mine", variables=())
    others = {
        one.path: {**OWN, "dtype": one.dtype, "role": one.role, "range": list(one.range), "better": None}
        for one in (made.status, made.failure)
    }
    others["outcomes/mine_failure"]["range"] = [None, None]
    told["outcomes"]["mine"] = MINE
    told["variables"] |= {"outcomes/mine": {**OWN, **changes}, **others}


def variable(path: str, **changes: Any) -> Callable[[Document], None]:
    return lambda told: told["variables"][path].update(changes)


def named(path: str, **changes: Any) -> Callable[[Document], None]:
    return lambda told: told["variables"].update({path: {**told["variables"][SSIM], **changes}})


CHANGES: dict[str, tuple[Callable[[Document], Any], str]] = {
    "no status": (lambda d: d["variables"].pop(STATUS), "outcomes/status is not declared"),
    "no edits": (lambda d: d["variables"].pop("audit/fired"), "audit/fired is not declared"),
    "no variables": (lambda d: d.update(variables={}), "is not declared"),
    "no factors": (lambda d: d["variables"].pop("outcomes/factor_code"), "of that name"),
    "another range": (variable(SSIM, range=[-1e9, 1e9]), "ssim is declared as something else"),
    "no range": (variable("outcomes/mse", range=[None, None]), "mse is declared as something else"),
    "infinity": (variable(SSIM, infinite=True), "ssim is declared as something else"),
    "another role": (variable("audit/fired", role="cost"), "fired is declared as something else"),
    "other dimensions": (variable(STATUS, dims=["sample", "intervention"]), "status is declared as something else"),
    "another type": (variable("baseline/image", dtype="float64"), "image is declared as something else"),
    "a type of objects": (variable(SSIM, dtype="object"), "has the type 'object'"),
    "a type of anything": (variable(SSIM, dtype=["f8"]), "has the type"),
    "status of an outcome": (named("outcomes/x_status", role="status"), "nothing that studies have"),
    "no outcome": (named("outcomes/mine", outcome="mine"), "an outcome that is not declared"),
    "a variable more": (named("outcomes/ssim2"), "nothing that studies have"),
    "in a group of its own": (named("thesis/ssim"), "in no group"),
    "outside": (named("../outcomes/ssim"), "in no group"),
    "hidden": (named("outcomes/.."), "no name of a variable"),
    "a slash": (named("outcomes/a/b"), "in no group"),
    "a name with a blank": (named("outcomes/ss im"), "no name of a variable"),
    "many axes": (variable(SSIM, dims=[f"d{n}" for n in range(9)]), "lies along"),
    "twice along one axis": (variable(SSIM, dims=["sample", "sample"]), "twice along one"),
    "an unknown axis": (variable(SSIM, dims=["intervention", "head"]), "ssim is declared as something else"),
    "a field more": (variable(SSIM, codec="pickle"), "no field 'codec'"),
    "a field less": (lambda d: d["variables"].update({SSIM: {}}), "lacks"),
    "no object": (lambda d: d["variables"].update({SSIM: 5}), "has the fields"),
    "a long text": (variable(SSIM, meaning="x" * 20_000), "20,000 characters"),
    "a range of texts": (variable(SSIM, range=["-1", "1"]), "has the range"),
    "many": (lambda d: d.update(dims={f"d{n}": "" for n in range(3_000)}), "at most 2,000"),
    "odd dimension": (lambda d: d["dims"].update({"a b": ""}), "no name of a dimension"),
    "another part": (lambda d: d.update(more={}), "no field 'more'"),
    "no coordinate": (lambda d: d["coordinates"]["intervention"].pop("kind"), "coordinate kind is not declared"),
    "another coordinate": (
        lambda d: d["coordinates"]["intervention"]["start"].update(dtype="str"),
        "start is declared as str",
    ),
    "a coordinate like a variable": (
        lambda d: d["coordinates"]["intervention"].update(ssim={"dtype": "str", "meaning": ""}),
        "stands for two things",
    ),
    "a coordinate of nothing": (lambda d: d["coordinates"].update(head={"x": OWN}), "has the fields|not declared"),
    "a coordinate's name": (
        lambda d: d["coordinates"]["intervention"].update({"a/b": {"dtype": "str", "meaning": ""}}),
        "no name of a coordinate",
    ),
    "an outcome of ours": (
        lambda d: (d["outcomes"].update(ssim=MINE), d["variables"][SSIM].update(outcome="ssim")),
        "another status",
    ),
    "an outcome elsewhere": (
        lambda d: (with_own(d), d["variables"].update({"audit/mine": {**OWN}})),
        "audit/mine is no number of every cell",
    ),
    "an outcome of no cells": (lambda d: with_own(d, dims=["sample"]), "mine is no number of every cell"),
    "an outcome in words": (lambda d: with_own(d, dtype="str"), "mine is no number of every cell"),
    "an outcome without a status": (
        lambda d: (with_own(d), d["variables"].pop("outcomes/mine_status")),
        "another status",
    ),
    "an outcome with another status": (
        lambda d: (with_own(d), d["variables"]["outcomes/mine_status"].update(range=[0, 9])),
        "another status",
    ),
    "an outcome's name": (lambda d: d["outcomes"].update({"a b": MINE}), "no name of a outcome"),
    "an outcome that is no JSON": (lambda d: d["outcomes"].update(mine={**MINE, "written": 5}), "written as 5"),
}


@pytest.mark.sampled(26)
@pytest.mark.parametrize("name", CHANGES)
def test_declarations_that_no_study_writes_are_refused(name: str, export: Path, chunks_read: list[str]) -> None:
    change, message = CHANGES[name]

    def changed(document: Document) -> None:
        change(document["attributes"]["declaration"])

    with put_back(export / "zarr.json"):
        rewrite(export, "", changed)
        assert_refused(export, message, chunks_read)


@both
def test_arrays_are_what_is_declared(kind: str, store: Path, chunks_read: list[str]) -> None:
    """What the declaration allows, the array must be."""
    rewrite(store, "", lambda d: with_own(d["attributes"]["declaration"]) or None)  # type: ignore[func-returns-value]
    assert cu.open_results(store).verify(quiet=True).exit_code == 1, "declared, and not there"
    rewrite(store, SSIM, lambda d: d.update(data_type="float32"))
    assert_refused(store, "of type 'float32'", chunks_read)


def test_nesting_has_an_end(export: Path, chunks_read: list[str]) -> None:
    deep: Any = {}
    for _ in range(100):
        deep = {"a": deep}
    with put_back(export / "zarr.json"):
        rewrite(export, "", lambda d: d["attributes"]["declaration"]["outcomes"].update(mine={**MINE, "written": deep}))
        assert_refused(export, "nested deeper", chunks_read)


def test_a_store_of_format_2_cannot_declare_anything(export: Path, chunks_read: list[str]) -> None:
    """The version is the store's word too: with it, all that format 2 has not is refused."""
    with put_back(export / "zarr.json"):
        rewrite(export, "", lambda d: d["attributes"].update(format_version=2))
        assert_refused(export, "of that name, which no study writes", chunks_read)


def test_texts_of_another_version_are_no_damage(export: Path) -> None:
    def reworded(document: Document) -> None:
        for told in document["attributes"]["declaration"]["variables"].values():
            told.update(meaning="said otherwise", units="?")

    with put_back(export / "zarr.json"):
        rewrite(export, "", reworded)
        results = cu.open_results(export)
        assert results.outcomes.ssim.attrs == {"long_name": "said otherwise", "units": "?", "better": "higher"}
        assert without(json.loads(read(export, "zarr.json"))["attributes"], "declaration") == results.attrs


WRITTEN = StoreAttributes(study={"name": "x"}, declaration=ORDINARY).to_json()
VALUES = [None, True, -1, 3, 2.5, float("inf"), 10**30, "", "a/b", "..", "\ud800", "x" * 300, [], [1], {}, {"a": 1}]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Path of everything in a JSON value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(inner, (*path, key))


PLACES = sorted(places(WRITTEN), key=str)


@given(st.sampled_from(PLACES), st.sampled_from([*VALUES, "outcomes/ssim", ["intervention", "sample"]]), st.booleans())
@settings(max_examples=200)
def test_whatever_is_changed_is_refused_or_leaves_what_every_store_has(
    place: tuple[Any, ...], value: Any, gone: bool
) -> None:
    attributes = copy.deepcopy(WRITTEN)
    *path, last = place
    inner = reduce(lambda part, key: part[key], path, attributes)
    if gone:
        del inner[last]  # type: ignore[arg-type]
    else:
        inner[last] = value
    try:
        declaration = StoreAttributes.from_json(attributes, "here").declaration
    except StoreError:
        return
    for one in EARLIER.common:
        found = declaration.variable_at(one.path)
        if FACTOR not in one.dims and not one.group.startswith("activation"):
            assert found is not None
        if found is not None:
            assert (found.dims, found.role, found.range) == (one.dims, one.role, one.range)
