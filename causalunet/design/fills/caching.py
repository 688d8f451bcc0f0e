"""Fills made of the run's own values of earlier steps: held, and extrapolated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from causalunet.calls import clear_calls
from causalunet.design.donors import Donor, FillContext, OwnBefore
from causalunet.design.fills.base import Fill, exact
from causalunet.design.limits import MOST_STEPS, checked_integer, is_integer, plain_number, shown
from causalunet.design.named import without_none, write_named
from causalunet.design.windows import Window, Windows
from causalunet.errors import SpecError

__all__ = ["Extrapolate", "Hold"]


@clear_calls
@dataclass(frozen=True, slots=True)
class Hold(Fill):
    """The run's own value of the last step before the window, held as long as the window lasts.

    Of a step of several U-Net calls it is the first call's, and it is held in all calls of the window.

    What feeds only that place does not run meanwhile: ``Edit("up.5", Window(61, 50), Hold(every=5))`` computes the deep
    blocks at every fifth step and keeps what they gave, as DeepCache does (Ma et al. 2024). It is the same as
    ``Edit("up.5", cut_relax_cut(60, cut=4, relax=1, cuts=10), Hold())``.

    Parameters
    ----------
    every : int, optional
        Compute the value at the first step of the window and at every so many-th after it, and hold it between; at
        least 2. Of several windows each begins anew.
    """

    name: ClassVar[str] = "hold"
    severs: ClassVar[bool] = True
    every: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", _checked_every("Hold", self.every))

    @property
    def donors(self) -> tuple[Donor, ...]:
        """The run's own value before the window."""
        return (OwnBefore(),)

    def over(self, window: Window | Windows) -> tuple[Window | Windows, Fill]:
        """The steps between those at which the value is computed."""
        return (window, self) if self.every is None else (_between("Hold", window, self.every), Hold())

    def put(self, value: Any, context: FillContext) -> Any:
        """A copy of the value that is held."""
        return context.donors[0].clone()

    def to_json(self) -> dict[str, Any]:
        """Write as other fills; without ``every`` where it is held throughout."""
        return without_none(write_named(self))


@clear_calls
@dataclass(frozen=True, slots=True)
class Extrapolate(Fill):
    """The polynomial through the run's own values at the last steps that computed them, where the window is.

    The abscissa is what the U-Net is told: the training timestep of each step, or what stands for it
    (``FillContext.time``), which need not lie evenly. Without ``every`` all values are from before the window. Where a
    run has had fewer steps, as near its first, the polynomial is of as low an order as they give: of one step its value
    is held, as by `Hold`. What feeds only that place does not run meanwhile.

    Of a step of several U-Net calls the values are those of the first call; each call of the window has its own
    abscissa.

    Parameters
    ----------
    order : {1, 2}
        Through two values, or through three.
    every : int, optional
        As for `Hold`: compute the value at the first step of the window and at every so many-th after it.

    Notes
    -----
    Liu et al. 2025, "From Reusing to Forecasting" (TaylorSeer), predict features by differences in place of
    derivatives; this is the polynomial through the same values.
    """

    name: ClassVar[str] = "extrapolate"
    severs: ClassVar[bool] = True
    order: Literal[1, 2] = 1
    every: int | None = None

    def __post_init__(self) -> None:
        order = plain_number(self.order)
        if not is_integer(order) or order not in (1, 2):
            raise SpecError(f"Extrapolate got order={shown(self.order)}; it is 1 or 2. Order 0 is Hold().")
        object.__setattr__(self, "order", order)
        object.__setattr__(self, "every", _checked_every("Extrapolate", self.every))

    @property
    def donors(self) -> tuple[Donor, ...]:
        """The run's own values before the window, the last first."""
        return tuple(OwnBefore(back) for back in range(self.order + 1))

    def over(self, window: Window | Windows) -> tuple[Window | Windows, Fill]:
        """The steps between those at which the value is computed."""
        if self.every is None:
            return window, self
        return _between("Extrapolate", window, self.every), Extrapolate(self.order)

    def put(self, value: Any, context: FillContext) -> Any:
        """The polynomial's value, Lagrange's form."""
        # Of steps that a run has not had, donors stand for the earliest: one time, one point.
        points = dict(zip(context.donor_times, map(exact, context.donors), strict=True))
        now = context.time.reshape(-1, *[1] * (value.ndim - 1))
        total = exact(value).new_zeros(value.shape)
        for at, donor in points.items():
            weight = exact(now) * 0 + 1
            for other in points:
                weight = weight * (now - other) / (at - other) if other != at else weight
            total = total + weight * donor
        return total.to(value.dtype)

    def to_json(self) -> dict[str, Any]:
        """Write as other fills; without ``every`` where nothing is computed in between."""
        return without_none(write_named(self))


def _checked_every(owner: str, every: Any) -> int | None:
    return None if every is None else checked_integer(owner, "every", every, least=2, most=MOST_STEPS)


def _between(owner: str, window: Window | Windows, every: int) -> Windows:
    """Steps of windows that lie between every so many-th."""

    def held() -> Iterator[Window]:
        for part in window.parts:
            for computed in range(part.start, part.stop, -every):
                yield Window(computed - 1, min(every - 1, computed - part.stop), window.stage)

    if not (windows := tuple(held())):
        raise SpecError(
            f"{owner}(every={every}) computes the value at the first step of {shown(window)}, and there is no other. "
            "Give a longer window."
        )
    return Windows(windows)
