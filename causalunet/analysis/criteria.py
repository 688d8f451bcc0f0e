"""Criteria: when is an intervention without visible effect, and how far does that reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from causalunet.analysis.described import Described, described, registered_outcome, variable_name
from causalunet.analysis.direction import sign_of
from causalunet.analysis.intervals import bootstrap_mean
from causalunet.calls import clear_calls, hold
from causalunet.design.limits import is_number, plain_number, shown
from causalunet.design.outcomes import Better, Outcome
from causalunet.errors import SpecError

__all__ = ["Criterion", "Kind", "chosen_criterion", "first_passing", "frontier"]

Kind = Literal["mean", "lower", "share"]
"""What of the samples is held against the threshold."""


@clear_calls
@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """When intervened images count as alike to those of the baseline.

    Parameters
    ----------
    variable : str
        Outcome, by the name of its variable or itself; kept by its name.
    threshold : float
        In the variable's unit; 0.8 on SSIM is the paper's.
    kind : {"mean", "lower", "share"}
        What is at least the threshold: the mean over samples; the lower bound of the mean's BCa bootstrap interval (a
        test of non-inferiority); or a given share of the samples, each by itself. Of distances: what is at most the
        threshold, and the upper bound.
    share : float
        Share of samples that ``kind="share"`` needs, above 0 and at most 1.
    probability : float
        Of the two-sided interval whose lower bound ``kind="lower"`` takes.
    resamples, seed : int
        Of that interval; see `bootstrap_mean`.
    better : {"higher", "lower"}, optional
        Values of the variable that mean more alike; needed where no outcome of that name is registered.

    Raises
    ------
    SpecError
        A value is not valid, or which values of the variable mean more alike is not known.

    Examples
    --------
    >>> print(Criterion())
    mean SSIM >= 0.8
    >>> Criterion(kind="share", share=0.75).passes([0.9, 0.85, 0.81, 0.2])
    array(True)
    >>> print(Criterion(variable="lpips", threshold=0.1, better="lower"))
    mean LPIPS <= 0.1
    """

    variable: str
    threshold: float
    kind: Kind
    share: float
    probability: float
    resamples: int
    seed: int
    better: Better | None

    def __init__(
        self,
        *,
        variable: str | Outcome = "ssim",
        threshold: float = 0.8,
        kind: Kind = "mean",
        share: float = 0.9,
        probability: float = 0.95,
        resamples: int = 9999,
        seed: int = 0,
        better: Better | None = None,
    ) -> None:
        name = variable_name(variable)
        known = variable if isinstance(variable, Outcome) else registered_outcome(name)
        sign_of(xr.DataArray(name=name), better, known)
        hold(
            self,
            variable=name,
            threshold=threshold,
            kind=kind,
            share=share,
            probability=probability,
            resamples=resamples,
            seed=seed,
            # An outcome with parameters is not found by the name of its variable.
            better=known.better if isinstance(known, Outcome) and registered_outcome(name) is None else better,
        )
        if known is not None:
            known.check_threshold(self.threshold)

    def __post_init__(self) -> None:
        for name in ("threshold", "share", "probability", "resamples", "seed"):
            value = plain_number(getattr(self, name))
            if not is_number(value):
                raise SpecError(f"Criterion got {name}={shown(value)}; it must be a finite number.")
            object.__setattr__(self, name, value)
        if self.kind not in get_args(Kind):
            raise SpecError(f"Criterion got kind={self.kind!r}; it has {', '.join(map(repr, get_args(Kind)))}.")
        if not 0 < self.share <= 1:
            raise SpecError(f"Criterion got share={self.share!r}; it must be above 0 and at most 1, such as 0.9.")
        if not 0 < self.probability < 1:
            raise SpecError(f"Criterion got probability={self.probability!r}; it must be between 0 and 1.")
        if self.resamples < 1:
            raise SpecError(f"Criterion got resamples={self.resamples!r}; it must be at least 1.")

    def passes(self, values: ArrayLike) -> NDArray[np.bool_]:
        """Whether outcomes meet the criterion.

        Parameters
        ----------
        values : array_like, (..., sample)
            At least one sample, and two for ``kind="lower"``. The order of the samples makes no difference.

        Returns
        -------
        ndarray of bool, (...,)

        Raises
        ------
        SpecError
            There are too few samples, or a value is NaN or minus infinity.
        """
        return self.reached(self.statistic(values))

    def reached(self, statistic: ArrayLike) -> NDArray[np.bool_]:
        """Whether what `statistic` gives is good enough."""
        sign = 1 if self.kind == "share" else self.sign
        return np.asarray(sign * np.asarray(statistic) >= sign * self.needed)

    def alike(self, values: ArrayLike) -> NDArray[np.bool_]:
        """Whether single outcomes are at least as alike as the threshold."""
        return np.asarray(self.sign * np.asarray(values) >= self.sign * self.threshold)

    def statistic(self, values: ArrayLike) -> NDArray[np.float64]:
        """Mean, the bound of the mean that is less alike, or share of samples that are at least as alike as asked.

        Parameters
        ----------
        values : array_like, (..., sample)
            As for `passes`.

        Returns
        -------
        ndarray of float64, (...,)

        Raises
        ------
        SpecError
            As for `passes`.

        Notes
        -----
        One infinite value, as PSNR has for identical images, makes the mean infinite; the lower bound is then that of
        the finite values.
        """
        array = np.asarray(values, dtype=np.float64)
        self._check(array)
        # Sums depend on the order in memory, and a distance is judged as the similarity that it is the negative of.
        array = self.sign * np.sort(self.sign * np.ascontiguousarray(array), axis=-1)
        if self.kind == "share":
            return np.asarray(self.alike(array).mean(axis=-1))
        if self.kind == "mean":
            # Rounding may carry the mean of equal values past them.
            return np.asarray(np.clip(array.mean(axis=-1), array.min(axis=-1), array.max(axis=-1)))
        bounds = bootstrap_mean(
            self.sign * array, probability=self.probability, resamples=self.resamples, seed=self.seed
        )
        return np.asarray(self.sign * bounds[..., 0])

    @property
    def sign(self) -> int:
        """1 where larger values mean more alike, -1 where smaller ones do."""
        return self._described.sign

    @property
    def fewest(self) -> int:
        """How many samples it takes."""
        return 2 if self.kind == "lower" else 1

    @property
    def needed(self) -> float:
        """What the statistic must reach: ``share`` if that is the kind, else ``threshold``."""
        return self.share if self.kind == "share" else self.threshold

    def __str__(self) -> str:
        told = self._described
        title = told.title if registered_outcome(told.name) else told.name.upper()
        compared = f"{title} {'>=' if self.sign > 0 else '<='} {self.threshold:g}"
        compared += f" {told.units}" if told.units != "1" else ""
        if self.kind == "mean":
            return f"mean {compared}"
        if self.kind == "lower":
            bound = "lower" if self.sign > 0 else "upper"
            return f"{bound} {100 * self.probability:g} % bound of mean {compared}"
        return f"{compared} in at least {100 * self.share:g} % of samples"

    @property
    def _described(self) -> Described:
        return described(self.variable, {"better": self.better} if self.better else None)

    def _check(self, array: NDArray[np.float64]) -> None:
        samples = array.shape[-1] if array.ndim else 0
        if samples < self.fewest:
            raise SpecError(f"Values of {samples} samples were held against '{self}'; it needs at least {self.fewest}.")
        wrong = int((np.isnan(array) | (self.sign * array == -np.inf)).sum())
        if wrong:
            infinite = "minus infinity" if self.sign > 0 else "infinite"
            raise SpecError(
                f"{wrong} of {array.size} values of {self.variable} are NaN or {infinite}. "
                "Leave them out, for instance by selecting the samples that were run."
            )


def chosen_criterion(criterion: Criterion | None, threshold: float | None) -> Criterion:
    """The criterion given, or that of a threshold on mean SSIM; 0.8 by default."""
    if criterion is None:
        return Criterion() if threshold is None else Criterion(threshold=threshold)
    if not isinstance(criterion, Criterion):
        raise SpecError(f"criterion={criterion!r} is not a Criterion; for a number give threshold={criterion!r}.")
    if threshold is not None:
        raise SpecError(f"Both a criterion ({criterion}) and threshold={threshold!r} were given; give one of them.")
    return criterion


def frontier(passes: ArrayLike) -> Any:
    """Hardest candidate that passes together with every easier one.

    Parameters
    ----------
    passes : array_like of bool, (..., candidate)
        From easy to hard: late before early starts, short before long windows, long before short relaxation.

    Returns
    -------
    int, or ndarray of int64 with shape (...,)
        Index of the candidate; -1 where the easiest one fails.

    Examples
    --------
    >>> frontier([True, True, False, True])
    1
    """
    array = np.asarray(passes, dtype=np.bool_)
    reached = np.logical_and.accumulate(array, axis=-1).sum(axis=-1, dtype=np.int64) - 1
    return reached if array.ndim > 1 else int(reached)


def first_passing(passes: ArrayLike) -> Any:
    """First candidate that passes, from the hard end; easier ones need not pass.

    The paper's "first start that reaches the threshold". With noise it lies at or beyond the `frontier`.

    Parameters
    ----------
    passes : array_like of bool, (..., candidate)
        From easy to hard, as for `frontier`.

    Returns
    -------
    int, or ndarray of int64 with shape (...,)
        Index of the candidate; -1 where none passes.

    Examples
    --------
    >>> first_passing([True, True, False, True])
    3
    """
    array = np.asarray(passes, dtype=np.bool_)
    reached = (array * np.arange(1, array.shape[-1] + 1)).max(axis=-1, initial=0) - 1
    return reached if array.ndim > 1 else int(reached)
