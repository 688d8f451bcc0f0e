"""The same interventions in several studies of the same samples, such as one under each sampler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet.analysis.curves import curve
from causalunet.analysis.resampling import check_resampling, resampled_means
from causalunet.errors import SpecError

__all__ = ["across"]


def across(
    results: Mapping[str, xr.DataTree],
    variable: str = "mse",
    *,
    reference: str,
    early: int,
    probability: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
    **selection: Any,
) -> xr.Dataset:
    """Mean effects of one sweep in several studies, and how many times those of one of them they are.

    Parameters
    ----------
    results : mapping of str to xarray.DataTree
        Of studies of the same samples and interventions, by name.
    variable : str
        Of the outcomes: one number per cell, 0 where nothing changes, such as ``"mse"``.
    reference : str
        Name of the study that the others are divided by.
    early : int
        How many of the first starts are put together for ``early``.
    probability : float
        Coverage of intervals.
    resamples, seed : int
        Of the bootstrap, which draws the same samples in all studies: they begin at the same noise.
    **selection
        What the interventions have in common, as for `curve`.

    Returns
    -------
    xarray.Dataset
        ``mean`` and ``ratio``, (study, start), and ``interval`` of the ratio, (study, start, bound), by percentiles,
        NaN where the reference has resamples without effect;
        ``early`` and ``early_interval``, (study,) and (study, bound), of the ratio of mean effects over the early
        starts; ``calls``, (study,), U-Net calls of a run without intervention.

    Raises
    ------
    SpecError
        There is no such reference, or samples or starts differ.
    StoreError
        As for `curve`.
    """
    check_resampling(probability, resamples)
    if reference not in results:
        raise SpecError(f"No study is called {reference!r}; there are {', '.join(results) or 'none'}.")
    found = _alike({name: curve(tree, variable, **selection)[variable] for name, tree in results.items()}, reference)
    starts = found[reference]["start"].values
    values = np.stack([one.transpose("start", "sample").values for one in found.values()])
    means, drawn = resampled_means(values, resamples=resamples, seed=seed)
    of = list(found).index(reference)

    def interval(each: NDArray[np.float64]) -> NDArray[np.float64]:
        tails = [(1 - probability) / 2, (1 + probability) / 2]
        with np.errstate(invalid="ignore"):  # NaN where the reference has resamples without any effect
            return np.moveaxis(np.quantile(_divided(each, of), tails, axis=0), 0, -1)

    first_ones = np.s_[..., :early]
    together, drawn_together = (each[first_ones].mean(-1, keepdims=True) for each in (means, drawn))
    calls = [tree.children["outcomes"].to_dataset()["unet_calls"].max() for tree in results.values()]
    return xr.Dataset(
        {
            "mean": (("study", "start"), means),
            "ratio": (("study", "start"), _divided(means, of)),
            "interval": (("study", "start", "bound"), interval(drawn)),
            "early": ("study", _divided(together, of)[:, 0]),
            "early_interval": (("study", "bound"), interval(drawn_together)[:, 0]),
            "calls": ("study", np.array([int(one) for one in calls])),
        },
        coords={"study": list(found), "start": starts, "bound": ["lower", "upper"]},
        attrs={"reference": reference, "probability": probability, "samples": values.shape[-1]},
    )


def _alike(found: dict[str, xr.DataArray], reference: str) -> dict[str, xr.DataArray]:
    """Raise `SpecError` unless all have the samples and starts of the reference."""
    first = found[reference]
    for name, one in found.items():
        if one.shape != first.shape or not np.array_equal(one["start"], first["start"]):
            raise SpecError(
                f"The studies {name!r} and {reference!r} have other samples or starts: {one.sizes} and {first.sizes}. "
                "Give results of the same interventions on the same samples."
            )
    return found


def _divided(each: NDArray[np.float64], of: int) -> NDArray[np.float64]:
    """By one study, (..., study, start)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(each / each[..., of : of + 1, :])
