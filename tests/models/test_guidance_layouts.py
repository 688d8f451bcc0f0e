"""Networks whose own loops guide in other ways: edits of a branch are in its rows, wherever these are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import causalunet as cu
from causalunet.errors import ModelError, PromptError, SpecError
from causalunet.models.networks import from_network
from causalunet.noise import initial_noise
from causalunet.schedule import linear_alpha_bar
from causalunet.testing import check_model

SCALE, SHAPE, TIMES, WINDOW = 2.5, (1, 12, 12), (999, 666, 333, 0), cu.Window(3, 2)
NULL = 2


def block(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.Tanh())


class Classes(nn.Module):
    """Two blocks and a skip connection, told a class, and a guidance scale if it is one that was distilled."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.labels = nn.Embedding(3, 4)
        nn.init.normal_(self.labels.weight, std=2.0)
        self.down, self.mid = block(5, 4), block(4, 4)
        self.up, self.out = block(8, 4), nn.Conv2d(4, 1, 1)

    def forward(self, x: Tensor, timesteps: Tensor, labels: Tensor, scale: Tensor | None = None) -> Tensor:
        told = self.labels(labels) * (1 + timesteps[:, None] / 1000)
        if scale is not None:
            told = told * scale[:, None]
        first = self.down(torch.cat([x, told[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1))
        return self.out(self.up(torch.cat([self.mid(first), first], dim=1)))


def label(value: int) -> Tensor:
    return torch.tensor([value])


Cut = Callable[[slice], Any]
"""A context in which some rows of a block's output are zeros."""


def cond_first(net: nn.Module, x: Tensor, t: Tensor, cut: dict[str, Cut]) -> Tensor:
    with cut["cond"](slice(0, 1)), cut["uncond"](slice(1, 2)):
        cond, uncond = net(torch.cat([x, x]), torch.cat([t, t]), torch.tensor([1, NULL])).split(1)
    return uncond + SCALE * (cond - uncond)


def uncond_first(net: nn.Module, x: Tensor, t: Tensor, cut: dict[str, Cut]) -> Tensor:
    with cut["cond"](slice(1, 2)), cut["uncond"](slice(0, 1)):
        uncond, cond = net(torch.cat([x, x]), torch.cat([t, t]), torch.tensor([NULL, 1])).split(1)
    return uncond + SCALE * (cond - uncond)


def in_turn(net: nn.Module, x: Tensor, t: Tensor, cut: dict[str, Cut]) -> Tensor:
    with cut["uncond"](slice(0, 1)):
        uncond = net(x, t, label(NULL))
    with cut["cond"](slice(0, 1)):
        return uncond + SCALE * (net(x, t, label(1)) - uncond)


def embedded(net: nn.Module, x: Tensor, t: Tensor, cut: dict[str, Cut]) -> Tensor:
    with cut["cond"](slice(0, 1)):
        return net(x, t, label(1), torch.tensor([SCALE]))


def unguided(net: nn.Module, x: Tensor, t: Tensor, cut: dict[str, Cut]) -> Tensor:
    with cut["cond"](slice(0, 1)):
        return net(x, t, label(1))


GUIDED = {"conditional first": cond_first, "unconditional first": uncond_first, "two calls in turn": in_turn}
ALL = {**GUIDED, "embedded": embedded, "none": unguided}


def by_hand(net: nn.Module, predicted: Any, place: str, branch: str) -> NDArray[np.float32]:
    """Sample by DDIM in the network's own layout, a block's output or the skip connection cut in one branch."""

    @contextmanager
    def rows_cut(rows: slice) -> Iterator[None]:
        def leaving(_: Any, __: Any, output: Tensor) -> Tensor:
            output = output.clone()
            output[rows] = 0
            return output

        def entering(_: Any, given: tuple[Tensor]) -> tuple[Tensor]:
            joined = given[0].clone()
            joined[rows, 4:] = 0
            return (joined,)

        module: Any = net.up
        middle: Any = net.mid
        skip = place == "skip.0"
        handle = module.register_forward_pre_hook(entering) if skip else middle.register_forward_hook(leaving)
        yield
        handle.remove()

    @contextmanager
    def nothing(_: slice) -> Iterator[None]:
        yield

    share, x = linear_alpha_bar(), torch.from_numpy(initial_noise([5], SHAPE))
    for step, (at, to) in enumerate(zip(TIMES, (*TIMES[1:], None), strict=True)):
        inside = 4 - step in (3, 2)
        cut = {one: rows_cut if inside and branch in (one, "both") else nothing for one in ("cond", "uncond")}
        with torch.no_grad():
            eps = predicted(net, x, torch.tensor([at]), cut)
        later = 1.0 if to is None else share[to]
        x0 = (x - (1 - share[at]) ** 0.5 * eps) / share[at] ** 0.5
        x = later**0.5 * x0 + (1 - later) ** 0.5 * eps
    return ((x[0].clamp(-1, 1) + 1) / 2).numpy()


def model_of(net: nn.Module, **more: Any) -> Any:
    parts = {"down.0": "down", "mid": "mid", "up.0": "up"}
    given = {"image_shape": SHAPE, "alpha_bar": linear_alpha_bar(), "classes": 3, "null_class": NULL, "clip": False}
    return from_network(net, name="classes", parts=parts, whole_timesteps=True, **{**given, **more})


def images(tmp_path: Path, model: Any, scale: float, branches: tuple[Any, ...]) -> dict[tuple[str, str], Any]:
    edits = {
        (place, branch): cu.Edit(place, WINDOW, branch=branch) for place in ("mid", "skip.0") for branch in branches
    }
    sampler = cu.DDIM(steps=4, guidance_scale=scale)
    study = cu.Study(name="x", prompts=["1"], seeds=[5], sampler=sampler, interventions=[*edits.values()])
    results = study.run(tmp_path / "s.zarr", model=model, progress=False)
    assert results.verify(quiet=True)
    return dict(zip(edits, results.outcomes.image.sel(kind="edit").values[:, 0], strict=True))


def test_rows_of_a_branch_are_those_of_the_networks_own_layout(tmp_path: Path) -> None:
    net = Classes()
    found = images(tmp_path, model_of(net), SCALE, ("cond", "uncond", "both"))
    for (place, branch), image in found.items():
        for layout, predicted in GUIDED.items():
            expected = by_hand(net, predicted, place, branch)
            np.testing.assert_allclose(image, expected, rtol=0, atol=5e-5, err_msg=f"{place} {branch} {layout}")
        others = [other for (where, which), other in found.items() if where == place and which != branch]
        assert min(float(np.abs(image - other).max()) for other in others) > 1e-3


@pytest.mark.sampled(1)
@pytest.mark.parametrize("layout", ["embedded", "none"])
def test_without_rows_of_another_branch_all_are_conditional(tmp_path: Path, layout: str) -> None:
    net = Classes()

    def told_scale(network: nn.Module, x: Tensor, timesteps: Tensor, labels: Tensor) -> Tensor:
        return network(x, timesteps, labels, torch.full((len(x),), SCALE, device=x.device))

    model = model_of(net, **({"call": told_scale} if layout == "embedded" else {}))
    found = images(tmp_path, model, 1.0, ("cond", "both"))
    for (place, branch), image in found.items():
        expected = by_hand(net, ALL[layout], place, "cond")
        np.testing.assert_allclose(image, expected, rtol=0, atol=1e-5, err_msg=f"{place} {branch}")
    with pytest.raises(SpecError, match="has no unconditional rows, so the edit could never fire"):
        images(tmp_path, model, 1.0, ("uncond",))


def test_guidance_wants_a_condition_that_can_be_left_out(tmp_path: Path) -> None:
    """Without a class that stands for none the label of the unconditional rows would be no class at all."""
    for more in (
        {"null_class": None},
        {"null_class": None, "classes": None, "call": lambda net, x, t, _: net(x, t, 0 * t)},
    ):
        model = model_of(Classes(), **more)
        assert not model.guidable
        with pytest.raises(ModelError, match="nothing to guide from"):
            images(tmp_path, model, SCALE, ("cond",))
        assert check_model(model, ["0", "1"])
    study = cu.Study(
        name="x",
        prompts=[cu.NO_PROMPT],
        sampler=cu.DDIM(steps=2, guidance_scale=1),
        interventions=[cu.Edit("mid", cu.Window(2, 1))],
    )
    with pytest.raises(PromptError, match="NO_PROMPT"):
        study.run(tmp_path / "s.zarr", model=model_of(Classes(), null_class=None), progress=False)
    assert study.run(tmp_path / "s.zarr", model=model, progress=False).verify(quiet=True)
