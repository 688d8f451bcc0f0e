"""Designs of mediation: an edit with other places held at what they are without it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from causalunet.design.fills import Patch
from causalunet.design.interventions import Edit, Intervention
from causalunet.design.limits import MOST_PARTS, several, shown
from causalunet.design.site import Site
from causalunet.design.windows import Window, Windows, joined
from causalunet.errors import SpecError

__all__ = ["mediation"]


def mediation(
    edit: Intervention,
    through: Iterable[str | Site | tuple[str | Site, ...]],
    window: Window | Windows | None = None,
) -> tuple[Intervention, ...]:
    """Make the interventions that tell how much of an edit's effect goes through other places.

    Beside the edit itself, the edit with each place held at the value of the run without intervention, by `Patch`. What
    is left of the effect then does not go through that place; `causalunet.analysis.mediation` says how much that is.

    Parameters
    ----------
    edit : Intervention
        Whose effect is divided. A composition is one edit.
    through : iterable of (str, Site, or tuple of these)
        Places, each held alone; those of a tuple are held together.
    window : Window or Windows, optional
        While they are held; by default the steps of the edit. Whatever of its effect comes to the place later, over
        x_t, is then part of the direct effect: hold it until the end, ``Window(start, start)``, for all that goes
        through the place at any step from there on.

    Returns
    -------
    tuple of Intervention
        The edit first.

    Raises
    ------
    SpecError
        There is no place, one is given twice, or one is edited by the edit itself.

    Notes
    -----
    A place that lies behind all that the edit changes, as the bottleneck does behind the block above it once skip
    connections are cut, leaves the edit nothing that anything depends on. Planning refuses such an intervention: the
    direct effect is then 0 without any run.

    Examples
    --------
    >>> from causalunet.design import AblateBlock, Window
    >>> made = mediation(AblateBlock(2, Window(10, 5)), through=["up.3", ("up.4", "up.5")])
    >>> [item.label for item in made[1:]]
    ['ablate_block bottom=2 10-6 + edit up.3 10-6 patch',
     'ablate_block bottom=2 10-6 + edit up.4 10-6 patch + edit up.5 10-6 patch']
    """
    if not isinstance(edit, Intervention):
        raise SpecError(f"mediation got edit={shown(edit)}; give the intervention whose effect is divided.")
    if window is None:
        steps = joined(one.window for one in edit.edits())
        window = steps[0] if len(steps) == 1 else Windows(steps)
    groups = _listed("through", through)
    made = tuple(_held(edit, group, window) for group in groups)
    if not made or len({item.digest for item in made}) < len(made):
        raise SpecError(f"mediation got through={shown(groups)}; give one place or more, each once.")
    return (edit, *made)


def _held(edit: Intervention, group: str | Site | tuple[str | Site, ...], window: Window | Windows) -> Intervention:
    made = edit
    for place in _listed("places held together", group):
        made += Edit(place, window, Patch())
    return made


def _listed(name: str, given: Any) -> tuple[Any, ...]:
    return (given,) if isinstance(given, Site) else several("mediation", name, given, str, MOST_PARTS)
