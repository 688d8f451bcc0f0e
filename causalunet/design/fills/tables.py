"""Fills made of numbers that a user gives: values by step, and channels that remain by step."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from causalunet.calls import clear_calls, hold
from causalunet.design.donors import FillContext
from causalunet.design.fills.base import Fill, finite
from causalunet.design.fills.known import Known
from causalunet.design.limits import MOST_SIZE, MOST_STEPS, checked_integer, shown
from causalunet.design.views.base import Axes
from causalunet.dims import CHANNEL, ROW, STEP
from causalunet.errors import ComponentError, SpecError

__all__ = ["FromTable", "MaskChannels"]


class Table:
    """Numbers along named dimensions, known by their digest.

    Parameters
    ----------
    values : ndarray of float32
    dims : tuple of str
    steps : tuple of int
        Of the dimension ``step``, if there is one.
    """

    def __init__(self, values: NDArray[np.float32], dims: tuple[str, ...], steps: tuple[int, ...]) -> None:
        self.values, self.dims, self.steps = values, dims, steps
        said = f"{dims} {values.shape} {steps}".encode()
        self.digest = hashlib.sha256(said + np.ascontiguousarray(values, "<f4").tobytes()).hexdigest()[:16]


_TABLES: Known[Table] = Known(
    "FromTable",
    "The values of FromTable {digest} are not here: a study has their digest alone. Make FromTable(table) of the same "
    "table before it is planned, and keep that.",
)


@clear_calls
@dataclass(frozen=True, slots=True)
class FromTable(Fill):
    """Values that are given, by step, channel or any other dimension of the place.

    A study holds their digest, not the numbers: it is one study with the same numbers and another with others. Read
    back from a store or from JSON it can be looked at, and run or gone on with only where the table was given again, by
    making the same ``FromTable(table)`` before; otherwise planning says so.

    Parameters
    ----------
    table : xarray.DataArray, or ndarray
        Finite, of named dimensions among those of the place, such as ``("step", "channel")``. Along ``step`` it has
        coordinates, steps of the run; without the dimension, the values are the same at all of them. Along others it
        has the sizes of what is replaced; along those that it lacks its values repeat. An array without names has
        them in ``dims``.
    dims : sequence of str, optional
        Names of an array's dimensions.
    steps : sequence of int, optional
        Of an array with a dimension ``step``, its coordinates.
    digest : str
        Of a table that is not given here, as JSON has it.

    Notes
    -----
    Values are kept in single precision.
    """

    name: ClassVar[str] = "from_table"
    severs: ClassVar[bool] = True
    digest: str
    table: Table | None = field(default=None, compare=False, repr=False)

    def __init__(
        self,
        table: Any = None,
        *,
        dims: Sequence[str] | None = None,
        steps: Sequence[int] | None = None,
        digest: str | None = None,
    ) -> None:
        if (table is None) == (digest is None):
            raise SpecError("FromTable takes a table, or the digest of one; give the table.")
        if table is None:
            hold(self, digest=digest, table=_TABLES.find(digest))
            return
        made = _TABLES.keep(_read_table(table, dims, steps))
        hold(self, digest=made.digest, table=made)

    def __post_init__(self) -> None:
        """Nothing is left to check."""

    def check(self, axes: Axes, owner: str) -> None:
        """The table is here, and has dimensions of the value, no larger than the value's."""
        table = _TABLES.need(self.table, self.digest)
        for dim, size in zip(table.dims, table.values.shape, strict=True):
            if dim != STEP and dim not in axes.dims[1:]:
                raise ComponentError(
                    f"The table has a dimension {dim!r}, and {owner} has none; it has {', '.join(axes.dims[1:])}."
                )
            if dim != STEP and size > axes.size(dim):
                raise ComponentError(f"The table has {size} along {dim!r}, and {owner} has {axes.size(dim)}.")

    def over(self, window: Any) -> Any:
        """All steps of the window, which the table has to have, if it is here."""
        table = self.table
        if table is not None and STEP in table.dims and (absent := [one for one in window if one not in table.steps]):
            raise SpecError(
                f"The table has no values for step {absent[0]}; it has {shown(list(table.steps))}. Give it all steps "
                "of the window."
            )
        return window, self

    def put(self, value: Any, context: FillContext) -> Any:
        """The values of the step."""
        table = _TABLES.need(self.table, self.digest)
        values, dims = table.values, table.dims
        if STEP in dims:
            values = np.asarray(values.take(table.steps.index(context.step), axis=dims.index(STEP)))
            dims = tuple(dim for dim in dims if dim != STEP)
        order = [dims.index(dim) for dim in context.dims if dim in dims]
        sizes = dict(zip(dims, values.shape, strict=True))
        there = dict(zip(context.dims, value.shape, strict=True))
        if wrong := [dim for dim, size in sizes.items() if there.get(dim) != size]:
            raise SpecError(
                f"The table has {sizes[wrong[0]]} along {wrong[0]!r}, and what it is put in place of has "
                f"{there[wrong[0]]}: view as many, or give a table of that size."
            )
        shape = [sizes.get(dim, 1) for dim in context.dims]
        given = value.new_tensor(values.transpose(order).reshape(shape))
        return given.expand(value.shape).clone()

    def to_json(self) -> dict[str, Any]:
        """Write the digest."""
        return {"name": self.name, "configuration": {"digest": self.digest}}


def _read_table(table: Any, dims: Sequence[str] | None, steps: Sequence[int] | None) -> Table:
    if hasattr(table, "dims") and hasattr(table, "coords"):
        if dims is not None or steps is not None:
            raise SpecError("FromTable got a DataArray, which has dims and steps of its own; leave these out.")
        dims = tuple(map(str, table.dims))
        steps = table.coords[STEP].values if STEP in table.coords else None
        table = table.values
    try:
        values = np.asarray(table, dtype=np.float32)
    except (TypeError, ValueError):
        values = np.full((), np.nan, np.float32)
    if not values.size or not np.isfinite(values).all():
        raise SpecError(f"FromTable got {shown(table)}; give finite numbers.")
    names = () if dims is None else tuple(dims)
    if len(names) != values.ndim or len(set(names)) != len(names) or ROW in names:
        raise SpecError(
            f"FromTable got dims={shown(dims)} for an array of {values.ndim} dimensions; name each one, once, such as "
            "dims=('step', 'channel'). Rows have no name here: all samples get the same."
        )
    found = () if steps is None else tuple(checked_integer("FromTable", "step", one, least=1) for one in list(steps))
    length = values.shape[names.index(STEP)] if STEP in names else 0
    if len(found) != length or len(set(found)) != length:
        raise SpecError(
            f"FromTable got steps={shown(steps)} for {length} along 'step'; give the number of each step of the run, "
            "once, as coordinates or by steps=."
        )
    return Table(values, names, found)


@clear_calls
@dataclass(frozen=True, slots=True)
class MaskChannels(Fill):
    """The value with all channels but some at zero, and which remain depends on the step.

    Parameters
    ----------
    windows : mapping of int to (int, int)
        By step: the first channel that remains, and how many. Steps that are not named are those of the nearest named
        one before in the run, and the first is that of all before it.

    Notes
    -----
    `MaskChannels.routed` gives the windows of Denoising Task Routing (Park et al. 2024).
    """

    name: ClassVar[str] = "mask_channels"
    dims: ClassVar[tuple[str, ...]] = (CHANNEL,)
    windows: tuple[tuple[int, int, int], ...]

    def __init__(self, windows: Mapping[int, tuple[int, int]] | Sequence[Sequence[int]]) -> None:
        hold(self, windows=windows)

    def __post_init__(self) -> None:
        given: Any = self.windows
        try:
            rows = [(step, *window) for step, window in given.items()] if isinstance(given, Mapping) else list(given)
            entries = [tuple(row) for row in rows]
        except TypeError:
            entries = []
        if not entries or not all(len(entry) == 3 for entry in entries):
            raise SpecError(
                f"MaskChannels got windows={shown(given)}; give for each step the first channel and how many remain, "
                "such as {50: (0, 32), 25: (16, 32)}."
            )
        bounds = (("step", 1, MOST_STEPS), ("first channel", 0, MOST_SIZE), ("number of channels", 0, MOST_SIZE))
        checked = [
            tuple(
                checked_integer("MaskChannels", what, one, least=least, most=most)
                for one, (what, least, most) in zip(entry, bounds, strict=True)
            )
            for entry in entries
        ]
        if len({step for step, _, _ in checked}) < len(checked):
            raise SpecError("MaskChannels got two windows for one step; give one.")
        object.__setattr__(self, "windows", tuple(sorted(checked, reverse=True)))

    @classmethod
    def routed(cls, steps: int, channels: int, *, share: float = 0.8, alpha: float = 4.0) -> MaskChannels:
        """Windows that slide over the channels, from the last in the first step of a run to the first in its last.

        At step t = T ... 1 they begin at channel round(((t - 1) / (T - 1))^alpha (C - c)), with c = floor(share C).

        Parameters
        ----------
        steps, channels : int
            T and C.
        share : float
            Of the channels that remain.
        alpha : float
            The larger, the more steps have the first channels.
        """
        steps = checked_integer("MaskChannels.routed", "steps", steps, least=1, most=MOST_STEPS)
        channels = checked_integer("MaskChannels.routed", "channels", channels, least=1, most=MOST_SIZE)
        kept = int(finite("MaskChannels.routed", "share", share, least=0) * channels)
        if kept > channels:
            raise SpecError(f"MaskChannels.routed got share={shown(share)}; give a share of at most 1.")
        alpha = finite("MaskChannels.routed", "alpha", alpha, least=0)
        at = {step: (step - 1) / max(1, steps - 1) for step in range(steps, 0, -1)}
        return cls({step: (round(time**alpha * (channels - kept)), kept) for step, time in at.items()})

    def check(self, axes: Axes, owner: str) -> None:
        """Windows lie within the channels."""
        super(MaskChannels, self).check(axes, owner)
        most = max(first + count for _, first, count in self.windows)
        if most > axes.size(CHANNEL):
            raise ComponentError(
                f"MaskChannels keeps channels up to {most - 1}, and {owner} has {axes.size(CHANNEL)}, counted from 0."
            )

    def put(self, value: Any, context: FillContext) -> Any:
        """The value with the other channels at zero."""
        before = [window for window in self.windows if window[0] >= context.step]
        _, first, count = before[-1] if before else self.windows[0]
        axis, changed = context.dims.index(CHANNEL), value.new_zeros(value.shape)
        length = min(count, value.shape[axis] - first)
        if length > 0:
            changed.narrow(axis, first, length).copy_(value.narrow(axis, first, length))
        return changed

    def to_json(self) -> dict[str, Any]:
        """Write as other fills, windows as lists."""
        return {"name": self.name, "configuration": {"windows": [list(window) for window in self.windows]}}
