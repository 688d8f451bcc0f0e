"""How much of an intervention's effect goes through a place: total, direct and indirect effects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet.analysis.contrasts import Cluster, StoredCells, by_cluster, check_cluster, summarised, told_of
from causalunet.analysis.curves import BOUND, BOUNDS
from causalunet.analysis.resampling import check_probability
from causalunet.design.fills import Patch
from causalunet.design.interventions import Composition, Edit, Intervention
from causalunet.design.limits import shown
from causalunet.design.outcomes import Outcome
from causalunet.errors import SpecError

__all__ = ["mediation", "ratio_interval"]

_EFFECTS = ("total", "direct", "indirect")

_Array = NDArray[np.float64]


def mediation(
    results: xr.DataTree,
    edit: str | Intervention | None = None,
    variable: str | Outcome = "mse",
    *,
    cluster: Cluster = "sample",
    probability: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
    allow_incomplete: bool = False,
    **labels: Any,
) -> xr.Dataset:
    """Total effect of an intervention, and what of it goes past each place that was held, and through it.

    Parameters
    ----------
    results : xarray.DataTree
        Of a study with what `causalunet.mediation` designs: an edit, alone and with places held by ``Patch()``.
    edit : str or Intervention, optional
        By label or by content; may be left out where the study divides the effect of one only.
    variable : str or Outcome
        With one number per cell. Of distances to the baseline, such as MSE, effects are not signed and need not add up
        along paths: take what can go both ways, such as a mean colour, where there is a choice.
    cluster : {"sample", "prompt"}
        As for `interactions`.
    probability, resamples, seed
        As for `compare`.
    allow_incomplete, **labels
        As for `interactions`.

    Returns
    -------
    xarray.Dataset
        Along ``through``, which names the places and steps held, and ``effect``, "total", "direct", "indirect":
        ``mean`` with ``interval``, ``sd``, ``effect_size``, ``effect_size_interval``, ``p`` and ``p_adjusted`` over the
        places, as `compare` has them; ``cells``, (through, cell), the mean outcomes "neither", "edited" and "held".
        Along ``through`` alone ``share``, the mean indirect effect over the mean total one, and its Fieller
        ``share_interval``: minus to plus infinity where the total effect is not told from 0, as any share is possible
        then. Neither is confined to [0, 1]: a path may work against another.

    Raises
    ------
    SpecError
        The study holds no such design, it has several and the edit is not said, or as for `interactions`.
    StoreError
        Some of the cells failed or were not run yet.

    Notes
    -----
    Y(a, m) is the outcome of a sample where the edit is made (a = 1) or not, and the place has the value m: M(1) is the
    one it has in the run with the edit, M(0) without. The total effect is Y(1, M(1)) - Y(0, M(0)); the direct one
    Y(1, M(0)) - Y(0, M(0)), the natural direct effect of Pearl 2001; the indirect one is the rest,
    Y(1, M(1)) - Y(1, M(0)), the total indirect effect. All these runs can be made, so nothing has to be assumed of
    causes that were not observed. Where edit and place interact, the natural indirect effect Y(0, M(1)) - Y(0, M(0)) is
    another number; of what is linear the two are equal.

    Sources: Pearl 2001 (UAI, arXiv 1301.2300); for parts of networks Vig et al. 2020 (arXiv 2004.12265); for holding
    and patching paths Goldowsky-Dill et al. 2023 (arXiv 2304.05969); for the interval of a ratio Fieller 1954.
    """
    check_cluster(cluster)
    check_probability(probability)
    cells = StoredCells.of(results, labels)
    edited, held = _design(cells, edit)
    neither = cells.null()
    needed = [neither, edited, *held.values()]
    values = cells.values(variable, needed, allow_incomplete=allow_incomplete)
    independent = by_cluster(values, cluster)
    zero, whole, *direct = independent.values
    by_cell = np.stack([np.stack([zero, whole, one]) for one in direct])
    by_effect = np.stack([by_cell[:, 1] - zero, by_cell[:, 2] - zero, by_cell[:, 1] - by_cell[:, 2]])
    drawn = {"probability": probability, "resamples": resamples, "seed": seed}
    units = str(values.attrs.get("units", "1"))
    parts = [xr.Dataset(summarised(one, "through", drawn, units)) for one in by_effect]
    result = xr.concat(parts, "effect", combine_attrs="override").transpose("through", "effect", BOUND)
    result["cells"] = (("through", "cell"), by_cell.mean(axis=-1), {"units": units})
    shares = _shares(by_effect[2], by_effect[0], probability)
    cell = ["neither", "edited", "held"]
    coords = {"through": list(held), "effect": list(_EFFECTS), "cell": cell, BOUND: list(BOUNDS)}
    told = told_of(variable, cluster, values, independent) | {"edit": cells.label(edited)}
    return result.assign(shares).assign_coords(coords).assign_attrs(told)


def _design(cells: StoredCells, edit: str | Intervention | None) -> tuple[int, dict[str, int]]:
    """Where an edit stands, and the same with places held, by the words of what is held."""
    found: dict[int, dict[str, int]] = {}
    for position, item in cells.read():
        if isinstance(item, Composition):
            for rest, patches in _divided(item):
                if (alone := cells.position(rest.digest)) is not None:
                    found.setdefault(alone, {})[_words(patches)] = position
    if edit is None:
        if len(found) > 1:
            told = ", ".join(shown(cells.label(one)) for one in found)
            raise SpecError(f"The study divides the effects of {told}; say of which: edit=..., by its label.")
        if found:
            return next(iter(found.items()))
        what = "of any intervention"
    else:
        given = cells.find(edit, "The edit whose effect is divided")
        if given in found:
            return given, found[given]
        what = f"of {shown(cells.label(given))}"
    raise SpecError(
        f"The study holds no place at its value without the edit, so the effect {what} is not divided. Write "
        "*causalunet.mediation(edit, through=[...]) among its interventions, and run it again into the same store."
    )


def _divided(item: Composition) -> Iterator[tuple[Intervention, list[Edit]]]:
    """An edit and places held beside it, if a composition is that."""
    patches = [part for part in item.parts if isinstance(part, Edit) and part.fill == Patch()]
    rest = [part for part in item.parts if part not in patches]
    if patches and rest:
        yield (rest[0] if len(rest) == 1 else Composition(rest)), patches


def _words(patches: list[Edit]) -> str:
    """Places and steps, such as ``up.3 10-6 + up.4 10-6``."""
    spans = (" ".join(f"{part.start}-{part.stop}" for part in one.window.parts) for one in patches)
    return " + ".join(f"{one.site} {span}" for one, span in zip(patches, spans, strict=True))


def _shares(indirect: _Array, total: _Array, probability: float) -> Mapping[str, xr.Variable]:
    means = indirect.mean(axis=-1), total.mean(axis=-1)
    share = np.divide(*means, out=np.full_like(means[0], np.nan), where=means[1] != 0)
    bounds = np.stack([ratio_interval(*pair, probability=probability) for pair in zip(indirect, total, strict=True)])
    kind = {"interval_kind": "Fieller", "probability": probability, "units": "1"}
    told = {"long_name": "mean indirect effect over mean total effect", "units": "1"}
    return {
        "share": xr.Variable("through", share, told),
        "share_interval": xr.Variable(("through", BOUND), bounds, kind),
    }


def ratio_interval(over: _Array, under: _Array, *, probability: float = 0.95) -> _Array:
    """Fieller's interval of a ratio of means of paired samples.

    Parameters
    ----------
    over, under : ndarray, (sample,)
    probability : float
        Coverage aimed at.

    Returns
    -------
    ndarray of float64, (bound,)
        All numbers, minus to plus infinity, where the mean below the line is not told from 0 at that probability.

    Notes
    -----
    Exact for normal values (Fieller 1954). Where the set of ratios that cannot be refused leaves out a middle it is not
    cut down to its ends, but given as all numbers.
    """
    from scipy.stats import t

    count = len(under)
    means = np.array([over.mean(), under.mean()])
    covariance = np.cov(over, under) / count
    square = t.ppf((1 + probability) / 2, count - 1) ** 2
    a, b, c = (means[[1, 0, 0]] * means[[1, 1, 0]]) - square * covariance[[1, 0, 0], [1, 1, 0]]
    if a <= 0:
        return np.array([-np.inf, np.inf])
    half = np.sqrt(max(b**2 - a * c, 0.0))
    return np.array([(b - half) / a, (b + half) / a])
