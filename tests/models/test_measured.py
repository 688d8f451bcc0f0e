"""What a call on the meta device tells, and networks that cannot be called there."""

from __future__ import annotations

import copy

import torch
from torch import nn

from causalunet.models.measured import largest_output


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 2, 3, padding=1, stride=2))


def test_the_widest_output_of_a_network_is_found_without_its_weights() -> None:
    assert largest_output(network().to("meta"), torch.empty(1, 3, 6, 4, device="meta")) == 8 * 6 * 4


def test_a_method_that_was_replaced_on_the_module_reads_the_originals_weights() -> None:
    """So it cannot be called on the meta device, and the network is called as it is."""
    replaced = network()
    first = replaced[0]
    before = copy.deepcopy(replaced.state_dict())
    own = first.forward

    def of_the_original(given: torch.Tensor) -> torch.Tensor:  # a copy of the module keeps this very function
        return own(given)

    first.forward = of_the_original  # type: ignore[method-assign, assignment]
    assert largest_output(replaced, torch.empty(1, 3, 6, 4, device="meta")) == 8 * 6 * 4
    assert all(torch.equal(value, before[name]) for name, value in replaced.state_dict().items())
