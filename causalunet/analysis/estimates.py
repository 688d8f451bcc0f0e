"""How good the estimate of x_0 is at every step of the run without intervention."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet import metrics
from causalunet.analysis.selection import complete_baselines
from causalunet.dims import CHANNEL, SAMPLE, STEP, X, Y
from causalunet.errors import StoreError
from causalunet.results.meaning.index import StepIndex

__all__ = ["estimate_quality", "first_staying", "to_image"]

_UNITS = {"ssim": ("structural similarity", "1"), "psnr": ("peak signal-to-noise ratio", "dB")}
_UNITS["mse"] = ("mean squared error", "1")


def estimate_quality(results: xr.DataTree, *, allow_incomplete: bool = False) -> xr.Dataset:
    """Closeness of the estimate of x_0 at every step to the final image, in the run without intervention.

    Parameters
    ----------
    results : xarray.DataTree
    allow_incomplete : bool
        Take the samples that were run, instead of raising an error for those that failed or are missing.

    Returns
    -------
    xarray.Dataset
        ``ssim``, ``psnr`` (dB; infinite for identical images) and ``mse``, (step, sample), with the coordinates of
        both. The attribute ``ssim`` says which SSIM.

    Raises
    ------
    SpecError
        What is given is not opened results.
    StoreError
        Some samples failed or were not run yet, the store holds no estimates, or the model is not one of pixels: then
        estimates and images are not of one shape.

    Notes
    -----
    Estimates are clipped to [-1, 1] and brought to [0, 1], as images are. One step is read at a time. Source: Prasad et
    al. 2023, figures 16 and 17.
    """
    baseline = _complete_baseline(results, allow_incomplete)
    images = baseline["image"].transpose(SAMPLE, CHANNEL, Y, X).values
    reference = metrics.moments(images)
    rows: dict[str, list[NDArray[np.float64]]] = {name: [] for name in _UNITS}
    for position in range(baseline.sizes[STEP]):
        estimates = to_image(baseline["x0_hat"].isel({STEP: position}).transpose(SAMPLE, CHANNEL, Y, X).values)
        _check_finite(estimates, baseline, position)
        error = metrics.mse(estimates, images)
        rows["ssim"].append(metrics.ssim(metrics.moments(estimates), reference))
        rows["psnr"].append(metrics.psnr(error))
        rows["mse"].append(error)
    variables: dict[str, Any] = {
        name: ((STEP, SAMPLE), np.stack(rows[name]), {"long_name": f"{words} to the final image", "units": units})
        for name, (words, units) in _UNITS.items()
    }
    kept = {name: item for name, item in baseline.coords.items() if item.dims in ((STEP,), (SAMPLE,))}
    return StepIndex.of(xr.Dataset(variables, coords=kept, attrs={"ssim": metrics.SSIM_DEFINITION}))


def first_staying(mean: xr.DataArray, threshold: float) -> int | None:
    """First step of the run from which on a mean stays at or above a threshold; None if the last one is below it.

    Parameters
    ----------
    mean : xarray.DataArray, (step,)
        In the order of the run.
    threshold : float
    """
    below = np.flatnonzero(~(mean.values >= threshold))
    first = below[-1] + 1 if len(below) else 0
    return int(mean[STEP].values[first]) if first < mean.sizes[STEP] else None


def to_image(x: NDArray[np.floating]) -> NDArray[np.float32]:
    """Clip x from [-1, 1] and bring it to [0, 1], as images of pixel models are."""
    return np.asarray((np.clip(x, -1, 1) + 1) / 2, dtype=np.float32)


def _complete_baseline(results: xr.DataTree, allow_incomplete: bool) -> xr.Dataset:
    baseline = complete_baselines(results, allow_incomplete=allow_incomplete)
    missing = [name for name in ("image", "x0_hat") if name not in baseline.data_vars]
    if missing:
        raise StoreError(f"The group 'baseline' lacks {', '.join(missing)}. Give the results of a study, whole.")
    image, estimate = (
        {dim: size for dim, size in baseline[name].sizes.items() if dim not in (SAMPLE, STEP)}
        for name in ("image", "x0_hat")
    )
    if image != estimate:
        raise StoreError(
            f"Estimates of x_0 are of {estimate}, images of {image}: the model is not one of pixels, and its estimates "
            "cannot be compared with images without its decoder."
        )
    return baseline


def _check_finite(estimates: NDArray[np.float32], baseline: xr.Dataset, position: int) -> None:
    wrong = int(np.isnan(estimates).any(axis=(1, 2, 3)).sum())
    if wrong:
        raise StoreError(
            f"The estimates of {wrong} of {len(estimates)} samples at step {int(baseline[STEP].values[position])} are "
            "not numbers. Run the study again into another path."
        )
