"""What is put in place of a component's output: the third part of (component, window, fill)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from causalunet.calls import clear_calls
from causalunet.design.limits import is_number, plain_number, shown
from causalunet.design.named import read_named
from causalunet.errors import SpecError
from causalunet.registry import Registry

__all__ = ["FILLS", "Fill", "Identity", "Jump", "Scale", "Zero", "fill_words"]

FILLS: Registry[type[Fill]] = Registry("fill", "causalunet.fills")
"""Every fill, by name."""


@clear_calls
@dataclass(frozen=True, slots=True)
class Fill:
    """Base of every fill. A subclass names itself, says what it puts in place, and enters the registry by subclassing.

    Attributes
    ----------
    name : str
        Its name in JSON.
    severs : bool
        Whether the value put in place owes nothing to the value replaced. What feeds only a severed place is dead
        code and is not run.
    """

    name: ClassVar[str] = ""
    severs: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super(Fill, cls).__init_subclass__(**kwargs)
        if cls.name != Fill.name:  # a base of several fills needs none
            FILLS.register(cls.name, cls)

    def apply(self, value: Any) -> Any:
        """Make what is put in place of a value.

        Parameters
        ----------
        value : Tensor, (row, channel, y, x)
            What the component put out, or what came over the skip connection. Others may hold it: it is never written
            into. A row is one sample in one branch; rows are not mixed, or a result would depend on the batch.

        Returns
        -------
        Tensor, (row, channel, y, x)
            A new tensor of the same shape and dtype. Where ``severs`` is set it depends on nothing but these.
        """
        raise NotImplementedError(self.name)

    def to_json(self) -> dict[str, Any]:
        """Write as ``{"name": ..., "configuration": {...}}``."""
        values = {entry.name: plain_number(getattr(self, entry.name)) for entry in fields(self)}
        return {"name": self.name, "configuration": values}

    @staticmethod
    def from_json(value: Any) -> Fill:
        """Read what `to_json` wrote.

        Raises
        ------
        SpecError
            The name is not registered or the configuration does not fit.
        """
        return read_named(FILLS, value)


def fill_words(value: Any) -> str:
    """What labels and coordinates call a fill: name and parameters of its JSON, such as ``scale 0.5``."""
    return " ".join(map(str, (value["name"], *value["configuration"].values())))


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
class Jump(Fill):
    """For the component ``unet`` only: the call does not happen and the step before jumps over it (Eq. 4)."""

    name: ClassVar[str] = "jump"
