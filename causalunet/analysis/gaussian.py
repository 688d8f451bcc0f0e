"""What is known of runs and interventions where images are Gaussian: trajectories and effects in closed form.

Wang & Vastola 2023, "Diffusion models generate images like painters" (arXiv 2303.02490). Along a principal component of
variance l, x_t is N(sqrt(ab) mu, 1 - ab + ab l), the best estimate of x_0 is linear, and so is every step of a sampler:
what an intervention does is a product of numbers, one for each step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from causalunet.design.fills import Identity, Jump, Scale, Zero
from causalunet.design.interventions import Edit, Intervention
from causalunet.design.limits import shown
from causalunet.design.samplers import DDIM, DDPM, Sampler
from causalunet.design.study import StudySpec
from causalunet.design.views import Channels, Whole
from causalunet.dims import INTERVENTION
from causalunet.errors import SpecError
from causalunet.schedule import Schedule

__all__ = ["LinearRun", "gaussian_theory", "kick", "linear_run", "psi", "xi"]

_Array = NDArray[np.float64]
_PRINCIPAL = "principal_component"
_BY_CHANNEL = "coefficients"
"""The component of the exact Gaussian that has a channel for every principal component."""


def psi(alpha_bar: ArrayLike, variances: ArrayLike, first: float) -> _Array:
    """Coordinates of x_t along principal components, as shares of those of the first x_T: the probability flow.

    x_t = sqrt(ab_t) mu + sum_k psi_k(t) c_k u_k with c_k = u_k . (x_T - sqrt(ab_T) mu).

    Parameters
    ----------
    alpha_bar : array_like, (...)
        Share of signal variance at the times asked for.
    variances : array_like, (component,)
        Of the data along each component; 0 off the manifold.
    first : float
        Share of signal variance where the run begins.

    Returns
    -------
    ndarray of float64, (..., component)

    Notes
    -----
    Wang & Vastola 2023. A sampler of few steps is another thing, see `linear_run`.
    """
    share, variance = np.asarray(alpha_bar, np.float64)[..., None], np.asarray(variances, np.float64)
    return np.asarray(np.sqrt(_spread(share, variance) / _spread(first, variance)))


def xi(alpha_bar: ArrayLike, variances: ArrayLike, first: float) -> _Array:
    """Coordinates of the estimate of x_0, as shares of those of the first x_T; parameters as for `psi`.

    The estimate is mu + sum_k xi_k(t) c_k u_k: components of large variance rise first.
    """
    share, variance = np.asarray(alpha_bar, np.float64)[..., None], np.asarray(variances, np.float64)
    return np.asarray(np.sqrt(share) * variance / np.sqrt(_spread(share, variance) * _spread(first, variance)))


def kick(alpha_bar: ArrayLike, variances: ArrayLike) -> _Array:
    """How far the image moves along a principal component when x_t is moved by 1 along it; parameters as for `psi`.

    Examples
    --------
    >>> kick([0.01, 0.5, 0.99], [10.0, 0.1]).round(2)
    array([[3.03, 0.32],
           [1.35, 0.43],
           [1.  , 0.96]])
    """
    share, variance = np.asarray(alpha_bar, np.float64)[..., None], np.asarray(variances, np.float64)
    return np.asarray(np.sqrt(variance / _spread(share, variance)))


def _spread(share: ArrayLike, variance: ArrayLike) -> _Array:
    """Variance of x_t."""
    return np.asarray(1 - np.asarray(share) * (1 - np.asarray(variance)))


class LinearRun(NamedTuple):
    """What becomes of noise along every principal component, from the mean of x_t.

    Attributes
    ----------
    first : ndarray, (component,)
        What the coordinate of x_T is multiplied by, up to the image.
    drawn : ndarray, (step, component)
        What standard normal noise that is drawn on the way from a step T ... 1 is multiplied by; 0 where none is.
    """

    first: _Array
    drawn: _Array

    def second_moments(self, offsets: ArrayLike) -> _Array:
        """Mean square of the image's coordinates from the mean of the data, (component,).

        Parameters
        ----------
        offsets : array_like, (component,)
            Mean of the coordinates of x_T from sqrt(ab_T) mu; x_T is standard normal about that.
        """
        return np.asarray(self.first**2 * (1 + np.square(offsets)) + np.square(self.drawn).sum(axis=0))


def linear_run(
    schedule: Schedule,
    variances: ArrayLike,
    *,
    eta: float = 0.0,
    variance: Literal["small", "large"] = "small",
    skipped: Sequence[int] = (),
    strength: Mapping[int, ArrayLike] | None = None,
) -> LinearRun:
    """Follow a run of DDIM or DDPM on Gaussian data from x_T to the image.

    Parameters
    ----------
    schedule : Schedule
    variances : array_like, (component,)
    eta : float
        As for `causalunet.DDIM`; 1 has the means of `causalunet.DDPM`.
    variance : {"small", "large"}
        Of the noise that is drawn: the posterior's, times eta squared, or that of the transition.
    skipped : sequence of int
        Steps whose call does not happen.
    strength : mapping of int to array_like, (component,), optional
        By step: what the denoiser's answer along each component is multiplied by; 0 where it is cut.

    Returns
    -------
    LinearRun

    Notes
    -----
    With the gain g = sqrt(ab) l / (1 - ab + ab l) of the estimate, a step multiplies the coordinate by
    sqrt(ab') g + sqrt(1 - ab' - s^2) (1 - sqrt(ab) g) / sqrt(1 - ab): Song et al. 2021, equation 12, where s is the
    spread of equation 16.
    """
    of_data, strength = np.asarray(variances, np.float64), strength or {}
    called = [step for step in range(schedule.steps, 0, -1) if step not in set(skipped)]
    first, drawn = np.ones_like(of_data), np.zeros((schedule.steps, *of_data.shape))
    for step, after in zip(called, [*called[1:], 0], strict=True):
        at, to = schedule.alpha_bar(step), schedule.alpha_bar(after)
        gain = math.sqrt(at) * of_data / _spread(at, of_data) * np.asarray(strength.get(step, 1.0))
        posterior = (1 - to) / (1 - at) * (1 - at / to)
        left = math.sqrt(max(1 - to - eta**2 * posterior, 0.0) / (1 - at))
        factor = math.sqrt(to) * gain + left * (1 - math.sqrt(at) * gain)
        first, drawn = factor * first, factor * drawn
        if after:
            drawn[schedule.steps - step] = math.sqrt(1 - at / to if variance == "large" else eta**2 * posterior)
    return LinearRun(first, drawn)


def gaussian_theory(
    study: StudySpec,
    alpha_bar: ArrayLike,
    variances: ArrayLike,
    *,
    pixels: int,
    offsets: ArrayLike = 0.0,
    branches: Mapping[str, Sequence[int]] | None = None,
    variance: Literal["small", "large"] = "small",
) -> xr.Dataset:
    """Effects that the interventions of a study have on a model of Gaussian images, in closed form.

    Parameters
    ----------
    study : StudySpec
        With `DDIM` or `DDPM`, without guidance. Its interventions skip steps, or scale or zero components that are
        among ``branches``, whole, or some channels of ``coefficients``: single principal components.
    alpha_bar : array_like, (timestep,)
        Noise schedule of the model.
    variances : array_like, (component,)
        Of the data along the principal components; what lies beyond them has none.
    pixels : int
        Numbers of an image: channels times height times width.
    offsets : array_like, (component,)
        Mean of the data along the components. Two runs differ by the noise of a sample times a number, and noise is
        taken from that mean.
    branches : mapping of str to sequence of int, optional
        Which principal components of the data each component of the U-Net adds to the estimate.
    variance : {"small", "large"}
        Of `DDPM`, as for `linear_run`: models that predict no variance, as the exact ones, take the small one.

    Returns
    -------
    xarray.Dataset
        - ``gain`` (intervention, principal_component): what the noise of the first step is multiplied by, up to the
          image, along each principal component;
        - ``baseline_gain`` (principal_component): of the run without intervention;
        - ``effect`` (intervention, principal_component): root of the mean square by which the image is moved, in x_0;
        - ``mse`` (intervention): expectation of the outcome of that name, of images that are not clipped.

    Raises
    ------
    SpecError
        Nothing is known in closed form of the sampler, the guidance, or an intervention.
    """
    schedule = study.sampler.schedule(np.asarray(alpha_bar, np.float64))
    of_data = np.asarray(variances, np.float64)
    kind: dict[str, float | str] = _kind_of(study.sampler, variance)
    start = -math.sqrt(schedule.alpha_bar(schedule.steps)) * np.broadcast_to(
        np.asarray(offsets, np.float64), of_data.shape
    )
    usual = linear_run(schedule, of_data, **kind)  # type: ignore[arg-type]
    runs = [
        linear_run(schedule, of_data, **kind, **_edited(item, branches or {}, len(of_data)))  # type: ignore[arg-type]
        for item in study.interventions
    ]
    moved = [LinearRun(run.first - usual.first, run.drawn - usual.drawn).second_moments(start) for run in runs]
    both = (INTERVENTION, _PRINCIPAL)
    return xr.Dataset(
        {
            "gain": (both, np.stack([run.first for run in runs])),
            "baseline_gain": (_PRINCIPAL, usual.first),
            "effect": (both, np.sqrt(moved)),
            "mse": (INTERVENTION, np.sum(moved, axis=1) / (4 * pixels)),  # images are (x_0 + 1) / 2
        },
        coords={INTERVENTION: [item.label for item in study.interventions], _PRINCIPAL: np.arange(len(of_data))},
    )


def _kind_of(sampler: Sampler, variance: str) -> dict[str, float | str]:
    if sampler.guidance_scale != 1:
        raise SpecError(
            f"With guidance {sampler.guidance_scale:g} two Gaussians answer, whose principal components differ. What "
            "is known in closed form is a run of one: give the sampler guidance_scale=1."
        )
    if isinstance(sampler, DDIM):
        return {"eta": sampler.eta, "variance": "small"}
    if isinstance(sampler, DDPM):
        return {"eta": 1.0, "variance": variance}
    raise SpecError(f"Of the sampler {shown(sampler.name)} no closed form is known here; of ddim and ddpm there is.")


def _edited(item: Intervention, branches: Mapping[str, Sequence[int]], components: int) -> dict[str, object]:
    """What an intervention skips, and what it leaves of the denoiser's answer at each step."""
    skipped: set[int] = set()
    strength: dict[int, _Array] = {}
    for edit in item.edits():
        if isinstance(edit.fill, Jump):
            skipped |= set(edit.window)
            continue
        if isinstance(edit.fill, Identity):
            continue
        moved = _answers_of(edit, branches)
        if moved is None or not isinstance(edit.fill, Zero | Scale):
            known = f"zeros and scales of {', '.join(branches)}" if branches else "none, since branches= is not given"
            raise SpecError(
                f"{item.label!r} puts {shown(edit.fill)} in place of {edit.site}, of which no closed form is known: it "
                f"is of skipped steps and of edits of whole branches ({known}), and of channels of {_BY_CHANNEL}."
            )
        for step in edit.window:
            factors = strength.setdefault(step, np.ones(components))
            factors[list(moved)] *= edit.fill.factor if isinstance(edit.fill, Scale) else 0.0
    return {"skipped": sorted(skipped), "strength": strength}


def _answers_of(edit: Edit, branches: Mapping[str, Sequence[int]]) -> Sequence[int] | None:
    """Principal components whose part of the answer an edit changes; None if it is more or less than that."""
    own, view = branches.get(edit.component), edit.site.view
    if own is None or view == Whole():
        return own
    if edit.component == _BY_CHANNEL and isinstance(view, Channels):
        return [own[channel] for channel in view.channels if channel < len(own)]
    return None
