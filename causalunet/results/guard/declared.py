"""A store's declaration, read without believing it: what every store has it cannot declare away, nor otherwise."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any, get_args

from causalunet.design.limits import (
    COMPONENT_NAME,
    COORDINATE_NAME,
    check_keys,
    check_plain,
    check_text,
    is_number,
    shown,
)
from causalunet.dims import CHANNEL, DIMS, FACTOR, INTERVENTION, LATENTS, SAMPLE, X, Y
from causalunet.errors import DamageError, SpecError
from causalunet.results.meaning.declaration import (
    EARLIER,
    ORDINARY,
    Declaration,
    DeclaredOutcome,
    conflicts,
    general_path,
)
from causalunet.results.meaning.schema import OPTIONAL, DeclaredCoordinate, Role, Variable, in_latents

__all__ = ["TYPES", "read_declaration"]

TYPES: dict[str, str] = {
    **{name: name for name in ("bool", "int8", "uint8", "int64", "float16", "float32", "float64")},
    "str": "string",
}
"""Types that a store can declare, with zarr's names of them."""

_MOST_ENTRIES, _MOST_AXES, _MOST_WORDS = 2_000, 8, 10_000
_OWN_GROUP = "outcomes"
"""Where outcomes of a study's own lie."""
_OF_A_COMPONENT = "activations/"
_OF_IMAGES = (CHANNEL, Y, X)
_RESERVED = {*DIMS} - {*_OF_IMAGES}
"""Dimensions that no component's output has, since stores have them for something else."""
_OF_RECORDS = ("activations/*", "activation_summary")
"""Groups that only a study that records has."""
_FIELDS = {"dtype", "dims", "meaning", "units", "role", "range", "better", "infinite", "outcome"}
_OTHERWISE: dict[str, frozenset[str]] = {
    **dict.fromkeys(("activations/*/baseline", "activations/*/intervened"), frozenset(("float16", "float32"))),
    "timestep": frozenset(("int64", "float64")),
}
"""Variables and coordinates of every store that have several types."""


def read_declaration(value: Any, where: object, *, factors: bool) -> Declaration:
    """Read the declaration of a store that may be a stranger's.

    Parameters
    ----------
    value : JSON value
        As `Declaration.to_json` writes it.
    where : object
        Whose text names the store.
    factors : bool
        Whether the store says that its model reads factors.

    Raises
    ------
    DamageError
        It is not as a study writes it, or says otherwise what every store has.
    """
    try:
        check_plain("The declaration", value)
        declaration = _read(value)
        wrong = [*_of_own(declaration), *_of_all(declaration, factors=factors), *conflicts(declaration)]
    except SpecError as error:
        wrong = [str(error)]
    if wrong:
        raise DamageError(f"{where} is damaged: what it declares of itself is not sound: {wrong[0]:.500}")
    return declaration


def _read(value: Any) -> Declaration:
    """Take a declaration apart; every text is short, every name safe, every number one."""
    check_keys("The declaration", value, ("dims", "coordinates", "variables", "outcomes"))
    parts = {name: _entries(name, value.get(name)) for name in ("dims", "coordinates", "variables", "outcomes")}
    for name, meaning in parts["dims"].items():
        _check_name("dimension", name, COORDINATE_NAME)
        check_text("A dimension", "meaning", meaning, _MOST_WORDS)
    coordinates = tuple(
        _coordinate(name, dim, told)
        for dim, names in parts["coordinates"].items()
        for name, told in _entries(f"coordinates along {dim!a:.100}", names).items()
    )
    if strange := [one.dim for one in coordinates if one.dim not in parts["dims"]]:
        raise SpecError(f"coordinates lie along {shown(strange[0])}, which is not declared.")
    variables = [_variable(path, told) for path, told in parts["variables"].items()]
    outcomes = tuple(_outcome(name, told, variables) for name, told in parts["outcomes"].items())
    known = {one.name for one in outcomes}
    if strange := [one.path for one in variables if one.outcome and one.outcome not in known]:
        raise SpecError(f"{strange[0]} belongs to an outcome that is not declared.")
    return Declaration(tuple(one for one in variables if not one.outcome), coordinates, parts["dims"], outcomes)


def _entries(what: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or len(value) > _MOST_ENTRIES:
        raise SpecError(f"its {what} are {shown(value)}; there are at most {_MOST_ENTRIES:,}, by name.")
    return value


def _check_name(what: str, name: Any, pattern: re.Pattern[str]) -> None:
    if not isinstance(name, str) or not pattern.fullmatch(name):
        raise SpecError(f"{shown(name)} is no name of a {what}.")


def _coordinate(name: str, dim: str, told: Any) -> DeclaredCoordinate:
    check_keys("A coordinate", told, ("dtype", "meaning"))
    _check_name("coordinate", name, COORDINATE_NAME)
    check_text("A coordinate", "meaning", told.get("meaning"), _MOST_WORDS)
    return DeclaredCoordinate(name=name, dim=dim, dtype=_type(name, told.get("dtype")), meaning=told["meaning"])


def _type(name: str, dtype: Any) -> str:
    if not isinstance(dtype, str) or dtype not in TYPES:
        raise SpecError(f"{name} has the type {shown(dtype)}; there are {', '.join(TYPES)}.")
    return dtype


def _variable(path: str, told: Any) -> Variable:
    check_keys("A variable", told, _FIELDS)
    if lacking := _FIELDS - told.keys():
        raise SpecError(f"{path!a:.200} lacks {', '.join(sorted(lacking))}.")
    group, _, name = path.rpartition("/")
    of_component = group.startswith(_OF_A_COMPONENT) and COMPONENT_NAME.fullmatch(group.removeprefix(_OF_A_COMPONENT))
    if group not in ORDINARY.groups and group != "activations/*" and not of_component:
        raise SpecError(f"{path!a:.200} lies in no group of a study.")
    _check_name("variable", name, COMPONENT_NAME)
    dims, limits = told["dims"], told["range"]
    if not isinstance(dims, list) or len(dims) > _MOST_AXES or not all(isinstance(dim, str) for dim in dims):
        raise SpecError(f"{path} lies along {shown(dims)}.")
    if len({*dims}) < len(dims):
        raise SpecError(f"{path} lies twice along one dimension, {shown(dims)}.")
    if not (isinstance(limits, list) and len(limits) == 2 and all(x is None or is_number(x) for x in limits)):
        raise SpecError(f"{path} has the range {shown(limits)}.")
    role, better, infinite = told["role"], told["better"], told["infinite"]
    if role not in get_args(Role) or better not in ("higher", "lower", None) or not isinstance(infinite, bool):
        raise SpecError(f"{path} has role={shown(role)}, better={shown(better)}, infinite={shown(infinite)}.")
    for entry, most in (("meaning", _MOST_WORDS), ("units", 100), ("outcome", 128)):
        check_text(path, entry, told[entry], most)
    low, high = limits
    return Variable(
        group=group,
        name=name,
        dims=tuple(dims),
        dtype=_type(path, told["dtype"]),
        meaning=told["meaning"],
        units=told["units"],
        role=role,
        range=(-math.inf if low is None else float(low), math.inf if high is None else float(high)),
        better=better,
        infinite=infinite,
        outcome=told["outcome"],
    )


def _outcome(name: str, told: Any, variables: list[Variable]) -> DeclaredOutcome:
    """Find what belongs to an outcome; its status and failures are what those of every outcome are."""
    check_keys("An outcome", told, ("definition", "digest", "written"))
    _check_name("outcome", name, COMPONENT_NAME)
    for entry in ("definition", "digest"):
        check_text(f"The outcome {name}", entry, told.get(entry), _MOST_WORDS)
    if not isinstance(told.get("written"), dict):
        raise SpecError(f"the outcome {name} is written as {shown(told.get('written'))}.")
    own = [one for one in variables if one.outcome == name]
    made = DeclaredOutcome(
        name=name,
        variables=tuple(one for one in own if one.role == "outcome"),
        definition=told["definition"],
        digest=told["digest"],
        written=told["written"],
    )
    if {_form(one) for one in own if one.role != "outcome"} != {_form(made.status), _form(made.failure)}:
        raise SpecError(f"the outcome {name} has another status, or other failures, than outcomes have.")
    return made


def _form(variable: Variable) -> tuple[Any, ...]:
    """What of a variable the checks go by."""
    return variable.path, variable.dims, variable.role, variable.range, variable.infinite, variable.dtype


def _of_own(declaration: Declaration) -> Iterator[str]:
    """What outcomes cannot be: in other groups, of other cells, without labels, or what every store has."""
    along = {dim for outcome in declaration.outcomes for one in outcome.variables for dim in one.dims}
    put_out = {dim for one in declaration.common if one.group.startswith(_OF_A_COMPONENT) for dim in one.dims}
    for dim in {*declaration.dims} - put_out:
        labels = declaration.coordinate(dim, dim)
        if dim not in DIMS and dim not in LATENTS and (dim not in along or labels is None or labels.dtype != "str"):
            yield f"{dim} is no dimension of an outcome with labels."
    for outcome in declaration.outcomes:
        for one in outcome.variables:
            if ORDINARY.variable_at(one.path) is not None:
                yield f"{one.path} is declared as an outcome of its own."
            if one.group != _OWN_GROUP or one.dims[:2] != (INTERVENTION, SAMPLE) or one.dtype == "str":
                yield f"{one.path} is no number of every cell of the group {_OWN_GROUP}."


def _of_all(declaration: Declaration, *, factors: bool) -> Iterator[str]:
    """What every store has, and cannot say otherwise; texts may be those of another version."""
    for one in declaration.common:
        known = ORDINARY.variable_at(one.path)
        if known is not None and known.path != one.path:  # of one component, whose output has dimensions of its own
            known = _put_out(known, one)
        if known is None:
            yield f"{one.path} is nothing that studies have, and no outcome."
        elif not _alike(one, known) or one.dtype not in _types_of(one.path, known.dtype):
            yield f"{one.path} is declared as something else than it is."
    for needed in EARLIER.common:
        required = needed.group not in _OF_RECORDS and (factors or FACTOR not in needed.dims)
        if required and declaration.variable_at(needed.path) is None:
            yield f"{needed.path} is not declared."
    dims = {dim for one in declaration.variables for dim in one.dims}
    for along in (*ORDINARY.coordinates, *OPTIONAL):
        found = declaration.coordinate(along.name, along.dim)
        if found is not None and found.dtype not in _OTHERWISE.get(along.name, {along.dtype}):
            yield f"the coordinate {along.name} is declared as {found.dtype}."
        elif found is None and along.dim in dims and along in EARLIER.coordinates:
            yield f"the coordinate {along.name} is not declared."


def _alike(one: Variable, known: Variable) -> bool:
    """Whether the checks go by the same, but for its type: states may be latents."""
    return _form(one)[:-1] in (_form(known)[:-1], _form(in_latents(known))[:-1])


def _put_out(general: Variable, own: Variable) -> Variable | None:
    """What a component's output is declared as where its dimensions are its own; None if they cannot be."""
    leading = tuple(dim for dim in general.dims if dim not in _OF_IMAGES)
    others = own.dims[len(leading) :]
    if general.dims == leading or own.dims[: len(leading)] != leading or any(dim in _RESERVED for dim in others):
        return None
    return replace(general, group=own.group, dims=own.dims)


def _types_of(path: str, dtype: str) -> Collection[str]:
    return _OTHERWISE.get(general_path(path), {dtype})
