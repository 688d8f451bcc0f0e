"""How good the estimate of x_0 is at every step of the run without intervention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet import metrics
from causalunet.analysis.described import described
from causalunet.analysis.selection import complete_baselines
from causalunet.design.outcomes import Outcome, OutcomeContext, chosen_outcome
from causalunet.design.outcomes.measuring import measured
from causalunet.dims import CHANNEL, SAMPLE, STEP, X, Y
from causalunet.errors import SpecError, StoreError
from causalunet.results.meaning.index import StepIndex

__all__ = ["estimate_quality", "first_staying", "to_image"]


def estimate_quality(
    results: xr.DataTree,
    outcomes: Sequence[str | Outcome] = ("ssim", "psnr", "mse"),
    *,
    allow_incomplete: bool = False,
) -> xr.Dataset:
    """Closeness of the estimate of x_0 at every step to the final image, in the run without intervention.

    Parameters
    ----------
    results : xarray.DataTree
    outcomes : sequence of str or Outcome
        What is measured, by name or themselves: outcomes of images alone, with one number per image.
    allow_incomplete : bool
        Take the samples that were run, instead of raising an error for those that failed or are missing.

    Returns
    -------
    xarray.Dataset
        A variable per outcome, by default ``ssim``, ``psnr`` (dB; infinite for identical images) and ``mse``, (step,
        sample), with the coordinates of both. The attribute ``ssim`` says which SSIM.

    Raises
    ------
    SpecError
        What is given is not opened results, or an outcome needs more than images.
    StoreError
        Some samples failed or were not run yet, the store holds no estimates, or the model is not one of pixels: then
        estimates and images are not of one shape.

    Notes
    -----
    Estimates are clipped to [-1, 1] and brought to [0, 1], as images are. One step is read at a time. Source: Prasad et
    al. 2023, figures 16 and 17.
    """
    chosen = _of_images(outcomes)
    baseline = _complete_baseline(results, allow_incomplete)
    images = baseline["image"].transpose(SAMPLE, CHANNEL, Y, X).values
    prompts, seeds = (baseline[name].values.tolist() for name in ("prompt", "seed"))
    context = OutcomeContext(prompts=prompts, seeds=seeds, stored={})
    rows: dict[str, list[NDArray[Any]]] = {name: [] for name in chosen}
    for position in range(baseline.sizes[STEP]):
        estimates = to_image(baseline["x0_hat"].isel({STEP: position}).transpose(SAMPLE, CHANNEL, Y, X).values)
        _check_finite(estimates, baseline, position)
        for name, outcome in chosen.items():
            rows[name].append(measured(outcome, estimates[None], images, context)[name][0])
    variables: dict[str, Any] = {
        name: ((STEP, SAMPLE), np.stack(rows[name]), _told(outcome)) for name, outcome in chosen.items()
    }
    kept = {name: item for name, item in baseline.coords.items() if item.dims in ((STEP,), (SAMPLE,))}
    return StepIndex.of(xr.Dataset(variables, coords=kept, attrs={"ssim": metrics.SSIM_DEFINITION}))


def _of_images(outcomes: Sequence[str | Outcome]) -> dict[str, Outcome]:
    """Outcomes by variable.

    Raises
    ------
    SpecError
        There is none, or one needs more than images.
    """
    chosen = [chosen_outcome(one) for one in ((outcomes,) if isinstance(outcomes, str | Outcome) else outcomes)]
    for outcome in chosen:
        if outcome.reads or len(outcome.variables) > 1 or outcome.variables[0].dims:
            raise SpecError(
                f"The outcome {outcome.name!r} is not one number for an image and the baseline's, and nothing else is "
                "known of an estimate; give such as 'ssim'."
            )
    if not chosen:
        raise SpecError("No outcome was given to measure estimates by; give such as 'ssim'.")
    return {outcome.variable: outcome for outcome in chosen}


def _told(outcome: Outcome) -> dict[str, str]:
    """Attributes of the estimates' variable: here the reference is the final image of the same run."""
    told = {"long_name": f"{outcome.title or outcome.variable}, the final image being the reference"}
    told |= {"short_name": described(outcome).title, "units": outcome.units}
    return told | ({"better": outcome.better} if outcome.better else {})


def first_staying(mean: xr.DataArray, threshold: float) -> int | None:
    """First step of the run from which on a mean stays as alike as a threshold; None if the last one is not.

    Parameters
    ----------
    mean : xarray.DataArray, (step,)
        In the order of the run. Of which ``better`` in the attributes tells distances apart.
    threshold : float
    """
    sign = described(str(mean.name), mean.attrs).sign
    below = np.flatnonzero(~(sign * mean.values >= sign * threshold))
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
