"""Where a tensor enters a component."""

from __future__ import annotations

from dataclasses import dataclass, field

from causalunet.calls import clear_calls
from causalunet.design.limits import is_integer, shown
from causalunet.design.views import View, Whole
from causalunet.errors import ComponentError

__all__ = ["Port"]


@clear_calls
@dataclass(frozen=True, slots=True)
class Port:
    """An argument of a component's first module, and the part of it that a tensor makes up.

    Parameters
    ----------
    argument : int or str
        Position or keyword in the call of the module.
    view : View
        Which part, such as the last channels where path and skip connection are concatenated; the whole by default. The
        argument has the dimensions of the tensor.
    """

    argument: int | str = 0
    view: View = field(default_factory=Whole)

    def __post_init__(self) -> None:
        if not is_integer(self.argument) and not isinstance(self.argument, str):
            raise ComponentError(f"Port got argument={shown(self.argument)}; give a position from 0, or a keyword.")
        if not isinstance(self.view, View):
            raise ComponentError(f"Port got view={shown(self.view)}; give a view, such as Channels(range(16, 24)).")

    def __str__(self) -> str:
        """In words."""
        whole = f"argument {self.argument!r}"
        return whole if self.view == Whole() else f"{self.view.words} of {whole}"
