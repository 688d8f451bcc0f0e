"""How much of images lies at which frequencies, and what the best linear denoiser lets through there."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from causalunet.design.limits import shown
from causalunet.dims import X, Y
from causalunet.errors import SpecError

__all__ = ["power_spectrum", "wiener_gain"]

_WAVENUMBER = "wavenumber"


def power_spectrum(images: xr.DataArray) -> xr.DataArray:
    """Mean power at every wavenumber, over the rings of the two-dimensional Fourier transform.

    Parameters
    ----------
    images : xarray.DataArray, (..., y, x)
        Such as ``results.outcomes.image`` or ``results.baseline.x0_hat``.

    Returns
    -------
    xarray.DataArray, (..., wavenumber)
        In squared units of the images. Frequency (k_y, k_x), in waves per image, belongs to the wavenumber nearest to
        its length; white noise of variance 1 has power 1 everywhere. The coordinate ``frequencies``, (wavenumber),
        says how many lie on a ring: powers times these sum to the sum of all squares (Parseval).

    Raises
    ------
    SpecError
        There is no y or no x.

    Notes
    -----
    Wavenumber 0 is the mean. Beyond half the shorter side rings are not whole: only corners of the spectrum are there.
    """
    if not isinstance(images, xr.DataArray) or not {Y, X} <= set(images.dims):
        dims = images.dims if isinstance(images, xr.DataArray) else shown(images)
        raise SpecError(f"power_spectrum takes a DataArray with y and x, such as results.outcomes.image; got {dims}.")
    last = images.transpose(..., Y, X)
    waves = (np.fft.fftfreq(size) * size for size in last.shape[-2:])
    ring = np.rint(np.hypot(*np.meshgrid(*waves, indexing="ij"))).astype(np.int64)
    counts = np.bincount(ring.ravel())
    power = np.abs(np.fft.fft2(last.values.astype(np.float64), norm="ortho")) ** 2
    belongs = (ring.ravel()[:, None] == np.arange(len(counts))) / counts
    dims = last.dims[:-2]
    return xr.DataArray(
        power.reshape(*last.shape[:-2], -1) @ belongs,
        dims=(*dims, _WAVENUMBER),
        coords={
            **{name: item for name, item in last.coords.items() if set(item.dims) <= set(dims)},
            _WAVENUMBER: np.arange(len(counts)),
            "frequencies": (_WAVENUMBER, counts),
        },
        name="power",
        attrs={"long_name": "mean power"},
    )


def wiener_gain(alpha_bar: ArrayLike, power: ArrayLike) -> NDArray[np.float64]:
    """What the best linear denoiser multiplies frequencies of x_t by, of data whose pixels are alike everywhere.

    Parameters
    ----------
    alpha_bar : array_like
        Between 0 and 1.
    power : array_like
        Of the data at a frequency, less its mean, in units in which the noise has power 1; broadcast with
        ``alpha_bar``.

    Returns
    -------
    ndarray of float64
        H = sqrt(ab) S / (ab S + 1 - ab). The share of S that such estimates have right is sqrt(ab) H: all of it where
        there is no noise.

    Notes
    -----
    Yang et al. 2023, "Diffusion Probabilistic Model Made Slim", proposition 1.
    """
    share, spread = np.asarray(alpha_bar, np.float64), np.asarray(power, np.float64)
    return np.asarray(np.sqrt(share) * spread / (share * spread + 1 - share))
