"""Components whose modules put out a tuple, against the same model whose modules put out a tensor each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import causalunet as cu
from causalunet.errors import ComponentError, ConformanceError, ModelError
from causalunet.execute.walk.generate import generate
from causalunet.testing import check_model

PLUGINS = Path(__file__).parents[1] / "plugins"
WINDOW = cu.Window(3, 2)


class Named(NamedTuple):
    """What a block of a tuple of names puts out."""

    weights: Any
    tokens: Tensor


class Several(nn.Module):
    """A block that puts out more than its tokens: weights of an attention, a number, nothing."""

    def __init__(self, block: nn.Module, form: str) -> None:
        super().__init__()
        self.block, self.form = block, form

    def forward(self, tokens: Tensor, time: Tensor) -> Any:
        found = self.block(tokens, time)
        weights = torch.softmax(found @ found.transpose(1, 2), dim=-1)
        forms: dict[str, Any] = {
            "tuple": (found, weights, torch.tensor(3.0), None),
            "list": [found, [weights]],
            "named": Named(weights, found),
        }
        return forms[self.form]


class Taking(nn.Module):
    """Takes the tokens out of what a block puts out, or more than that."""

    def __init__(self, block: Several, port: int, greedy: bool) -> None:
        super().__init__()
        self.several, self.port, self.greedy = block, port, greedy

    def forward(self, tokens: Tensor, time: Tensor) -> Tensor:
        found = self.several(tokens, time)
        return found[self.port] + (found[1].mean() if self.greedy else 0)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes the guest's stack of transformer blocks: as it is, or with blocks that put out several things."""
    monkeypatch.syspath_prepend(PLUGINS)
    from guests.stack import StackModel

    def make(form: str = "", *, greedy: bool = False, output: int | None = 0) -> Any:
        model = StackModel()
        if form:
            port = 1 if form == "named" else 0
            model.unet.blocks = nn.ModuleList(
                Taking(Several(block, form), port, greedy and number == 1)
                for number, block in enumerate(model.unet.blocks)
            )
            components = tuple(
                replace(one, module=f"{one.module}.several", output=output if output is None else port)
                for one in model.anatomy.components
            )
            model.anatomy = replace(model.anatomy, components=components)
        return model

    yield make
    for name in [name for name in sys.modules if name.partition(".")[0] == "guests"]:
        del sys.modules[name]


def study(*interventions: Any) -> cu.Study:
    return cu.Study(
        name="ports",
        prompts=["one", "two"],
        sampler=cu.DDPM(steps=4, guidance_scale=1),
        interventions=interventions,
        record=cu.Record(activations=("block.1",), summary="*", of="all", dtype="float32"),
    )


INTERVENTIONS = (
    cu.Edit(cu.Site("block.1") @ cu.Channels(range(4)), WINDOW, cu.Scale(0.5)),
    cu.Edit("block.2", WINDOW, cu.Zero()),  # blocks before it are dead
    cu.Edit("block.1", cu.Window(2, 1), cu.Hold()),
)


@pytest.mark.thorough
@pytest.mark.parametrize("form", ["tuple", "list", "named"])
def test_results_are_those_of_blocks_that_put_out_a_tensor(form: str, models: Any, tmp_path: Path) -> None:
    plain = study(*INTERVENTIONS).run(tmp_path / "plain.zarr", model=models(), progress=False)
    several = study(*INTERVENTIONS).run(tmp_path / "several.zarr", model=models(form), progress=False)
    assert several.verify(quiet=True), str(several.verify(quiet=True))
    np.testing.assert_allclose(several.outcomes.image, plain.outcomes.image, atol=1e-6)
    changed = np.abs(plain.outcomes.image - plain.baseline.image).max(("sample", "channel", "y", "x"))
    assert (changed.sel(kind="edit") > 1e-5).all()
    for path in ("activations/block.1/baseline", "activations/block.1/intervened", "activation_summary/mean"):
        np.testing.assert_allclose(several[path], plain[path], atol=1e-5)
    np.testing.assert_array_equal(several.outcomes.flops, plain.outcomes.flops)


def test_cuts_that_are_installed_take_them_too(models: Any) -> None:
    for cut in INTERVENTIONS:
        given: dict[str, Any] = {"sampler": cu.DDPM(steps=4, guidance_scale=1), "intervention": cut}
        plain, several = models(), models("tuple")
        expected = generate(("one",), (3,), model=plain, traced=True, memory=1 << 30, **given)
        found = generate(("one",), (3,), model=several, traced=False, memory=1 << 30, **given)
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("form", ["tuple", "list", "named"])
def test_the_kit_passes_them(form: str, models: Any) -> None:
    assert check_model(models(form), ["anything"])


def test_a_part_beside_that_goes_on_is_refused(models: Any) -> None:
    model = models("tuple", greedy=True)
    with pytest.raises(ModelError, match=r"what block\.2 is given depends on another part of what block\.1 puts out"):
        study(*INTERVENTIONS).plan(model, calibrate=False)
    with pytest.raises(ConformanceError, match=r"joints: .*another part"):
        check_model(model, ["anything"])


def test_a_tuple_of_which_no_part_is_said_is_told(models: Any) -> None:
    with pytest.raises(ModelError, match=r"block\.0 .* puts out a tuple, \(token, channel\), .*output=0"):
        study(*INTERVENTIONS).plan(models("tuple", output=None), calibrate=False)
    model = models("tuple")
    components = tuple(replace(one, output=7) for one in model.anatomy.components)
    model.anatomy = replace(model.anatomy, components=components)
    with pytest.raises(ModelError, match="puts out a tuple"):
        study(*INTERVENTIONS).plan(model, calibrate=False)
    with pytest.raises(ComponentError, match="output=-1; give the place of a tensor"):
        replace(components[0], output=-1)
