"""Processes whose states are shifted by an image that the model is given, such as a damaged one that is to be restored.

With a given image u and the residual R = u - x_0 all of them are x_t = A x_0 + B u + C eps. They differ by what a step
leaves as it is: see `causalunet.process.Shift`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from causalunet.calls import clear_calls
from causalunet.errors import ModelError
from causalunet.process.base import Process, Shift, Weights

__all__ = ["AddedImage", "AddedResidual", "AroundResidual", "Bridge"]


@clear_calls
@dataclass(frozen=True, slots=True)
class AroundResidual(Process):
    """x_t = sqrt(ab) x_0 + (1 - sqrt(ab)) R + sqrt(1 - ab) eps: x_t - R is the plain process of x_0 - R.

    Resfusion (Shi et al. 2023, arXiv 2311.14900, equation 20). Where sqrt(ab) is 1/2, x_t is u / 2 and noise, and has
    nothing of x_0 but what u has: a model's schedule ends there.

    Parameters
    ----------
    of : str
        How large the plain process is.
    """

    name: ClassVar[str] = "around-residual"
    shifted: ClassVar[bool] = True

    def shift(self, alpha_bar: float) -> Shift:
        """By R, all the way."""
        scale = self.scale(alpha_bar)
        return Shift(0.0, scale, 1.0)


@clear_calls
@dataclass(frozen=True, slots=True)
class AddedResidual(Process):
    """x_t = x_0 + A_t R + B_t eps: the residual and noise are added, each at a pace of its own, up to u + B_T eps.

    Residual denoising diffusion (RDDM; Liu et al. 2023, arXiv 2308.13712, equation 7).

    Parameters
    ----------
    of : str
        The signal stays as it is: ``"variance-exploding"``.
    noise : float
        B_T, above 0: the standard deviation of the noise where all of the residual has been added.
    power : float
        A_t = 1 - (1 - B_t / B_T)^power, at least 1. With 2 the residual is added first and the noise later: steps'
        weights fall for the residual and rise for the variance of the noise, as in the paper.
    """

    name: ClassVar[str] = "added-residual"
    shifted: ClassVar[bool] = True

    of: str = "variance-exploding"
    noise: float = 1.0
    power: float = 2.0

    def __post_init__(self) -> None:
        super(AddedResidual, self).__post_init__()
        if self.of != "variance-exploding":
            raise ModelError(f"AddedResidual got of={self.of!r}; its signal stays as it is: 'variance-exploding'.")
        _check_above(self, "noise", 0.0)
        if not self.power >= 1:
            raise ModelError(f"AddedResidual got power={self.power!r}; give a number of at least 1.")

    def added(self, noise: float) -> float:
        """A_t, the share of the residual that has been added, by B_t / B_T."""
        return float(1 - max(1 - noise, 0.0) ** self.power)

    def shift(self, alpha_bar: float) -> Shift:
        """By A_t R."""
        if alpha_bar == 0:  # noise alone, which no state of a finite B_T is
            return Shift(0.0, 1.0, 0.0)
        return Shift(0.0, self.added(math.sqrt(1 / alpha_bar - 1) / self.noise), 0.0)


@clear_calls
@dataclass(frozen=True, slots=True)
class AddedImage(Process):
    """x_t = sqrt(ab) x_0 + u + sqrt(1 - ab) eps: the plain process around the image that the model is given.

    The second form of DiffuseVAE (Pandey et al. 2022, arXiv 2201.00308, section 3.2), whose u is taken off again where
    x_0 is reached.

    Parameters
    ----------
    of : str
        How large the plain process is.
    """

    name: ClassVar[str] = "added-image"
    shifted: ClassVar[bool] = True

    def shift(self, alpha_bar: float) -> Shift:
        """By u; not at the image."""
        return Shift(1.0 if alpha_bar < 1 else 0.0, 0.0, 0.0)


@clear_calls
@dataclass(frozen=True, slots=True)
class Bridge(Process):
    """x_t = (1 - t) x_0 + t u + g(t) eps with g^2 = spread t (1 - t): a stochastic interpolant between two images.

    Its end is known, and the noise is gone at both (Albergo et al. 2023, arXiv 2303.08797, equation 2.1). A schedule
    begins before t = 1, see `alpha_bar`.

    Parameters
    ----------
    of : str
        Not asked: the path is the process's own.
    spread : float
        Above 0: what the variance in the middle is four times of.
    """

    name: ClassVar[str] = "bridge"
    shifted: ClassVar[bool] = True

    spread: float = 1.0

    def __post_init__(self) -> None:
        super(Bridge, self).__post_init__()
        _check_above(self, "spread", 0.0)

    def time(self, alpha_bar: float) -> float:
        """The t at which the plain part has that share of signal: (1 - t) / (1 - t + spread t)."""
        return (1 - alpha_bar) / (1 - alpha_bar + self.spread * alpha_bar)

    def alpha_bar(self, t: float) -> float:
        """Share of signal variance in (1 - t) x_0 + g(t) eps, which tells a schedule where t is."""
        return (1 - t) / (1 - t + self.spread * t)

    def scale(self, alpha_bar: float) -> float:
        """Of the plain part (1 - t) x_0 + g(t) eps, for data of variance 1."""
        t = self.time(alpha_bar)
        return math.hypot(1 - t, self._noise(t))

    def shift(self, alpha_bar: float) -> Shift:
        """By t u."""
        return Shift(self.time(alpha_bar), 0.0, 0.0)

    def change(self, alpha_bar: float) -> Weights:
        """Of d x_t / dt: u - x_0 + g'(t) eps, b of the paper's equation 2.10."""
        t = self.time(alpha_bar)
        return Weights(-1.0, 1.0, self.spread * (1 - 2 * t) / (2 * self._noise(t)))

    def _noise(self, t: float) -> float:
        return math.sqrt(self.spread * t * (1 - t))


def _check_above(process: Process, name: str, least: float) -> None:
    value = getattr(process, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least < value < math.inf:
        raise ModelError(f"{type(process).__name__} got {name}={value!r}; give a finite number above {least:g}.")
    object.__setattr__(process, name, float(value))
