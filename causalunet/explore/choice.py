"""What is looked at: a view and what it is of, as values that a link can carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from causalunet.design.limits import shown
from causalunet.errors import SpecError
from causalunet.explore.stored import Stored

__all__ = ["Choice", "choose", "from_query", "to_query"]

_TOLD = 6  # values that an error lists


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A view of stored results, and what it is of.

    Parameters
    ----------
    view : str
        Of `Stored.views`.
    intervention : str
        By its label.
    sample : int
        By its coordinate.
    step : int
        At which states and attention maps are looked at.
    outcome : str
        With one number per cell.
    maps : str
        Whose attention maps are looked at; empty where none are recorded.
    token : int
        That is asked, of attention maps.
    """

    view: str
    intervention: str
    sample: int
    step: int
    outcome: str
    maps: str
    token: int


def choose(stored: Stored, **given: Any) -> Choice:
    """What is looked at, with defaults for what is not given.

    Parameters
    ----------
    stored : Stored
    **given
        Fields of `Choice`.

    Raises
    ------
    SpecError
        A field or its value is not there.
    """
    choice = _first(stored)
    unknown = [name for name in given if name not in asdict(choice)]
    if unknown:
        raise SpecError(f"There is nothing to choose by {shown(unknown[0])}; there is {', '.join(asdict(choice))}.")
    if "intervention" in given and "step" not in given and given["intervention"] in stored.rows_by_label:
        choice = replace(choice, step=_begin(stored, given["intervention"]))
    for name in asdict(choice):  # in this order: the tokens are those of the place
        if name in given:
            known = _known(stored, choice, name)
            choice = replace(choice, **{name: _checked(name, given[name], known)})
    return choice


def from_query(stored: Stored, query: str) -> tuple[Choice, list[str]]:
    """Read a link; what of it this store does not have is left at its default, and told.

    Parameters
    ----------
    stored : Stored
    query : str
        As `to_query` writes it, with or without a question mark.
    """
    given: dict[str, Any] = {}
    told = []
    fields = asdict(_first(stored))
    for name, text in parse_qsl(query.lstrip("?"), max_num_fields=20):
        if name not in fields:
            continue
        try:
            value = int(text) if isinstance(fields[name], int) else text
            choose(stored, **given, **{name: value})
        except SpecError as error:
            told.append(str(error))
        except ValueError:
            told.append(f"{name}={shown(text)} is no number.")
        else:
            given[name] = value
    return choose(stored, **given), told


def to_query(choice: Choice) -> str:
    """Write what is looked at as the query of a link, without a question mark."""
    fields: Mapping[str, Any] = asdict(choice)
    left_out = () if choice.maps else ("maps", "token")
    return urlencode({name: value for name, value in fields.items() if name not in left_out})


def _first(stored: Stored) -> Choice:
    label = stored.rows[0].label
    maps = next(iter(stored.maps), "")
    return Choice(
        view=stored.views[0],
        intervention=label,
        sample=stored.samples[0],
        step=_begin(stored, label),
        outcome=stored.outcomes[0],
        maps=maps,
        token=0,
    )


def _begin(stored: Stored, label: str) -> int:
    """First step of a window, unless the run has no such step."""
    start = stored.rows_by_label[label].start
    return start if start in stored.steps else stored.steps[0]


def _known(stored: Stored, choice: Choice, name: str) -> list[Any]:
    known: dict[str, list[Any]] = {
        "view": stored.views,
        "intervention": list(stored.rows_by_label),
        "sample": stored.samples,
        "step": stored.steps,
        "outcome": stored.outcomes,
        "maps": list(stored.maps) or [""],
        "token": list(range(stored.tokens(choice.maps))) or [0],
    }
    return known[name]


def _checked(name: str, value: Any, known: list[Any]) -> Any:
    if isinstance(value, bool) or value not in known:
        some = ", ".join(str(one) for one in known[:_TOLD]) + (", ..." if len(known) > _TOLD else "")
        raise SpecError(f"{name}={shown(value)} is not in these results; there is {some}.")
    return known[known.index(value)]
