"""What a study keeps beside images and outcomes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from causalunet.calls import clear_calls, hold
from causalunet.design.fills import Identity
from causalunet.design.interventions import Edit
from causalunet.design.limits import (
    LARGEST,
    MOST_BINS,
    MOST_PATTERNS,
    MOST_STEPS,
    check_keys,
    check_list,
    check_text,
    integers,
    several,
    shown,
)
from causalunet.design.site import Site
from causalunet.design.views import View
from causalunet.design.windows import Window
from causalunet.errors import ComponentError, SpecError

if TYPE_CHECKING:
    from causalunet.design.anatomy import Anatomy

__all__ = ["Record", "record_from_json"]

_PATTERN = 128
"""Most characters of a component pattern: as many as a component's name can have."""


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What is kept beside images and outcomes.

    Parameters
    ----------
    activations : iterable of str
        Component patterns, such as ``("mid", "up.*")``, whose full output is stored.
    summary : iterable of str or Site
        Component patterns of which mean, SD, norm, least and largest value, and cosine to the baseline are stored; or
        parts of a place, ``Site("up.3.joint.maps") @ Tokens("red")``. Results have them under their names, parts as
        ``str(site)``: ``"up.3.joint.maps tokens red"``.
    steps : iterable of int, optional
        Steps at which; all by default.
    of : {"baseline", "all"}
        Whose activations: the baseline's, or those of every run.
    dtype : {"float16", "float32"}
        Of stored activations.
    bins : sequence of float, optional
        Edges, ascending, of the bins of a histogram that is stored of all that is summarised, such as
        ``numpy.linspace(-8, 8, 65)``. Bins are half-open but for the last, as those of ``numpy.histogram``; values
        outside are in none.
    """

    activations: tuple[str, ...]
    summary: tuple[str | Site, ...]
    steps: tuple[int, ...] | None
    of: Literal["baseline", "all"]
    dtype: Literal["float16", "float32"]
    bins: tuple[float, ...] | None

    def __init__(
        self,
        *,
        activations: str | Iterable[str] = (),
        summary: str | Site | Iterable[str | Site] = (),
        steps: Iterable[int] | None = None,
        of: Literal["baseline", "all"] = "baseline",
        dtype: Literal["float16", "float32"] = "float16",
        bins: Iterable[float] | None = None,
    ) -> None:
        hold(self, activations=activations, summary=summary, steps=steps, of=of, dtype=dtype, bins=bins)

    def __post_init__(self) -> None:
        for name in ("activations", "summary"):
            given = getattr(self, name)
            entries = several("Record", name, (given,) if isinstance(given, Site) else given, str, MOST_PATTERNS)
            object.__setattr__(self, name, entries)
            sites = [entry for entry in entries if isinstance(entry, Site) and name == "summary"]
            patterns = [entry for entry in entries if entry not in sites]
            if not all(isinstance(pattern, str) and len(pattern) <= _PATTERN for pattern in patterns):
                raise SpecError(
                    f"Record got {name}={shown(entries)}; give component patterns such as 'up.*', of up to {_PATTERN} "
                    "characters. Of summaries parts of a place too, such as Site('mid') @ Channels(0)."
                )
            for pattern in patterns:
                check_text("Record", name, pattern)
            if branched := [site for site in sites if site.branch != "both"]:
                raise SpecError(
                    f"Record got {name}={shown(str(branched[0]))}; what is recorded is the conditional branch. "
                    "Leave Rows out."
                )
        if self.steps is not None:
            steps = sorted(set(integers("Record", "steps", self.steps)), reverse=True)
            if not steps or len(steps) > MOST_STEPS or max(map(abs, steps)) > LARGEST:
                raise SpecError(
                    f"Record got steps={shown(self.steps)}; give one or more integers, or None for all steps."
                )
            object.__setattr__(self, "steps", tuple(steps))
        for name, known in (("of", ("baseline", "all")), ("dtype", ("float16", "float32"))):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in known:
                raise SpecError(f"Record got {name}={shown(value)}; it is one of {', '.join(known)}.")
        object.__setattr__(self, "bins", self._checked_bins())

    def _checked_bins(self) -> tuple[float, ...] | None:
        if self.bins is None:
            return None
        given: Any = self.bins
        try:
            edges = np.asarray(given if isinstance(given, np.ndarray) else list(given), np.float64)
        except (TypeError, ValueError):
            edges = np.empty(0)
        if edges.ndim != 1 or not 2 <= edges.size <= MOST_BINS + 1 or not np.isfinite(edges).all():
            edges = np.zeros(2)
        found = tuple(map(float, edges + 0.0))
        if any(low >= high for low, high in pairwise(found)):
            raise SpecError(
                f"Record got bins={shown(given)}; give the edges of 1 to {MOST_BINS:,} bins, finite and ascending, "
                "such as numpy.linspace(-8, 8, 65)."
            )
        if not self.summary:
            raise SpecError("Record got bins, of what is summarised, and no summary; give it, such as summary='up.*'.")
        return found

    @property
    def parts(self) -> tuple[Edit, ...]:
        """Summarised parts of places, each as an edit that changes nothing of it, so that one check serves both."""
        sites = (entry for entry in self.summary if isinstance(entry, Site))
        return tuple(Edit(site.component, Window(1, 1), Identity(), view=site.view) for site in sites)

    def summarised(self, anatomy: Anatomy) -> dict[str, Site]:
        """What is summarised, by its name in results: what patterns select, then parts of places.

        Parameters
        ----------
        anatomy : Anatomy

        Raises
        ------
        ComponentError
            The model has no such place, or not that part of it.
        """
        chosen = anatomy.select(entry for entry in self.summary if isinstance(entry, str))
        for edit in self.parts:
            if edit.component in anatomy.skips:
                raise ComponentError(
                    f"Record got summary={shown(str(edit.site))}; what goes over a skip connection is not recorded. "
                    f"Name the component that puts it out, {anatomy.skips[edit.component].source}."
                )
            anatomy.check(edit, (edit,))
            if edit.component in anatomy.inner_by_name and anatomy.inner_by_name[edit.component].weight:
                raise ComponentError(
                    f"Record got summary={shown(str(edit.site))}; weights are not recorded, the model has them."
                )
        return {**{name: Site(name) for name in chosen}, **{str(edit.site): edit.site for edit in self.parts}}

    def places(self, anatomy: Anatomy) -> tuple[str, ...]:
        """Places whose values are needed, each once.

        Parameters
        ----------
        anatomy : Anatomy
        """
        summarised = (site.component for site in self.summarised(anatomy).values())
        return tuple(dict.fromkeys((*anatomy.select(self.activations), *summarised)))

    def to_json(self) -> dict[str, Any]:
        """Write with plain JSON types; bins only where there are some, so that other studies keep their digest."""
        written = {entry.name: _plain(getattr(self, entry.name)) for entry in fields(self)}
        return {name: value for name, value in written.items() if (name, value) != ("bins", None)}


def record_from_json(value: Any) -> Record:
    """Read a record that JSON holds.

    Raises
    ------
    SpecError
        It is not the object that a study writes.
    """
    check_keys("The record cannot be read: it", value, [entry.name for entry in fields(Record)])
    for name in ("activations", "summary", "steps", "bins"):
        if name in value and not (name in ("steps", "bins") and value[name] is None):
            check_list(f"The record cannot be read: its {name}", value[name], MOST_STEPS)
    entries = value.get("summary", ())
    return Record(**{**value, "summary": [_site(entry) if isinstance(entry, dict) else entry for entry in entries]})


def _plain(value: Any) -> Any:
    if isinstance(value, Site):
        return {"component": value.component, "view": value.view.to_json()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def _site(value: Any) -> Site:
    check_keys("The record cannot be read: a part of a place", value, ("component", "view"))
    return Site(value.get("component"), View.from_json(value.get("view")))
