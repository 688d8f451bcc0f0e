"""Proposals: shortcuts put together from what was found redundant, for a further study to choose among."""

from __future__ import annotations

import itertools

import numpy as np
import xarray as xr

from causalunet.analysis.criteria import Criterion
from causalunet.analysis.curves import first_reached
from causalunet.analysis.described import variable_name
from causalunet.analysis.estimates import estimate_quality, first_staying
from causalunet.design.interventions import Intervention
from causalunet.design.kinds import AblateBlock, SkipSteps
from causalunet.design.limits import is_integer, plain_number
from causalunet.design.outcomes import Outcome
from causalunet.design.windows import Window, Windows
from causalunet.errors import SpecError

__all__ = ["fewer_steps", "propose_shortcuts", "stopping_step"]


def stopping_step(
    results: xr.DataTree,
    variable: str | Outcome = "ssim",
    *,
    threshold: float = 0.8,
    lasting: bool = True,
    allow_incomplete: bool = False,
) -> int | None:
    """First step whose estimate of x_0 is good enough to stop at (the paper's figures 16 and 17).

    Parameters
    ----------
    results : xarray.DataTree
    variable : str or Outcome
        As for `estimate_quality`.
    threshold : float
        Of the mean outcome between the baseline's estimate at the step and its final image.
    lasting : bool
        Every later step must reach it as well.
    allow_incomplete : bool
        As for `estimate_quality`.

    Returns
    -------
    int or None
        The last step to call; None if no step reaches the threshold.

    Raises
    ------
    SpecError
        The threshold is not one of the outcome.
    StoreError
        As for `estimate_quality`.
    """
    Criterion(variable=variable, threshold=threshold)
    quality = estimate_quality(results, (variable,), allow_incomplete=allow_incomplete)[variable_name(variable)]
    mean = quality.mean("sample", keep_attrs=True)
    return (first_staying if lasting else first_reached)(mean, threshold)


def propose_shortcuts(relaxation: xr.Dataset, stops: dict[str, int], *, steps: int) -> dict[str, Intervention]:
    """Cut, relax, cut again until the step to stop at, for every depth with a known relaxation.

    Parameters
    ----------
    relaxation : xarray.Dataset
        From `relaxation_needed`: depth, start, length of a cut and relaxation of every group. Groups for which no
        relaxation suffices get a single cut.
    stops : dict of str to int
        Names to the last step that is called; 1 runs to the end.
    steps : int
        Of the run.

    Returns
    -------
    dict
        Name to intervention. The step stopped at is never cut itself: its estimate is the image.

    Raises
    ------
    SpecError
        A step to stop at lies outside the run.

    Notes
    -----
    The strategy of the paper's figure 11, with its numbers taken from the data.
    """
    missing = [name for name in ("bottom", "start", "cut", "relax") if name not in relaxation]
    if missing:
        raise SpecError(f"Shortcuts are proposed from what relaxation_needed(...) gives; {', '.join(missing)} missing.")
    stops = {name: plain_number(stop) for name, stop in stops.items()}
    wrong = {name: stop for name, stop in stops.items() if not is_integer(stop) or not 1 <= stop < steps}
    if wrong:
        raise SpecError(f"Runs of {steps} steps can stop at 1 ... {steps - 1}; asked: {wrong}.")
    groups = zip(
        *(relaxation[name].values for name in ("bottom", "start", "cut", "relax")),
        strict=True,
    )
    made: dict[str, Intervention] = {}
    for (bottom, start, cut, relax), (word, stop) in itertools.product(groups, stops.items()):
        window = _repeated(int(start), int(cut), steps if np.isnan(relax) else int(relax), stop)
        if window is None:
            continue
        whole: Intervention = AblateBlock(bottom=int(bottom), window=window)
        if stop > 1:
            whole = whole + SkipSteps(Window(stop - 1, stop - 1))
        made[f"bottom {bottom} from {start}, {word}"] = whole
    return made


def fewer_steps(steps: int, kept: int, *, dense: int = 0) -> SkipSteps:
    """Run on fewer, evenly spaced steps: what a shortcut has to compete with.

    Parameters
    ----------
    steps : int
        Of the whole run.
    kept : int
        Steps that are called, the first and the last among them; at least 2.
    dense : int
        Of these, how many are the first of the run, one after the other; the others are evenly spaced from there on.

    Returns
    -------
    SkipSteps
        Of all others.

    Raises
    ------
    SpecError
        As many steps cannot be kept or be dense, or none would be skipped.

    Examples
    --------
    >>> fewer_steps(10, 4).window
    Windows(parts=(Window(start=9, length=2), Window(start=6, length=2),
                   Window(start=3, length=2)))
    >>> fewer_steps(10, 6, dense=4).window
    Windows(parts=(Window(start=6, length=2), Window(start=3, length=2)))
    """
    if not 2 <= kept < steps:
        raise SpecError(f"Of {steps} steps 2 ... {steps - 1} can be kept; {kept} asked.")
    if not 0 <= dense < kept:
        raise SpecError(f"Of {kept} steps kept, 0 ... {kept - 1} can be the first of the run; {dense} asked.")
    first = max(dense - 1, 0)
    called = [*range(steps, steps - first, -1), *np.linspace(steps - first, 1, kept - first).round().astype(int)]
    gaps = [(int(above) - 1, int(above - below) - 1) for above, below in itertools.pairwise(called)]
    return SkipSteps(window=Windows(tuple(Window(start, length) for start, length in gaps if length)))


def _repeated(start: int, cut: int, relax: int, stop: int) -> Window | Windows | None:
    """Windows of a length, relaxations between them, from a start down to the step above the one stopped at."""
    parts: list[Window] = []
    while start > stop:
        parts.append(Window(start, min(cut, start - stop)))
        start -= cut + relax
    if not parts:
        return None
    if not relax:
        return Window(parts[0].start, parts[0].start - stop)
    return Windows(tuple(parts))
