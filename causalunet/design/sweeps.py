"""Many interventions at once: the product of the values of a kind's fields, and sums of several."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, TypeVar

from causalunet.design.interventions import Intervention
from causalunet.design.limits import MOST_PARTS, check_ordered, is_integer, shown
from causalunet.design.windows import Window
from causalunet.errors import SpecError

__all__ = ["factorial", "sweep"]

Kind = TypeVar("Kind", bound=Intervention)


def sweep(kind: type[Kind], **values: Any) -> tuple[Kind, ...]:
    """Build every combination of field values.

    Parameters
    ----------
    kind : type of Intervention
        Such as `AblateBlock`.
    **values
        A field's value, or a list, tuple, range or array of values. ``start`` and ``length`` together stand for
        ``window``; ``stage`` may join them.

    Returns
    -------
    tuple of Intervention
        The last field varies fastest.

    Raises
    ------
    SpecError
        A range is empty, a field is unknown, or a combination is not valid.

    Examples
    --------
    >>> from causalunet.design import AblateBlock
    >>> swept = sweep(AblateBlock, bottom=(2, 4), start=range(60, 40, -10), length=5)
    >>> [item.label for item in swept]
    ['ablate_block bottom=2 60-56', 'ablate_block bottom=2 50-46',
     'ablate_block bottom=4 60-56', 'ablate_block bottom=4 50-46']
    """
    if not isinstance(kind, type) or not issubclass(kind, Intervention):
        raise SpecError(f"{shown(kind)} cannot be swept; give a kind of intervention, such as AblateBlock.")
    known = {entry.name for entry in fields(kind)} - {"label"}
    allowed = known | ({"start", "length", "stage"} if "window" in known else set())
    unknown = sorted(set(values) - allowed)
    if unknown:
        raise SpecError(
            f"{kind.__name__} has no field {', '.join(unknown)} to sweep; it has {', '.join(sorted(allowed))}."
        )
    for name, value in values.items():
        check_ordered(f"The sweep over {kind.__name__}", name, value)
    axes = {name: _axis(value) for name, value in values.items()}
    empty = [name for name, axis in axes.items() if not axis]
    if empty or not axes:
        raise SpecError(
            f"The sweep over {kind.__name__} is empty: {', '.join(empty) or 'no field'} has no values. "
            "Give at least one value for every field."
        )
    return tuple(
        _build(kind, dict(zip(axes, combination, strict=True))) for combination in itertools.product(*axes.values())
    )


def _axis(value: Any) -> tuple[Any, ...]:
    swept = isinstance(value, Iterable) and not isinstance(value, str) and not hasattr(value, "parts")
    return tuple(value) if swept else (value,)


def _build(kind: type[Kind], values: dict[str, Any]) -> Kind:
    if ("start" in values) != ("length" in values):
        raise SpecError(f"The sweep over {kind.__name__} names only one of start and length; a window needs both.")
    if "start" in values and "window" in values:
        raise SpecError(f"The sweep over {kind.__name__} names both window and start with length; give one of them.")
    if "start" in values:
        own = "stage" in {entry.name for entry in fields(kind)}
        stage = None if own else values.pop("stage", None)
        values["window"] = Window(values.pop("start"), values.pop("length"), stage)
    try:
        return kind(**values)
    except TypeError as error:
        raise SpecError(f"{kind.__name__} cannot be built from {values}: {error}.") from error


def factorial(*interventions: Intervention, order: int = 2) -> tuple[Intervention, ...]:
    """Make the cells of a factorial design: interventions alone, and together.

    The cell of none of them is the null intervention, which a study adds by itself.

    Parameters
    ----------
    *interventions : Intervention
        Two or more.
    order : int
        How many are put together at the most: 2 for all pairs, whose interactions `causalunet.analysis.interactions`
        tells.

    Returns
    -------
    tuple of Intervention
        Each alone, then each two, and so on, in the order given. What two have in common is made once.

    Raises
    ------
    SpecError
        There are fewer than two, two are equal, the order is not from 2 to their number, or two cannot be made
        together: they edit one place at one step in different ways.

    Examples
    --------
    >>> from causalunet.design import AblateBlock, AblateSkip, Window
    >>> cells = factorial(AblateBlock(2, Window(10, 5)), AblateSkip(2, Window(10, 5)))
    >>> [item.label for item in cells[1:]]
    ['ablate_skip top=2 10-6', 'ablate_block bottom=2 10-6 + ablate_skip top=2 10-6']
    """
    if strange := [item for item in interventions if not isinstance(item, Intervention)]:
        raise SpecError(
            f"factorial got {shown(strange[0])}; give interventions, and unpack what is several: *sweep(...)."
        )
    if not 2 <= len(interventions) <= MOST_PARTS or len({item.digest for item in interventions}) < len(interventions):
        raise SpecError(f"factorial got {shown([item.label for item in interventions])}; give two or more that differ.")
    if not is_integer(order) or not 2 <= order <= len(interventions):
        raise SpecError(f"factorial got order={shown(order)}; give a number from 2 to {len(interventions)}.")
    return tuple(
        functools.reduce(operator.add, chosen)
        for together in range(1, order + 1)
        for chosen in itertools.combinations(interventions, together)
    )
