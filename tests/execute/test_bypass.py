"""Components passed by: what enters them goes on in place of what they would put out, and they do not run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import causalunet as cu
from causalunet.design import Fill, OwnInput
from causalunet.errors import ComponentError, ConformanceError, ModelError, SpecError
from causalunet.execute.call.installed import InstalledUNet
from causalunet.execute.call.trace import TracedUNet
from causalunet.execute.call.visits import CallContext
from causalunet.models.text_to_image import TextToImage
from causalunet.programs import Action, program_maker
from causalunet.testing import check_fill, check_model
from tests.execute.reference import blocks

PASSABLE = ("down.1", "mid")
NOW = cu.Window(1, 1)
COND = 1


@dataclass(frozen=True, slots=True)
class HalfResidual(Fill):
    """What a component makes of its input, half as far from it."""

    name: ClassVar[str] = "half_residual"

    @property
    def donors(self) -> tuple[Any, ...]:
        """What the component is given."""
        return (OwnInput(),)

    def put(self, value: Any, context: Any) -> Any:
        """In the middle."""
        return (value + context.donors[0]) / 2


@pytest.fixture(scope="module")
def arguments(tiny_model: TextToImage) -> tuple[Tensor, ...]:
    """Of a guided call, one sample."""
    context = [
        torch.cat(both) for both in zip(tiny_model.encode(["a red circle"]), tiny_model.encode([""]), strict=True)
    ]
    x = torch.randn(2, *tiny_model.image_shape, generator=torch.Generator().manual_seed(1))
    return (x, torch.tensor([700.0, 700.0]), *context)


@contextmanager
def by_hand(unet: nn.Module, change: dict[str, Any]) -> Iterator[None]:
    """Hooks in the plain module: ``change[name](given, output)`` is put out."""
    handles = [
        blocks(unet)[name].register_forward_hook(lambda _m, given, output, how=how: how(given[0], output))
        for name, how in change.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def action_of(model: TextToImage, *items: Any) -> Action:
    edits = [edit for item in items for edit in item.edits()]
    for item in items:
        model.anatomy.check(item)
    return program_maker(model.anatomy, 1)(edits)[0].action


def own(given: Tensor, output: Tensor) -> Tensor:
    return given.clone()


def zeros(given: Tensor, output: Tensor) -> Tensor:
    return torch.zeros_like(output)


def rows_of_cond(given: Tensor, output: Tensor) -> Tensor:
    return torch.cat([given[:COND], output[COND:]])


def channels(given: Tensor, output: Tensor) -> Tensor:
    return torch.cat([given[:, :2], output[:, 2:]], dim=1)


def middle(given: Tensor, output: Tensor) -> Tensor:
    return (given + output) / 2


CASES: dict[str, tuple[Any, dict[str, Any], set[str]]] = {
    **{place: (cu.Edit(place, NOW, cu.Bypass()), {place: own}, {place}) for place in PASSABLE},
    "two": (
        cu.Edit("down.1", NOW, cu.Bypass()) + cu.Edit("mid", NOW, cu.Bypass()),
        {"down.1": own, "mid": own},
        {"down.1", "mid"},
    ),
    "behind zeros": (
        cu.Edit("down.3", NOW, cu.Zero()) + cu.Edit("mid", NOW, cu.Bypass()),
        {"down.3": zeros, "mid": own},
        {"down.3", "mid"},
    ),
    "one branch": (cu.Edit("mid", NOW, cu.Bypass(), "cond"), {"mid": rows_of_cond}, set()),
    "channels": (cu.Edit("mid", NOW, cu.Bypass(), view=cu.Channels(range(2))), {"mid": channels}, set()),
    "half of the residual": (cu.Edit("mid", NOW, HalfResidual()), {"mid": middle}, set()),
}


def test_those_that_can_be_passed_by(tiny_model: TextToImage) -> None:
    assert tiny_model.anatomy.passable == PASSABLE


@pytest.mark.parametrize("caller", [TracedUNet, InstalledUNet])
@pytest.mark.parametrize("name", CASES)
def test_it_is_a_hook_that_gives_back_what_it_was_given(
    name: str, caller: Any, tiny_model: TextToImage, arguments: tuple[Tensor, ...]
) -> None:
    edit, change, dead = CASES[name]
    action = action_of(tiny_model, edit)
    assert action.dead == dead
    with torch.inference_mode():
        with by_hand(tiny_model.unet, change):
            expected = tiny_model.unet(*arguments)
        plain = tiny_model.unet(*arguments)
        called = caller(tiny_model.unet, tiny_model.anatomy)
        for one in (action, replace(action, dead=frozenset())):
            found = called(one, arguments, COND, context=CallContext(1, 1000)).output
            if caller is InstalledUNet:
                called.remove()
            assert torch.equal(found, expected)
    assert not torch.equal(plain, expected)


def test_the_block_costs_nothing(tiny_model: TextToImage, tmp_path: Path) -> None:
    study = cu.Study(
        name="bypass",
        prompts=["a red circle", "a striped cross"],
        sampler=cu.DDPM(steps=3, guidance_scale=3),
        interventions=[cu.Edit("mid", cu.Window(2, 2), cu.Bypass()), cu.Edit("mid", cu.Window(2, 2), cu.Zero())],
        record=cu.Record(summary="*", of="all"),
    )
    plan = study.plan(tiny_model, calibrate=False)
    anatomy, by_run = tiny_model.anatomy, {int(run): flops for run, flops in plan.flops_by_run.items()}
    assert by_run[-1] - by_run[0] == 2 * 2 * anatomy.by_name["mid"].flops > 0
    results = study.run(tmp_path / "s.zarr", model=tiny_model, progress=False)
    assert results.verify(quiet=True), str(results.verify(quiet=True))
    image = results.outcomes.image.sel(kind="edit").values
    assert np.abs(image[0] - image[1]).max() > 1e-5
    again = cu.Study.from_json(study.to_json())
    assert again == study
    assert study.interventions[0].label == "edit mid 2-1 bypass"


REFUSED: dict[str, tuple[Any, str]] = {
    "another shape": (cu.Edit("down.2", NOW, cu.Bypass()), "what it is given is no one tensor of the shape of what it"),
    "a path and a skip": (cu.Edit("up.1", NOW, cu.Bypass()), "what it is given is a path and skip.2"),
    "a skip connection": (cu.Edit("skip.1", NOW, cu.Bypass()), "a skip connection is no block"),
    "a fill of one's own": (cu.Edit("skip.1", NOW, HalfResidual()), "half_residual"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_elsewhere_it_is_refused_when_planning(name: str, tiny_model: TextToImage) -> None:
    edit, said = REFUSED[name]
    study = cu.Study(name="no", prompts=["a red circle"], sampler=cu.DDPM(steps=3), interventions=[edit])
    with pytest.raises(ComponentError, match=said) as told:
        study.plan(tiny_model, calibrate=False)
    assert "can be passed by: down.1, mid." in str(told.value)


def test_one_that_would_not_be_seen_is_refused(tiny_model: TextToImage) -> None:
    both = cu.Edit("mid", NOW, cu.Bypass()) + cu.AblateBlock(1, NOW)
    study = cu.Study(name="no", prompts=["a red circle"], sampler=cu.DDPM(steps=3), interventions=[both])
    with pytest.raises(SpecError, match="the edit of mid could never fire"):
        study.plan(tiny_model, calibrate=False)


def test_an_anatomy_that_is_wrong_about_inputs_is_told(
    tiny_model: TextToImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    anatomy = tiny_model.anatomy
    parts = [replace(one, input=1) if one.name == "mid" else one for one in anatomy.components]  # its timestep
    wrong = replace(anatomy, components=tuple(parts))
    monkeypatch.setattr(TextToImage, "anatomy", property(lambda self: wrong))
    study = cu.Study(name="no", prompts=["a red circle"], sampler=cu.DDPM(steps=3), interventions=[cu.Null(NOW)])
    with pytest.raises(ModelError, match=r"the input of mid is argument 1, of the shape of what it puts out"):
        study.plan(tiny_model, calibrate=False)
    with pytest.raises(ConformanceError, match=r"joints: .*input of mid"):
        check_model(tiny_model, ["a red circle"], places="mid")
    with pytest.raises(ComponentError, match="input=-1; give the position"):
        replace(parts[0], input=-1)


def test_the_kit_knows_them(tiny_model: TextToImage) -> None:
    assert check_fill(cu.Bypass())
    assert check_fill(HalfResidual())
    assert check_model(tiny_model, ["a red circle", "a cross"], places=("mid", "down.1"))
