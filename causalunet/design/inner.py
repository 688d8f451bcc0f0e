"""Places inside a U-Net that are no component's output: queries and heads of attention, neurons, the time."""

from __future__ import annotations

from dataclasses import dataclass

from causalunet.calls import clear_calls
from causalunet.design.limits import COMPONENT_NAME, shown
from causalunet.dims import ROW
from causalunet.errors import ComponentError

__all__ = ["InnerPlace", "unnumbered"]


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class InnerPlace:
    """A value inside a component, or beside them all, that can be edited, kept and recorded (a hook point).

    Parameters
    ----------
    name : str
        Such as ``up.3.self.heads``; that of its component comes first.
    component : str
        In which it is computed: where that does not run, it is not there. Empty for what all components are given.
    module : str
        Dotted path of a module in the U-Net; empty for the U-Net itself.
    dims : tuple of str
        Names of its dimensions without rows.
    shape : tuple of int
        Sizes of these.
    layout : str
        How they lie in the module's tensor, in the notation of einops: ``row (y x) (head channel)``.
    argument : int or str, optional
        Position or keyword of the module's argument that it is; by default it is what the module puts out.
    output : int, optional
        Of a module that puts out a tuple, the place of the tensor.
    part : tuple of (str, int, int), optional
        Of a tensor that holds several values side by side: what ``layout`` calls the dimension that tells them apart,
        which of them this is, and how many there are.
    """

    name: str
    component: str
    module: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    layout: str
    argument: int | str | None = None
    output: int | None = None
    part: tuple[str, int, int] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not COMPONENT_NAME.fullmatch(self.name):
            raise ComponentError(
                f"A place is called {shown(self.name)}; results are stored under such names, so they are up to 128 "
                "letters, digits and any of . _ -, such as 'up.3.self.heads'."
            )
        there = self.layout.replace("(", " ").replace(")", " ").split()
        asked = [ROW, *self.dims, *([self.part[0]] if self.part else [])]
        if sorted(there) != sorted(asked) or len({*asked}) < len(asked) or len(self.dims) != len(self.shape):
            raise ComponentError(
                f"The place {self.name} has the dimensions {', '.join(self.dims)}, the shape {self.shape} and the "
                f"layout {self.layout!r}; the layout has to name row and each of them once, and what part names."
            )


def unnumbered(name: str) -> str:
    """The kind of an inner place: its name with a star for its component, and without numbers, ``*.self.heads``."""
    first, *others = (part for part in name.split(".") if not part.isdigit())
    return ".".join(["*", *others]) if others else first
