"""Fills that ablate, scale, and put in place what other calls gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.calls import clear_calls
from causalunet.design.donors import Donor, FillContext, OfBaseline, OwnInput
from causalunet.design.fills.base import Fill
from causalunet.design.limits import is_number, plain_number, shown
from causalunet.design.named import without_none, write_named
from causalunet.errors import SpecError

__all__ = ["Bypass", "Identity", "Patch", "Scale", "Zero"]


@clear_calls
@dataclass(frozen=True, slots=True)
class Zero(Fill):
    """Zeros of the same shape: zero ablation."""

    name: ClassVar[str] = "zero"
    severs: ClassVar[bool] = True

    def apply(self, value: Any) -> Any:
        """Zeros of the same shape."""
        return value.new_zeros(value.shape)


@clear_calls
@dataclass(frozen=True, slots=True)
class Identity(Fill):
    """The value itself, taken out and put back: changes nothing, measures the noise floor."""

    name: ClassVar[str] = "identity"

    def apply(self, value: Any) -> Any:
        """A copy of the value."""
        return value.clone()


@clear_calls
@dataclass(frozen=True, slots=True)
class Scale(Fill):
    """The value times a factor.

    Parameters
    ----------
    factor : float
        Finite; 1 changes nothing, 0 gives the same numbers as `Zero` but runs everything.
    """

    name: ClassVar[str] = "scale"
    factor: float = 1.0

    def __post_init__(self) -> None:
        factor = plain_number(self.factor)
        if not is_number(factor):
            raise SpecError(f"Scale factor {shown(self.factor)} is not a finite number.")
        object.__setattr__(self, "factor", float(factor) + 0.0)  # -0.0 == 0.0, so both have one spelling

    def apply(self, value: Any) -> Any:
        """The value times the factor."""
        return value * self.factor


@clear_calls
@dataclass(frozen=True, slots=True)
class Bypass(Fill):
    """What the component is given, in place of what it makes of it: the path goes past it, and it does not run.

    Of a residual block, such as one of a transformer, the residual is left out. It is of components whose input and
    output have one shape, see ``Component.input``; where several tensors go through a block, as text and image do
    through joint blocks, all go past it.
    """

    name: ClassVar[str] = "bypass"
    severs: ClassVar[bool] = True

    @property
    def donors(self) -> tuple[Donor, ...]:
        """What the component is given."""
        return (OwnInput(),)

    def put(self, value: Any, context: FillContext) -> Any:
        """A copy of what the component is given."""
        return context.donors[0].clone()


@clear_calls
@dataclass(frozen=True, slots=True)
class Patch(Fill):
    """The value of the same place in a run without intervention: of another prompt, seed or step, or its own.

    Of a step of several U-Net calls it is the first call's, and it is put in place in all of them.

    Parameters
    ----------
    prompt : str, optional
        Of that run; by default each sample's own. ``Patch()`` restores what is there without any intervention; among
        other edits it shows which of their effect goes through this place.
    seed : int, optional
        Likewise.
    sample : int, optional
        Instead of these: the run of the study's sample of this number, counted from 0 along ``study.samples``, from the
        start that it has.
    step : int, optional
        Step of that run whose value is put in place at all steps of the window; by default that of the call. The window
        cannot begin before it: runs go side by side.
    """

    name: ClassVar[str] = "patch"
    severs: ClassVar[bool] = True
    prompt: str | None = None
    seed: int | None = None
    sample: int | None = None
    step: int | None = None

    def __post_init__(self) -> None:
        donor = OfBaseline(self.prompt, self.seed, self.sample, self.step)
        for name in ("seed", "sample", "step"):
            object.__setattr__(self, name, getattr(donor, name))

    @property
    def donors(self) -> tuple[Donor, ...]:
        """The value in that run."""
        return (OfBaseline(self.prompt, self.seed, self.sample, self.step),)

    def put(self, value: Any, context: FillContext) -> Any:
        """A copy of the value in that run."""
        return context.donors[0].clone()

    def to_json(self) -> dict[str, Any]:
        """Write as other fills; without what is the sample's own."""
        return without_none(write_named(self))
