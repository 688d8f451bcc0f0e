"""What a store says of itself: its variables, coordinates, dimensions, and the outcomes of its study's own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from causalunet.design.outcomes import OutcomeDim
from causalunet.dims import DIMS, INTERVENTION, SAMPLE
from causalunet.errors import SpecError
from causalunet.results.meaning.schema import (
    COORDINATES,
    FAILED,
    MISSING,
    SELECTED,
    SOMETIMES,
    STATUS_MEANING,
    VARIABLES,
    DeclaredCoordinate,
    Variable,
)

__all__ = ["EARLIER", "ORDINARY", "Declaration", "DeclaredOutcome", "conflicts", "general_path"]

OUTCOMES = "outcomes"
"""Group of what is measured of cells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredOutcome:
    """An outcome that a study, or whoever added it later, brought with it.

    Parameters
    ----------
    name : str
    variables : tuple of Variable
        All that is stored of it, with its name as their ``outcome``, in the group ``outcomes``.
    definition : str
        In words.
    digest : str
        Names what is measured: parameters, definition, weights.
    written : dict
        The outcome as JSON.
    brings : tuple of OutcomeDim
        Dimensions of its variables that no study has. A store that was read has them in its declaration.
    """

    name: str
    variables: tuple[Variable, ...]
    definition: str = ""
    digest: str = ""
    written: dict[str, Any] = field(default_factory=dict)
    brings: tuple[OutcomeDim, ...] = ()

    @property
    def status(self) -> Variable:
        """Which cells it is measured of: it may be added, or fail, cell by cell."""
        return Variable(
            group=OUTCOMES,
            name=f"{self.name}_status",
            dims=(INTERVENTION, SAMPLE),
            dtype="int8",
            meaning=f"of {self.name} in the cell: {STATUS_MEANING}",
            role="status",
            range=(float(MISSING), float(FAILED)),
            outcome=self.name,
        )

    @property
    def failure(self) -> Variable:
        """Why it could not be measured."""
        return Variable(
            group=OUTCOMES,
            name=f"{self.name}_failure",
            dims=(INTERVENTION, SAMPLE),
            dtype="str",
            meaning=f"why {self.name} failed in the cell; empty for others",
            role="failure",
            outcome=self.name,
        )

    @property
    def all(self) -> tuple[Variable, ...]:
        """Its variables, its status and its failures."""
        return (*self.variables, self.status, self.failure)


@dataclass(frozen=True)
class Declaration:
    """All that a store can hold.

    Parameters
    ----------
    common : tuple of Variable
        Variables that are no outcome of the study's own.
    coordinates : tuple of DeclaredCoordinate
        Every group has those along the dimensions of its variables, but for names that are dimensions of it.
    dims : mapping of str to str
        Every dimension with its meaning.
    outcomes : tuple of DeclaredOutcome
    """

    common: tuple[Variable, ...]
    coordinates: tuple[DeclaredCoordinate, ...]
    dims: Mapping[str, str]
    outcomes: tuple[DeclaredOutcome, ...] = ()

    @cached_property
    def variables(self) -> tuple[Variable, ...]:
        """All variables, those of outcomes among them."""
        return (*self.common, *(one for outcome in self.outcomes for one in outcome.all))

    @cached_property
    def groups(self) -> frozenset[str]:
        """Groups at the root."""
        return frozenset(variable.group.partition("/")[0] for variable in self.variables)

    def variable_at(self, path: str) -> Variable | None:
        """The variable that a path such as ``outcomes/ssim`` stands for; None for coordinates and what is none.

        A component whose output has other dimensions than most has a declaration of its own.
        """
        return self._by_path.get(path) or self._by_path.get(general_path(path))

    def outcome(self, name: str) -> DeclaredOutcome | None:
        """An outcome of the study's own."""
        return next((one for one in self.outcomes if one.name == name), None)

    def coordinates_of(self, dim: str, dims: Iterable[str] = ()) -> tuple[DeclaredCoordinate, ...]:
        """Coordinates along a dimension in a group that has these dimensions."""
        others = {*dims} - {dim}
        return tuple(one for one in self._along.get(dim, ()) if one.name not in others)

    def coordinate(self, name: str, dim: str) -> DeclaredCoordinate | None:
        """The coordinate of that name along a dimension."""
        return next((one for one in self._along.get(dim, ()) if one.name == name), None)

    @cached_property
    def coordinate_names(self) -> frozenset[str]:
        """Names of all coordinates."""
        return frozenset(one.name for one in self.coordinates)

    def with_coordinates(self, coordinates: Iterable[DeclaredCoordinate]) -> Declaration:
        """The declaration with more coordinates, or other types of those that it has.

        Raises
        ------
        SpecError
            A name stands for something else already.
        """
        found = {(one.name, one.dim): one for one in self.coordinates}
        found |= {(one.name, one.dim): one for one in coordinates}
        return _sound(replace(self, coordinates=tuple(found.values())))

    def with_outcome(self, outcome: DeclaredOutcome) -> Declaration:
        """The declaration with one more outcome, or that outcome as it is now.

        Raises
        ------
        SpecError
            A name stands for something else already, or a dimension is not declared.
        """
        others = tuple(one for one in self.outcomes if one.name != outcome.name)
        dims = {**{one.name: one.meaning for one in outcome.brings}, **self.dims}
        labels = [
            DeclaredCoordinate(name=one.name, dim=one.name, dtype="str", meaning="name of the entry")
            for one in outcome.brings
            if self.coordinate(one.name, one.name) is None
        ]
        grown = replace(self, outcomes=(*others, outcome), dims=dims, coordinates=(*self.coordinates, *labels))
        return _sound(grown)

    def holding(self, types: Mapping[str, str]) -> Declaration:
        """The declaration without variables that a store lacks.

        Parameters
        ----------
        types : mapping of str to str
            Of the arrays that are there, by path.
        """
        found = {name: dtype for path, dtype in types.items() for name in (general_path(path), path)}
        kept = [one for one in self.common if one.path in found]
        typed = (replace(one, dtype=one.dtype if one.dtype == "str" else found[one.path]) for one in kept)
        return replace(self, common=tuple(typed))

    def to_json(self) -> dict[str, Any]:
        """Write with plain JSON types, variables by path and coordinates by dimension."""
        along: dict[str, dict[str, Any]] = {}
        for one in self.coordinates:
            along.setdefault(one.dim, {})[one.name] = {"dtype": one.dtype, "meaning": one.meaning}
        return {
            "dims": dict(self.dims),
            "coordinates": along,
            "variables": {one.path: _of_variable(one) for one in self.variables},
            "outcomes": {
                one.name: {"definition": one.definition, "digest": one.digest, "written": one.written}
                for one in self.outcomes
            },
        }

    @cached_property
    def _by_path(self) -> dict[str, Variable]:
        return {variable.path: variable for variable in self.variables}

    @cached_property
    def _along(self) -> dict[str, list[DeclaredCoordinate]]:
        found: dict[str, list[DeclaredCoordinate]] = {}
        for one in self.coordinates:
            found.setdefault(one.dim, []).append(one)
        return found


def general_path(path: str) -> str:
    """Path under which a variable is declared: one declaration stands for the same variable of every component."""
    group, _, name = path.rpartition("/")
    return f"activations/*/{name}" if group.startswith("activations/") else path


def _of_variable(variable: Variable) -> dict[str, Any]:
    told = {entry.name: getattr(variable, entry.name) for entry in fields(Variable)}
    low, high = variable.range
    told["range"] = [low if math.isfinite(low) else None, high if math.isfinite(high) else None]
    told["dims"] = list(variable.dims)
    return {name: value for name, value in told.items() if name not in ("group", "name")}


def _sound(declaration: Declaration) -> Declaration:
    """Refuse what could not be told apart, before anything is written."""
    if wrong := conflicts(declaration):
        raise SpecError(f"A store cannot hold this: {'; '.join(wrong[:3])}. Give it another name.")
    return declaration


def conflicts(declaration: Declaration) -> list[str]:
    """Names that stand for two things in one group, or for nothing."""
    wrong = [
        f"{one.path} has the dimension {dim!r}, which is not declared"
        for one in declaration.variables
        for dim in one.dims
        if dim not in declaration.dims
    ]
    dims_of: dict[str, set[str]] = {}
    names_of: dict[str, list[str]] = {}
    for one in declaration.variables:
        dims_of.setdefault(one.group, set()).update(one.dims)
        names_of.setdefault(one.group, []).append(one.name)
    for group, dims in dims_of.items():
        names = [*names_of[group], *(one.name for dim in dims for one in declaration.coordinates_of(dim, dims))]
        wrong += [f"{name!r} stands for two things in {group}" for name in sorted(set(names)) if names.count(name) > 1]
    return wrong


EARLIER = Declaration(VARIABLES, COORDINATES, DIMS)
"""What stores of format 2 hold, which do not say it."""

ORDINARY = replace(EARLIER, common=(*VARIABLES, *SOMETIMES), coordinates=(*COORDINATES, *SELECTED))
"""What a study without outcomes, and without coordinates of its own kinds, is stored by."""
