"""Redundancy: from when on, for how long and how soon again a part of the network may be missing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet.analysis.criteria import Criterion, chosen_criterion, first_passing, frontier
from causalunet.analysis.curves import BOUND, BOUNDS, curve
from causalunet.analysis.direction import sign_of
from causalunet.analysis.resampling import canonical_order, check_resampling, resampling_weights
from causalunet.analysis.selection import check_variable, complete_samples, intervention_columns, select_interventions
from causalunet.analysis.sweeps import describe
from causalunet.dims import INTERVENTION, SAMPLE
from causalunet.errors import SpecError

__all__ = ["acting_cells", "first_redundant_step", "longest_window", "redundant_start", "relaxation_needed"]

CANDIDATE = "candidate"
"""Dimension of what was tested, from easy to hard."""

_MOST_VALUES = 1 << 22  # at once: 32 MB
_ROUNDING = 1e-12  # relative spread below which a cell is constant but for rounding
_SHAPE = ("length", "cuts")


@dataclass(frozen=True, slots=True)
class _Axis:
    """What candidates differ in, and what an answer along it is called."""

    by: str
    answer: str
    meaning: str
    harder: int
    """1 where larger candidates are harder, -1 where smaller ones are."""


_START = _Axis("start", "step", "earliest start step without visible effect", 1)
_LENGTH = _Axis("length", "length", "most consecutive steps without visible effect", 1)
_RELAX = _Axis("relax", "relax", "fewest steps between cuts without visible effect", -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What is asked of every group of interventions."""

    axis: _Axis
    names: tuple[str, ...]
    criterion: Criterion
    lasting: bool = True
    probability: float
    resamples: int
    seed: int

    def __post_init__(self) -> None:
        if self.axis.by in self.names:
            raise SpecError(
                f"One answer for each {self.axis.by} was asked, but candidates differ in that; name others."
            )
        check_resampling(self.probability, self.resamples)

    def reached(self, passes: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Index of the answer among candidates, (..., candidate) -> (...,)."""
        return np.asarray((frontier if self.lasting else first_passing)(passes))


def first_redundant_step(
    results: xr.DataTree,
    criterion: Criterion | None = None,
    *,
    threshold: float | None = None,
    lasting: bool = True,
    by: str | Sequence[str] = "bottom",
    probability: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
    allow_incomplete: bool = False,
    **selection: Any,
) -> xr.Dataset:
    """Earliest start step from which an intervention is without visible effect (the paper's figure 8).

    Parameters
    ----------
    results : xarray.DataTree
    criterion : Criterion, optional
        When an intervention is without visible effect; by default a mean SSIM of at least 0.8.
    threshold : float, optional
        Short for ``Criterion(threshold=...)``.
    lasting : bool
        Every later start tested must pass as well. False is the paper's reading: the first start of the run that
        passes.
    by : str or sequence of str
        One answer for each value of this coordinate, or combination of values of several.
    probability, resamples, seed
        Of the interval: a bootstrap over samples, all starts of a sample staying together.
    allow_incomplete, **selection
        As for `curve`, such as ``kind="ablate_block", length=5``. Null interventions are left out.

    Returns
    -------
    xarray.Dataset
        Along ``by`` (along ``group``, if ``by`` names several coordinates):

        - ``step``: the answer as a float, NaN if there is none;
        - ``interval``, (..., bound): NaN for "none passes", which lies below every start;
        - ``never``: share of resamples in which there is no answer;
        - ``at_edge``: whether the answer is the earliest start tested, so that a still earlier one might pass;
        - ``tested``, ``passes`` and ``statistic``, (..., candidate): which starts were tested, which of them pass, and
          the mean, bound or share that says so (NaN if not tested), from late to early. The answer is known to no finer
          grid than this.

    Raises
    ------
    SpecError
        Nothing fits the selection, or interventions with the same ``by`` differ in more than their start.
    StoreError
        Some of the cells failed or were not run yet.

    Notes
    -----
    - The interval is a percentile one. At 95 % it covers the first redundant step of the population 94 to 97 % of the
      time, for means and shares, with 30 or 100 samples and starts 1 or 5 steps apart (simulated, 500 studies each). It
      is wide where the mean curve runs along the threshold.
    - For a criterion of kind "lower", the bound of a resample lies as far below its mean as in the data, times the
      ratio of their standard deviations: a bootstrap in every resample would take hours. The answer is one about this
      number of samples then, and has no counterpart in the population.

    Examples
    --------
    >>> found = first_redundant_step(results, threshold=0.9, kind="ablate_block", length=5)
    >>> steps, intervals = found["step"], found["interval"]
    """
    question = _Question(
        axis=_START,
        names=_names(by),
        criterion=chosen_criterion(criterion, threshold),
        lasting=lasting,
        probability=probability,
        resamples=resamples,
        seed=seed,
    )
    chosen = acting_cells(results, question.criterion, question.names, selection, allow_incomplete=allow_incomplete)
    return _answers(question, chosen, _grouped(chosen, question.names), selection)


def longest_window(
    results: xr.DataTree,
    criterion: Criterion | None = None,
    *,
    threshold: float | None = None,
    by: str | Sequence[str] = ("bottom", "start"),
    probability: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
    allow_incomplete: bool = False,
    **selection: Any,
) -> xr.Dataset:
    """Most consecutive steps that an intervention may last without visible effect (the paper's figure 9).

    All shorter windows tested must pass as well. Interventions with several windows are left out, and so are groups
    of which one length only was tested.

    Parameters
    ----------
    results, criterion, threshold, by, probability, resamples, seed, allow_incomplete, **selection
        As for `first_redundant_step`.

    Returns
    -------
    xarray.Dataset
        As of `first_redundant_step`, with ``length`` as the answer and lengths as candidates, from short to long. "None
        passes" lies below every length.

    Raises
    ------
    SpecError, StoreError
        As for `first_redundant_step`; also if no group has two lengths.
    """
    question = _Question(
        axis=_LENGTH,
        names=_names(by),
        criterion=chosen_criterion(criterion, threshold),
        probability=probability,
        resamples=resamples,
        seed=seed,
    )
    chosen = acting_cells(results, question.criterion, question.names, selection, allow_incomplete=allow_incomplete)
    chosen = chosen.isel({INTERVENTION: np.flatnonzero(chosen["cuts"].values == 1)})
    lengths = chosen["length"].values
    groups = {key: part for key, part in _grouped(chosen, question.names).items() if len(set(lengths[part])) > 1}
    if not groups:
        raise SpecError(
            f"The longest window needs windows of several lengths with the same {' and '.join(question.names)}; the "
            f"interventions selected have one each, of the lengths {sorted(set(lengths.tolist()))}. "
            "Run a study with length=(1, 2, 3, ...), or select otherwise."
        )
    return _answers(question, chosen, groups, selection)


def relaxation_needed(
    results: xr.DataTree,
    criterion: Criterion | None = None,
    *,
    threshold: float | None = None,
    by: str | Sequence[str] = ("bottom", "start"),
    probability: float = 0.95,
    resamples: int = 9999,
    seed: int = 0,
    allow_incomplete: bool = False,
    **selection: Any,
) -> xr.Dataset:
    """Fewest steps between cuts after which a further cut is without visible effect (the paper's figure 10).

    All longer relaxations tested must pass as well. One answer for each combination of ``by``, length of a cut and
    number of cuts, from interventions made with `cut_relax_cut`. A relaxation of 0 is one window as long as all cuts
    together; it is found among the interventions selected (so select by start, not by length), where other single
    windows do no harm.

    Parameters
    ----------
    results, criterion, threshold, by, probability, resamples, seed, allow_incomplete, **selection
        As for `first_redundant_step`.

    Returns
    -------
    xarray.Dataset
        As of `first_redundant_step`, along ``group`` with the coordinates ``cut`` (length of one) and ``cuts`` beside
        ``by``, with ``relax`` as the answer and relaxations as candidates, from long to short. "None passes" lies above
        every relaxation.

    Raises
    ------
    SpecError, StoreError
        As for `first_redundant_step`; also if no intervention has several windows.
    """
    question = _Question(
        axis=_RELAX,
        names=(*_names(by), *_SHAPE),
        criterion=chosen_criterion(criterion, threshold),
        probability=probability,
        resamples=resamples,
        seed=seed,
    )
    chosen = acting_cells(results, question.criterion, question.names, selection, allow_incomplete=allow_incomplete)
    groups = _with_no_relaxation(chosen, _grouped(chosen, question.names))
    if not groups:
        raise SpecError(
            "No intervention selected has several windows, so there is no relaxation. Run a study with windows made by "
            "cut_relax_cut(start, cut=5, relax=r) for r = 0, 2, ..., 20."
        )
    return _answers(question, chosen, groups, selection).rename(length="cut")


def redundant_start(values: xr.DataArray, criterion: Criterion, *, lasting: bool = True) -> int | None:
    """Earliest start of one sweep from which it is without visible effect; `first_redundant_step` without its interval.

    Parameters
    ----------
    values : xarray.DataArray, (start, sample)
        Outcomes of the criterion's variable.
    criterion : Criterion
    lasting : bool
        Every later start must pass as well.
    """
    late_first = values.sortby("start").transpose("start", SAMPLE)
    passes = criterion.passes(late_first.values.astype(np.float64))
    index = int((frontier if lasting else first_passing)(passes))
    return int(late_first["start"].values[index]) if index >= 0 else None


def _names(by: str | Sequence[str]) -> tuple[str, ...]:
    return (by,) if isinstance(by, str) else tuple(by)


def acting_cells(
    results: xr.DataTree,
    criterion: Criterion,
    names: Sequence[str],
    selection: Mapping[str, Any],
    *,
    allow_incomplete: bool,
) -> xr.Dataset:
    """Outcomes of a criterion's variable, and their status, of what is selected and does something, in memory.

    Parameters
    ----------
    results : xarray.DataTree
    criterion : Criterion
    names : sequence of str
        Coordinates that have to tell interventions apart.
    selection, allow_incomplete
        As for `first_redundant_step`.

    Raises
    ------
    SpecError
        Nothing fits the selection, all of it is null, or interventions have no such variable or coordinates.
    StoreError
        Some of the cells failed or were not run yet.
    """
    found = select_interventions(results, selection)
    check_variable(found, criterion.variable)
    sign_of(found[criterion.variable], criterion.better)
    unknown = [name for name in names if name not in intervention_columns(found)]
    if unknown:
        known = ", ".join(sorted(intervention_columns(found)))
        raise SpecError(f"Interventions are not told apart by {', '.join(unknown)}; group by any of {known}.")
    acting = np.flatnonzero(found["kind"].values != "null")
    if not len(acting):
        raise SpecError("The interventions selected are all null: they change nothing. Select another kind.")
    chosen = found.isel({INTERVENTION: acting})
    chosen = complete_samples(chosen, criterion.variable, allow_incomplete=allow_incomplete)
    return chosen[[criterion.variable, "status"]].load()


def _grouped(chosen: xr.Dataset, names: Sequence[str]) -> dict[tuple[Any, ...], NDArray[np.int64]]:
    """Positions of the interventions with the same coordinates, by these coordinates."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for position, key in enumerate(zip(*(chosen[name].values.tolist() for name in names), strict=True)):
        groups.setdefault(key, []).append(position)
    return {key: np.array(groups[key]) for key in sorted(groups)}


def _with_no_relaxation(
    chosen: xr.Dataset, groups: Mapping[tuple[Any, ...], NDArray[np.int64]]
) -> dict[tuple[Any, ...], NDArray[np.int64]]:
    """Add to the groups of several cuts the single window that is as long, if there is one."""
    words = np.array([describe(json.loads(str(spec))) for spec in chosen["spec"].values])
    joined = {}
    for (*others, length, cuts), positions in groups.items():
        if cuts > 1:
            single = groups.get((*others, length * cuts, 1), np.array([], dtype=np.int64))
            joined[*others, length, cuts] = np.append(positions, single[np.isin(words[single], words[positions])])
    return joined


def _answers(
    question: _Question,
    chosen: xr.Dataset,
    groups: Mapping[tuple[Any, ...], NDArray[np.int64]],
    selection: Mapping[str, Any],
) -> xr.Dataset:
    """Answer for every group, side by side."""
    axis, criterion = question.axis, question.criterion
    found = [_candidates(question, chosen.isel({INTERVENTION: part}), selection) for part in groups.values()]
    grid = np.unique(np.concatenate([candidates for candidates, _ in found]))[:: axis.harder]
    statistic = np.full((len(found), len(grid)), np.nan)
    for row, (candidates, values) in enumerate(found):
        statistic[row, np.searchsorted(axis.harder * grid, axis.harder * candidates)] = criterion.statistic(values)
    answers = [
        _answer(question, candidates, values, row[~np.isnan(row)])
        for (candidates, values), row in zip(found, statistic, strict=True)
    ]
    point, interval, never, at_edge = (np.array(part) for part in zip(*answers, strict=True))
    dim = question.names[0] if len(question.names) == 1 else "group"
    table = (dim, CANDIDATE)
    kind = {name: getattr(question, name) for name in ("probability", "resamples", "seed")}
    return xr.Dataset(
        {
            axis.answer: (dim, point, {"long_name": axis.meaning, "units": "step"}),
            "interval": ((dim, BOUND), interval, {"interval_kind": "bootstrap percentile", "units": "step", **kind}),
            "never": (dim, never, {"long_name": "share of resamples in which no candidate passes", "units": "1"}),
            "at_edge": (dim, at_edge, {"long_name": "whether the answer is the hardest candidate tested"}),
            "tested": (table, ~np.isnan(statistic), {"long_name": "whether the candidate was tested"}),
            "passes": (table, criterion.reached(statistic), {"long_name": f"whether {criterion}"}),
            "statistic": (table, statistic, {"long_name": "what is held against the criterion"}),
        },
        coords={
            **{name: (dim, np.array([key[place] for key in groups])) for place, name in enumerate(question.names)},
            CANDIDATE: (CANDIDATE, grid, {"long_name": f"{axis.by} tested, from easy to hard"}),
            BOUND: list(BOUNDS),
        },
        attrs={
            "variable": criterion.variable,
            "criterion": str(criterion),
            "lasting": question.lasting,
            "candidate": axis.by,
            "samples": chosen.sizes[SAMPLE],
        },
    )


def _answer(
    question: _Question, candidates: NDArray[Any], values: NDArray[np.float64], statistic: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], float, bool]:
    """Point value, interval, share of resamples without an answer, and whether the answer is the hardest candidate."""
    named = np.append(candidates.astype(np.float64), np.nan)  # index -1, no answer, is the last
    index = int(question.reached(question.criterion.reached(statistic)))
    drawn = _resampled(question, values, statistic)
    tail = (1 - question.probability) / 2
    bounds = np.quantile(drawn, [tail, 1 - tail], method="inverted_cdf").astype(np.int64)
    interval = named[bounds][:: question.axis.harder]
    return float(named[index]), interval, float((drawn == -1).mean()), index == len(candidates) - 1


def _candidates(
    question: _Question, part: xr.Dataset, selection: Mapping[str, Any]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Candidates of one group from easy to hard, and their outcomes, (candidate, sample)."""
    by, variable = question.axis.by, question.criterion.variable
    alike = {name: sorted(set(part[name].values.tolist())) for name in question.names}
    data = curve(xr.DataTree.from_dict({"outcomes": part}), variable, by=by, **{**selection, **alike})
    order = np.argsort(question.axis.harder * data[by].values)
    return data[by].values[order], data[variable].transpose(by, SAMPLE).values[order].astype(np.float64)


def _resampled(question: _Question, values: NDArray[np.float64], statistic: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the answer in every bootstrap resample."""
    values = canonical_order(values)
    size = {"resamples": question.resamples, "seed": question.seed}
    criterion = question.criterion
    parts = [
        question.reached(criterion.reached(_resampled_statistic(criterion, values, statistic, weights)))
        for weights in resampling_weights(values.shape[1], len(values), **size)
    ]
    return np.concatenate(parts)


def _resampled_statistic(
    criterion: Criterion, values: NDArray[np.float64], statistic: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Statistic of every resample and cell: (cell, sample), (cell,), (resample, sample) -> (resample, cell)."""
    samples = values.shape[1]
    if criterion.kind == "share":
        return weights @ criterion.alike(values).T / samples
    finite = np.isfinite(values)
    counts = weights @ finite.T
    with np.errstate(invalid="ignore", divide="ignore"):  # where a resample has infinite values only
        mean = weights @ np.where(finite, values, 0).T / counts
    mean = np.clip(mean, values.min(axis=1), np.where(finite, values, -np.inf).max(axis=1))
    if criterion.kind == "mean":
        return np.where(counts < samples, np.inf, mean)
    return np.where(counts == 0, np.inf, mean - _margin(values, statistic, weights, counts))


def _margin(
    values: NDArray[np.float64], lower: NDArray[np.float64], weights: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How far the lower bound lies below the mean in every resample: as in the data, scaled with the spread."""
    finite = np.isfinite(values)
    known = np.maximum(finite.sum(axis=1), 1)
    mean = np.where(finite, values, 0).sum(axis=1) / known
    centred = np.where(finite, values - mean[:, None], 0)
    sd = np.sqrt((centred**2).sum(axis=1) / known)
    varied = sd > _ROUNDING * abs(mean)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = weights @ (centred**2).T / counts - (weights @ centred.T / counts) ** 2
        margin = (mean - lower) * np.sqrt(np.maximum(variance, 0)) / sd
    return np.where(varied, margin, 0)
