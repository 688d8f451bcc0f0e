"""Selecting interventions by what they are: ``ssim.sel(kind="ablate_block", bottom=2)``."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.core.indexing import IndexSelResult
from xarray.indexes import PandasIndex

from causalunet.design.fills import Fill, fill_words
from causalunet.design.views import View
from causalunet.dims import INTERVENTION, STEP

__all__ = ["InterventionIndex", "StepIndex"]


class StepIndex(PandasIndex):
    """Index of steps, which run down from T to 1, by the same rule for ranges as `InterventionIndex`.

    xarray's own index takes a slice in the order of its values, so that ``step=slice(5, 15)`` would silently be empty.
    Here a slice is a range of numbers: both ends are included, either may come first, and without an end it is open
    towards small (before the colon) or large numbers. A stride takes every so many of them, in the order of the run.

    ``drop_indexes(name).set_xindex(name)`` gives xarray's own index back, which `xarray.Dataset.reindex` needs.
    """

    @classmethod
    def of(cls, data: xr.Dataset) -> xr.Dataset:
        """Give a dataset's dimensions ``step`` and ``start``, if they have coordinates, such indexes."""
        for name in (STEP, "start"):
            if name in data.dims and type(data.xindexes.get(name)) is PandasIndex:
                data = data.drop_indexes(name).set_xindex(name, cls)
        return data

    def sel(self, labels: dict[Any, Any], method: str | None = None, tolerance: Any = None) -> IndexSelResult:
        """Positions of labels, or of all steps within a range.

        Raises
        ------
        KeyError
            A label does not exist, or no step lies in the range; the steps that exist are told.
        """
        ((name, label),) = labels.items()
        if not isinstance(label, slice):
            return super().sel(labels, method=method, tolerance=tolerance)
        values = np.asarray(self.index)
        positions = np.flatnonzero(_within(values, slice(label.start, label.stop)))[:: label.step]
        if not len(positions):
            known = f"{values.max()} ... {values.min()}" if len(values) else "none"
            raise KeyError(f"no {name} lies in {label}; there are {known}")
        first, last = int(positions[0]), int(positions[-1])
        if len(positions) == last - first + 1:  # a slice keeps what is stored unread
            return IndexSelResult({self.dim: slice(first, last + 1)})
        return IndexSelResult({self.dim: positions})


class InterventionIndex(xr.Index):
    """Joint index over the coordinates along ``intervention``.

    Each label is a value, a list of values or a slice (a range of values, both ends included, either first); several
    labels must hold together. A `Fill` or a `View` may stand for its words: ``fill=Scale(0.5)`` is
    ``fill="scale 0.5"``. xarray's own indexes allow one selection per dimension only.

    xarray's ``swap_dims`` hands an index on without telling it the new dimension, so that nothing can be selected by
    (the same holds for a pandas.MultiIndex) until the dimension has an index of its own:
    ``data.swap_dims(intervention="start").drop_indexes("start").set_xindex("start")``. `causalunet.analysis.curve`
    and `mean_curve` do so.

    Parameters
    ----------
    columns : mapping of str to ndarray
        Coordinate values, all along ``intervention``.
    """

    def __init__(self, columns: Mapping[Hashable, NDArray[Any]]) -> None:
        self.columns = dict(columns)

    @classmethod
    def from_variables(cls, variables: Mapping[Any, xr.Variable], *, options: Mapping[str, Any]) -> Self:
        """Build from coordinate variables along ``intervention``."""
        return cls({name: np.asarray(variable.values) for name, variable in variables.items()})

    @classmethod
    def concat(cls, indexes: Sequence[Self], dim: Hashable, positions: Iterable[Iterable[int]] | None = None) -> Self:
        """Join along the dimension; ``positions`` says where the entries of each index go."""
        joined = {name: np.concatenate([index.columns[name] for index in indexes]) for name in indexes[0].columns}
        if positions is None:
            return cls(joined)
        order = np.argsort(np.concatenate([np.asarray(list(part)) for part in positions]))
        return cls({name: values[order] for name, values in joined.items()})

    def create_variables(self, variables: Mapping[Any, xr.Variable] | None = None) -> dict[Hashable, xr.Variable]:
        """Hand back the coordinates that the index stands for, with the attributes of those given."""
        if variables is None:
            return {name: xr.Variable((INTERVENTION,), values) for name, values in self.columns.items()}
        # After swap_dims only the coordinate that became the dimension is left, and its dimension has its name.
        return {name: xr.Variable(given.dims, self.columns[name], given.attrs) for name, given in variables.items()}

    def isel(self, indexers: Mapping[Any, int | slice | np.ndarray | xr.Variable]) -> Self | None:
        """Follow a selection by position; one entry leaves nothing to select among."""
        (chosen,) = indexers.values()  # one dimension, whatever swap_dims made its name
        positions: Any = chosen.values if isinstance(chosen, xr.Variable) else chosen
        if isinstance(positions, int | np.integer) or (np.ndim(positions) != 1 and not isinstance(positions, slice)):
            return None
        return type(self)({name: values[positions] for name, values in self.columns.items()})

    def sel(self, labels: dict[Any, Any], **options: Any) -> IndexSelResult:
        """Positions of the interventions that fit every label.

        Raises
        ------
        KeyError
            None fits; the values that exist are listed.
        """
        fits = np.ones(len(next(iter(self.columns.values()))), dtype=bool)
        for name, label in labels.items():
            fits &= _fits(self.columns[name], label)
        if not fits.any():
            known = {name: _listing(self.columns[name]) for name in labels}
            raise KeyError(f"no intervention has {labels}; values that exist, each by itself: {known}")
        return IndexSelResult({INTERVENTION: np.flatnonzero(fits)})

    def to_pandas_index(self) -> NoReturn:
        """Refuse: xarray asks this of the index of a dimension, which this one is after ``swap_dims`` only.

        Raises
        ------
        TypeError
            Always; what to do is told.
        """
        raise TypeError(
            "After swap_dims the new dimension still has the joint index of the interventions. Give it one of its own: "
            "data.drop_indexes(name).set_xindex(name); causalunet.analysis.curve does so."
        )

    def equals(self, other: xr.Index, **kwargs: Any) -> bool:
        """Whether another index holds the same coordinates."""
        return (
            isinstance(other, InterventionIndex)
            and self.columns.keys() == other.columns.keys()
            and all(np.array_equal(self.columns[name], other.columns[name]) for name in self.columns)
        )


def _fits(values: NDArray[Any], label: Any) -> NDArray[np.bool_]:
    label = _in_words(label)
    if isinstance(label, slice):
        return _within(values, label)
    if isinstance(label, str) or np.ndim(label) == 0:
        return np.asarray(values == (label.item() if isinstance(label, np.ndarray | np.generic) else label))
    wanted: Sequence[Any] = [_in_words(one) for one in label]
    return np.isin(values, wanted) if values.dtype.kind in "iuf" else np.array([value in wanted for value in values])


def _in_words(label: Any) -> Any:
    if isinstance(label, View):
        return label.words
    return fill_words(label.to_json()) if isinstance(label, Fill) else label


def _within(values: NDArray[Any], label: slice) -> NDArray[np.bool_]:
    """Values in a range with both ends included, in whichever order the ends are given."""
    if label.step is not None:
        raise KeyError(f"a range of labels has no stride, got {label}; list the labels instead")
    low, high = label.start, label.stop
    if low is not None and high is not None and low > high:
        low, high = high, low
    fits = np.ones(len(values), dtype=bool)
    if low is not None:
        fits &= values >= low
    if high is not None:
        fits &= values <= high
    return fits


def _listing(values: NDArray[Any]) -> list[Any]:
    return sorted(set(values.tolist()))
