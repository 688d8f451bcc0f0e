"""Weights as places: every edit equals one of a copy of the network by hand, and none outlasts its call."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import causalunet as cu
from causalunet.design.fills import Fill
from causalunet.errors import ComponentError, SpecError
from causalunet.execute import TracedUNet
from causalunet.execute.call.installed import InstalledUNet
from causalunet.execute.call.visits import CallContext
from causalunet.execute.walk.generate import generate
from causalunet.models import round_weights
from causalunet.models.text_to_image import TextToImage
from causalunet.plan import Action, PlacedFill
from tests.execute.test_inner_places import arguments_of

tiny = pytest.importorskip("tests.models.pipelines.tiny")


@functools.cache
def model_of(name: str) -> Any:
    return cu.load_model("shapes-flow") if name == "flow" else cu.from_pipeline(getattr(tiny, name)())


def weights_of(model: Any) -> list[Any]:
    return [place for place in model.anatomy.inner if place.weight]


def both(model: Any, act: Action, arguments: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The output under an action, traced and installed, which are the same."""
    context = CallContext(3, 1000)
    with torch.no_grad():
        traced = TracedUNet(model.unet, model.anatomy)(act, arguments, 2, context=context).output
        with InstalledUNet(model.unet, model.anatomy) as installed:
            assert torch.equal(installed(act, arguments, 2, context=context).output, traced)
    return traced


class Halved(nn.Module):
    """A parametrization of torch's."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * 0.5


def action(site: cu.Site, fill: Fill) -> Action:
    return Action(frozenset([PlacedFill(site, fill)]))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ["openai", "flow", "stable_diffusion", "dit", "pixart"])
def test_an_edit_equals_a_parametrization_and_a_copy_changed_by_hand(name: str, tiny_model: TextToImage) -> None:
    model: Any = tiny_model if name == "openai" else model_of(name)
    arguments, before = arguments_of(model), copy.deepcopy(model.unet.state_dict())
    places = weights_of(model)
    for place in (places[0], places[len(places) // 2], places[-1]):
        halved = copy.deepcopy(model.unet)
        parametrize.register_parametrization(halved.get_submodule(place.module), "weight", Halved())
        with torch.no_grad():
            expected = halved(*arguments)
            assert torch.equal(both(model, action(cu.Site(place.name), cu.Scale(0.5)), arguments), expected)
            by_hand = copy.deepcopy(model.unet)
            by_hand.get_submodule(place.module).weight[[0, 2]] = 0
            expected = by_hand(*arguments)
        assert torch.equal(both(model, action(cu.Site(place.name) @ cu.Channels(0, 2), cu.Zero()), arguments), expected)
        assert not torch.equal(expected, model.unet(*arguments))
    after = model.unet.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_weights_are_put_back_where_a_call_ends_in_an_error(tiny_model: TextToImage) -> None:
    arguments, place = arguments_of(tiny_model), weights_of(tiny_model)[3]
    own = tiny_model.unet.get_submodule(place.module).weight
    handle = tiny_model.unet.get_submodule(place.module).register_forward_hook(_broken)
    act = action(cu.Site(place.name), cu.Scale(0.5))
    try:
        for unet in (
            TracedUNet(tiny_model.unet, tiny_model.anatomy),
            InstalledUNet(tiny_model.unet, tiny_model.anatomy),
        ):
            with pytest.raises(Exception, match="broken"):
                unet(act, arguments, 2)
    finally:
        handle.remove()
    assert tiny_model.unet.get_submodule(place.module).weight is own
    assert isinstance(own, nn.Parameter)


def _broken(*_: Any) -> None:
    raise RuntimeError("broken")


@pytest.mark.thorough
def test_a_study_edits_weights_in_a_window_and_nothing_else(tiny_model: TextToImage, run_study: Any) -> None:
    window, place = cu.Window(3, 2), "up.1.weights.0.in_layers.2"
    edits = [
        cu.Edit(place, window, cu.Scale(0.5)),
        cu.Edit(cu.Site(place) @ cu.Channels(0, 1), window),
        cu.Edit(place, window, cu.AddNoise(0.5, seed=3)),
        cu.Edit("mid", window, cu.Scale(0.9)),
    ]
    before = copy.deepcopy(tiny_model.unet.state_dict())
    results = run_study(*edits, steps=4)
    assert results.verify(quiet=True), str(results.verify(quiet=True))
    alone = run_study(edits[-1], steps=4)
    # Later calls are shared with other runs, so their batches differ.
    np.testing.assert_allclose(results.baseline.image, alone.baseline.image, rtol=0, atol=1e-6)
    mid = (results.outcomes.image.sel(kind="edit")[3], alone.outcomes.image.sel(kind="edit")[0])
    np.testing.assert_allclose(*mid, rtol=0, atol=1e-6)
    assert results["audit"].declared.sel(place=place).sum("step").values.tolist()[:4] == [2, 2, 2, 0]
    assert float(results.outcomes.mse[:3].min()) > 0
    for number, edit in enumerate(edits):
        got = generate(
            ("a red circle", "a striped blue cross, dark background"),
            model=tiny_model,
            sampler=cu.DDPM(steps=4, guidance_scale=3.0),
            intervention=edit,
            traced=False,
        )
        np.testing.assert_allclose(got, results.outcomes.image[number], atol=1e-5)
    distance = results.trajectory.eps_distance[0]
    assert (distance.sel(step=4) == 0).all()
    assert (distance.sel(step=3) > 0).all()
    assert all(torch.equal(value, before[key]) for key, value in tiny_model.unet.state_dict().items())


def test_rounding_throughout_is_the_model_with_rounded_weights(tiny_model: TextToImage) -> None:
    arguments, names = arguments_of(tiny_model), {place.module: place.name for place in weights_of(tiny_model)}
    few = cu.Quantize(3, per="channel", zero=True)
    act = Action(frozenset(PlacedFill(cu.Site(name), few) for name in names.values()))
    with torch.no_grad():
        expected = round_weights(tiny_model, 3, modules=names).unet(*arguments)
    assert torch.equal(both(tiny_model, act, arguments), expected)
    assert few == Fill.from_json(few.to_json())
    assert "zero" not in cu.Quantize(3).to_json()["configuration"]


def test_what_weights_cannot_be_is_told(tiny_model: TextToImage) -> None:
    place, window = "up.1.weights.0.in_layers.2", cu.Window(2, 1)
    for edit, message in (
        (cu.Edit(place, window, cu.Scale(0.5), branch="cond"), "same in all rows"),
        (cu.Edit(place, window, cu.Mean(n=2)), "other calls"),
        (cu.Edit(place, window, cu.Hold()), "other calls"),
        (cu.Edit(place, window, cu.Bypass()), "other calls|inside a block"),
        (cu.Edit(cu.Site(place) @ cu.Tokens(0), window), "token"),
        (cu.Edit(f"{place}x", window), "weights"),
        (cu.Edit(place, window) + cu.Edit("up.1", window), "could never fire"),
    ):
        with pytest.raises((ComponentError, SpecError), match=message):
            cu.Study(name="x", interventions=[edit], prompts=["a red circle"]).plan(tiny_model, calibrate=False)
    for summary in ("up.1.weights.*.*.*", cu.Site(place)):
        record = cu.Record(summary=summary)
        with pytest.raises(ComponentError, match=r"weights|No component"):
            cu.Study(name="x", interventions=[], prompts=["a red circle"], record=record).plan(
                tiny_model, calibrate=False
            )
    table = cu.sites(tiny_model)
    assert table.loc[place].to_dict() == {
        "what": "*.weights",
        "component": "up.1",
        "dims": "channel, input, tap_y, tap_x",
        "sizes": " x ".join(
            map(str, tiny_model.unet.get_submodule(tiny_model.anatomy.inner_by_name[place].module).weight.shape)
        ),
    }
