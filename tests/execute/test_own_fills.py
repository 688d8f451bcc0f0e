"""Fills that users write: one class, applied like those of the package, and refused when they do not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import xarray as xr

import causalunet as cu
from causalunet.design import Fill
from causalunet.design.fills import FILLS
from causalunet.errors import SpecError
from causalunet.execute.call.installed import InstalledUNet
from causalunet.execute.call.trace import TracedUNet
from causalunet.models.text_to_image import TextToImage
from causalunet.plan import Action, PlacedFill

WINDOW = cu.Window(5, 2)


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    with FILLS.scoped():
        yield


def own(apply: Callable[[Any, Any], Any] | None, *, severs: bool = False) -> Fill:
    methods: dict[str, Any] = {"severs": severs, **({} if apply is None else {"apply": apply})}
    kind = type("Own", (Fill,), {"name": "own", "__slots__": (), **methods})
    return dataclass(frozen=True)(kind)()


def test_a_fill_of_ones_own_does_what_it_says(run_study: Callable[..., xr.DataTree]) -> None:
    places = [("mid", "both"), ("up.1", "cond"), ("skip.1", "uncond"), ("down.2", "both")]

    def halves(fill: Fill) -> xr.DataTree:
        return run_study(*(cu.Edit(place, WINDOW, fill, branch) for place, branch in places))  # type: ignore[arg-type]

    halved, scaled = halves(own(lambda self, value: 0.5 * value)), halves(cu.Scale(0.5))
    assert np.array_equal(halved.outcomes.image.values, scaled.outcomes.image.values)
    assert (halved.outcomes.ssim.sel(kind="edit") < 1).all()


def test_it_is_written_and_read_like_others() -> None:
    fill = own(lambda self, value: -value)
    edit = cu.Edit("mid", WINDOW, fill)
    assert cu.design.Intervention.from_json(edit.to_json()) == edit


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("apply", "said"),
    [
        (lambda self, value: value, "a new tensor"),
        (lambda self, value: value.mean((-2, -1), keepdim=True), r"gave \(4, 16, 1, 1\) float32 for \(4, 16, 8, 8\)"),
        (lambda self, value: value.double(), "float64 for"),
    ],
)
def test_what_does_not_fit_is_refused(
    run_study: Callable[..., xr.DataTree], apply: Callable[[Any, Any], Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        run_study(cu.Edit("mid", WINDOW, own(apply)))


def test_a_fill_that_says_nothing_is_refused_where_it_is_used() -> None:
    @dataclass(frozen=True, slots=True)
    class Nothing(Fill):
        name: ClassVar[str] = "nothing"

    with pytest.raises(SpecError, match=r"'nothing' does not say what it puts in place: give its class apply"):
        cu.Edit("mid", WINDOW, Nothing())


@pytest.mark.parametrize("caller", [TracedUNet, InstalledUNet])
@pytest.mark.parametrize("place", ["down.2", "mid", "up.1", "skip.1"])
def test_what_severs_puts_its_own_numbers_in_place(tiny_model: TextToImage, place: str, caller: Any) -> None:
    """Though what it replaces is not computed. The truth is a hook on a U-Net that runs everything."""
    anatomy, unet = tiny_model.anatomy, tiny_model.unet
    arguments = (torch.randn(2, *tiny_model.image_shape), torch.full((2,), 500.0), *tiny_model.encode(["a", "a red"]))
    fill = own(lambda self, value: torch.full_like(value, 0.5), severs=True)
    action = Action(frozenset([PlacedFill(cu.Site(place), fill)]), anatomy.dead({place}))

    def after(module: Any, given: Any, output: Any) -> Any:
        return torch.full_like(output, 0.5)

    def before(module: Any, given: Any) -> Any:
        joined = given[0].clone()
        joined[:, -anatomy.by_name[anatomy.skips[place].source].shape[0] :] = 0.5
        return joined, *given[1:]

    edge = anatomy.skips.get(place)
    module = unet.get_submodule(anatomy.by_name[edge.target if edge else place].module)
    with torch.no_grad():
        untouched = unet(*arguments)
        hook: Any = module.register_forward_pre_hook(before) if edge else module.register_forward_hook(after)
        expected = unet(*arguments)
        hook.remove()
        call = caller(unet, anatomy)
        given = call(action, arguments, 2)
        if caller is InstalledUNet:
            call.remove()
    torch.testing.assert_close(given.output, expected, rtol=0, atol=1e-6)
    assert float((expected - untouched).abs().max()) > 1e-4
    assert given.fired == {place: 1}
