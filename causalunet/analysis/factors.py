"""Which factors of a scene, such as colour and shape, an intervention changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet.analysis.curves import BOUND, BOUNDS, curve
from causalunet.analysis.intervals import wilson_share
from causalunet.analysis.selection import complete_baselines, outcomes
from causalunet.analysis.sweeps import named_selections
from causalunet.dims import FACTOR, SAMPLE
from causalunet.errors import SpecError, StoreError
from causalunet.results.meaning.index import StepIndex

__all__ = ["MIN_PROBABILITY", "UNREADABLE", "factor_changes", "factor_effects", "readings", "unrelated_share"]

UNREADABLE = -1
"""Code of a reading that is not probable enough to be one of the factor's values."""


MIN_PROBABILITY = 0.9
"""Least probability of a reading, unless told otherwise: the reader of `shapes` gives more on every scene that it was
made for, and on images between two scenes it gives less in one of seven readings, which change with any noise."""


def factor_changes(
    results: xr.DataTree,
    *,
    by: str = "start",
    probability: float = 0.95,
    min_probability: float = MIN_PROBABILITY,
    allow_incomplete: bool = False,
    **selection: Any,
) -> xr.Dataset:
    """Share of samples in whose image another value of a factor is read than in the baseline image.

    A reading is the value that the reader holds most probable, if that is probable enough, and else "not readable",
    which is a value of its own: neither a change nor none.

    Parameters
    ----------
    results : xarray.DataTree
    by, allow_incomplete, **selection
        As for `curve`.
    probability : float
        Coverage of the interval.
    min_probability : float
        Least probability of a readable value; 0 takes every image for readable.

    Returns
    -------
    xarray.Dataset
        - ``share``, (start, factor), of samples with two different readable values, and its Wilson ``interval``,
          (start, factor, bound);
        - ``unreadable``, (start, factor), share of samples in which the factor is not readable in one of the two
          images or in both; what is left to 1 is the share with the same value in both;
        - ``lost``, (start, factor), the part of it that was readable in the baseline image;
        - ``any``, (start,), share of samples in which at least one factor changed, and ``any_interval``;
        - ``mean_changed``, (start,), number of factors changed per sample.

        The attributes ``samples`` and ``min_probability`` say of how many samples, all of which are in every share,
        and of which readings.

    Raises
    ------
    StoreError
        The study's model reads no factors, or some of the cells failed or were not run yet.
    SpecError
        As for `curve`; also if ``min_probability`` is not within [0, 1].

    Notes
    -----
    The default leaves out what flickers between two values. It does not tell images that show no scene: the reader of
    `shapes` is sure of some value in most images of plain noise (see its description in the documentation).
    """
    code, before = readings(results, by, min_probability, allow_incomplete, selection)
    readable = (code != UNREADABLE) & (before != UNREADABLE)
    changed = (readable & (code != before)).values
    samples = code.sizes[SAMPLE]
    counts, some = changed.sum(axis=-1), changed.any(axis=1).sum(axis=-1)
    numbers = {
        "share": ((by, FACTOR), counts / samples, "share of samples with another value"),
        "any": ((by,), some / samples, "share of samples with any factor changed"),
        "mean_changed": ((by,), counts.sum(axis=-1) / samples, "factors changed per sample"),
        "unreadable": ((by, FACTOR), (~readable).values.mean(axis=-1), "share of samples with a value not readable"),
        "lost": (
            (by, FACTOR),
            ((code == UNREADABLE) & (before != UNREADABLE)).transpose(*code.dims).values.mean(axis=-1),
            "share of samples with a value not readable any more",
        ),
    }
    kind = {"interval_kind": "Wilson", "probability": probability, "units": "1"}
    result = xr.Dataset(
        {name: (dims, array, {"long_name": told, "units": "1"}) for name, (dims, array, told) in numbers.items()},
        coords={**code.to_dataset(name="code").drop_dims(SAMPLE).coords, FACTOR: code[FACTOR]},
        attrs={"variable": "factor_code", "samples": samples, "min_probability": min_probability},
    )
    result["interval"] = ((by, FACTOR, BOUND), wilson_share(counts, samples, probability=probability), kind)
    result["any_interval"] = ((by, BOUND), wilson_share(some, samples, probability=probability), kind)
    return StepIndex.of(result.assign_coords({BOUND: list(BOUNDS)}))


def factor_effects(
    results: xr.DataTree,
    selections: Mapping[str, Any] | None = None,
    *,
    probability: float = 0.95,
    min_probability: float = MIN_PROBABILITY,
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
        of pairs of different samples whose baseline images have different readable values, of all samples whose
        baseline was run. That is how often an image that has nothing to do with the baseline's would count as
        changed; NaN for one sample.

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
    return joined.assign(unrelated=unrelated_share(results, min_probability))


def unrelated_share(results: xr.DataTree, min_probability: float) -> xr.Variable:
    """Share of pairs of different samples, of those whose baseline was run, that differ in each factor, (factor,)."""
    code = _code(complete_baselines(results, allow_incomplete=True), min_probability).transpose(FACTOR, SAMPLE).values
    pairs = code.shape[1] * (code.shape[1] - 1)
    shares = [_unequal(one[one != UNREADABLE]) / pairs if pairs else np.nan for one in code]
    attrs = {"long_name": "share of pairs of samples whose baseline images differ", "units": "1"}
    return xr.Variable(FACTOR, shares, attrs)


def readings(
    results: xr.DataTree, by: str, min_probability: float, allow_incomplete: bool, selection: Mapping[str, Any]
) -> tuple[xr.DataArray, xr.DataArray]:
    """Values read in the intervened images, (by, factor, sample), and in the baseline images, (factor, sample).

    Parameters
    ----------
    results, by, min_probability, allow_incomplete
        As for `factor_changes`.
    selection : mapping
        As for `curve`.

    Raises
    ------
    SpecError, StoreError
        As for `factor_changes`.
    """
    if "factor_code" not in outcomes(results).data_vars:
        raise StoreError(
            "The results hold no factors: the study's model has no factor reader. The embedded models 'shapes' and "
            "'scenes' have one; for other models compare images by ssim or psnr, as mean_curve does."
        )
    if not 0 <= min_probability <= 1:
        raise SpecError(
            f"min_probability={min_probability!r} is not within [0, 1]; 0 takes every image for readable, "
            f"{MIN_PROBABILITY} is the default."
        )
    options: dict[str, Any] = {"by": by, "allow_incomplete": allow_incomplete, **selection}
    data = curve(results, "factor_code", **options)
    data = data.assign(factor_probability=curve(results, "factor_probability", **options)["factor_probability"])
    code = _code(data, min_probability).transpose(by, FACTOR, SAMPLE)
    before = results["baseline"].to_dataset().sel({SAMPLE: code[SAMPLE].values})
    return code, _code(before, min_probability).transpose(FACTOR, SAMPLE).drop_vars(SAMPLE)


def _code(data: xr.Dataset, min_probability: float) -> xr.DataArray:
    """Value read of every factor as an index, `UNREADABLE` where it is not probable enough."""
    return data["factor_code"].where(data["factor_probability"] >= min_probability, UNREADABLE)


def _unequal(code: NDArray[Any]) -> int:
    """Ordered pairs of readings that differ."""
    _, counts = np.unique(code, return_counts=True)
    return int(counts.sum() ** 2 - (counts**2).sum())
