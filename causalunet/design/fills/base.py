"""What every fill is, and the one that is none: a jump."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from causalunet.calls import clear_calls
from causalunet.design.donors import Donor, FillContext, OwnInput
from causalunet.design.limits import is_number, plain_number, shown
from causalunet.design.named import read_named, write_named
from causalunet.design.views.base import Axes, View
from causalunet.design.windows import Window, Windows
from causalunet.errors import ComponentError, SpecError
from causalunet.registry import Registry

__all__ = ["FILLS", "Fill", "Jump", "exact", "fill_words", "finite", "says_what"]

_SPELT = frozenset(("every", "sample", "step"))
"""Parameters that labels name: their numbers alone could be those of a seed."""

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
        code and is not run; what a component is given is computed where the fill takes it (`OwnInput`).
    dims : tuple of str
        Dimensions that the value has to have.
    """

    name: ClassVar[str] = ""
    severs: ClassVar[bool] = False
    dims: ClassVar[tuple[str, ...]] = ()

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

    @property
    def donors(self) -> tuple[Donor, ...]:
        """Values that it needs, of the same place in other calls or of its input: none, unless a subclass says so."""
        return ()

    @property
    def takes_input(self) -> bool:
        """Whether what the component is given is among its donors."""
        return any(isinstance(donor, OwnInput) for donor in self.donors)

    def put(self, value: Any, context: FillContext) -> Any:
        """Make what is put in place of a value, knowing where that is: `apply`, unless a subclass overrides this.

        Parameters
        ----------
        value : Tensor, (row, channel, y, x)
            As for `apply`.
        context : FillContext
            Step, timestep and donors.

        Returns
        -------
        Tensor, (row, channel, y, x)
            As from `apply`. Where ``severs`` is set it depends on shape, context and donors alone.
        """
        return self.apply(value)

    def over(self, window: Window | Windows) -> tuple[Window | Windows, Fill]:
        """At which steps of a window something is put in place, and by which fill.

        Parameters
        ----------
        window : Window or Windows
            Of an edit.

        Returns
        -------
        tuple of (Window or Windows, Fill)
            By default what was given: at all of them, by itself. What is returned is taken as it is.

        Raises
        ------
        SpecError
            It puts nothing in place at any of them.
        """
        return window, self

    def check(self, axes: Axes, owner: str) -> None:
        """Check that it can be put in place of a value, or of a part of it, when a study is planned.

        Parameters
        ----------
        axes : Axes
            Of the whole value.
        owner : str
            Whose value it is, for messages.

        Raises
        ------
        ComponentError
            It cannot.
        """
        if lacking := [dim for dim in self.dims if dim not in axes.dims]:
            raise ComponentError(
                f"The fill {self.name!r} acts along {', '.join(self.dims)}, and {owner} has no {lacking[0]}: it has "
                f"{', '.join(axes.dims[1:])}."
            )

    def check_part(self, view: View, axes: Axes, owner: str) -> None:
        """Check that it can be put in place of what a view shows, when a study is planned.

        Parameters
        ----------
        view : View
        axes, owner
            As for `check`.

        Raises
        ------
        ComponentError
            It cannot.
        """

    def to_json(self) -> dict[str, Any]:
        """Write as ``{"name": ..., "configuration": {...}}``."""
        return write_named(self)

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
    given = value["configuration"].items()
    return " ".join([value["name"], *(f"{name} {one}" if name in _SPELT else str(one) for name, one in given)])


def says_what(fill: Fill) -> bool:
    """Whether a fill says what it puts in place; a jump need not, since its call does not happen."""
    kind: Any = type(fill)
    return kind.apply is not Fill.apply or kind.put is not Fill.put or isinstance(fill, Jump)


@clear_calls
@dataclass(frozen=True, slots=True)
class Jump(Fill):
    """For the component ``unet`` only: the call does not happen and the step before jumps over it (Eq. 4)."""

    name: ClassVar[str] = "jump"


def exact(value: Any) -> Any:
    """A value in single precision at least, for arithmetic that half precision would spoil."""
    return value.float() if value.element_size() < 4 else value


def finite(owner: str, name: str, value: Any, *, least: float | None = None) -> float:
    """A parameter as a float.

    Raises
    ------
    SpecError
        It is no finite number, or below the least.
    """
    value = plain_number(value)
    if not is_number(value) or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least:g}"
        raise SpecError(f"{owner} got {name}={shown(value)}; give a finite number{bound}.")
    return float(value) + 0.0  # -0.0 == 0.0, so both have one spelling
