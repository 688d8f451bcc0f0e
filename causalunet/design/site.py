"""Where an intervention acts: a component, or a part of what it puts out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from causalunet.calls import clear_calls
from causalunet.design.limits import COMPONENT_NAME, shown
from causalunet.design.views import VIEWS, Branch, Rows, View, Whole, crossed, parts_of
from causalunet.errors import ComponentError, SpecError

__all__ = ["Site", "checked_view"]


@clear_calls
@dataclass(frozen=True, slots=True)
class Site:
    """A component, or a part of what it puts out: ``Site("up.3") @ Channels(0, 1)``.

    Parameters
    ----------
    component : str
        Or the name of a skip connection.
    view : View
        Which part; the whole by default.
    """

    component: str
    view: View = field(default_factory=Whole)

    def __post_init__(self) -> None:
        if not isinstance(self.component, str) or not COMPONENT_NAME.fullmatch(self.component):
            raise ComponentError(
                f"Site got component={shown(self.component)}; names of components are up to 128 letters, digits and "
                "any of . _ -, such as 'up.3'."
            )
        object.__setattr__(self, "view", checked_view("Site", self.view))

    @property
    def branch(self) -> Branch:
        """Which rows the view shows."""
        return next((part.branch for part in parts_of(self.view) if isinstance(part, Rows)), "both")

    @property
    def within(self) -> View:
        """The view but for rows."""
        return crossed(part for part in parts_of(self.view) if not isinstance(part, Rows))

    def __matmul__(self, view: View) -> Site:
        """The part of it that a view shows as well."""
        if not isinstance(view, View):
            return NotImplemented
        return Site(self.component, self.view @ view)

    def __str__(self) -> str:
        """Component and view in words."""
        return self.component if self.view == Whole() else f"{self.component} {self.view.words}"


def checked_view(owner: str, view: Any) -> View:
    """Give a view in its one spelling.

    Raises
    ------
    SpecError
        It is none, or one that says neither its name nor what it shows.
    """
    if not isinstance(view, View):
        raise SpecError(f"{owner} got view={shown(view)}; give a view, such as Channels(0, 1).")
    VIEWS.check_named(view, "name", view.name)
    kind: Any = type(view)
    own = [name for name in ("get", "put", "mask") if getattr(kind, name) is not getattr(View, name)]
    if kind.selected is View.selected and len(own) < 3:
        raise SpecError(
            f"The view {view.name!r} does not say what it shows: give its class selected(axes), or all of get, put and "
            "mask."
        )
    return crossed((view,))
