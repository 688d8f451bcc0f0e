"""Which factors of a scene, such as colour and shape, an intervention changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet.analysis.curves import BOUND, BOUNDS, curve
from causalunet.analysis.intervals import wilson_share
from causalunet.analysis.selection import outcomes
from causalunet.analysis.sweeps import named_selections
from causalunet.dims import SAMPLE
from causalunet.errors import SpecError, StoreError
from causalunet.results.schema import FACTOR

__all__ = ["factor_changes", "factor_effects"]


def factor_changes(
    results: xr.DataTree,
    *,
    by: str = "start",
    probability: float = 0.95,
    min_probability: float = 0.0,
    allow_incomplete: bool = False,
    **selection: Any,
) -> xr.Dataset:
    """Share of samples in whose image another value of a factor is read than in the baseline image.

    Parameters
    ----------
    results : xarray.DataTree
    by, allow_incomplete, **selection
        As for `curve`.
    probability : float
        Coverage of the interval.
    min_probability : float
        Smallest probability, in both images, of a reading that counts: a change between less certain ones is taken
        for none.

    Returns
    -------
    xarray.Dataset
        - ``share``, (start, factor), and its Wilson ``interval``, (start, factor, bound);
        - ``any``, (start,), share of samples in which at least one factor changed, and ``any_interval``;
        - ``mean_changed``, (start,), number of factors changed per sample;
        - ``certain``, (start, factor), share of samples whose two readings are certain enough to count.

        The attributes ``samples`` and ``min_probability`` say of how many samples, all of which are in every share,
        and of which readings.

    Raises
    ------
    StoreError
        The study's model reads no factors, or some of the cells were not run yet.
    SpecError
        As for `curve`; also if ``min_probability`` is not within [0, 1].
    """
    changed, certain = _readings(results, by, min_probability, allow_incomplete, selection)
    values, samples = (changed & certain).values, changed.sizes[SAMPLE]
    counts, some = values.sum(axis=-1), values.any(axis=1).sum(axis=-1)
    told = {"share": "share of samples with another value", "any": "share of samples with any factor changed"}
    told |= {"mean_changed": "factors changed per sample", "certain": "share of samples with certain readings"}
    numbers = {
        "share": ((by, FACTOR), counts / samples),
        "any": ((by,), some / samples),
        "mean_changed": ((by,), counts.sum(axis=-1) / samples),
        "certain": ((by, FACTOR), certain.values.mean(axis=-1)),
    }
    kind = {"interval_kind": "Wilson", "probability": probability, "units": "1"}
    result = xr.Dataset(
        {name: (dims, array, {"long_name": told[name], "units": "1"}) for name, (dims, array) in numbers.items()},
        coords={**changed.to_dataset(name="changed").drop_dims(SAMPLE).coords, FACTOR: changed[FACTOR]},
        attrs={"variable": "factor_changed", "samples": samples, "min_probability": min_probability},
    )
    result["interval"] = ((by, FACTOR, BOUND), wilson_share(counts, samples, probability=probability), kind)
    result["any_interval"] = ((by, BOUND), wilson_share(some, samples, probability=probability), kind)
    return result.assign_coords({BOUND: list(BOUNDS)})


def factor_effects(
    results: xr.DataTree,
    selections: Mapping[str, Any] | None = None,
    *,
    probability: float = 0.95,
    min_probability: float = 0.0,
    allow_incomplete: bool = False,
) -> xr.Dataset:
    """Which factors change, for several sweeps side by side.

    Parameters
    ----------
    results : xarray.DataTree
    selections : mapping, optional
        As for `summary_table`: names to selections, one selection, or by default every sweep of the study.
    probability, min_probability, allow_incomplete
        As for `factor_changes`.

    Returns
    -------
    xarray.Dataset
        The variables of `factor_changes`, with ``selection`` before ``start``, NaN where a selection has no
        intervention with that start; ``samples``, (selection, start), 0 there; and ``unrelated``, (factor,): the share
        of pairs of different samples whose baseline images differ in the factor. That is how often an image that
        has nothing to do with the baseline's would count as changed; NaN for one sample.

    Raises
    ------
    SpecError, StoreError
        As for `factor_changes`.

    Examples
    --------
    >>> factor_effects(results)["share"].sel(factor="colour").dims
    ('selection', 'start')
    """
    options: dict[str, Any] = {"min_probability": min_probability, "allow_incomplete": allow_incomplete}
    parts = {}
    for name, selection in named_selections(results, selections).items():
        part = factor_changes(results, probability=probability, **options, **selection)
        part = part.drop_vars([key for key in part.coords if key not in part.dims])
        part["samples"] = ("start", np.full(part.sizes["start"], part.attrs["samples"]))
        parts[name] = part
    joined = xr.concat(
        list(parts.values()),
        xr.Variable("selection", list(parts)),
        data_vars="all",
        coords="minimal",
        compat="equals",
        join="outer",
        combine_attrs="drop_conflicts",
    ).sortby("start", ascending=False)
    joined["samples"] = joined["samples"].fillna(0).astype(np.int64)
    joined["samples"].attrs |= {"long_name": "number of samples", "units": "1"}
    joined.attrs.pop("samples", None)
    return joined.assign(unrelated=_unrelated(results, min_probability))


def _readings(
    results: xr.DataTree, by: str, min_probability: float, allow_incomplete: bool, selection: Mapping[str, Any]
) -> tuple[xr.DataArray, xr.DataArray]:
    """Which factors changed, and which readings are certain, (by, factor, sample) both."""
    if "factor_changed" not in outcomes(results).data_vars:
        raise StoreError(
            "The results hold no factors: the study's model has no factor reader. The embedded model 'shapes' has one; "
            "for other models compare images by ssim or psnr, as mean_curve does."
        )
    if not 0 <= min_probability <= 1:
        raise SpecError(f"min_probability={min_probability!r} is not within [0, 1]; 0 counts every reading.")
    dims = (by, FACTOR, SAMPLE)

    def read(variable: str) -> xr.DataArray:
        data = curve(results, variable, by=by, allow_incomplete=allow_incomplete, **selection)
        return data[variable].transpose(*dims)

    changed = read("factor_changed").astype(bool)
    if not min_probability:
        return changed, xr.ones_like(changed)
    before = results["baseline"]["factor_probability"].sel({SAMPLE: changed[SAMPLE].values})
    sure = (before >= min_probability).transpose(FACTOR, SAMPLE).values
    return changed, (read("factor_probability") >= min_probability) & sure


def _unrelated(results: xr.DataTree, min_probability: float) -> xr.Variable:
    """Share of pairs of different samples, of those whose baseline was run, that differ in each factor, (factor,)."""
    baseline = results["baseline"].to_dataset()
    baseline = baseline.isel({SAMPLE: np.flatnonzero(baseline["status"].values)})
    code = baseline["factor_code"].transpose(FACTOR, SAMPLE).values
    certain = np.ones(code.shape, dtype=bool)
    if min_probability:
        certain = baseline["factor_probability"].transpose(FACTOR, SAMPLE).values >= min_probability
    pairs = code.shape[1] * (code.shape[1] - 1)
    shares = [_unequal(*one) / pairs if pairs else np.nan for one in zip(code, certain, strict=True)]
    attrs = {"long_name": "share of pairs of samples whose baseline images differ", "units": "1"}
    return xr.Variable(FACTOR, shares, attrs)


def _unequal(code: NDArray[Any], certain: NDArray[np.bool_]) -> int:
    """Ordered pairs of certain readings that differ."""
    _, counts = np.unique(code[certain], return_counts=True)
    return int(counts.sum() ** 2 - (counts**2).sum())
