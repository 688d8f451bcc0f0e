"""The figures that fit a study: chosen by what it holds, with captions and words for those who cannot see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from causalunet.analysis.curves import mean_curve
from causalunet.analysis.described import Described, described
from causalunet.analysis.factors import factor_changes
from causalunet.analysis.selection import (
    complete_baselines,
    intervention_columns,
    outcomes,
    select_interventions,
)
from causalunet.analysis.sweeps import sweeps
from causalunet.dims import INTERVENTION, SAMPLE
from causalunet.errors import CausalUNetError, StoreError
from causalunet.report.deviation import plot_deviation
from causalunet.report.embed import Drawn
from causalunet.report.estimate import plot_estimate, plot_estimates
from causalunet.report.factors import plot_factors
from causalunet.report.grid import plot_grid
from causalunet.report.histogram import plot_histogram
from causalunet.report.pairs import plot_pairs
from causalunet.report.panels import plot_panels
from causalunet.report.pictures import prompt_name
from causalunet.report.samples import plot_samples
from causalunet.report.schedule import plot_schedule
from causalunet.report.series import series_along
from causalunet.report.trend import plot_trend
from causalunet.results.meaning.schema import COMPLETE

__all__ = ["fitting_figures"]

_BESIDE = ("psnr",)  # drawn beside the outcome that the figures are of
_OF_ESTIMATES = ("ssim", "psnr")
_CURVES = 6  # in one figure of trends
_GRIDS = 3  # of the sweeps that change images most
_GRID_ROWS = 5
_HISTOGRAMS = 6
_SHARED_STARTS = 3
_DEPTHS = {"ablate_block": "bottom", "ablate_skip": "top"}


def fitting_figures(
    results: xr.DataTree, *, variable: str, threshold: float | None, complete: int
) -> tuple[list[Drawn], list[str]]:
    """Draw what fits a study.

    Parameters
    ----------
    results : xarray.DataTree
    variable : str
        Outcome that the figures are of.
    threshold : float, optional
        On it.
    complete : int
        Samples that were run whole; figures show only those.

    Returns
    -------
    figures : list of Drawn
    left_out : list of str
        What could not be drawn, and why.
    """
    study = _Content(results, variable, threshold)
    makers: dict[str, Callable[[], Iterator[Drawn]]] = {"Schedule": study.schedule}
    if complete:
        makers = {
            "Samples": study.samples,
            "Trends by start": study.trends,
            "Depths": study.depths,
            "Lengths and relaxations": study.series,
            "Images": study.grids,
            "Distributions": study.distributions,
            "Factors": study.factors,
            "Estimates": study.estimates,
            **makers,
        }
    drawn: list[Drawn] = []
    left_out: list[str] = []
    for title, maker in makers.items():
        try:
            drawn.extend(maker())
        except CausalUNetError as error:
            left_out.append(f"{title}: {error}")
    return drawn, left_out


@dataclass(frozen=True)
class _Content:
    """What a study holds, and its figures."""

    results: xr.DataTree
    variable: str
    threshold: float | None

    @cached_property
    def told(self) -> Described:
        """What is known of the outcome."""
        return described(self.variable, outcomes(self.results)[self.variable].attrs)

    @cached_property
    def middle(self) -> float:
        """What means are called near to: the threshold, or without one the middle of all means."""
        return float(np.median(list(self.means.values()))) if self.threshold is None else self.threshold

    @cached_property
    def swept(self) -> dict[str, dict[str, Any]]:
        """Sweeps of at least two starts."""
        return {name: one for name, one in sweeps(self.results).items() if len(one[INTERVENTION]) > 1}

    @cached_property
    def means(self) -> dict[str, float]:
        """Mean outcome of every intervention but the null ones, over the samples that are whole."""
        dataset = outcomes(self.results)
        whole = (dataset["status"].values == COMPLETE).all(axis=0)
        mean = dataset[self.variable].values[:, whole].mean(axis=1)
        named = zip(dataset[INTERVENTION].values, dataset["kind"].values, mean, strict=True)
        return {str(label): float(value) for label, kind, value in named if kind != "null"}

    def telling(self, labels: list[str]) -> str:
        """The intervention whose mean is nearest to the threshold, whose samples therefore differ most in verdict."""
        return min(labels, key=lambda label: abs(self.means[label] - self.middle))

    def samples(self) -> Iterator[Drawn]:
        """The first images of the run without intervention."""
        caption = "Images of the run without intervention, the first samples, with their prompts."
        run = complete_baselines(self.results, allow_incomplete=True)
        prompts = [prompt_name(prompt) for prompt in run["prompt"].values[:12]]
        yield Drawn(
            "Samples", caption, f"Images of the prompts: {'; '.join(prompts)}.", plot_samples(self.results, samples=12)
        )

    def trends(self) -> Iterator[Drawn]:
        """Curves by start, as many figures as keep them apart."""
        names = list(self.swept)
        groups = [names] if 0 < len(names) <= _CURVES else _by_kind(names)
        for group in groups:
            chosen = {name: self.swept[name] for name in group}
            beside = [name for name in _BESIDE if name != self.variable and name in outcomes(self.results)]
            variables = (self.variable, *beside)
            figure = plot_trend(
                self.results, chosen, variable=variables, threshold=self.threshold, allow_incomplete=True
            )
            titles = " and ".join([self.told.title, *(described(name).title for name in beside)])
            caption = f"Mean {titles} to the baseline image, by the step at which the intervention starts: "
            caption += f"{', '.join(group)}."
            yield Drawn("Trends by start", caption, self._words(chosen, "start"), figure)

    def depths(self) -> Iterator[Drawn]:
        """A panel per depth for the kinds that have several."""
        columns = intervention_columns(outcomes(self.results))
        for kind, panel in _DEPTHS.items():
            here = (columns["kind"] == kind) & (columns["cuts"] == 1)
            lengths = Counter(columns["length"][here].tolist())
            if not lengths:
                continue
            length = lengths.most_common(1)[0][0]
            chosen = {"kind": kind, "length": length, "cuts": 1}
            found = intervention_columns(select_interventions(self.results, chosen))
            starts = Counter(found[panel].tolist())
            deep = [value for value, n in sorted(starts.items()) if n > 1]
            if len(deep) < 2:
                continue
            figure = plot_panels(
                self.results,
                {**chosen, panel: deep},
                panel=panel,
                variable=self.variable,
                threshold=self.threshold,
                allow_incomplete=True,
            )
            caption = (
                f"Mean {self.told.title} by start step for {kind}, length {length}, one panel for each number of "
                f"removed parts, {panel}."
            )
            if self.threshold is not None:
                alike = self.told.bound(self.threshold)
                caption += f" Marked is the start from which on all means are {alike}, if any."
            parts = {f"{panel}={value}": {**chosen, panel: value} for value in deep}
            yield Drawn("Depths", caption, self._words(parts, "start"), figure)

    def series(self) -> Iterator[Drawn]:
        """Curves along the length of the cut, and along the relaxation between cuts."""
        words = {"length": "number of steps cut in a row", "relax": "steps of relaxation between the cuts"}
        for by, along in words.items():
            try:
                found = series_along(self.results, by)
            except StoreError:
                continue  # most studies have none, which is no loss to tell of
            figure = plot_trend(
                self.results, found, by=by, variable=self.variable, threshold=self.threshold, allow_incomplete=True
            )
            words_of = f"Mean {self.told.title} by {along}."
            yield Drawn("Lengths and relaxations", words_of, self._words(found, by), figure)

    def grids(self) -> Iterator[Drawn]:
        """Images of the same samples by start, for the sweeps that change them most."""
        sign = self.told.sign
        lowest = {
            name: min(sign * self.means[label] for label in one[INTERVENTION]) for name, one in self.swept.items()
        }
        columns = outcomes(self.results)
        start = dict(zip(columns[INTERVENTION].values.tolist(), columns["start"].values.tolist(), strict=True))
        for name in sorted(lowest, key=lowest.__getitem__)[:_GRIDS]:
            starts = _spread([start[label] for label in self.swept[name][INTERVENTION]], _GRID_ROWS)
            figure = plot_grid(self.results, self.swept[name], rows=starts, allow_incomplete=True)
            caption = f"{name}: images of the same samples, the baseline on top, a row per start of the intervention."
            yield Drawn("Images", caption, caption, figure)

    def distributions(self) -> Iterator[Drawn]:
        """Histograms, pairs and deviation of the interventions nearest to the threshold; of a recording alone, none."""
        if not self.means:
            return
        groups = list(self.swept.values()) or [{INTERVENTION: list(self.means)}]
        telling = [self.telling(group[INTERVENTION]) for group in _spread(groups, _HISTOGRAMS)]
        why = f"of the intervention whose mean is nearest to {self.middle:.3g}"
        figure = plot_histogram(
            self.results,
            {INTERVENTION: telling},
            variable=self.variable,
            threshold=self.threshold,
            allow_incomplete=True,
        )
        caption = f"{self.told.title} over samples{', in every sweep' if self.swept else ''} {why}."
        alt = "; ".join(f"{label}: mean {self.means[label]:.2f}" for label in telling)
        yield Drawn("Distributions", caption, f"Histograms of {self.told.title}. {alt}.", figure)
        one = {INTERVENTION: self.telling(telling)}
        pairs = plot_pairs(self.results, one, variable=self.variable, allow_incomplete=True)
        caption = f"Samples most and least alike by {self.told.title} {why}, {one[INTERVENTION]}."
        yield Drawn("Distributions", caption, f"Images with and without intervention. {caption}", pairs)
        deviation = plot_deviation(self.results, one, allow_incomplete=True)
        caption = (
            f"Where images change: mean absolute deviation from the baseline, by pixel, {why}, {one[INTERVENTION]}."
        )
        yield Drawn("Distributions", caption, f"Heat map. {caption}", deviation)

    def factors(self) -> Iterator[Drawn]:
        """Shares of samples that change in each factor, of the sweep nearest to the threshold."""
        if "factor_code" not in outcomes(self.results).data_vars or not self.swept:
            return
        one = self.telling([label for group in self.swept.values() for label in group[INTERVENTION]])
        name = next(name for name, group in self.swept.items() if one in group[INTERVENTION])
        changes = factor_changes(self.results, allow_incomplete=True, **self.swept[name])
        caption = (
            f"{name}: share of images in which another value of a factor is read than in the baseline image. Readings "
            f"of a probability below {changes.attrs['min_probability']:g} count as not readable."
        )
        alt = "; ".join(
            f"from step {start}: "
            + ", ".join(
                f"{factor} {share:.0%}" for factor, share in changes["share"].sel(start=start).to_series().items()
            )
            for start in _spread(changes["start"].values.tolist(), _SHARED_STARTS)
        )
        figure = plot_factors(self.results, {name: self.swept[name]}, allow_incomplete=True)
        yield Drawn("Factors", caption, f"Shares of changed factors. {alt}.", figure)

    def schedule(self) -> Iterator[Drawn]:
        """Noise by step."""
        caption = "Noise schedule of the spaced steps: beta, alpha_bar and log SNR, in the order of the run."
        yield Drawn("Schedule", caption, caption, plot_schedule(self.results))

    def estimates(self) -> Iterator[Drawn]:
        """Closeness of x0_hat to the image, and what it looks like."""
        # Of images alone, and known in this process; estimates are measured now, not read.
        threshold = self.threshold if self.variable == _OF_ESTIMATES[0] else None
        figure = plot_estimate(
            self.results, variable=_OF_ESTIMATES, threshold=threshold or "own", allow_incomplete=True
        )
        caption = "Closeness of the estimate of x_0 at every step to the final image, in the run without intervention."
        yield Drawn("Estimates", caption, f"Two curves by step. {caption}", figure)
        first = int(complete_baselines(self.results, allow_incomplete=True)[SAMPLE].values[0])
        caption = f"x_t and the estimate of x_0 along the run without intervention, sample {first}."
        yield Drawn("Estimates", caption, f"Two rows of images. {caption}", plot_estimates(self.results, sample=first))

    def _words(self, selections: Mapping[str, Any], by: str) -> str:
        """Both ends and the lowest point of every curve."""
        parts = []
        for name, selection in selections.items():
            mean = mean_curve(self.results, self.variable, by=by, probability=None, allow_incomplete=True, **selection)[
                "mean"
            ]
            at, value = mean[by].values, mean.values
            lowest = int((self.told.sign * value).argmin())
            least = "lowest" if self.told.sign > 0 else "highest"
            ends = f"{value[0]:.2f} at {by} {at[0]}, {value[-1]:.2f} at {by} {at[-1]}"
            parts.append(f"{name}: {ends}, {least} {value[lowest]:.2f} at {at[lowest]}")
        return f"Curves of mean {self.told.title} by {by}. {'; '.join(parts)}."


def _by_kind(names: list[str]) -> list[list[str]]:
    """Names by their first word, in groups of at most `_CURVES`."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(name.split()[0], []).append(name)
    return [part[i : i + _CURVES] for part in kinds.values() for i in range(0, len(part), _CURVES)]


def _spread(items: list[Any], most: int) -> list[Any]:
    """As many entries, evenly over a list."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(len(items), most)).round().astype(int)]
