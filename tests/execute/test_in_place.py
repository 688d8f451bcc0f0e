"""U-Nets that change a tensor in place after it was recorded, handed out or handed in."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from causalunet.execute.call.installed import InstalledUNet
from causalunet.execute.call.trace import TracedUNet
from causalunet.plan import Action
from tests.models.adapters import Network, anatomy_of


class Scaling(Network):
    """Multiplies the bottleneck's output in place, as FreeU does, and reuses one buffer for what it puts out."""

    def __init__(self) -> None:
        super().__init__(skips=True, middle=True)
        self.before: Tensor | None = None
        self.buffer = torch.empty(2, 6, 12, 12)

    def forward(self, x: Tensor, timesteps: Tensor, *context: Tensor) -> Tensor:
        time, kept, h = timesteps[:, None] / 1000, [], x
        for layer in self.down:
            h = layer(h, time)
            kept.append(h)
        assert self.mid is not None
        h = self.mid(h, time)
        self.before = h.clone()
        h[:, :2] *= 3
        for layer in self.up:
            h = layer(torch.cat([h, kept.pop()], dim=1), time)
        return self.buffer.copy_(self.out(h))


def scaling() -> Scaling:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Scaling().eval().requires_grad_(False)


def test_recorded_activations_are_those_of_the_component() -> None:
    unet = scaling()
    with torch.inference_mode():
        called = TracedUNet(unet, anatomy_of(unet))(Action(), (torch.zeros(2, 3, 12, 12), torch.ones(2)), 2, ("mid",))
    assert unet.before is not None
    torch.testing.assert_close(called.activations["mid"], unet.before, rtol=0, atol=0)


@pytest.mark.parametrize("caller", [TracedUNet, InstalledUNet])
def test_predictions_outlive_the_next_call(caller: Any) -> None:
    unet = scaling()
    with torch.inference_mode():
        call = caller(unet, anatomy_of(unet))
        first = call(Action(), (torch.zeros(2, 3, 12, 12), torch.ones(2)), 2).output
        before = first.clone()
        call(Action(), (torch.ones(2, 3, 12, 12), torch.ones(2)), 2)
    torch.testing.assert_close(first, before, rtol=0, atol=0)
