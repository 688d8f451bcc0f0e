"""Fills that change the numbers of a value one by one: clamped, noisy, of few bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from causalunet.calls import clear_calls
from causalunet.design.donors import FillContext
from causalunet.design.fills.base import Fill, exact, finite
from causalunet.design.limits import is_integer, plain_number, shown
from causalunet.design.named import write_named
from causalunet.design.views.base import Axes
from causalunet.dims import CHANNEL, ROW
from causalunet.errors import ComponentError, SpecError

__all__ = ["AddNoise", "Clamp", "Quantize", "around_zero", "grid_around_zero"]

_MOST_BITS = 16


@clear_calls
@dataclass(frozen=True, slots=True)
class Clamp(Fill):
    """The value within bounds.

    Parameters
    ----------
    low, high : float
        Finite; what is below or above is put there.
    """

    name: ClassVar[str] = "clamp"
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            object.__setattr__(self, name, finite("Clamp", name, getattr(self, name)))
        if self.low > self.high:
            raise SpecError(f"Clamp got low={self.low:g} above high={self.high:g}.")

    def apply(self, value: Any) -> Any:
        """The value within the bounds."""
        return value.clamp(self.low, self.high)


@clear_calls
@dataclass(frozen=True, slots=True)
class AddNoise(Fill):
    """The value with Gaussian noise added.

    The noise is a function of seed and step alone, the same for all samples and branches: no result depends on a batch,
    and interventions that differ in nothing but ``sd`` add the same noise, larger.

    Parameters
    ----------
    sd : float
        Standard deviation, in root mean squares of the row's own value.
    seed : int
    """

    name: ClassVar[str] = "add_noise"
    sd: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sd", finite("AddNoise", "sd", self.sd, least=0))
        seed = plain_number(self.seed)
        if not is_integer(seed) or not 0 <= seed < 2**63:
            raise SpecError(f"AddNoise got seed={shown(self.seed)}; give an integer of at least 0.")
        object.__setattr__(self, "seed", seed)

    def put(self, value: Any, context: FillContext) -> Any:
        """The value and noise of its own size, times ``sd``."""
        drawn = np.random.default_rng([self.seed, context.step]).standard_normal(tuple(value.shape[1:]), np.float32)
        rest = tuple(range(1, value.ndim))
        precise = exact(value)
        size = precise.square().mean(dim=rest, keepdim=True).sqrt()
        return (precise + self.sd * size * precise.new_tensor(drawn)).to(value.dtype)


@clear_calls
@dataclass(frozen=True, slots=True)
class Quantize(Fill):
    """The value rounded to evenly spaced levels, as integers of few bits hold it: fake quantisation.

    Parameters
    ----------
    bits : int
        1 to 16: 2^bits levels, of which the first is the lowest number and the last the highest.
    per : {"row", "channel"}
        Whether levels span each row, or each channel of it.
    low, high : float, optional
        Ends of the levels, such as calibrated ones; numbers beyond are put there. By default those of the value itself,
        at every step anew (dynamic quantisation).
    zero : bool
        Whether zero is one of the levels, whose ends then lie around it, as is usual of weights.

    Notes
    -----
    Jacob et al. 2018, equation 1; the zero point need not be an integer, but with ``zero``.
    """

    name: ClassVar[str] = "quantize"
    bits: int = 8
    per: Literal["row", "channel"] = "row"
    low: float | None = None
    high: float | None = None
    zero: bool = False

    def __post_init__(self) -> None:
        bits = plain_number(self.bits)
        if not is_integer(bits) or not 1 <= bits <= _MOST_BITS:
            raise SpecError(f"Quantize got bits={shown(self.bits)}; give 1 to {_MOST_BITS}.")
        object.__setattr__(self, "bits", bits)
        if not isinstance(self.per, str) or self.per not in ("row", "channel"):
            raise SpecError(f"Quantize got per={shown(self.per)}; it is 'row' or 'channel'.")
        if not isinstance(self.zero, bool):
            raise SpecError(f"Quantize got zero={shown(self.zero)}; it is True or False.")
        if (self.low is None) != (self.high is None):
            raise SpecError("Quantize takes both low and high, or neither: the value's own.")
        if self.low is not None and self.high is not None:
            object.__setattr__(self, "low", finite("Quantize", "low", self.low))
            object.__setattr__(self, "high", finite("Quantize", "high", self.high))
            if not self.low < self.high:
                raise SpecError(f"Quantize got low={self.low:g} not below high={self.high:g}.")

    def check(self, axes: Axes, owner: str) -> None:
        """A value has channels where levels span one each."""
        super(Quantize, self).check(axes, owner)
        if self.per == "channel" and CHANNEL not in axes.dims:
            raise ComponentError(f"Quantize(per='channel') asks for channels of {owner}, which has none.")

    def put(self, value: Any, context: FillContext) -> Any:
        """The nearest level of every number."""
        precise = value.double() if self.zero else exact(value)
        if self.low is None or self.high is None:
            apart = (ROW, CHANNEL) if self.per == "channel" else (ROW,)
            rest = tuple(number for number, dim in enumerate(context.dims) if dim not in apart)
            low, high = precise.amin(dim=rest, keepdim=True), precise.amax(dim=rest, keepdim=True)
        else:
            low, high = precise.new_tensor(self.low), precise.new_tensor(self.high)
        if self.zero:
            return around_zero(precise, low, high, self.bits).to(value.dtype)
        step = (high - low) / (2**self.bits - 1)
        safe = step + (step == 0)  # of equal numbers there is one level, which is theirs
        levels = ((precise.clamp(low, high) - low) / safe).round()
        return (low + levels * step).to(value.dtype)

    def to_json(self) -> dict[str, Any]:
        """Write as other fills; without ``zero`` where it need not be a level, as before there was a choice."""
        written = write_named(self)
        if not self.zero:
            del written["configuration"]["zero"]
        return written


def around_zero(value: Any, low: Any, high: Any, bits: int) -> Any:
    """The nearest of 2^bits levels, of which one is zero.

    Parameters
    ----------
    value : Tensor
    low, high : Tensor
        Ends of the levels, but for zero between them.
    bits : int
    """
    step, zero = grid_around_zero(low, high, bits)
    levels = ((value / step).round() + zero).clamp(0, 2**bits - 1)
    return (levels - zero) * step


def grid_around_zero(low: Any, high: Any, bits: int) -> tuple[Any, Any]:
    """Distance between levels, and the number of the level that is zero.

    Parameters
    ----------
    low, high, bits
        As for `around_zero`.
    """
    low, high = low.clamp(max=0), high.clamp(min=0)
    step = ((high - low) / (2**bits - 1)).clamp(min=1e-8)
    return step, (-low / step).round()
