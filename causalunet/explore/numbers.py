"""Numbers of a view: reads what is looked at and no more, and computes by `causalunet.analysis`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from causalunet.analysis.curves import curve, mean_curve
from causalunet.analysis.factors import factor_changes
from causalunet.dims import CHANNEL, INTERVENTION, PLACE, SAMPLE, STEP, X, Y
from causalunet.errors import StoreError
from causalunet.explore.choice import Choice
from causalunet.explore.stored import Stored
from causalunet.results.meaning.schema import COMPLETE, FAILED

__all__ = [
    "Cell",
    "cell",
    "compared",
    "distances",
    "fired",
    "image_of",
    "images_by_start",
    "maps",
    "of_sample",
    "own_changes",
    "own_sweep",
    "own_trend",
    "readings",
    "spent",
    "states",
    "trends",
]

_CURVES = 6
_FILM = 10


@dataclass(frozen=True, slots=True)
class Cell:
    """One intervention on one sample.

    Parameters
    ----------
    values : dict of str to float
        Outcomes with one number.
    unet_calls, flops : int
        Of the run on its own.
    saved : float
        Share of FLOPs that is saved of a run without intervention; NaN if the study has no null intervention.
    """

    values: dict[str, float]
    unet_calls: int
    flops: int
    saved: float


def cell(stored: Stored, choice: Choice) -> Cell:
    """Numbers of the cell that is looked at.

    Raises
    ------
    StoreError
        It failed, or was not run yet.
    """
    at, of = _complete(stored, choice)
    one = stored.cells.isel({INTERVENTION: at})
    null = np.flatnonzero(stored.cells["kind"].values == "null")
    flops = stored.cells["flops"].values
    return Cell(
        values={name: float(one[name].isel({SAMPLE: of})) for name in stored.outcomes},
        unet_calls=int(one["unet_calls"]),
        flops=int(one["flops"]),
        saved=1 - flops[at] / flops[null[0]] if len(null) else np.nan,
    )


def own_sweep(stored: Stored, choice: Choice) -> tuple[str, list[str]]:
    """Name and labels of the interventions that differ from the one looked at in their start only."""
    found = [(name, labels) for name, labels in stored.sweeps.items() if choice.intervention in labels]
    return found[0] if found else (choice.intervention, [choice.intervention])


def compared(stored: Stored, choice: Choice) -> dict[str, list[str]]:
    """The sweep looked at first, then others of its kind and length: other depths, places or fills."""
    name, labels = own_sweep(stored, choice)
    own = stored.rows_by_label[choice.intervention]
    others = {
        other: members
        for other, members in stored.sweeps.items()
        if other != name and _alike(stored.rows_by_label[members[0]], own)
    }
    spread = np.linspace(0, len(others) - 1, min(len(others), _CURVES - 1)).round().astype(int)
    return {name: labels, **{list(others)[at]: others[list(others)[at]] for at in dict.fromkeys(spread.tolist())}}


def trends(stored: Stored, choice: Choice) -> dict[str, xr.Dataset]:
    """Mean curves by start of the sweeps `compared`, the one looked at with its 95 % interval.

    Raises
    ------
    StoreError
        No sample of the sweep looked at is whole.
    """
    found = {}
    for position, (name, labels) in enumerate(compared(stored, choice).items()):
        try:
            found[name] = _trend(stored, choice.outcome, labels, position == 0)
        except StoreError:
            if position == 0:
                raise
    return found


def own_trend(stored: Stored, choice: Choice) -> xr.Dataset:
    """The first of `trends`; raises as it does."""
    return _trend(stored, choice.outcome, own_sweep(stored, choice)[1], interval=True)


def of_sample(stored: Stored, choice: Choice) -> xr.DataArray:
    """The outcome of the sample looked at along its sweep, (start,); NaN where a cell is not complete."""
    _, labels = own_sweep(stored, choice)
    rows = stored.cells.isel({INTERVENTION: [stored.at(label) for label in labels]})
    one = rows.isel({SAMPLE: stored.samples.index(choice.sample)})
    values = np.where(one["status"].values == COMPLETE, one[choice.outcome].values, np.nan)
    starts = [stored.rows_by_label[label].start for label in labels]
    found = xr.DataArray(values, {"start": starts, INTERVENTION: ("start", labels)}, "start", name=choice.outcome)
    return found.sortby("start", ascending=False)


def image_of(stored: Stored, choice: Choice) -> tuple[NDArray[Any], NDArray[Any]]:
    """Images of the sample without and with the intervention, (channel, y, x) each, in [0, 1].

    Raises
    ------
    StoreError
        The cell failed, or was not run yet.
    """
    at, of = _complete(stored, choice)
    return _image(stored.baseline.isel({SAMPLE: of})), _image(stored.cells.isel({INTERVENTION: at, SAMPLE: of}))


def images_by_start(stored: Stored, choice: Choice) -> dict[str, NDArray[Any] | None]:
    """Images of the sample by label along the sweep, first steps first; None where a cell is not complete."""
    _, labels = own_sweep(stored, choice)
    ordered = sorted(labels, key=lambda label: -stored.rows_by_label[label].start)
    of = stored.samples.index(choice.sample)
    status = stored.cells["status"].isel({SAMPLE: of}).values
    return {
        label: _image(stored.cells.isel({INTERVENTION: at, SAMPLE: of})) if status[at] == COMPLETE else None
        for label in _near(ordered, choice.intervention)
        for at in [stored.at(label)]
    }


def own_changes(stored: Stored, choice: Choice) -> xr.Dataset:
    """Shares of samples whose factors change along the sweep, as `causalunet.analysis.factor_changes` has them."""
    _, labels = own_sweep(stored, choice)
    return factor_changes(stored.results, allow_incomplete=True, intervention=labels)


def readings(stored: Stored, choice: Choice) -> dict[str, tuple[str, float, str, float]]:
    """By factor: value read in the baseline image and its probability, and those of the intervened image.

    Raises
    ------
    StoreError
        The cell failed, or was not run yet.
    """
    at, of = _complete(stored, choice)
    images = stored.baseline.isel({SAMPLE: of}), stored.cells.isel({INTERVENTION: at, SAMPLE: of})
    codes, shares = ([one[name].values for one in images] for name in ("factor_code", "factor_probability"))
    return {
        factor: (
            named[int(codes[0][place])],
            float(shares[0][place]),
            named[int(codes[1][place])],
            float(shares[1][place]),
        )
        for place, (factor, named) in enumerate(stored.factors.items())
    }


def distances(stored: Stored, choice: Choice) -> xr.Dataset:
    """How far the run is from the baseline's at each step, of the sample and on average over those that are complete.

    Returns
    -------
    xarray.Dataset
        ``x0_distance`` and ``eps_distance``, (sample, step), of complete cells; NaN at steps that are skipped.
    """
    at = stored.at(choice.intervention)
    one = stored.results["trajectory"].to_dataset().isel({INTERVENTION: at})
    whole = stored.cells["status"].isel({INTERVENTION: at}).values == COMPLETE
    kept = one[["x0_distance", "eps_distance"]].isel({SAMPLE: np.flatnonzero(whole)})
    return kept.where(one["ran"]).load()


def states(stored: Stored, choice: Choice) -> dict[int, NDArray[Any]]:
    """Estimates of x_0 that the baseline run makes, by step, as images in [0, 1].

    Some ten of them, with the one looked at. Of models whose images are decoded from latents, the first channel of the
    latent, stretched to [0, 1].

    Raises
    ------
    StoreError
        The run without intervention is not complete.
    """
    of = stored.samples.index(choice.sample)
    if stored.baseline["status"].values[of] != COMPLETE:
        raise StoreError(f"The run without intervention of sample {choice.sample} is not complete.")
    spread = np.linspace(0, len(stored.steps) - 1, min(_FILM, len(stored.steps))).round().astype(int)
    places = sorted({*spread.tolist(), stored.steps.index(choice.step)})
    x0_hat = stored.baseline["x0_hat"].isel({SAMPLE: of})
    return {stored.steps[place]: _as_image(x0_hat.isel({STEP: place})) for place in places}


def maps(stored: Stored, choice: Choice) -> dict[str, NDArray[Any]]:
    """Attention maps of the place at the step, by run ("baseline", and "intervened" where recorded), (head, y, x) each.

    Where what asks is no pixel, (head, query, token).

    Raises
    ------
    StoreError
        They are not recorded of this sample or step.
    """
    dataset = stored.maps[choice.maps]
    of = stored.samples.index(choice.sample)
    if choice.step not in dataset[STEP].values:
        known = ", ".join(str(step) for step in dataset[STEP].values[:8])
        raise StoreError(f"{choice.maps} is not recorded at step {choice.step}; it is at {known}, ...")
    one = dataset.sel({STEP: choice.step}).isel({SAMPLE: of})
    found = {}
    if dataset["baseline_status"].values[of] == COMPLETE:
        found["baseline"] = _map(one["baseline"], choice.token)
    if "intervened" in one and choice.intervention in one[INTERVENTION].values:
        at = one[INTERVENTION].values.tolist().index(choice.intervention)
        if one["status"].values[at] == COMPLETE and one["ran"].values[at]:
            found["intervened"] = _map(one["intervened"].isel({INTERVENTION: at}), choice.token)
    if not found:
        raise StoreError(f"Attention of sample {choice.sample} is not recorded at {choice.maps}.")
    return found


def fired(stored: Stored, choice: Choice) -> xr.Dataset:
    """How often each edit was declared to apply and did, (step, place), of places that the intervention edits."""
    at, of = _position(stored, choice)
    one = stored.results["audit"].to_dataset()[["declared", "fired"]].isel({INTERVENTION: at, SAMPLE: of}).load()
    edited = np.flatnonzero((one["declared"] > 0).any(STEP).values | (one["fired"] > 0).any(STEP).values)
    return one.isel({PLACE: edited})


def spent(stored: Stored) -> xr.Dataset:
    """Checks and costs by sample: ``null_difference``, ``drift``, ``unet_calls``, ``seconds``."""
    audit = stored.results["audit"].to_dataset()
    return audit[["null_difference", "drift", "unet_calls", "seconds"]].load()


def _trend(stored: Stored, outcome: str, labels: list[str], interval: bool) -> xr.Dataset:
    key = (outcome, tuple(labels), interval)
    if key not in stored.kept:
        stored.kept[key] = _mean_curve(stored, outcome, labels, interval)
    return stored.kept[key]


def _mean_curve(stored: Stored, outcome: str, labels: list[str], interval: bool) -> xr.Dataset:
    cells = curve(stored.results, outcome, allow_incomplete=True, intervention=labels)
    several = cells.sizes[SAMPLE] > 1
    return mean_curve(
        stored.results,
        outcome,
        probability=0.95 if interval and several else None,
        allow_incomplete=True,
        intervention=labels,
    )


def _alike(one: Any, other: Any) -> bool:
    return (one.kind, one.length) == (other.kind, other.length)


def _position(stored: Stored, choice: Choice) -> tuple[int, int]:
    return stored.at(choice.intervention), stored.samples.index(choice.sample)


def _complete(stored: Stored, choice: Choice) -> tuple[int, int]:
    """Position of a cell that has results; `StoreError` says why one has none."""
    at, of = _position(stored, choice)
    one = stored.cells[["status", "failure"]].isel({INTERVENTION: at, SAMPLE: of})
    if int(one["status"]) == FAILED:
        raise StoreError(f"This cell failed: {one['failure'].values!s}")
    if int(one["status"]) != COMPLETE:
        raise StoreError("This cell was not run yet. Run the study into the same path again: it goes on where it was.")
    return at, of


def _image(dataset: xr.Dataset) -> NDArray[Any]:
    return dataset["image"].transpose(CHANNEL, Y, X).values


def _as_image(state: xr.DataArray) -> NDArray[Any]:
    values = state.values
    if CHANNEL in state.dims:
        return (values + 1) / 2
    low, high = values[0].min(), values[0].max()
    return (values[:1] - low) / ((high - low) or 1.0)


def _map(values: xr.DataArray, token: int) -> NDArray[Any]:
    if {Y, X} <= set(values.dims):
        return values.isel(token=token).transpose("head", Y, X).values.astype(np.float64)
    return values.transpose("head", "query", "token").values.astype(np.float64)


def _near(labels: list[str], label: str) -> list[str]:
    """At most as many as fit a film, spread over all, with the one that is looked at."""
    spread = np.linspace(0, len(labels) - 1, min(_FILM, len(labels))).round().astype(int)
    return [labels[at] for at in sorted({*spread.tolist(), labels.index(label)})]
