"""Statistics of a model over noise levels, as a value: measured once, kept in a file, named by a digest."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from causalunet.calls import clear_calls
from causalunet.design.digests import written
from causalunet.design.limits import shown
from causalunet.errors import SpecError

__all__ = ["ModelStatistics", "keep", "load_statistics", "statistics_named"]

_ARRAYS = ("half_log_snr", "linear", "scaling", "bias")
_KNOWN: dict[str, ModelStatistics] = {}
"""That were made, loaded or given to a sampler in this process, by digest."""


@clear_calls
@dataclass(frozen=True, eq=False)
class ModelStatistics:
    """How a model's prediction goes with its state, on the average, at every noise level (Zheng et al. 2023).

    A sampler names them by their `digest`; they are known by it once they were made or loaded in a process.

    Parameters
    ----------
    fingerprint : str
        Of the model.
    half_log_snr : ndarray of float64, (level,)
        Logarithm of signal over noise, from the noisiest level on: lambda of the same.
    linear : ndarray of float64, (level, channel, y, x)
        l, the mean of the diagonal of sigma d eps / dx.
    scaling, bias : ndarray of float64, (level, channel, y, x)
        s and b: f' is near s f + b along a run, where f = (sigma eps - l x) / alpha and f' is its change with lambda.
    guidance : mapping
        What was predicted by, as ``Guidance.to_json`` writes it.
    made : mapping
        How they were measured, in plain JSON types. It is told, and no part of what they are.

    Raises
    ------
    SpecError
        The arrays do not fit each other, are not finite, or levels do not rise.
    """

    fingerprint: str
    half_log_snr: NDArray[np.float64]
    linear: NDArray[np.float64]
    scaling: NDArray[np.float64]
    bias: NDArray[np.float64]
    guidance: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            array = np.array(getattr(self, name), dtype=np.float64)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        shapes = {name: getattr(self, name).shape for name in _ARRAYS}
        count = len(self.half_log_snr) if self.half_log_snr.ndim == 1 else 0
        others = {shapes[name] for name in _ARRAYS[1:]}
        if count < 2 or len(others) != 1 or self.linear.ndim != 4 or len(self.linear) != count:
            raise SpecError(
                f"Statistics got arrays of shapes {shapes}; half_log_snr is (level,) with two levels at least, the "
                "others are (level, channel, y, x)."
            )
        if not all(np.isfinite(getattr(self, name)).all() for name in _ARRAYS):
            raise SpecError("Statistics got numbers that are not finite.")
        if not (np.diff(self.half_log_snr) > 0).all():
            raise SpecError("Statistics got half_log_snr that does not rise from the noisiest level on.")

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that name their content: numbers, model and guidance."""
        found = hashlib.sha256(written([self.fingerprint, dict(self.guidance)]).encode())
        for name in _ARRAYS:
            found.update(repr(getattr(self, name).shape).encode())
            found.update(getattr(self, name).astype("<f8").tobytes())
        return found.hexdigest()[:16]

    def __repr__(self) -> str:
        first, last = self.half_log_snr[[0, -1]]
        return (
            f"<ModelStatistics {self.digest} of the model {self.fingerprint}: {len(self.linear)} levels of half log "
            f"SNR {first:.3g} ... {last:.3g}, {' x '.join(map(str, self.linear.shape[1:]))}>"
        )

    def at(self, half_log_snr: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """l, s and b at any levels, straight between those known and constant beyond.

        Parameters
        ----------
        half_log_snr : ndarray of float64, (place,)

        Returns
        -------
        tuple of ndarray of float64, (place, channel, y, x)
        """
        place = np.interp(half_log_snr, self.half_log_snr, np.arange(len(self.half_log_snr)))
        below = np.minimum(place.astype(int), len(self.half_log_snr) - 2)
        share = (place - below)[:, None, None, None]
        given = (self.linear, self.scaling, self.bias)
        return tuple((1 - share) * one[below] + share * one[below + 1] for one in given)

    def save(self, path: str | Path) -> Path:
        """Write them into a file of NumPy's format npz.

        Parameters
        ----------
        path : path
            A file, or a folder, in which it is called ``statistics-<fingerprint>-<digest>.npz``.

        Returns
        -------
        Path
            The file.
        """
        file = Path(path)
        if file.is_dir():
            file = file / f"statistics-{self.fingerprint[:16]}-{self.digest}.npz"
        told = {"fingerprint": self.fingerprint, "guidance": dict(self.guidance), "made": dict(self.made)}
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        with file.open("wb") as stream:  # by its name NumPy would add an ending
            np.savez_compressed(stream, told=json.dumps({**told, "digest": self.digest}), **arrays)
        return file


def keep(statistics: ModelStatistics) -> str:
    """Let statistics be known in this process, and give the digest by which they are."""
    _KNOWN[statistics.digest] = statistics
    return statistics.digest


def load_statistics(path: str | Path) -> ModelStatistics:
    """Read what `ModelStatistics.save` wrote; samplers that name it are known from then on.

    Parameters
    ----------
    path : path

    Raises
    ------
    SpecError
        There is no such file, it holds something else, or it was changed since.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            told = json.loads(str(stored["told"]))
            arrays = {name: stored[name] for name in _ARRAYS}
        found = ModelStatistics(told["fingerprint"], **arrays, guidance=told["guidance"], made=told["made"])
        digest = told["digest"]
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise SpecError(
            f"No statistics can be read at {path} ({type(error).__name__}: {error!s:.200}). Give a file that "
            "ModelStatistics.save wrote; causalunet.model_statistics makes them."
        ) from error
    if found.digest != digest:
        raise SpecError(f"The statistics at {path} are not those that were written: {found.digest}, not {digest}.")
    keep(found)
    return found


def statistics_named(digest: str) -> ModelStatistics:
    """Find statistics that were made or loaded in this process.

    Raises
    ------
    SpecError
        There are none of that digest.
    """
    found = _KNOWN.get(digest)
    if found is None:
        known = ", ".join(_KNOWN) or "none"
        raise SpecError(
            f"No statistics with the digest {shown(digest)} are known in this process; known: {known}. Read their file "
            "with causalunet.load_statistics(path), or make them anew with causalunet.model_statistics(model)."
        )
    return found
