"""Interchange: which factors of an image follow a run that a place was patched from, and which stay."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet.analysis.contrasts import Cluster, check_cluster
from causalunet.analysis.curves import BOUND, BOUNDS
from causalunet.analysis.factors import MIN_PROBABILITY, UNREADABLE, readings
from causalunet.analysis.intervals import bootstrap_mean, wilson_share
from causalunet.analysis.resampling import check_resampling
from causalunet.analysis.selection import select_interventions
from causalunet.design.fills import Patch
from causalunet.design.interventions import Intervention
from causalunet.design.limits import shown
from causalunet.dims import FACTOR, INTERVENTION, SAMPLE
from causalunet.errors import CausalUNetError, SpecError

__all__ = ["interchange"]

_DIMS = (INTERVENTION, FACTOR)


def interchange(
    results: xr.DataTree,
    *,
    cluster: Cluster = "sample",
    probability: float = 0.95,
    min_probability: float = MIN_PROBABILITY,
    resamples: int = 9999,
    seed: int = 0,
    allow_incomplete: bool = False,
    **selection: Any,
) -> xr.Dataset:
    """Share of samples in which a factor is that of the run patched from, or stays, for every patch.

    Parameters
    ----------
    results : xarray.DataTree
        Of a study of a model with a factor reader. Interventions that put in place values of another run, by
        ``Patch(prompt=..., seed=..., sample=...)``, are read, and others passed over. The run that values are taken
        from is a sample of the study itself, so that what it shows was read.
    cluster : {"sample", "prompt"}
        What intervals take as drawn independently: each sample (Wilson), or each prompt with all its seeds (BCa
        bootstrap of the mean over prompts of their shares).
    probability, min_probability, allow_incomplete
        As for `factor_changes`.
    resamples, seed
        Of the bootstrap.
    **selection
        As for `effects`.

    Returns
    -------
    xarray.Dataset
        Along ``intervention`` and ``factor``, of the samples that tell: both images, the sample's own and that of the
        run patched from, have readable and different values of the factor.

        - ``informative``, their number;
        - ``follows``, the share whose image has the other run's value, ``stays`` their own, ``other`` a third one, and
          ``unreadable``; they sum to 1;
        - ``alone``, the share in which the factor follows and every other factor that could tell stays;
        - ``follows_interval``, ``stays_interval`` and ``alone_interval``, with ``bound`` besides.

        NaN where no sample tells, and intervals where fewer than two prompts do under ``cluster="prompt"``.

    Raises
    ------
    SpecError
        No intervention patches from another run, one does from several, or from a run that is no sample of the study.
    StoreError
        The study's model reads no factors, or some of the cells failed or were not run yet.

    Notes
    -----
    ``follows`` of all samples is the interchange intervention accuracy of Geiger et al. 2021 (arXiv 2106.02997) of the
    hypothesis that the place carries the factor and the factor alone decides what is read as it.
    """
    check_cluster(cluster)
    check_resampling(probability, resamples)
    patched = _patches(select_interventions(results, selection))
    selected = {INTERVENTION: list(patched)}
    code, before = readings(results, INTERVENTION, min_probability, allow_incomplete, selected)
    labels = [str(label) for label in code[INTERVENTION].values]
    prompts = np.array([str(prompt) for prompt in code["prompt"].values])
    donors = _donors(results, code[SAMPLE].values, [patched[label] for label in labels], min_probability)
    told, counted = _counted(code.values, np.broadcast_to(before.values, code.shape), donors)
    result = xr.Dataset(
        {"informative": (_DIMS, told.sum(axis=-1), {"long_name": "samples that tell", "units": "1"})},
        coords={INTERVENTION: labels, FACTOR: code[FACTOR].values, BOUND: list(BOUNDS)},
        attrs={"min_probability": min_probability, "cluster": cluster, "samples": code.sizes[SAMPLE]},
    )
    drawn = {"probability": probability, "resamples": resamples, "seed": seed}
    kind = {"interval_kind": "Wilson" if cluster == "sample" else "bootstrap BCa", "probability": probability}
    for name, (hits, meaning) in counted.items():
        result[name] = (_DIMS, _share(hits, told, prompts, cluster), {"long_name": f"share {meaning}", "units": "1"})
        if name in ("follows", "stays", "alone"):
            bounds = np.full((*hits.shape[:2], 2), np.nan)
            for place in np.ndindex(hits.shape[:2]):
                bounds[place] = _bounds(hits[place], told[place], prompts, cluster, drawn)
            result[f"{name}_interval"] = ((*_DIMS, BOUND), bounds, {**kind, "units": "1"})
    return result


def _counted(
    found: NDArray[Any], own: NDArray[Any], donors: NDArray[Any]
) -> tuple[NDArray[np.bool_], dict[str, tuple[NDArray[np.bool_], str]]]:
    """Which samples tell, and of those which are of each kind, in words too; all (intervention, factor, sample)."""
    told = (own != UNREADABLE) & (donors != UNREADABLE) & (own != donors)
    follows, stays, unreadable = told & (found == donors), told & (found == own), told & (found == UNREADABLE)
    moved = (told & ~stays).sum(axis=1, keepdims=True)
    return told, {
        "follows": (follows, "with the value of the run patched from"),
        "stays": (stays, "with their own value"),
        "other": (told & ~follows & ~stays & ~unreadable, "with a third value"),
        "unreadable": (unreadable, "with no readable value"),
        "alone": (follows & (moved == 1), "in which this factor follows and no other one does"),
    }


def _patches(chosen: xr.Dataset) -> dict[str, Patch]:
    """What values are put in place, of every intervention that takes them from another run, by label."""
    found = {}
    for label, spec in zip(chosen[INTERVENTION].values, chosen["spec"].values, strict=True):
        try:
            edits = Intervention.from_json(json.loads(str(spec))).edits()
        except CausalUNetError:  # of a kind that is not known here
            continue
        patches = {edit.fill for edit in edits if isinstance(edit.fill, Patch) and _run_of(edit.fill) != (None,) * 3}
        if len({_run_of(fill) for fill in patches}) > 1:
            raise SpecError(
                f"{shown(str(label))} patches from several runs, so that no value is that of the other run. Select "
                "interventions that take values from one each."
            )
        if patches:
            found[str(label)] = next(iter(patches))
    if not found:
        raise SpecError(
            "No intervention takes values from another run. Give the study edits such as "
            "Edit('mid', window, Patch(prompt=...)), or select others."
        )
    return found


def _run_of(fill: Patch) -> tuple[Any, ...]:
    return fill.prompt, fill.seed, fill.sample


def _donors(
    results: xr.DataTree, samples: NDArray[Any], patches: list[Patch], min_probability: float
) -> NDArray[np.int64]:
    """Values read in the images of the runs patched from, (intervention, factor, sample)."""
    baseline = results["baseline"].to_dataset()
    code = baseline["factor_code"].where(baseline["factor_probability"] >= min_probability, UNREADABLE)
    codes = code.transpose(FACTOR, SAMPLE).values.astype(np.int64)
    prompts, seeds = [str(prompt) for prompt in baseline["prompt"].values], baseline["seed"].values.tolist()
    at = {pair: place for place, pair in enumerate(zip(prompts, seeds, strict=True))}
    own = {number: place for place, number in enumerate(baseline[SAMPLE].values.tolist())}
    found = np.empty((len(patches), len(codes), len(samples)), dtype=np.int64)
    for row, fill in enumerate(patches):
        for column, number in enumerate(samples.tolist()):
            mine = own[number]
            pair = fill.prompt or prompts[mine], seeds[mine] if fill.seed is None else fill.seed
            place = at.get(pair) if fill.sample is None else own.get(fill.sample)
            if place is None:
                which = f"prompt {shown(pair[0])} with seed {pair[1]}" if fill.sample is None else f"{fill.sample}"
                raise SpecError(
                    f"A patch takes values from the run of {which}, which is no sample of the study, so what that run "
                    "shows was not read. Add the prompt to the study's prompts, and the seed to its seeds."
                )
            found[row, :, column] = codes[:, place]
    return found


def _share(
    hits: NDArray[np.bool_], of: NDArray[np.bool_], prompts: NDArray[Any], cluster: Cluster
) -> NDArray[np.float64]:
    """Share of the samples that tell, (intervention, factor); under "prompt" a mean over prompts."""
    parts = [slice(None)] if cluster == "sample" else [prompts == prompt for prompt in dict.fromkeys(prompts)]
    counts = np.stack([of[..., part].sum(axis=-1) for part in parts])
    shares = np.stack([hits[..., part].sum(axis=-1) for part in parts]) / np.where(counts, counts, np.nan)
    there = (counts > 0).sum(axis=0)
    return np.asarray(np.nansum(shares, axis=0) / np.where(there, there, np.nan))


def _bounds(
    hit: NDArray[np.bool_],
    of: NDArray[np.bool_],
    prompts: NDArray[Any],
    cluster: Cluster,
    drawn: Mapping[str, Any],
) -> NDArray[np.float64]:
    """Interval of the share of some samples, (bound,)."""
    if cluster == "sample":
        return (
            wilson_share(hit.sum(), int(of.sum()), probability=drawn["probability"]) if of.any() else np.full(2, np.nan)
        )
    groups = [prompts == prompt for prompt in dict.fromkeys(prompts[of])]
    if len(groups) < 2:
        return np.full(2, np.nan)
    shares = [hit[group & of].mean() for group in groups]
    return bootstrap_mean(shares, **drawn)
