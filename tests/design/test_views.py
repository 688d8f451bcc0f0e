"""Views: lenses that are written as JSON, crossed, compared, and asked whether they fit and cover."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import causalunet as cu
from causalunet.design import AblateBlock, AblateSkip, Edit, Intervention, View
from causalunet.design.conflicts import edits_to_json
from causalunet.design.fills import Jump
from causalunet.design.registered import plugins, unregistered
from causalunet.design.views import VIEWS, Axes, Branch, Channels, Pixels, Rows, Whole, views_meet
from causalunet.errors import CausalUNetError, ComponentError, SpecError
from tests.design.examples import u_anatomy

WINDOW = cu.Window(4, 2)
SHAPE = (4, 6, 5, 7)
AXES = Axes(("row", "channel", "y", "x"), SHAPE, 2)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    with VIEWS.scoped():
        yield


def spans(size: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.integers(0, size - 1), st.integers(1, size)).filter(lambda span: span[0] < span[1])


def views() -> st.SearchStrategy[View]:
    """Views that fit SHAPE."""
    rows: st.SearchStrategy[View] = st.sampled_from(["both", "cond", "uncond"]).map(Rows)
    channels: st.SearchStrategy[View] = st.sets(st.integers(0, SHAPE[1] - 1), min_size=1).map(Channels)
    boxes = st.tuples(st.none() | spans(SHAPE[2]), st.none() | spans(SHAPE[3])).filter(any)
    pixels: st.SearchStrategy[View] = boxes.map(lambda box: Pixels(*box))
    some = st.permutations([st.just(Whole()), rows, channels, pixels]).flatmap(
        lambda kinds: st.integers(1, 4).flatmap(lambda number: st.tuples(*kinds[:number]))
    )
    return some.map(_cross)


def _cross(parts: tuple[View, ...]) -> View:
    first, *others = parts
    for other in others:
        first = first @ other
    return first


def values(seed: int = 0) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@given(view=views())
def test_a_view_is_a_lens(view: View) -> None:
    value, other = values(), values(1)
    kept = value.clone()
    part, another = view.get(other, AXES), view.get(values(2), AXES)
    assert torch.equal(view.put(value, view.get(value, AXES), AXES), value)
    assert torch.equal(view.get(view.put(value, part, AXES), AXES), part)
    assert torch.equal(view.put(view.put(value, part, AXES), another, AXES), view.put(value, another, AXES))
    assert part.ndim == 4
    assert torch.equal(value, kept), "the value was written into"


@given(view=views())
def test_its_mask_is_where_it_puts(view: View) -> None:
    value = values()
    changed = (view.put(value, view.get(value, AXES) + 1, AXES) != value).numpy()
    assert np.array_equal(changed, np.broadcast_to(view.mask(AXES), SHAPE))
    assert view.covers(AXES) == changed.all()


@given(one=views(), other=views())
def test_views_that_are_said_to_have_nothing_in_common_have_not(one: View, other: View) -> None:
    meet = bool((one.mask(AXES) & other.mask(AXES)).any())
    assert views_meet(one, other) is meet, "of these the size of a value tells nothing"
    assert views_meet(other, one) is meet


@given(view=views())
def test_it_comes_back_from_json(view: View) -> None:
    again = View.from_json(json.loads(json.dumps(view.to_json())))
    assert again == view
    assert hash(again) == hash(view)


@given(one=views(), other=views())
def test_crossing_has_one_spelling(one: View, other: View) -> None:
    try:
        crossed = one @ other
    except SpecError:
        assume(False)
    assert crossed == other @ one
    assert np.array_equal(
        np.broadcast_to(crossed.mask(AXES), SHAPE), np.broadcast_to(one.mask(AXES) & other.mask(AXES), SHAPE)
    )
    if one != Rows("both"):  # which is the whole
        assert Whole() @ one == one == one @ Rows("both")


def test_one_content_one_spelling() -> None:
    expected = Edit("mid", WINDOW, branch="cond", view=Channels(0, 1))
    site = cu.Site("mid") @ Channels(1, 0) @ Rows("cond")
    for edit in (
        Edit(site, WINDOW),
        Edit("mid", WINDOW, view=Rows("cond") @ Channels(range(2))),
        Edit(cu.Site("mid") @ Rows("cond"), WINDOW, view=Channels(slice(0, 2))),
        Edit(cu.Site("mid") @ Channels([0, 1]), WINDOW, branch="cond"),
        Intervention.from_json(json.loads(json.dumps(expected.to_json()))),
    ):
        assert edit == expected
        assert edit.digest == expected.digest
    assert expected.site == site
    assert str(site) == "mid rows cond channels 0-1"
    assert expected.label == "edit mid 4-3 zero branch=cond channels 0-1"


def test_what_was_written_before_there_were_views_is_written_alike() -> None:
    """Digests name runs in stores that exist."""
    assert Edit("mid", WINDOW).digest == "83195d7c72f64f5e"
    assert AblateBlock(2, WINDOW).digest == "5367aa093d2de309"
    assert AblateSkip(2, WINDOW, "cond").digest == "dc7a6bcbc7cded6d"
    both = Edit("mid", WINDOW) + AblateSkip(2, WINDOW, "cond")
    assert both.digest == "892d7e6e63eb7c15"
    assert Edit("mid", WINDOW).to_json()["configuration"].keys() == {"label", "component", "window", "fill", "branch"}
    assert Edit("mid", WINDOW, view=Whole()) == Edit("mid", WINDOW)


def test_views_change_the_digest() -> None:
    told = {
        Edit("mid", WINDOW, view=view).digest: view
        for view in (Whole(), Channels(0), Channels(1), Pixels((0, 1)), Pixels(x=(0, 1)), Channels(0) @ Pixels((0, 1)))
    }
    assert len(told) == 6
    rest = Edit("up.1", WINDOW)
    assert len({(Edit("mid", WINDOW, view=view) + rest).digest for view in told.values()}) == 6
    assert (
        len(edits_to_json([Edit("mid", WINDOW, view=Channels(0)), Edit("mid", cu.Window(2, 2), view=Channels(0))])) == 1
    )


def test_named_kinds_take_a_view() -> None:
    skips = AblateSkip(2, WINDOW, view=Channels(0, 1))
    assert [edit.site for edit in skips.edits()] == [cu.Site(f"skip.{n}") @ Channels(0, 1) for n in range(2)]
    block = AblateBlock(2, WINDOW, view=Pixels(y=(0, 4)) @ Rows("cond"))
    assert block.edits() == (Edit("up.1", WINDOW, branch="cond", view=Pixels(y=(0, 4))),)
    assert block == Intervention.from_json(block.to_json())
    assert block.label == "ablate_block bottom=2 4-3 branch=cond pixels y 0-3"
    swept = cu.sweep(AblateBlock, bottom=(1, 2), view=(Channels(0), Whole()), window=WINDOW)
    assert [item.view for item in swept] == [Channels(0), Whole()] * 2


def test_apart_they_go_together_and_else_not() -> None:
    def edit(view: View, branch: Branch = "both", start: int = 4) -> Edit:
        return Edit("mid", cu.Window(start, 2), cu.Scale(2), branch, view)

    together = [
        (edit(Channels(0, 1)), edit(Channels(2))),
        (edit(Channels(0)), edit(Channels(0), start=2)),
        (edit(Channels(0), "cond"), edit(Channels(0, 1), "uncond")),
        (edit(Channels(0) @ Pixels((0, 2))), edit(Channels(0) @ Pixels((2, 4)))),
        (edit(Pixels((0, 2))), edit(Pixels((2, 4), (0, 1)))),
        (edit(Channels(0)), Edit("up.0", WINDOW)),
    ]
    for one, other in together:
        assert set((one + other).edits()) == {one, other}
    for one, other in [
        (edit(Channels(0, 1)), edit(Channels(1, 2))),
        (edit(Channels(0)), edit(Whole())),
        (edit(Channels(0), "cond"), edit(Channels(0, 1))),
        (edit(Channels(0)), edit(Pixels((0, 2)))),
        (edit(Channels(0) @ Pixels((0, 2))), edit(Channels(0) @ Pixels((1, 4)))),
        (edit(Channels(0)), Edit("mid", WINDOW, cu.Zero(), view=Channels(0))),
    ]:
        with pytest.raises(SpecError, match=r"mid at step 4 is edited twice, by .* and by .*views that have nothing"):
            one + other


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Channels, "shows nothing; give channels"),
        (lambda: Channels(-1), r"got \(-1,\); channels are whole numbers from 0"),
        (lambda: Channels(0.5), r"got \(0.5,\); channels"),
        (lambda: Channels(True), "got "),
        (lambda: Channels("ab"), "got 'ab'"),
        (lambda: Channels({1, -2}), "got {"),
        (lambda: Channels(slice(2, None)), "whole numbers for its ends"),
        (lambda: Channels(slice(4, 2)), "begin at 0 or above"),
        (lambda: Channels(70_000), "from 0 to 65,535"),
        (lambda: Channels(range(10**9)), "more than 65,536"),
        (Pixels, "names no box"),
        (lambda: Pixels((3, 3)), "begin at 0 or above"),
        (lambda: Pixels(range(0, 4, 2)), "no step"),
        (lambda: Pixels(4), r"give \(first, end\)"),
        (lambda: Rows("left"), "is not one of 'both', 'cond', 'uncond'"),
        (lambda: Channels(0) @ Channels(1), r"channels 0 and channels 1 both address channel, and cannot be crossed"),
        (lambda: Edit("mid", WINDOW, view="channels"), "Edit got view='channels'; give a view"),
        (lambda: Edit("mid", WINDOW, branch="uncond", view=Rows("cond")), "got branch='uncond' and a view of the rows"),
        (lambda: Edit("unet", WINDOW, Jump(), view=Channels(0)), "cannot be honoured"),
        (lambda: cu.Site("../up"), "Site got component='../up'"),
        (lambda: View.from_json({"name": "bands"}), "is not a view; known views: channels, heads, intersection"),
        (lambda: View.from_json({"name": "channels", "configuration": {"numbers": [1]}}), "its configuration"),
    ],
)
def test_what_is_no_view_is_refused(make: Any, said: str) -> None:
    with pytest.raises(CausalUNetError, match=said):
        make()


def test_within_each_other_in_json_they_are_refused_without_going_deep() -> None:
    value: Any = Channels(0).to_json()
    for _ in range(2_000):
        value = {"name": "intersection", "configuration": {"parts": [value, value]}}
    with pytest.raises(SpecError, match="needs two views or more"):
        View.from_json(value)


def test_a_view_is_checked_against_the_anatomy() -> None:
    anatomy = u_anatomy(2)
    component = anatomy.by_name["up.0"]
    channels, height, width = component.shape
    last = channels - 1
    anatomy.check(Edit("up.0", WINDOW, view=Channels(last) @ Pixels(x=(0, width))))
    with pytest.raises(ComponentError, match=f"asks for channel {channels} of up.0, which has channel 0 ... {last}"):
        anatomy.check(Edit("up.0", WINDOW, view=Channels(0, channels)))
    with pytest.raises(ComponentError, match=f"asks for y {height} of up.0, which has y 0 ... {height - 1}"):
        anatomy.check(Edit("up.0", WINDOW, view=Channels(0) @ Pixels((0, height + 1))))
    skip = anatomy.by_name[anatomy.skips["skip.0"].source].shape[0]
    with pytest.raises(ComponentError, match=f"of skip.0, which has channel 0 ... {skip - 1}"):
        anatomy.check(AblateSkip(1, WINDOW, view=Channels(skip)))


def test_a_place_is_severed_where_the_view_covers_it() -> None:
    anatomy = u_anatomy(2)
    channels, *_ = anatomy.by_name["up.0"].shape

    def severed(view: View, branch: Branch = "both") -> set[str]:
        return anatomy.severed(AblateBlock(1, WINDOW, branch, view).edits())

    assert severed(Whole()) == severed(Channels(range(channels))) == {"up.0"}
    assert severed(Channels(range(channels - 1))) == severed(Whole(), "cond") == set()


@dataclass(frozen=True, slots=True)
class Tail(View):
    """Channels from the middle on: which ones depends on how many there are."""

    name: ClassVar[str] = "tail"
    dims: ClassVar[tuple[str, ...]] = ("channel",)

    def selected(self, axes: Axes) -> Mapping[str, slice]:
        """The second half."""
        return {"channel": slice(axes.size("channel") // 2, axes.size("channel"))}


def test_what_a_size_decides_is_told_once_it_is_known() -> None:
    VIEWS.register("tail", Tail)
    anatomy = u_anatomy(2)
    half = anatomy.by_name["up.0"].shape[0] // 2
    assert views_meet(Tail(), Channels(0)) is None
    assert views_meet(Tail(), Rows("cond")) is True
    apart = Edit("up.0", WINDOW, view=Tail()) + Edit("up.0", WINDOW, view=Channels(range(half)))
    anatomy.check(apart)
    meeting = Edit("up.0", WINDOW, view=Tail()) + Edit("up.0", WINDOW, view=Channels(half))
    with pytest.raises(SpecError, match=r"up\.0 at step 4 is edited twice"):
        anatomy.check(meeting)


def test_a_view_that_says_nothing_is_refused_where_it_is_used() -> None:
    @dataclass(frozen=True, slots=True)
    class Half(View):
        name: ClassVar[str] = "half"
        dims: ClassVar[tuple[str, ...]] = ("channel",)

        def get(self, value: Any, axes: Axes) -> Any:
            """No put."""
            return value

    with pytest.raises(SpecError, match=r"'half' does not say what it shows: give its class selected\(axes\), or all"):
        Edit("mid", WINDOW, view=Half())

    @dataclass(frozen=True, slots=True)
    class Nameless(View):
        pass

    with pytest.raises(SpecError, match="has no name"):
        Edit("mid", WINDOW, view=Nameless())


def test_views_of_guests_are_told_in_json() -> None:
    VIEWS.register("tail", Tail)
    edit = Edit("mid", WINDOW, view=Tail() @ Pixels((0, 1))).to_json()
    assert list(plugins(edit)) == list(plugins(Edit("mid", WINDOW, view=Tail()).to_json())) == ["the view 'tail'"]
    assert not list(unregistered(edit))
    with VIEWS.scoped(tail=None):
        assert list(unregistered(edit)) == ["the view 'tail'"]
        with pytest.raises(SpecError, match="is not a view"):
            Intervention.from_json(edit)
