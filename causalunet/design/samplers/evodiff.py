"""EVODiff, a multistep method whose weights come from projections of earlier estimates (Li, Chen & Zeng 2025)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from causalunet.calls import clear_calls
from causalunet.design.limits import is_number, shown
from causalunet.design.samplers.base import Estimate, Sampler, State
from causalunet.errors import SpecError
from causalunet.schedule import Level

__all__ = ["EVODiff"]

_TEMPERATURE, _SHIFT, _MOST = 0.25, 0.5, 2.0
"""Numbers that the authors' code has tuned: of the probe, of zeta, and what projections are clipped to."""
_FEW_STEPS = 20
"""Beyond which that code weighs zeta otherwise."""


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class EVODiff(Sampler):
    """Probe the next state along a balanced difference of two estimates, and correct it by what the U-Net says there.

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
    order : int
        1, which is DDIM, or 2.
    sigma_max : float
        Ratio of noise to signal from which on differences are balanced by noise levels alone, and below which more and
        more by projection: T of the code, where it is the noise at which a run begins. A step does not know that.
    official : bool
        Do also what the authors' code does by the number of steps: another zeta in runs of more than 20, and a step to
        the image that goes half a difference beyond the last estimate.

    Notes
    -----
    Li, Chen & Zeng 2025 (arXiv 2509.26096), as their code has it: eta and zeta are sigmoids of the size of projections,
    one for each sample and channel, and not the optimum of a variance. The state x_t is the probe, at which the U-Net
    is asked; a step begins by correcting it. Both go on from the same corrected state, which need not be kept. Weights
    depend on the standard deviation of noise as the model's process has it, see `causalunet.schedule.Level.noise`.
    """

    name: ClassVar[str] = "evodiff"
    elementwise: ClassVar[bool] = False
    history: ClassVar[int] = 2

    order: int = 2
    sigma_max: float = 80.0
    official: bool = False

    def __post_init__(self) -> None:
        super(EVODiff, self).__post_init__()
        if isinstance(self.order, bool) or self.order not in (1, 2):
            raise SpecError(f"EVODiff got order={shown(self.order)}; it is 1 or 2.")
        if not is_number(self.sigma_max) or not 0 < self.sigma_max < math.inf:
            raise SpecError(f"EVODiff got sigma_max={shown(self.sigma_max)}; it is a number above 0.")
        if not isinstance(self.official, bool):
            raise SpecError(f"EVODiff got official={shown(self.official)}; it is True or False.")

    def mean(self, state: State, estimates: tuple[Estimate, ...], at: Level, to: Level) -> Any:
        """Correct the state, and probe the next."""
        now, past = estimates[0], state.past[:2] if self.order == 2 else ()
        if to.alpha_bar == 1:
            return now.x0 + (now.x0 - past[0].x0) / 2 if self.official and past else now.x0
        x = state.x
        if len(past) == 2:
            x = x + self._correction(self._leap(*past, at), now)
        kept = math.sqrt((1 - to.alpha_bar) / (1 - at.alpha_bar))
        line = kept * x + (math.sqrt(to.alpha_bar) - kept * math.sqrt(at.alpha_bar)) * now.x0
        if not past:
            return line
        leap = self._leap(now, past[0], to)
        return line + leap.size / 2 * leap.probed * leap.difference

    def _leap(self, last: Estimate, before: Estimate, to: Level) -> _Leap:
        """What a step to a level is made of by two estimates, m_0 where it begins and m_1 before."""
        at = last.level
        spreads = [level.noise for level in (to, at, before.level)]
        balance = math.sqrt(spreads[0] * spreads[2]) / spreads[1]
        # of the projection: a half where there is little noise, nothing where there is most
        weight = max(0.0, 1 - (to.sigma / self.sigma_max) ** 2) / 2
        balanced = (1 - weight) * balance + weight * _projected(last.x0, before.x0)
        ratio = math.log(before.level.sigma / at.sigma) / math.log(at.sigma / to.sigma)
        return _Leap(
            last=last.x0,
            before=before.x0,
            difference=last.x0 - balanced * before.x0,
            ratio=ratio,
            probed=1 / (_sigmoid(_TEMPERATURE * abs(balanced)) * ratio),
            balance=balance,
            weight=weight,
            stride=1 / to.sigma - 1 / at.sigma,
            size=math.sqrt(1 - to.alpha_bar) * (1 / to.sigma - 1 / at.sigma),
            spread=to.noise,
            shrunk=spreads[0] / spreads[1],
        )

    def _correction(self, leap: _Leap, now: Estimate) -> Any:
        """What takes the probe to the state that is gone on from, by what the U-Net said at the probe."""
        balanced = (1 - leap.weight) * leap.balance + leap.weight * _projected(now.x0, leap.last)
        ahead, behind = leap.ratio * (now.x0 - balanced * leap.last), leap.difference / leap.ratio
        eta = _sigmoid(abs(_projected(ahead + behind, ahead - behind) / 2)) / 2
        bend = (1 - eta) * ahead - eta * behind
        # the projection is that of steps as the model has them, of its own scale, and clipped as such
        size = leap.spread * leap.stride
        along = _projected(size / 2 * leap.probed * (leap.difference - bend), leap.difference) / size
        shifted = abs(along) - _SHIFT
        if self.official and self.steps > _FEW_STEPS:
            slope = (leap.last - leap.before) / leap.stride
            shifted = -shifted * _sigmoid(_projected(leap.last, slope) * (2 - leap.shrunk**2))
        return leap.size / 2 * (bend / _sigmoid(shifted) - leap.probed * leap.difference)


class _Leap(NamedTuple):
    """A step by two estimates, in the letters of Li, Chen & Zeng 2025.

    Attributes
    ----------
    last, before : Tensor, (sample, channel, y, x)
        m_0 and m_1.
    difference : Tensor, (sample, channel, y, x)
        D_1, balanced.
    ratio : float
        Length of the step before over that of this one, in log sigma.
    probed : Tensor, (sample, channel, 1, 1)
        1 / r_i, the weight of the difference in the probe.
    balance, weight : float
        What a difference is balanced by from noise levels alone, and the weight of the projection beside it.
    stride : float
        h, in signal over noise.
    size : float
        h times the standard deviation of noise, of x whose variance is preserved.
    spread, shrunk : float
        Standard deviation of noise at its end as the model has it, and over that where it begins.
    """

    last: Any
    before: Any
    difference: Any
    ratio: float
    probed: Any
    balance: float
    weight: float
    stride: float
    size: float
    spread: float
    shrunk: float


def _projected(one: Any, on: Any) -> Any:
    """Coefficient of one image along another, (sample, channel, 1, 1), clipped; 0 where the other is 0."""
    along, size = (value.sum((-2, -1))[..., None, None] for value in (one * on, on * on))
    return (along / (size + (size == 0))).clip(-_MOST, _MOST)


def _sigmoid(value: Any) -> Any:
    return 1 / (1 + math.e ** (-value))
