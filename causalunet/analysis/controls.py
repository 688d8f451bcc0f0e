"""An intervention's effect beyond that of matched controls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import xarray as xr

from causalunet.analysis.contrasts import Cluster, StoredCells, by_cluster, check_cluster, summarised, told_of
from causalunet.analysis.curves import BOUND, BOUNDS
from causalunet.design.interventions import Intervention
from causalunet.design.outcomes import Outcome
from causalunet.errors import SpecError

__all__ = ["excess"]


def excess(
    results: xr.DataTree,
    intervention: str | Intervention,
    controls: Iterable[str | Intervention],
    variable: str | Outcome = "mse",
    *,
    cluster: Cluster = "sample",
    probability: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
    allow_incomplete: bool = False,
    **labels: Any,
) -> xr.Dataset:
    """Effect of an intervention over the mean effect of its controls, and its rank among them.

    Parameters
    ----------
    results : xarray.DataTree
    intervention : str or Intervention
        By label or by content.
    controls : iterable of (str or Intervention)
        As of `causalunet.controls`.
    variable : str or Outcome
        With one number per cell.
    cluster : {"sample", "prompt"}
        As for `interactions`.
    probability, resamples, seed
        As for `compare`.
    allow_incomplete, **labels
        As for `interactions`.

    Returns
    -------
    xarray.Dataset
        - ``mean`` of the paired differences to the mean of the controls, ``interval`` (bound), ``sd``,
          ``effect_size``, ``effect_size_interval`` and ``p`` as `compare` has them: of samples, for these controls;
        - ``effect`` and ``control_effects``, (control,), mean differences to the null intervention;
        - ``rank_p``, the share of intervention and controls together whose mean effect is at least as large, whatever
          its sign: a p value of the hypothesis that the intervention is a draw like its controls. ``least_p`` is the
          smallest that so many controls can give.

    Raises
    ------
    SpecError
        A cell is not in the study, there is no control, or as for `interactions`.
    StoreError
        Some of the cells failed or were not run yet.

    Notes
    -----
    The two say different things. The interval is about other samples and these controls; the rank about other places,
    and these samples. Source of the rank: Phipson & Smyth 2010, doi:10.2202/1544-6115.1585.
    """
    check_cluster(cluster)
    cells = StoredCells.of(results, labels)
    own = cells.find(intervention, "The intervention")
    others = list(dict.fromkeys(cells.find(one, "A control") for one in controls))
    if not others or own in others:
        raise SpecError(
            "excess takes one control or more, none of them the intervention itself; see causalunet.controls."
        )
    values = cells.values(variable, [cells.null(), own, *others], allow_incomplete=allow_incomplete)
    independent = by_cluster(values, cluster)
    neither, one, controlled = independent.values[0], independent.values[1], independent.values[2:]
    drawn = {"probability": probability, "resamples": resamples, "seed": seed}
    units = str(values.attrs.get("units", "1"))
    told = xr.Dataset(summarised((one - controlled.mean(axis=0))[None], "one", drawn, units)).isel(one=0)
    effect, effects = (one - neither).mean(), (controlled - neither).mean(axis=-1)
    rank = {"units": "1", "long_name": "rank p value among the controls"}
    return (
        told.drop_vars("p_adjusted")
        .assign(
            effect=((), effect, {"units": units}),
            control_effects=("control", effects, {"units": units}),
            rank_p=((), (1 + (abs(effects) >= abs(effect)).sum()) / (1 + len(others)), rank),
            least_p=((), 1 / (1 + len(others)), {"units": "1", "long_name": "smallest rank p value there can be"}),
        )
        .assign_coords({"control": np.array([cells.label(at) for at in others], dtype=object), BOUND: list(BOUNDS)})
        .assign_attrs(told_of(variable, cluster, values, independent), intervention=cells.label(own))
    )
