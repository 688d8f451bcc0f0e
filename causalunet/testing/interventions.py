"""Whether a kind of intervention says the same edits every time, and can be stored and told apart."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from causalunet.design.anatomy import Anatomy
from causalunet.design.conflicts import check_conflicts, edits_to_json
from causalunet.design.coordinates import check_coordinates
from causalunet.design.interventions import KINDS, Edit, Intervention
from causalunet.design.limits import shown
from causalunet.errors import SpecError
from causalunet.testing.report import Checks, Conformance
from causalunet.testing.values import registered, round_trip

__all__ = ["check_intervention"]

_LABEL = "under another label"


def check_intervention(
    intervention: Intervention, *, anatomy: Anatomy | None = None, steps: int | None = None
) -> Conformance:
    """Check that a kind of intervention is what planning, storing and selecting take it for, by one of the kind.

    It is known by its name; says the same edits every time, edits that go together; comes back from JSON; has a digest
    that its label does not change; edits steps of its own window only, and has coordinates that a store can hold.

    Parameters
    ----------
    intervention : Intervention
        With values of its fields that are not the defaults, so that a field that is lost shows.
    anatomy : Anatomy, optional
        Of a model, such as ``load_model("shapes").anatomy``: its places have to exist there, and each edit can fire.
    steps : int, optional
        Of a run: the windows have to lie in it.

    Returns
    -------
    Conformance

    Raises
    ------
    ConformanceError
        A check failed; each failure is a line of the message.
    SpecError
        It is no intervention.

    Examples
    --------
    >>> import causalunet as cu
    >>> from causalunet.testing import check_intervention
    >>> check_intervention(cu.AblateBlock(bottom=2, window=cu.Window(9, 3)), steps=20)
    <Conformance of "the kind 'ablate_block'": passes 7 checks>
    """
    if not isinstance(intervention, Intervention):
        raise SpecError(
            f"{shown(intervention)} is no intervention. Give an instance of a subclass of "
            "causalunet.design.Intervention."
        )
    checks = Checks(f"the kind {intervention.kind!r}")
    checks.run("registered", "its name", lambda: registered(intervention, KINDS, "kind"))
    if checks.run("edits", "said twice", lambda: _edits(intervention)):
        edits = f"{len(intervention.edits())} edits"
    else:
        edits = "-"
    checks.run("go together", edits, lambda: check_conflicts(list(intervention.edits())), ["edits"])
    checks.run("JSON", "a round trip", lambda: _written(intervention), ["registered", "edits"])
    checks.run("digest", _LABEL, lambda: _digest(intervention), ["edits", "JSON"])
    checks.run("windows", edits, lambda: _windows(intervention, steps), ["edits"])
    checks.run("coordinates", "its own", lambda: check_coordinates(intervention), ["edits", "JSON"])
    if anatomy is not None:
        placed = intervention.placed(anatomy)
        checks.run("places", f"{len(anatomy.components)} components", lambda: anatomy.check(placed), ["edits"])
    return checks.done()


def _edits(item: Intervention) -> Iterator[str]:
    first: Any = item.edits()
    if not isinstance(first, tuple) or not first or not all(isinstance(edit, Edit) for edit in first):
        yield f"edits() gave {shown(first)}; it has to give a tuple of one Edit or more."
        return
    if item.edits() != first:
        yield (
            f"edits() said {shown(first)} and then something else. The same fields have to give the same edits, in the "
            "same order: draw nothing at random, and sort what comes from a set."
        )
    counted, there = item.count_edits(), sum(len(edit.window.parts) for edit in first)
    if counted < there:
        yield (
            f"count_edits() says {counted}, and edits() has {there}, each counted once per window. Leave count_edits() "
            "as it is, or let it count all."
        )


def _written(item: Intervention) -> Iterator[str]:
    told = list(round_trip(item, Intervention.from_json))
    yield from told
    if not told and Intervention.from_json(item.to_json()).edits() != item.edits():
        yield "it came back from JSON with other edits. They may depend on nothing but the fields."


def _digest(item: Intervention) -> Iterator[str]:
    if not re.fullmatch(r"[0-9a-f]{16}", item.digest):
        yield f"its digest is {shown(item.digest)}; it has sixteen hexadecimal digits. Leave the property as it is."
    other = dataclasses.replace(item, label=_LABEL)
    named = other.digest != item.digest
    if named or edits_to_json(other.edits()) != edits_to_json(item.edits()):
        yield (
            f"labelled {_LABEL!r} it has {'another digest' if named else 'other edits'}. A label "
            "is a name in tables and figures; results are found by what is done. Let edits() and to_json() not use it."
        )


def _windows(item: Intervention, steps: int | None) -> Iterator[str]:
    own: Any = getattr(item, "window", None)
    said = type(item).coordinates is not Intervention.coordinates
    for edit in item.edits():
        if steps is not None:
            edit.window.check(steps)
        outside = sorted(set(edit.window) - set(own), reverse=True) if own is not None and not said else []
        if outside:
            yield (
                f"{edit.component} is edited at step {outside[0]}, outside the intervention's window {shown(own)}, by "
                "which results are selected. Keep edits in the window, or say in coordinates() where they are."
            )
