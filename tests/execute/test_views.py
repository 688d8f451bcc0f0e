"""Edits of parts of values, against hooks that slice, written by hand; traced, installed, and as whole runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import causalunet as cu
from causalunet.design import Fill
from causalunet.errors import ComponentError, SpecError
from causalunet.execute.call.installed import InstalledUNet
from causalunet.execute.call.trace import TracedUNet
from causalunet.models.text_to_image import TextToImage
from causalunet.plan import Action, PlacedFill

PLACES = ["down.2", "mid", "up.1", "skip.1"]
ROWS = {"both": slice(0, 4), "cond": slice(0, 2), "uncond": slice(2, 4)}
FILLS: dict[Fill, Callable[[Tensor], Tensor]] = {
    cu.Zero(): torch.zeros_like,
    cu.Scale(-1.5): lambda part: -1.5 * part,
    cu.Identity(): lambda part: part,
}


def arguments(model: TextToImage) -> tuple[Tensor, ...]:
    texts = [model.encode(["a red circle", "a blue cross"]), model.encode(["", ""])]
    context = (torch.cat(parts) for parts in zip(*texts, strict=True))
    return (
        torch.randn(4, *model.image_shape, generator=torch.Generator().manual_seed(0)),
        torch.full((4,), 500.0),
        *context,
    )


def by_hand(model: TextToImage, place: str, index: tuple[Any, ...], change: Callable[[Tensor], Tensor]) -> Tensor:
    """The output of a call with a hook on one module; ``index`` is of a block's output, or of a skip connection."""
    anatomy, unet = model.anatomy, model.unet

    def after(_module: Any, _given: Any, output: Tensor) -> Tensor:
        output = output.clone()
        output[index] = change(output[index])
        return output

    def before(_module: Any, given: Any) -> Any:
        joined = given[0].clone()
        skip = joined[:, -anatomy.by_name[anatomy.skips[place].source].shape[0] :]
        skip[index] = change(skip[index])
        return joined, *given[1:]

    edge = anatomy.skips.get(place)
    module: Any = unet.get_submodule(anatomy.by_name[edge.target if edge else place].module)
    hook = module.register_forward_pre_hook(before) if edge else module.register_forward_hook(after)
    with torch.no_grad():
        output: Tensor = unet(*arguments(model))
    hook.remove()
    return output


def edited(model: TextToImage, caller: Any, *edits: cu.Edit) -> Any:
    anatomy = model.anatomy
    action = Action(frozenset(PlacedFill(edit.site, edit.fill) for edit in edits), anatomy.dead(anatomy.severed(edits)))
    call = caller(model.unet, anatomy)
    with torch.no_grad():
        found = call(action, arguments(model), 2)
    if caller is InstalledUNet:
        call.remove()
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(data=st.data())
def test_a_part_is_changed_as_a_hook_that_slices_changes_it(tiny_model: TextToImage, data: st.DataObject) -> None:
    caller = data.draw(st.sampled_from([TracedUNet, InstalledUNet]))
    place, branch = data.draw(st.sampled_from(PLACES)), data.draw(st.sampled_from(list(ROWS)))
    fill = data.draw(st.sampled_from(list(FILLS)))
    _, channels, height, width = tiny_model.anatomy.axes(place).shape
    view: cu.design.View = cu.Rows(branch)  # type: ignore[arg-type]
    index: list[Any] = [ROWS[branch], slice(None), slice(None), slice(None)]
    if data.draw(st.booleans()):
        some = sorted(data.draw(st.sets(st.integers(0, channels - 1), min_size=1)))
        view, index[1] = view @ cu.Channels(some), torch.tensor(some)
    if data.draw(st.booleans()):
        (y, y_end), (x, x_end) = (
            data.draw(st.tuples(st.integers(0, size - 1), st.integers(1, size)).filter(lambda span: span[0] < span[1]))
            for size in (height, width)
        )
        view, index[2], index[3] = view @ cu.Pixels((y, y_end), (x, x_end)), slice(y, y_end), slice(x, x_end)
    found = edited(tiny_model, caller, cu.Edit(cu.Site(place) @ view, cu.Window(1, 1), fill))
    torch.testing.assert_close(found.output, by_hand(tiny_model, place, tuple(index), FILLS[fill]), rtol=0, atol=1e-6)
    assert found.fired == {place: 1}


@pytest.mark.parametrize("caller", [TracedUNet, InstalledUNet])
@pytest.mark.parametrize("place", PLACES)
def test_a_part_of_one_channel_is_no_edit_of_another(tiny_model: TextToImage, place: str, caller: Any) -> None:
    untouched = by_hand(tiny_model, place, (slice(0, 0),), torch.zeros_like)
    outputs = [edited(tiny_model, caller, cu.Edit(place, cu.Window(1, 1), view=cu.Channels(n))).output for n in (0, 1)]
    assert all(float((output - untouched).abs().max()) > 1e-5 for output in outputs)
    assert float((outputs[0] - outputs[1]).abs().max()) > 1e-5


@pytest.mark.parametrize("caller", [TracedUNet, InstalledUNet])
def test_two_parts_of_one_value_in_one_call(tiny_model: TextToImage, caller: Any) -> None:
    first, second = cu.Channels(range(4)), cu.Channels(range(4, 6)) @ cu.Rows("cond")
    window = cu.Window(1, 1)
    edits = cu.Edit("mid", window, view=first), cu.Edit("mid", window, cu.Scale(2), view=second)
    found = edited(tiny_model, caller, *edits)

    def both(value: Tensor) -> Tensor:
        value = value.clone()
        value[:, :4] = 0
        value[:2, 4:6] *= 2
        return value

    torch.testing.assert_close(found.output, by_hand(tiny_model, "mid", (slice(None),), both), rtol=0, atol=1e-6)
    assert found.fired == {"mid": 1}


def test_what_covers_a_value_makes_dead_what_the_whole_does(tiny_model: TextToImage) -> None:
    channels = tiny_model.anatomy.by_name["up.1"].shape[0]
    window = cu.Window(1, 1)
    for caller in (TracedUNet, InstalledUNet):
        whole = edited(tiny_model, caller, cu.AblateBlock(2, window).edits()[0])
        parts = edited(tiny_model, caller, cu.AblateBlock(2, window, view=cu.Channels(range(channels))).edits()[0])
        assert torch.equal(whole.output, parts.output)


def test_what_is_not_there_is_told_before_anything_runs(run_study: Callable[..., xr.DataTree]) -> None:
    with pytest.raises(ComponentError, match=r"channels 999 asks for channel 999 of mid, which has channel 0 \.\.\. "):
        run_study(cu.Edit("mid", cu.Window(4, 1), view=cu.Channels(999)), steps=4)


def test_a_fill_is_given_the_part_alone(tiny_model: TextToImage) -> None:
    class Seen(Fill):
        shapes: list[tuple[int, ...]] = []  # noqa: RUF012

        def apply(self, value: Any) -> Any:
            self.shapes.append(tuple(value.shape))
            return value[:1] if len(self.shapes) > 1 else value.clone()

    site = cu.Site("mid") @ cu.Channels(0, 2) @ cu.Pixels((0, 3), (1, 2)) @ cu.Rows("cond")
    call = TracedUNet(tiny_model.unet, tiny_model.anatomy)
    action = Action(frozenset([PlacedFill(site, Seen())]))
    call(action, arguments(tiny_model), 2)
    assert Seen.shapes == [(2, 2, 3, 1)]
    with pytest.raises(SpecError, match=r"gave \(1, 2, 3, 1\) float32 for \(2, 2, 3, 1\)"):
        call(action, arguments(tiny_model), 2)
