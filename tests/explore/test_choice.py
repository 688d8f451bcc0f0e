"""What can be chosen, the nearest to what is asked, and links that say it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from causalunet.errors import SpecError, StoreError
from causalunet.explore.choice import choose, from_query, to_query
from causalunet.explore.rows import FIELDS, Row, nearest, options
from causalunet.explore.stored import Stored


def test_what_tells_interventions_apart_tells_all_of_them_apart(stored: Stored) -> None:
    content = [tuple(getattr(row, name) for name in FIELDS) for row in stored.rows]
    assert len(set(content)) == len(content) == stored.cells.sizes["intervention"]
    assert [row.label for row in stored.rows] == stored.cells["intervention"].values.tolist()


def test_options_depend_on_what_was_picked_before(stored: Stored) -> None:
    row = stored.rows_by_label["ablate_block bottom=2 12-11"]
    assert options(stored.rows, row, "kind") == ["ablate_block", "ablate_skip", "skip_steps", "null"]
    assert options(stored.rows, row, "depth") == ["bottom 2", "bottom 4"]
    assert options(stored.rows, row, "length") == [2, 4]
    assert options(stored.rows, row, "start") == [18, 12, 6]
    skip = stored.rows_by_label["ablate_skip top=1 12-11"]
    assert options(stored.rows, skip, "length") == [2]


def test_a_change_keeps_as_much_as_it_can(stored: Stored) -> None:
    row = stored.rows_by_label["ablate_block bottom=4 6-3"]
    assert nearest(stored.rows, row, "depth", "bottom 2").label == "ablate_block bottom=2 6-3"
    assert nearest(stored.rows, row, "kind", "ablate_skip").label == "ablate_skip top=1 6-5"
    assert nearest(stored.rows, row, "kind", "skip_steps").label == "skip_steps 12-11"


def test_twins_are_told_apart_by_their_labels() -> None:
    from causalunet.explore.rows import _apart

    twin = Row(label="a", kind="k", depth="", place="", variant="", length=1, start=3)
    rows = [twin, replace(twin, label="b"), replace(twin, label="c", start=2), replace(twin, label="d", kind="other")]
    told = _apart(rows, ["x", "y", "x", "z"])
    assert [row.variant for row in told] == ["x", "y", "x", ""]  # c stays in a's sweep


@pytest.mark.parametrize("at", range(0, 17, 4))
@pytest.mark.parametrize("view", ["curves", "images", "audit"])
def test_a_link_says_what_is_looked_at(stored: Stored, at: int, view: str) -> None:
    choice = choose(stored, view=view, intervention=stored.rows[at].label, sample=3, step=7, outcome="mse")
    assert from_query(stored, to_query(choice)) == (choice, [])
    assert from_query(stored, f"?{to_query(choice)}&theme=dark") == (choice, [])


def test_a_link_to_what_is_not_there_says_so(stored: Stored) -> None:
    choice, told = from_query(stored, "view=curves&sample=99&intervention=gone&step=7&outcome=<b>&step=x")
    assert choice == choose(stored, view="curves", step=7)
    assert len(told) == 4
    assert "sample=99 is not in these results; there is 0, 1, 2" in told[0]


def test_a_choice_that_is_not_there_is_refused(stored: Stored) -> None:
    with pytest.raises(SpecError, match=r"view='painting' is not in these results; there is curves, images, factors"):
        choose(stored, view="painting")
    with pytest.raises(SpecError, match="nothing to choose by 'depth'"):
        choose(stored, depth=2)
    with pytest.raises(SpecError, match="sample=True"):
        choose(stored, sample=True)


def test_the_step_looked_at_begins_with_the_window(stored: Stored) -> None:
    assert choose(stored, intervention="ablate_skip top=1 6-5").step == 6
    assert choose(stored, intervention="ablate_skip top=1 6-5", step=9).step == 9


def test_a_study_without_interventions_has_nothing_to_compare(stored: Stored) -> None:
    with pytest.raises(StoreError, match="no interventions to look at"):
        Stored(stored.results.isel(intervention=slice(0)))
