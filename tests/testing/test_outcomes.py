"""The kit for outcomes: it passes those of the package, and names what is wrong with others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from causalunet.design.outcomes import (
    MSE,
    OUTCOMES,
    PSNR,
    SSIM,
    EstimateDistance,
    FactorReading,
    HistogramDistance,
    MultiScaleSSIM,
    NoiseDistance,
    Outcome,
    OutcomeContext,
)
from causalunet.errors import ConformanceError, SpecError
from causalunet.testing import check_outcome


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    with OUTCOMES.scoped():
        yield


@pytest.mark.parametrize(
    "outcome",
    [SSIM(), PSNR(), MSE(), MultiScaleSSIM(2), HistogramDistance(), EstimateDistance(3), NoiseDistance(8)],
    ids=lambda one: one.variable,
)
def test_outcomes_of_the_package_pass(outcome: Outcome) -> None:
    assert check_outcome(outcome)


def test_what_reads_factors_passes_with_a_reader() -> None:
    def read(images: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        bright = images.mean(axis=(1, 2, 3))[:, None]
        return (bright > 0.5).astype(np.int64), np.clip(bright, 0, 1)

    assert check_outcome(FactorReading(), read_factors=read, factors={"brightness": ("dark", "light")})
    with pytest.raises(ConformanceError, match=r"measured: .*the model has none"):
        check_outcome(FactorReading())


@dataclass(frozen=True, slots=True)
class Planted(Outcome):
    """Mean absolute difference, with one fault."""

    name: ClassVar[str] = "planted"
    definition: ClassVar[str] = "Mean absolute difference."
    better: ClassVar[Any] = "lower"
    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)
    fault: str = ""

    def measure(self, images: Any, baseline: Any, context: OutcomeContext) -> Any:
        values = np.abs(images - baseline).mean(axis=(-3, -2, -1), dtype=np.float64)
        if self.fault == "pooled":
            return values - values.mean() + 0.5
        if self.fault == "random":
            return values + 0.01 * np.random.default_rng().random(values.shape)
        if self.fault == "in place":
            images -= baseline
        if self.fault == "baseline in place":
            baseline *= 0.5
        if self.fault == "raises":
            raise RuntimeError("no such luck")
        turned = {"wrong way": 1 - values, "NaN": values / np.where(values == 0, np.nan, 1), "above": values + 2}
        return {**turned, "one number": values.mean(), "infinite": 1 / values}.get(self.fault, values)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("pooled", "images apart: planted of an image is .* beside others"),
        ("random", "repeatable: planted of the same images is another"),
        ("in place", "untouched: measure\\(\\) wrote into images"),
        ("baseline in place", "untouched: measure\\(\\) wrote into the baseline's images"),
        ("raises", "measured: .*RuntimeError: no such luck"),
        ("wrong way", "direction: planted holds images with noise for more alike than equal ones"),
        ("NaN", "in limits: planted is NaN"),
        ("infinite", "in limits: planted is NaN, or infinite without infinite = True"),
        ("above", "in limits: planted takes values from 2 .* outside of its limits 0 ... 1"),
        ("one number", "measured: .*shape \\(\\)"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_planted_faults_are_named(fault: str, told: str) -> None:
    assert check_outcome(Planted())
    with pytest.raises(ConformanceError, match=told):
        check_outcome(Planted(fault))


def test_outcomes_that_say_nothing_are_told() -> None:
    @dataclass(frozen=True, slots=True)
    class Silent(Planted):
        name: ClassVar[str] = "silent"
        definition: ClassVar[str] = ""

    with pytest.raises(ConformanceError, match="declared: silent has no definition"):
        check_outcome(Silent())

    class Unnamed(Outcome):
        pass

    with pytest.raises(ConformanceError, match="registered: Unnamed has no name"):
        check_outcome(Unnamed())
    with pytest.raises(SpecError, match="is no outcome"):
        check_outcome(3)  # type: ignore[arg-type]
