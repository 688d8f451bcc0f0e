"""Selecting interventions: `InterventionIndex` against boolean masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from causalunet.results import InterventionIndex
from causalunet.results.meaning.index import StepIndex

KINDS = ("ablate_block", "ablate_skip", "null")
NAMES = ("kind", "bottom", "start")


def labelled(rows: list[tuple[str, int, int]]) -> xr.DataArray:
    """Positions as values, so that a selection shows what it chose."""
    text = np.dtypes.StringDType()
    columns = {
        "kind": ("intervention", np.array([row[0] for row in rows], dtype=text)),
        "bottom": ("intervention", np.array([row[1] for row in rows], dtype=np.int64)),
        "start": ("intervention", np.array([row[2] for row in rows], dtype=np.int64)),
    }
    array = xr.DataArray(np.arange(len(rows)), dims="intervention", coords=columns)
    return array.set_xindex(NAMES, InterventionIndex)


rows = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=10)
numbers = st.integers(0, 5)
number_labels = st.one_of(
    numbers,
    numbers.map(np.int64),
    st.lists(numbers, max_size=3),
    st.lists(numbers, max_size=3).map(tuple),
    st.lists(numbers, min_size=1, max_size=3).map(np.array),
    st.builds(slice, st.none() | numbers, st.none() | numbers),
)
texts = st.sampled_from(KINDS)
text_labels = st.one_of(texts, st.lists(texts, max_size=2), st.builds(slice, st.none() | texts, st.none() | texts))
queries = st.fixed_dictionaries({}, optional={"kind": text_labels, "bottom": number_labels, "start": number_labels})


def fits(value: Any, label: Any) -> bool:
    """Whether one value fits one label, said once more, value by value."""
    if isinstance(label, slice):
        ends = [label.start, label.stop]
        low, high = sorted(ends) if None not in ends else ends
        return (low is None or value >= low) and (high is None or value <= high)
    if isinstance(label, list | tuple | np.ndarray):
        return any(value == entry for entry in label)
    return value == label


def expected(table: list[tuple[str, int, int]], query: dict[str, Any]) -> list[int]:
    chosen = []
    for position, row in enumerate(table):
        values = dict(zip(NAMES, row, strict=True))
        if all(fits(values[name], label) for name, label in query.items()):
            chosen.append(position)
    return chosen


@given(rows, queries)
def test_selection_is_what_fits_every_label(table: list[tuple[str, int, int]], query: dict[str, Any]) -> None:
    array, positions = labelled(table), expected(table, query)
    if positions:
        chosen = array.sel(query)
        assert chosen.values.tolist() == positions
        for name, column in zip(NAMES, zip(*table, strict=True), strict=True):
            assert chosen[name].values.tolist() == [column[position] for position in positions]
    else:
        with pytest.raises(KeyError, match="no intervention has"):
            array.sel(query)


@given(rows, queries, st.data())
def test_selections_follow_each_other(
    table: list[tuple[str, int, int]], query: dict[str, Any], data: st.DataObject
) -> None:
    """A query is the same as its labels one by one, and follows any choice of positions."""
    array = labelled(table)
    order = data.draw(st.lists(st.integers(0, len(table) - 1), min_size=1, max_size=8))
    picked = array.isel(intervention=order)
    positions = [order[place] for place in expected([table[place] for place in order], query)]
    if not positions:
        return
    assert picked.sel(query).values.tolist() == positions
    for name, label in query.items():
        picked = picked.sel({name: label})
    assert picked.values.tolist() == positions


def test_a_selection_keeps_the_dimension_and_a_position_drops_it() -> None:
    array = labelled([("null", 0, 4), ("ablate_block", 2, 3)])
    assert array.sel(kind="null").dims == ("intervention",)
    assert array.isel(intervention=1).dims == ()
    assert array.isel(intervention=1).kind.item() == "ablate_block"
    assert array.isel(intervention=slice(None, None, -1)).sel(bottom=2).values.tolist() == [1]
    assert array.isel(intervention=np.array([False, True])).sel(bottom=2).values.tolist() == [1]
    assert array[array.start > 3].sel(kind="null").values.tolist() == [0]
    assert array.isel(intervention=xr.DataArray([[1, 0]], dims=("a", "b"))).dims == ("a", "b")


def test_what_does_not_exist_is_told_with_what_does() -> None:
    array = labelled([("null", 0, 4), ("ablate_block", 2, 3), ("ablate_block", 4, 3)])
    with pytest.raises(KeyError) as caught:
        array.sel(kind="ablate_block", bottom=3)
    message = str(caught.value)
    assert "no intervention has {'kind': 'ablate_block', 'bottom': 3}" in message
    assert "{'kind': ['ablate_block', 'null'], 'bottom': [0, 2, 4]}" in message
    with pytest.raises(KeyError, match=r"'start': \[3, 4\]"):
        array.sel(start=[])
    with pytest.raises(KeyError, match="top"):
        array.sel(top=1)


def test_equal_selections_can_be_computed_with() -> None:
    array = labelled([("null", 0, 4), ("ablate_block", 2, 3), ("ablate_block", 4, 3)])
    blocks = array.sel(kind="ablate_block")
    assert (blocks - array.sel(bottom=[2, 4])).values.tolist() == [0, 0]
    assert array.xindexes["kind"].equals(array.copy(deep=True).xindexes["kind"])
    assert not array.xindexes["kind"].equals(array.isel(intervention=[0, 2, 1]).xindexes["kind"])
    assert not array.xindexes["kind"].equals(array.drop_indexes(NAMES).set_xindex("kind").xindexes["kind"])


def test_parts_are_joined() -> None:
    array = labelled([("null", 0, 4), ("ablate_block", 2, 3), ("ablate_block", 4, 3), ("null", 0, 1)])
    joined = xr.concat([array.isel(intervention=[3, 1]), array.isel(intervention=[0])], "intervention")
    assert joined.values.tolist() == [3, 1, 0]
    assert joined.sel(kind="null", start=4).values.tolist() == [0]
    parts = [array.isel(intervention=[1, 2]), array.isel(intervention=[0])]
    indexes = [part.xindexes["kind"] for part in parts]
    placed = InterventionIndex.concat(indexes, "intervention", positions=[[1, 2], [0]])
    assert placed.equals(array.isel(intervention=slice(3)).xindexes["kind"])
    mapped = array.groupby("kind").map(lambda group: group - group.mean())
    assert mapped.sel(kind="null").values.tolist() == [-1.5, 1.5]
    assert mapped.kind.values.tolist() == array.kind.values.tolist()


def test_curves_over_another_coordinate() -> None:
    curve = labelled([("null", 0, 4), ("ablate_block", 2, 1), ("ablate_block", 2, 3)]).sel(bottom=2)
    curve = curve.swap_dims(intervention="start")
    assert curve.dims == ("start",)
    assert curve.isel(start=0).item() == 1
    falling = curve.sortby("start", ascending=False)
    assert (falling.values.tolist(), falling.start.values.tolist()) == ([2, 1], [3, 1])
    assert set(falling.xindexes) == {"start"}
    assert curve.where(curve > 1).dropna("start").start.values.tolist() == [3]


@given(rows, number_labels)
def test_a_dimension_with_an_index_of_its_own_is_selected_by(table: list[tuple[str, int, int]], label: Any) -> None:
    """As the docs say it; twice the same start is for xarray's index what it is for pandas."""
    table = list({row[2]: row for row in table}.values())
    swapped = labelled(table).swap_dims(intervention="start").drop_indexes("start")
    swapped = StepIndex.of(swapped.set_xindex("start").to_dataset(name="it"))["it"]
    chosen = expected(table, {"start": label})
    if isinstance(label, list | tuple | np.ndarray):
        if len(chosen) == len(set(label)) == len(label) > 0:
            assert sorted(swapped.sel(start=list(label)).values.tolist()) == chosen
    elif chosen:
        assert np.atleast_1d(swapped.sel(start=label).values).tolist() == chosen
    else:
        with pytest.raises(KeyError):
            swapped.sel(start=label)
    assert swapped.to_series().to_dict() == dict(zip([row[2] for row in table], range(len(table)), strict=True))


def test_a_dimension_without_an_index_of_its_own_says_how_to_give_it_one() -> None:
    curve = labelled([("null", 0, 4), ("null", 2, 1), ("null", 2, 3)]).swap_dims(intervention="start")
    for ask in (curve.to_series, lambda: curve.get_index("start"), lambda: curve.to_dataframe("it")):
        with pytest.raises(TypeError, match=r"drop_indexes\(name\)\.set_xindex\(name\)"):
            ask()


@given(rows)
def test_attributes_of_coordinates_survive(table: list[tuple[str, int, int]]) -> None:
    array = labelled(table).drop_indexes(NAMES)
    array.start.attrs["long_name"] = "first step"
    assert array.set_xindex(NAMES, InterventionIndex).start.attrs == {"long_name": "first step"}


def by_step(steps: list[int]) -> xr.DataArray:
    """Steps as values, indexed as those of a store."""
    data = xr.Dataset({"it": ("step", np.array(steps))}, {"step": steps, "timestep": ("step", np.array(steps) * 50)})
    return StepIndex.of(data)["it"]


ends = st.none() | st.integers(0, 22)


@given(ends, ends)
def test_a_range_of_steps_is_one_of_starts_in_either_order(one: int | None, other: int | None) -> None:
    """The same numbers fit as step and as start, whichever end comes first, in the order of each axis."""
    steps, starts = by_step(list(range(20, 0, -1))), labelled([("null", 0, start) for start in range(1, 21)])
    wanted = [step for step in range(20, 0, -1) if fits(step, slice(one, other))]
    if wanted:
        assert steps.sel(step=slice(one, other)).values.tolist() == wanted
        assert starts.sel(start=slice(one, other)).start.values.tolist() == wanted[::-1]
    else:
        for chosen in (lambda: steps.sel(step=slice(one, other)), lambda: starts.sel(start=slice(one, other))):
            with pytest.raises(KeyError):
                chosen()
    if one is not None and other is not None and wanted:
        assert steps.sel(step=slice(other, one)).values.tolist() == wanted


def test_steps_by_range_as_told_in_the_documentation() -> None:
    steps = by_step(list(range(20, 0, -1)))
    assert steps.sel(step=slice(5, 8)).values.tolist() == steps.sel(step=slice(8, 5)).values.tolist() == [8, 7, 6, 5]
    assert steps.sel(step=slice(None, 3)).values.tolist() == [3, 2, 1]
    assert steps.sel(step=slice(20, 1, 5)).values.tolist() == [20, 15, 10, 5]
    assert by_step([12, 4, 9]).sel(step=slice(5, 20)).values.tolist() == [12, 9]
    with pytest.raises(KeyError, match=r"no step lies in slice\(30, 40, None\); there are 20 ... 1"):
        steps.sel(step=slice(30, 40))
    with pytest.raises(KeyError, match="no stride"):
        labelled([("null", 0, 4)]).sel(start=slice(1, 9, 2))


def test_indexes_of_steps_follow_their_array() -> None:
    steps = by_step(list(range(20, 0, -1)))
    plain = xr.DataArray(np.ones(20), dims="step", coords={"step": np.arange(20, 0, -1)})
    assert (steps * plain).values.tolist() == steps.values.tolist()
    assert (steps - steps.sel(step=slice(3, 9))).step.values.tolist() == list(range(9, 2, -1))
    assert steps.isel(step=slice(4, 9)).sel(step=slice(0, 13)).values.tolist() == [13, 12]
    assert steps.sel(step=[4, 9]).values.tolist() == [4, 9]
    assert steps.sel(step=4.2, method="nearest").item() == 4
    joined = xr.concat([steps.sel(step=slice(1, 3)), steps.sel(step=slice(7, 8))], "step")
    assert joined.sel(step=slice(2, 7)).values.tolist() == [3, 2, 7]
    own = steps.drop_indexes("step").set_xindex("step")
    assert own.reindex(step=[1, 2]).values.tolist() == [1, 2]
