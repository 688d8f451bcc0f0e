"""DPM-Solver-v3, whose straight part comes from statistics of the model (Zheng et al. 2023)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from causalunet.calls import clear_calls
from causalunet.design.limits import shown
from causalunet.design.samplers.arithmetic import checked_order, half_log_snr
from causalunet.design.samplers.base import Estimate, Sampler, State
from causalunet.design.samplers.statistics import ModelStatistics, keep, statistics_named
from causalunet.errors import SpecError
from causalunet.schedule import Level, Schedule

__all__ = ["DPMSolverV3"]

_ROUNDING = 1e-6
"""Of half log SNR: levels at the ends of what was measured are computed in two ways."""
_SMALL = 1e-2
"""Of an exponent: below it differences of exponentials are summed up as series."""


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class DPMSolverV3(Sampler):
    """Solve exactly what of the model is straight by its statistics, and the rest by earlier steps.

    Parameters
    ----------
    steps : int
        Number of denoising steps T, spread over the training timesteps.
    guidance_scale : float
        Weight of the conditional over the unconditional prediction; 1 means no guidance and one row per call.
    guidance : Guidance, optional
        Another way to guide than by that scale.
    spacing : Spacing, optional
        At which timesteps the steps lie.
    statistics : str or ModelStatistics, optional
        Of the model and this guidance, or their digest, which is what is kept. Without them l = 1, s = b = 0, which is
        DPM-Solver++ with whole integrals.
    order : int
        Of the predictor: 1, 2 or 3. The first steps of a run are of lower order, and the step to the image gives the
        last estimate.
    corrector : bool
        Correct each predicted state by what the U-Net says there, with the same call; order 1 has nothing to correct.
    pseudo_predictor, pseudo_corrector : bool
        Take divided differences for derivatives, as if points were one; the corrector has one point more then, and
        corrects order 1 too. The paper advises it for few steps.
    official : bool
        Integrate by trapezoids between the levels of the statistics, as the authors' code does. Otherwise exponents are
        straight between these levels, so that statistics that are constant are integrated exactly.

    Notes
    -----
    Zheng et al. 2023, equations 8 and 11 and algorithms 1 and 2: with L, S the integrals of l and s from where a step
    begins,

        x_t / alpha_t = exp(-L_t) (x_s / alpha_s - int exp(L + S) (g + B)),   B = int exp(-S) b,

    and g = exp(-S) f - B is a polynomial in lambda through this step and those before. The state x_t is the predicted
    one, at which the U-Net is asked; a step begins by correcting it: f at a state is by definition not moved by that.
    """

    name: ClassVar[str] = "dpm_solver_v3"
    elementwise: ClassVar[bool] = False
    history: ClassVar[int] = 3

    statistics: str | ModelStatistics | None = None
    order: int = 2
    corrector: bool = True
    pseudo_predictor: bool = False
    pseudo_corrector: bool = False
    official: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.statistics, ModelStatistics):
            object.__setattr__(self, "statistics", keep(self.statistics))
        super(DPMSolverV3, self).__post_init__()
        checked_order("DPMSolverV3", self.order)
        if self.statistics is not None and not isinstance(self.statistics, str):
            raise SpecError(
                f"DPMSolverV3 got statistics={shown(self.statistics)}; give what causalunet.model_statistics made, or "
                "its digest."
            )
        for name in ("corrector", "pseudo_predictor", "pseudo_corrector", "official"):
            if not isinstance(getattr(self, name), bool):
                raise SpecError(f"DPMSolverV3 got {name}={shown(getattr(self, name))}; it is True or False.")

    @property
    def missing(self) -> str:
        """Its statistics, where they are not known in this process."""
        try:
            self._measured()
        except SpecError:
            return f"the statistics {shown(self.statistics)} of a model (see causalunet.load_statistics)"
        return ""

    def check_model(self, model: Any, schedule: Schedule) -> None:
        """See that the statistics are there, of this model and guidance, and reach over the run."""
        if self.statistics is None:
            return
        known, guidance = self._measured(), self.guided_by.to_json()
        if known.fingerprint != model.fingerprint:
            raise SpecError(
                f"The statistics {known.digest} are of the model {known.fingerprint}, and the study's model "
                f"{model.name!r} is {model.fingerprint}. Make its own with causalunet.model_statistics(model)."
            )
        if known.guidance != guidance:
            raise SpecError(
                f"The statistics {known.digest} were measured under the guidance {dict(known.guidance)}, and the "
                f"sampler has {guidance}. Make others with causalunet.model_statistics(model, guidance=...)."
            )
        ends = [schedule.log_snr(step) / 2 for step in (schedule.steps, 1)]
        first, last = known.half_log_snr[[0, -1]]
        if ends[0] < first - _ROUNDING or ends[1] > last + _ROUNDING:
            raise SpecError(
                f"The run goes from half log SNR {ends[0]:.4g} to {ends[1]:.4g}, and the statistics {known.digest} "
                f"from {first:.4g} to {last:.4g}. Give the sampler a spacing within, or make statistics of more levels."
            )

    def _measured(self) -> ModelStatistics:
        return _plain() if self.statistics is None else statistics_named(str(self.statistics))

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """Correct the state, and predict the next."""
        now = estimates[0]
        if to.alpha_bar == 1:
            return now.x0
        x, before = state.x, state.past[: self.order]
        if before and self.corrector:
            count = len(before) + self.pseudo_corrector - 1
            reached = (before[0], now, *before[1:])[: count + 1]
            # Both go on from the same corrected state, so that their difference does not have it in it.
            predicted = self._bent(before, at, pseudo=self.pseudo_predictor)
            x = x + (self._bent(reached, at, pseudo=self.pseudo_corrector) - predicted if count else 0.0)
        known = (now, *state.past)[: self.order]
        over = self._over(at, to)
        line = _as(x, over.kept) * x - _as(x, over.gone[0]) * self._f(now, at) - _as(x, over.shift)
        return line + self._bent(known, to, pseudo=self.pseudo_predictor)

    def _over(self, at: Level, to: Level) -> _Step:
        """What a step is made of that hangs on the statistics alone."""
        ends = (math.sqrt(at.alpha_bar), half_log_snr(at)), (math.sqrt(to.alpha_bar), half_log_snr(to))
        return _step(self._measured(), *ends, self.official)

    def _f(self, estimate: Estimate, base: Level) -> Any:
        """G of an estimate, from where a step begins: f is (1 - l) x / alpha - x_0."""
        place, begin = half_log_snr(estimate.level), half_log_snr(base)
        linear, faded, drift = _drift(self._measured(), begin, place, self.official)
        x = estimate.x
        f = _as(x, (1 - linear) / math.sqrt(estimate.level.alpha_bar)) * x - estimate.x0
        return f if place == begin else _as(x, faded) * f - _as(x, drift)

    def _bent(self, known: Sequence[Estimate], to: Level, *, pseudo: bool) -> Any:
        """What the bend of g adds over a step, from the first of the estimates on."""
        base = known[0].level
        gone = self._over(base, to).gone
        values = [self._f(one, base) for one in known]
        places = [half_log_snr(one.level) for one in known]
        found = 0.0 * values[0]
        for power, derivative in enumerate(_derivatives(places, values, pseudo=pseudo), 1):
            found = found - _as(found, gone[power]) * derivative
        return found


class _Step(NamedTuple):
    """Of a step, each (channel, y, x).

    Attributes
    ----------
    kept
        What x is multiplied by.
    gone
        What g and its derivatives are multiplied by.
    shift
        What is taken off whatever x is.
    """

    kept: NDArray[np.float64]
    gone: tuple[NDArray[np.float64], ...]
    shift: NDArray[np.float64]


@lru_cache(maxsize=1)
def _plain() -> ModelStatistics:
    """L = 1, s = b = 0: at levels near enough that the integral of a parabola is good to 1e-5."""
    levels = np.linspace(-20, 20, 2561)
    ones = np.ones((len(levels), 1, 1, 1))
    return ModelStatistics("none", levels, ones, 0 * ones, 0 * ones)


@lru_cache(maxsize=64)
def _step(known: ModelStatistics, at: tuple[float, float], to: tuple[float, float], official: bool) -> _Step:
    """Integrals over a step between levels, each of a signal and a half log SNR."""
    (signal, begin), (reached, end) = at, to
    nodes, linear, scaling, bias = _nodes(known, begin, end)
    exponent, fading = _summed(linear, nodes), _summed(scaling, nodes)
    drift = _integral(-fading, bias, nodes, official)
    # Taken off before it is an exponent, which would grow beyond what a number holds.
    growth = exponent + fading - exponent[-1]
    along = (nodes - begin)[:, None, None, None] * np.ones_like(growth)
    gone = [_integral(growth, along**power / math.factorial(power), nodes, official)[-1] for power in range(4)]
    shift = _integral(growth, drift, nodes, official)[-1]
    kept = reached / signal * np.exp(-exponent[-1])
    return _Step(kept, tuple(reached * one for one in gone), reached * shift)


@lru_cache(maxsize=256)
def _drift(
    known: ModelStatistics, begin: float, place: float, official: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """L at a place; and exp(-S) and B from where a step begins to there."""
    nodes, linear, scaling, bias = _nodes(known, begin, place)
    fading = _summed(scaling, nodes)
    return linear[-1], np.exp(-fading[-1]), _integral(-fading, bias, nodes, official)[-1]


def _nodes(known: ModelStatistics, begin: float, end: float) -> tuple[NDArray[np.float64], ...]:
    """From a level to another, with those of the statistics in between; and l, s and b there."""
    low, high = min(begin, end), max(begin, end)
    between = known.half_log_snr[(known.half_log_snr > low + _ROUNDING) & (known.half_log_snr < high - _ROUNDING)]
    nodes = np.array([low, *between, high] if begin <= end else [high, *between[::-1], low])
    return nodes, *known.at(nodes)


def _summed(values: NDArray[np.float64], nodes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integral from the first node to each, of what is straight in between."""
    strides = np.diff(nodes)[:, None, None, None]
    parts = strides * (values[1:] + values[:-1]) / 2
    return np.concatenate([np.zeros_like(values[:1]), np.cumsum(parts, axis=0)])


def _integral(
    exponent: NDArray[np.float64], factor: NDArray[np.float64], nodes: NDArray[np.float64], official: bool
) -> NDArray[np.float64]:
    """Integral of factor times exp(exponent) from the first node to each; in between both are straight."""
    if official:
        return _summed(factor * np.exp(exponent), nodes)
    rise = np.diff(exponent, axis=0)
    near, far = (exponent[:-1], factor[:-1]), (exponent[1:], factor[1:])
    strides = np.diff(nodes)[:, None, None, None]
    parts = strides * np.exp(near[0]) * (near[1] * _mean(rise, 0) + (far[1] - near[1]) * _mean(rise, 1))
    return np.concatenate([np.zeros_like(factor[:1]), np.cumsum(parts, axis=0)])


def _mean(rise: NDArray[np.float64], power: int) -> NDArray[np.float64]:
    """Integral of u^power exp(rise u) over u from 0 to 1, for powers 0 and 1."""
    small = np.abs(rise) < _SMALL
    safe = np.where(small, 1.0, rise)
    large = np.expm1(safe) / safe if power == 0 else (np.exp(safe) * (safe - 1) + 1) / safe**2
    series = sum(rise**term / (math.factorial(term) * (term + 1 + power)) for term in range(7))
    return np.where(small, series, large)


def _derivatives(places: Sequence[float], values: Sequence[Any], *, pseudo: bool) -> list[Any]:
    """First and further derivatives at the first place of the polynomial through values, or divided differences."""
    count = len(places) - 1
    if not pseudo:
        powers = np.array([[(place - places[0]) ** power for power in range(1, count + 1)] for place in places[1:]])
        weights = np.linalg.inv(powers) if count else powers
        differences = [value - values[0] for value in values[1:]]
        return [
            math.factorial(power + 1) * sum(float(w) * one for w, one in zip(row, differences, strict=True))
            for power, row in enumerate(weights)
        ]
    found, column = [], list(values)
    for order in range(1, count + 1):
        column = [
            (one - other) / (places[low] - places[low + order])
            for low, (one, other) in enumerate(itertools.pairwise(column))
        ]
        found.append(math.factorial(order) * column[0])
    return found


def _as(x: Any, values: NDArray[np.float64]) -> Any:
    """Of the kind of x: a tensor on its device, or an array."""
    return values.astype(x.dtype) if isinstance(x, np.ndarray) else x.new_tensor(values)
