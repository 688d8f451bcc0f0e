"""Contrasts of several interventions sample by sample: which cells they are of, and what is said of their means."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet.analysis.curves import BOUND
from causalunet.analysis.described import variable_name
from causalunet.analysis.intervals import bootstrap_mean
from causalunet.analysis.paired import effect_size, effect_size_interval, sign_flip
from causalunet.analysis.selection import at_labels, check_variable, complete_samples, labelled, outcomes
from causalunet.design.interventions import Intervention
from causalunet.design.limits import shown
from causalunet.design.outcomes import Outcome
from causalunet.dims import INTERVENTION, SAMPLE
from causalunet.errors import CausalUNetError, SpecError

__all__ = ["Cluster", "StoredCells", "by_cluster", "check_cluster", "check_finite", "summarised", "told_of"]

Cluster = Literal["sample", "prompt"]
"""What is drawn independently: every sample, or every prompt with all its seeds."""

_Array = NDArray[np.float64]
_MOST_LISTED = 8


@dataclass(frozen=True, slots=True)
class StoredCells:
    """Which interventions a store holds, and one outcome of some of them on the same samples.

    Attributes
    ----------
    outcomes : xarray.Dataset
        Of all interventions, at one label of dimensions that outcomes bring.
    """

    outcomes: xr.Dataset

    @classmethod
    def of(cls, results: xr.DataTree | xr.Dataset, labels: Mapping[str, Any]) -> StoredCells:
        """Cells of results, at labels of dimensions that outcomes bring, such as ``colour="red"``.

        Raises
        ------
        SpecError
            What is given is not opened results, or a name is no such dimension.
        """
        dataset, rest = at_labels(outcomes(results), labels)
        if rest:
            known = ", ".join(labelled(dataset)) or "none"
            raise SpecError(f"The outcomes have no dimension {', '.join(rest)}; those that have labels: {known}.")
        return cls(dataset)

    def position(self, digest: str) -> int | None:
        """Where an intervention of that content stands."""
        found = np.flatnonzero(self.outcomes["digest"].values == digest)
        return int(found[0]) if len(found) else None

    def find(self, given: str | Intervention, role: str) -> int:
        """Where an intervention stands: by its content, or by its label.

        Parameters
        ----------
        given : str or Intervention
        role : str
            What it is there for, for messages.

        Raises
        ------
        SpecError
            The study does not hold it.
        """
        if not isinstance(given, str | Intervention):
            raise SpecError(f"{role} is {shown(given)}; give an intervention, or the label of one.")
        label = given if isinstance(given, str) else given.label
        if isinstance(given, Intervention) and (found := self.position(given.digest)) is not None:
            return found
        labels = [str(one) for one in self.outcomes[INTERVENTION].values]
        if label in labels:
            return labels.index(label)
        told = ", ".join(labels[:_MOST_LISTED]) + (", ..." if len(labels) > _MOST_LISTED else "")
        raise SpecError(
            f"{role}, {shown(label)}, is no intervention of the study; add it to its interventions and run the study "
            f"again into the same store. It has {told}."
        )

    def label(self, position: int) -> str:
        """Of the intervention that stands there."""
        return str(self.outcomes[INTERVENTION].values[position])

    def null(self) -> int:
        """Where the first null intervention stands, whose cells are those of the runs with nothing changed.

        Raises
        ------
        SpecError
            There is none.
        """
        found = np.flatnonzero(self.outcomes["kind"].values == "null")
        if not len(found):
            raise SpecError(
                "The study has no null intervention, so there is no cell of runs with nothing changed. Add "
                "Null(window=...) to its interventions; causalunet.Study adds one by itself."
            )
        return int(found[0])

    def read(self) -> Iterator[tuple[int, Intervention]]:
        """Every intervention with its place, but for those whose kind or fill is not known here."""
        for position, spec in enumerate(self.outcomes["spec"].values):
            try:
                yield position, Intervention.from_json(json.loads(str(spec)))
            except CausalUNetError:
                continue

    def values(self, variable: str | Outcome, needed: Sequence[int], *, allow_incomplete: bool) -> xr.DataArray:
        """One outcome of some interventions on the samples that all of them were run on, (intervention, sample).

        Parameters
        ----------
        variable : str or Outcome
            With one number per cell.
        needed : sequence of int
            Places of the interventions; each is in what is returned once, in the order of its first mention.
        allow_incomplete : bool
            As for `complete_samples`.

        Raises
        ------
        SpecError
            There is no such variable, it has not one number per cell, or a value is not finite.
        StoreError
            Some of the cells failed or were not run yet.
        """
        chosen = self.outcomes.isel({INTERVENTION: list(dict.fromkeys(needed))})
        variable = check_variable(chosen, variable)
        if set(chosen[variable].dims) != {INTERVENTION, SAMPLE}:
            own = [dim for dim in labelled(chosen) if dim in chosen[variable].dims]
            say = "".join(f" Say which {dim}: {dim}={str(chosen[dim].values[0])!r}, for one." for dim in own)
            raise SpecError(
                f"{variable!r} has dimensions {', '.join(map(str, chosen[variable].dims))}; a contrast needs one "
                f"number per {INTERVENTION} and {SAMPLE}, as ssim has.{say}"
            )
        chosen = complete_samples(chosen, variable, allow_incomplete=allow_incomplete)
        found = chosen[variable].transpose(INTERVENTION, SAMPLE).astype(np.float64).load()
        check_finite(variable, found.values)
        return found


def check_finite(variable: str, *values: NDArray[Any]) -> None:
    """Raise `SpecError` unless differences of all these values are defined."""
    wrong = sum(int((~np.isfinite(one)).sum()) for one in values)
    if wrong:
        raise SpecError(
            f"{wrong} of {sum(one.size for one in values)} values of {variable!r} are not finite, so their differences "
            "are not defined. PSNR, for one, is infinite for identical images: compare by 'mse' or 'ssim' instead."
        )


def check_cluster(cluster: str) -> None:
    """Raise `SpecError` unless it is one of the two."""
    if cluster not in get_args(Cluster):
        raise SpecError(f"cluster={shown(cluster)} is not one of {', '.join(get_args(Cluster))}.")


def by_cluster(values: xr.DataArray, cluster: Cluster) -> xr.DataArray:
    """Values of what is drawn independently, (..., sample): of a prompt, the mean over its seeds.

    Parameters
    ----------
    values : xarray.DataArray, (..., sample)
        With the coordinate ``prompt``.
    cluster : {"sample", "prompt"}

    Raises
    ------
    SpecError
        There is no such cluster.
    """
    check_cluster(cluster)
    if cluster == "sample":
        return values
    prompts = np.array([str(prompt) for prompt in values["prompt"].values])
    rows = [np.flatnonzero(prompts == prompt) for prompt in dict.fromkeys(prompts)]
    means = [values.isel({SAMPLE: row}).mean(SAMPLE) for row in rows]
    return xr.concat(means, SAMPLE, coords="minimal", compat="override").transpose(*values.dims)


def told_of(
    variable: str | Outcome, cluster: Cluster, values: xr.DataArray, independent: xr.DataArray
) -> dict[str, Any]:
    """Attributes of what is made of contrasts: of which outcome, and of how many samples and clusters."""
    counts = {"samples": values.sizes[SAMPLE], "clusters": independent.sizes[SAMPLE]}
    return {"variable": variable_name(variable), "cluster": cluster, **counts}


def summarised(differences: _Array, dim: str, drawn: Mapping[str, Any], units: str = "1") -> dict[str, xr.Variable]:
    """Mean, interval, effect size and tests of paired differences.

    Parameters
    ----------
    differences : ndarray, (cell, sample)
    dim : str
        Name of the first dimension.
    drawn : mapping
        ``probability``, ``resamples`` and ``seed``.
    units : str
        Of the differences.
    """
    return {**_means(differences, dim, drawn, units), **_tests(differences, dim, drawn["resamples"], drawn["seed"])}


def _means(differences: _Array, dim: str, drawn: Mapping[str, Any], units: str) -> dict[str, xr.Variable]:
    kind = {"interval_kind": "bootstrap BCa", **drawn}
    interval = _antisymmetric(differences, lambda cells: bootstrap_mean(cells, **drawn))
    of_size = _antisymmetric(differences, lambda cells: effect_size_interval(cells, **drawn))
    size = {"long_name": "Cohen's d_z with Hedges' correction", "units": "1"}
    return {
        "mean": xr.Variable(dim, differences.mean(axis=1), {"units": units}),
        "interval": xr.Variable((dim, BOUND), interval, {**kind, "units": units}),
        "sd": xr.Variable(dim, differences.std(axis=1, ddof=1), {"units": units}),
        "effect_size": xr.Variable(dim, effect_size(differences), size),
        "effect_size_interval": xr.Variable(
            (dim, BOUND), of_size, {**kind, "interval_kind": "bootstrap-t", "units": "1"}
        ),
    }


def _antisymmetric(differences: _Array, interval: Callable[[_Array], _Array]) -> _Array:
    """Bounds that only change sign with the differences, though resamples are drawn from what is sorted."""
    ordered = np.sort(differences, axis=1)
    skewed = ordered + ordered[:, ::-1]  # its first entry that is not 0 says which way round
    first = np.take_along_axis(skewed, (skewed != 0).argmax(axis=1)[:, None], axis=1)
    turned = first < 0
    bounds = interval(np.where(turned, -differences, differences))
    return np.where(turned, -bounds[:, ::-1], bounds) + 0.0  # no -0.0


def _tests(differences: _Array, dim: str, resamples: int, seed: int) -> dict[str, xr.Variable]:
    from scipy.stats import false_discovery_control

    p = sign_flip(differences, resamples=resamples, seed=seed)
    told = {"p": "sign-flip test, two-sided", "p_adjusted": "adjusted for the false discovery rate"}
    return {
        name: xr.Variable(dim, values, {"long_name": f"p value, {told[name]}", "units": "1"})
        for name, values in {"p": p, "p_adjusted": false_discovery_control(p)}.items()
    }
