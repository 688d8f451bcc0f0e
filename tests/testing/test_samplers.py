"""The kit tells what is wrong with a sampler, and lets pass what is right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

import causalunet as cu
from causalunet.design.samplers import DDIM, SAMPLERS, Sampler
from causalunet.errors import ConformanceError, SpecError
from causalunet.testing import check_sampler

MEAN = DDIM.mean


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """What a test registers is gone after it."""
    with SAMPLERS.scoped():
        yield


def own(mean: Callable[..., Any] | None = None, **members: Any) -> Any:
    """DDIM's steps, but for what is given."""
    given = {} if mean is None else {"mean": mean}
    kind: Any = type("Own", (DDIM,), {"name": "own", **given, **members})
    return dataclass(frozen=True, kw_only=True)(kind)(steps=9)


def in_place(self: Any, state: Any, estimates: Any, at: Any, to: Any) -> Any:
    state.x[...] = state.x * 0.5
    return MEAN(self, state, estimates, at, to)


def random(self: Any, state: Any, estimates: Any, at: Any, to: Any) -> Any:
    return MEAN(self, state, estimates, at, to) + (0 if to.alpha_bar == 1 else torch.randn(1))


def seeded(self: Any, state: Any, estimates: Any, at: Any, to: Any) -> Any:
    torch.manual_seed(0)
    return random(self, state, estimates, at, to)


def over_rows(self: Any, state: Any, estimates: Any, at: Any, to: Any) -> Any:
    return MEAN(self, state, estimates, at, to) + (0 if to.alpha_bar == 1 else state.x.mean())


def not_there(self: Any, state: Any, estimates: Any, at: Any, to: Any) -> Any:
    return MEAN(self, state, estimates, at, to) + (float("inf") if to.alpha_bar == 1 else 0)


def by_signal(self: Any, state: Any, estimates: Any, at: Any, to: Any) -> Any:
    return MEAN(self, state, estimates, at, to) + 0 * state.x / at.alpha_bar


def further_back(self: Any, state: Any, estimates: Any, at: Any, to: Any) -> Any:
    older = sum(moment.x0 for moment in state.past[1:])
    return MEAN(self, state, estimates, at, to) + (0 if to.alpha_bar == 1 else older)


def with_torch(self: Any, state: Any, estimates: Any, at: Any, to: Any) -> Any:
    return torch.add(MEAN(self, state, estimates, at, to), 0)


def other_in_numpy(self: Any, state: Any, estimates: Any, at: Any, to: Any) -> Any:
    return MEAN(self, state, estimates, at, to) + (0.1 if isinstance(state.x, np.ndarray) else 0)


TRUE = property(lambda self: True)
WRONG: dict[str, tuple[Callable[[], Any], str, str]] = {
    "nothing said": (lambda: own(Sampler.mean), "steps taken", "NotImplementedError: own"),
    "another type": (
        lambda: own(lambda *given: MEAN(*given).double()),
        "steps taken",
        r"mean\(\) gave .*float64 for a step",
    ),
    "a past that is not there": (
        lambda: own(lambda self, state, *rest: MEAN(self, state, *rest) + state.past[0].x * 0, history=1),
        "steps taken",
        "IndexError",
    ),
    "written in place": (lambda: own(in_place), "untouched", r"from alpha_bar .* wrote into its state or estimates"),
    "random": (lambda: own(random), "repeatable", "something else the second time"),
    "the user's random numbers": (lambda: own(seeded), "repeatable", "drew or seeded PyTorch's random numbers"),
    "a mean over rows": (
        lambda: own(over_rows),
        "rows apart",
        r"row 0 of a step from alpha_bar .* beside other samples",
    ),
    "not finite": (lambda: own(not_there), "finite", r"to 1 gives numbers that are not finite\. At the image"),
    "a division by the signal": (lambda: own(by_signal), "finite", "a step from noise alone, where at.alpha_bar is 0"),
    "further back than is kept": (lambda: own(further_back, history=1), "history", "looks further back than 1 steps"),
    "another image": (
        lambda: own(lambda *given: MEAN(*given) * 1.01),
        "image",
        r"something else than x0 where all calls agree",
    ),
    "noise of no size": (
        lambda: own(draws=TRUE, spread=lambda self, *rest: 0.0),
        "noise",
        r"says that it draws noise, and spread\(\) is above 0 in no step",
    ),
    "torch only": (lambda: own(with_torch), "NumPy", r"mean\(\) of NumPy's arrays ended in TypeError"),
    "other numbers of NumPy's": (lambda: own(other_in_numpy), "NumPy", "gives NumPy's arrays other numbers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_sampler_is_told(name: str) -> None:
    build, check, message = WRONG[name]
    with pytest.raises(ConformanceError, match=rf"(?s)the sampler 'own' fails .*{check}: .*{message}"):
        check_sampler(build())


@pytest.mark.parametrize("name", ["written in place", "further back than is kept", "another image", "noise of no size"])
def test_one_failure_is_one_line(name: str) -> None:
    build, check, _ = WRONG[name]
    with pytest.raises(ConformanceError) as told:
        check_sampler(build())
    assert [finding.check for finding in told.value.report.findings if finding.problems] == [check]


def test_what_is_no_field_does_not_come_back() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Kept(DDIM):
        name = "kept"
        grid: Any = field(default=())

    with pytest.raises(ConformanceError, match="JSON: it came back from JSON as"):
        check_sampler(Kept(grid=(1, 2)))


@pytest.mark.parametrize(
    "build",
    [
        lambda: cu.DDPM(steps=20),
        DDIM,
        lambda: DDIM(eta=0.5, guidance_scale=1),
        lambda: own(draws=TRUE, spread=lambda self, *rest: 1.0),
    ],
    ids=["DDPM", "DDIM", "DDIM with noise", "own"],
)
def test_what_is_right_passes(build: Callable[[], Sampler]) -> None:
    state = torch.get_rng_state()
    assert check_sampler(build())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("given", [cu.DDPM, 3], ids=["class", "number"])
def test_what_is_no_sampler(given: Any) -> None:
    with pytest.raises(SpecError, match=r"is no sampler\. Give an instance"):
        check_sampler(given)
