"""What every view is: a lens on a value, which shows a part of it and puts another part in its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from causalunet.calls import clear_calls
from causalunet.design.limits import plain_number
from causalunet.design.named import read_named
from causalunet.errors import ComponentError
from causalunet.registry import Registry

__all__ = ["VIEWS", "Axes", "Selection", "View", "along"]

VIEWS: Registry[type[View]] = Registry("view", "causalunet.views")
"""Every view, by name."""

Selection = slice | tuple[int, ...]
"""Which places along one dimension."""


class Axes(NamedTuple):
    """The dimensions of a value, and which of its rows are conditional.

    Attributes
    ----------
    dims : tuple of str
        Names in order; the first is ``row``, one sample in one branch.
    shape : tuple of int
        Sizes.
    cond_rows : int
        Number of conditional rows, which are the first.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    cond_rows: int

    def position(self, dim: str) -> int:
        """Which dimension has a name.

        Raises
        ------
        ComponentError
            None has.
        """
        if dim not in self.dims:
            raise ComponentError(f"The value has no dimension {dim}; it has {', '.join(self.dims)}.")
        return self.dims.index(dim)

    def size(self, dim: str) -> int:
        """Size of a dimension."""
        return self.shape[self.position(dim)]


@clear_calls
@dataclass(frozen=True, slots=True)
class View:
    """Base of every view: a lens on a value, which shows a part of it and puts another part in its place.

    A subclass names itself, enters the registry by subclassing, and says with `selected` which places along which
    dimensions it shows. One whose part is no such block of places defines `get`, `put` and `mask` instead. For all
    values and parts, ``put(value, get(value))`` is the value, ``get(put(value, part))`` is the part, and of two parts
    put one after the other the second counts.

    Attributes
    ----------
    name : str
        Its name in JSON.
    dims : tuple of str
        Dimensions that it addresses. Views of different dimensions can be crossed: ``Channels(0) @ Pixels(y=(0, 4))``.
    """

    name: ClassVar[str] = ""
    dims: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super(View, cls).__init_subclass__(**kwargs)
        if cls.name != View.name:  # a base of several views needs none
            VIEWS.register(cls.name, cls)

    @property
    def least(self) -> Mapping[str, int]:
        """Least size of each dimension, for a view that shows the same places of all values at least so large.

        Empty by default: what the view shows depends on the size. Views that say so for all that they address are
        compared with each other before a model is known.
        """
        return {}

    def selected(self, axes: Axes) -> Mapping[str, Selection]:
        """Which places along which dimensions are shown; all along others.

        Parameters
        ----------
        axes : Axes
            Of the value.

        Returns
        -------
        mapping of str to slice or tuple of int
        """
        raise NotImplementedError(self.name)

    def get(self, value: Any, axes: Axes) -> Any:
        """Show the part.

        Parameters
        ----------
        value : Tensor
            It is not written into, neither here nor through what is returned.
        axes : Axes
            Of the value.

        Returns
        -------
        Tensor
            With the same dimensions in the same order, of other sizes; rows are not mixed.
        """
        for dim, places in self.selected(axes).items():
            value = value[_index(axes, dim, places)]
        return value

    def put(self, value: Any, part: Any, axes: Axes) -> Any:
        """Put another part in place.

        Parameters
        ----------
        value : Tensor
            It is not written into.
        part : Tensor
            Of the shape of what `get` gives.
        axes : Axes
            Of the value.

        Returns
        -------
        Tensor
            The value with that part.
        """
        selected = self.selected(axes).items()
        return _put(value, part, [_index(axes, dim, places) for dim, places in selected])

    def mask(self, axes: Axes) -> NDArray[np.bool_]:
        """Which numbers are shown.

        Parameters
        ----------
        axes : Axes
            Of the value.

        Returns
        -------
        ndarray of bool
            Of the shape of the value, or of one that broadcasts to it.
        """
        shown_there = np.ones((1,) * len(axes.dims), bool)
        for dim, places in self.selected(axes).items():
            others = [other for other in range(len(axes.dims)) if other != axes.position(dim)]
            shown_there = shown_there & np.expand_dims(along(axes.size(dim), places), others)
        return shown_there

    def covers(self, axes: Axes) -> bool:
        """Whether the whole value is shown, so that a part put in its place leaves nothing of it."""
        return bool(self.mask(axes).all())

    def check(self, axes: Axes, owner: str) -> None:
        """Check that a value has what is shown.

        Parameters
        ----------
        axes : Axes
            Of the value.
        owner : str
            Whose value it is, for messages.

        Raises
        ------
        ComponentError
            It has not.
        """
        sizes = ", ".join(f"{size} in {dim}" for dim, size in zip(axes.dims[1:], axes.shape[1:], strict=True))
        for dim in self.dims:
            if dim not in axes.dims:
                raise ComponentError(f"{self.words} asks for {dim} of {owner}, which has {sizes} and no {dim}.")
        for dim, least in self.least.items():
            if axes.size(dim) < least:
                raise ComponentError(
                    f"{self.words} asks for {dim} {least - 1} of {owner}, which has {dim} 0 ... {axes.size(dim) - 1}."
                )
        if not self.mask(axes).any():
            raise ComponentError(f"{self.words} shows nothing of {owner}, which has {sizes}.")

    def __matmul__(self, other: View) -> View:
        """What both show, of dimensions that are not the same; in either order."""
        if not isinstance(other, View):
            return NotImplemented
        from causalunet.design.views.intersection import crossed

        return crossed((self, other))

    @property
    def words(self) -> str:
        """What labels call it: name and parameters, such as ``channels 0-3``."""
        return " ".join([self.name, *(str(getattr(self, entry.name)) for entry in fields(self))])

    def to_json(self) -> dict[str, Any]:
        """Write as ``{"name": ..., "configuration": {...}}``."""
        values = {entry.name: _written(getattr(self, entry.name)) for entry in fields(self)}
        return {"name": self.name, "configuration": values}

    @staticmethod
    def from_json(value: Any) -> View:
        """Read what `to_json` wrote.

        Raises
        ------
        SpecError
            The name is not registered or the configuration does not fit.
        """
        return read_named(VIEWS, value)


def _index(axes: Axes, dim: str, places: Selection) -> tuple[Any, ...]:
    return (*[slice(None)] * axes.position(dim), _plain_index(places))


def _plain_index(places: Selection) -> Any:
    """Places as an index; neighbours as a slice, which copies nothing."""
    if isinstance(places, slice):
        return places
    if places == tuple(range(places[0], places[0] + len(places)) if places else ()):
        return slice(places[0], places[-1] + 1) if places else slice(0, 0)
    return list(places)


def along(size: int, places: Selection) -> NDArray[np.bool_]:
    """Which of all places along a dimension are among some."""
    found = np.zeros(size, bool)
    found[_plain_index(places)] = True
    return found


def _put(value: Any, part: Any, indices: Sequence[tuple[Any, ...]]) -> Any:
    if not indices:
        return part
    index, *rest = indices
    changed = value.clone()
    changed[index] = _put(value[index], part, rest)
    return changed


def _written(value: Any) -> Any:
    return [_written(entry) for entry in value] if isinstance(value, tuple) else plain_number(value)
