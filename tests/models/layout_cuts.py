"""Cuts by hooks in a network's own forward, beside the package's: what every layout is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import causalunet as cu
from causalunet.execute import TracedUNet
from causalunet.execute.call.visits import CallContext
from causalunet.plan import Action, PlacedFill

__all__ = ["Spot", "compare_cuts", "cut", "tensors_of"]


class Spot(NamedTuple):
    """Where a hook makes zeros: of what a module puts out, or of some of what it is given.

    ``channels`` are the last ones of its first argument; ``argument`` is a position; ``added`` is a module whose output
    the forward adds to its input: minus that makes the sum zero.
    """

    module: nn.Module
    channels: int = 0
    argument: int = 0
    added: bool = False


@contextmanager
def cut(spot: Spot) -> Iterator[None]:
    def entering(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
        if spot.argument:
            return (*given[: spot.argument], given[spot.argument] * 0, *given[spot.argument + 1 :])
        joined = given[0].clone()
        joined[:, -spot.channels :] = 0
        return (joined, *given[1:])

    def leaving(_: Any, given: tuple[Any, ...], output: Any) -> Any:
        if spot.added:
            return -given[0]
        return tuple(part * 0 for part in output) if isinstance(output, tuple) else output * 0

    enters = spot.channels or spot.argument
    handle = spot.module.register_forward_pre_hook(entering) if enters else spot.module.register_forward_hook(leaving)
    try:
        yield
    finally:
        handle.remove()


def tensors_of(model: Any, prompts: tuple[str, str], timesteps: tuple[float, float]) -> tuple[Tensor, ...]:
    """Arguments of a call of two rows."""
    x = torch.randn(2, *model.image_shape, generator=torch.Generator().manual_seed(1))
    return (x, torch.tensor(timesteps), *model.encode(list(prompts)))


@torch.inference_mode()
def compare_cuts(
    model: Any, spots: Mapping[str, Spot], arguments: tuple[Tensor, ...], original: Callable[[], Tensor]
) -> None:
    """Every place of a model is cut as by hand, and what is dead is left out; ``original`` calls the network itself."""
    assert set(spots) == {*model.anatomy.by_name, *model.anatomy.skips}
    traced = TracedUNet(model.unet, model.anatomy)
    whole = original()
    np.testing.assert_allclose(traced(Action(), arguments, 2).output, whole, rtol=0, atol=2e-6)
    left_out = 0
    for place, spot in spots.items():
        edit, dead = cu.Edit(place, cu.Window(1, 1)), model.anatomy.dead({place})
        found = traced(Action(frozenset({PlacedFill(edit.site, edit.fill)}), dead), arguments, 2).output
        with cut(spot):
            expected = original()
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6, err_msg=place)
        assert float((expected - whole).abs().max()) > 1e-4, place
        left_out += len(dead)
    assert left_out > len(spots)
    for place in (one for one in model.anatomy.passable if len(model.anatomy.by_name[one].modules) == 1):
        edit = cu.Edit(place, cu.Window(1, 1), cu.design.Bypass())
        action = Action(frozenset({PlacedFill(edit.site, edit.fill)}), model.anatomy.dead({place}, {place}))
        found = traced(action, arguments, 2, context=CallContext(1, 1000)).output
        handle = spots[place].module.register_forward_hook(lambda _, given, output: given[0])
        expected = original()
        handle.remove()
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6, err_msg=f"{place} passed by")
