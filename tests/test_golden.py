"""Samplers against numbers that the official code of their authors gave; see ``tests/golden/README.md``."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from causalunet.design.samplers import DDIM, SAMPLERS, Estimate, Sampler, State
from causalunet.schedule import Level
from tests.execute.test_several_calls import PseudoMultistep

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / "pndm.json").read_text())
MEAN, VARIANCE, NOISE = (np.array(GOLDEN[name]) for name in ("mean", "variance", "x"))
SHARES = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


def level(timestep: float) -> Level:
    """As that code has it: one timestep later, and cut to an integer."""
    return Level(timestep, float(SHARES[int(timestep) + 1]))


def estimate(x: NDArray[np.float64], at: Level) -> Estimate:
    """What the exact denoiser of the Gaussian says."""
    share = at.alpha_bar
    eps = np.sqrt(1 - share) * (x - np.sqrt(share) * MEAN) / (share * VARIANCE + 1 - share)
    return Estimate((x - np.sqrt(1 - share) * eps) / np.sqrt(share), eps, None, x, at)


@pytest.mark.parametrize(
    "run", [run for run in GOLDEN["runs"] if run["method"] != "S-PNDM"], ids=lambda r: f"{r['method']} {r['steps']}"
)
def test_trajectories_of_pndm_are_those_of_its_authors(run: dict[str, Any]) -> None:
    with SAMPLERS.scoped():
        kind: type[Sampler] = {"DDIM": DDIM, "F-PNDM": PseudoMultistep}[run["method"]]
        sampler = kind(steps=run["steps"])
    training: Any = SimpleNamespace(level=level)
    timesteps = list(range(0, 1000, 1000 // run["steps"]))[::-1]
    state, asked = State(NOISE), []
    for passed, (t, s) in enumerate(itertools.pairwise([*timesteps, -1])):
        at, to = level(t), level(s)
        estimates: tuple[Estimate, ...] = (estimate(state.x, at),)
        while len(estimates) < sampler.calls(at, to, passed):
            query = sampler.further(state, estimates, at, to, training)
            estimates = (*estimates, estimate(query.x, query.level))
        asked += [one.level.timestep for one in estimates]
        state = sampler.step(state, estimates, at, to, None)
        np.testing.assert_allclose(state.x, run["trajectory"][passed], rtol=0, atol=1e-12)
    assert asked == run["calls"]
