"""Interactions: whether two interventions together do more, or less, than one and the other."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from causalunet.analysis.contrasts import Cluster, StoredCells, by_cluster, check_cluster, summarised, told_of
from causalunet.analysis.curves import BOUND, BOUNDS
from causalunet.design.interventions import Composition, Intervention
from causalunet.design.limits import shown
from causalunet.design.outcomes import Outcome
from causalunet.errors import SpecError

__all__ = ["interactions"]

_MOST_PARTS = 8
"""Of a composition that is looked through for pairs: it is cut in two in 2**(n - 1) - 1 ways."""

_CELLS = ("neither", "a", "b", "both")
_SIGNS = np.array([1.0, -1.0, -1.0, 1.0])

_Given = str | Intervention


def interactions(
    results: xr.DataTree,
    pairs: Iterable[tuple[_Given, _Given]] | None = None,
    variable: str | Outcome = "ssim",
    *,
    cluster: Cluster = "sample",
    probability: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
    allow_incomplete: bool = False,
    **labels: Any,
) -> xr.Dataset:
    """Interaction Y(a and b) - Y(a) - Y(b) + Y(neither) of pairs of interventions, sample by sample.

    Parameters
    ----------
    results : xarray.DataTree
        Of a study with the four cells of each pair, see `causalunet.factorial`. Those of "neither" are the null
        intervention's.
    pairs : iterable of (str or Intervention, str or Intervention), optional
        By label or by content. By default all pairs (a, b) of which the study holds a, b and their composition a + b.
    variable : str or Outcome
        With one number per cell.
    cluster : {"sample", "prompt"}
        What intervals and tests take as drawn independently: each sample, as `effects` does, or each prompt with all
        its seeds. With "prompt" the mean is over prompts, each the mean of its seeds.
    probability, resamples, seed
        As for `compare`.
    allow_incomplete : bool
        Take the samples that were run with all interventions asked for, instead of raising an error for the others.
    **labels
        Labels of dimensions that an outcome brings: ``colour="red"``.

    Returns
    -------
    xarray.Dataset
        Along ``pair``, the label of the composition, with the labels ``a`` and ``b``:

        - ``mean`` of the interaction with its BCa bootstrap ``interval``, (pair, bound), and ``sd`` (n - 1);
        - ``effect_size`` and ``effect_size_interval``, two-sided ``p`` of the sign-flip test, and ``p_adjusted`` over
          the pairs, as `compare` has them;
        - ``cells``, (pair, cell): mean outcome with neither, a, b and both.

        The attributes say ``variable``, ``cluster``, the number of ``samples`` and of ``clusters``.

    Raises
    ------
    SpecError
        A cell is not in the study: it says which to add. Or the study holds no pair; a value is not finite; there are
        fewer than two samples or prompts.
    StoreError
        Some of the cells failed or were not run yet.

    Notes
    -----
    It is the interaction on the additive scale of the variable: 0 where the two effects add up. Another scale has
    another one; of an outcome with an end, such as SSIM, two large effects interact if only because there is nothing
    left to lose. All four cells of a sample begin at the same noise. Source: VanderWeele & Knol 2014,
    doi:10.1515/em-2013-0005.
    """
    check_cluster(cluster)
    cells = StoredCells.of(results, labels)
    quartets = _every_pair(cells) if pairs is None else [_cells_of(cells, pair) for pair in pairs]
    if not quartets:
        raise SpecError("No pair of interventions was given; give for instance [(a, b)].")
    needed = list(dict.fromkeys(place for four in quartets for place in four))
    values = cells.values(variable, needed, allow_incomplete=allow_incomplete)
    units, independent = str(values.attrs.get("units", "1")), by_cluster(values, cluster)
    by_cell = independent.values[[[needed.index(place) for place in four] for four in quartets]]
    drawn = {"probability": probability, "resamples": resamples, "seed": seed}
    told = summarised(np.einsum("c,pcs->ps", _SIGNS, by_cell), "pair", drawn, units)
    a, b, both = ([cells.label(four[at]) for four in quartets] for at in (1, 2, 3))
    return xr.Dataset(
        {**told, "cells": (("pair", "cell"), by_cell.mean(axis=-1), {"units": units})},
        coords={"pair": both, "a": ("pair", a), "b": ("pair", b), "cell": list(_CELLS), BOUND: list(BOUNDS)},
        attrs=told_of(variable, cluster, values, independent),
    )


def _cells_of(cells: StoredCells, pair: Sequence[_Given]) -> tuple[int, int, int, int]:
    """Where the four cells of a pair stand, in the order of `_CELLS`."""
    if isinstance(pair, str) or not isinstance(pair, Sequence) or len(pair) != 2:
        raise SpecError(f"{shown(pair)} is no pair of interventions; give two, or the labels of two.")
    neither, (a, b) = cells.null(), (cells.find(one, "An intervention of a pair") for one in pair)
    given = [
        one if isinstance(one, Intervention) else _stored(cells, place) for one, place in zip(pair, (a, b), strict=True)
    ]
    both = cells.position((given[0] + given[1]).digest)
    if both is None and (placed := [_stored(cells, place) for place in (a, b)]) != given:
        both = cells.position((placed[0] + placed[1]).digest)
    if both is None:
        raise SpecError(
            f"The study holds {shown(cells.label(a))} and {shown(cells.label(b))} and not the two together, without "
            "which their interaction is not known. Add a + b to its interventions, or *causalunet.factorial(a, b), and "
            "run it again into the same store."
        )
    return neither, a, b, both


def _stored(cells: StoredCells, position: int) -> Intervention:
    """An intervention as the study holds it."""
    found = dict(cells.read()).get(position)
    if found is None:
        raise SpecError(
            f"{shown(cells.label(position))} is of a kind that is not known here, so its sum with another is not "
            "either. Import what registers it, or give the interventions themselves."
        )
    return found


def _every_pair(cells: StoredCells) -> list[tuple[int, int, int, int]]:
    """Cells of all pairs of which the composition is there as well, in the order of the study."""
    found = []
    for both, item in cells.read():
        if not isinstance(item, Composition) or len(item.parts) > _MOST_PARTS:
            continue
        first, *others = item.parts
        for taken in itertools.product((True, False), repeat=len(others)):
            sides = [first, *itertools.compress(others, taken)], list(itertools.compress(others, map(_not, taken)))
            places = [cells.position(_together(side).digest) for side in sides if side]
            if len(places) == 2 and None not in places:
                a, b = sorted(place for place in places if place is not None)
                found.append((a, b, both))
    if not found:
        raise SpecError(
            "The study holds no two interventions together with each of them alone, so there is no interaction to "
            "tell. Write *causalunet.factorial(a, b) among its interventions, and run it again into the same store."
        )
    neither = cells.null()
    return [(neither, *three) for three in found]


def _together(parts: list[Intervention]) -> Intervention:
    return parts[0] if len(parts) == 1 else Composition(parts)


def _not(value: bool) -> bool:
    return not value
