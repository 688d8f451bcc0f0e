"""Estimates: how close the estimate of x_0 comes to the final image along the run (figures 16 and 17)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from causalunet.analysis.described import Described, Threshold, described, thresholds_of, variable_name
from causalunet.analysis.estimates import estimate_quality, first_staying, to_image
from causalunet.design.outcomes import Outcome
from causalunet.dims import CHANNEL, SAMPLE, STEP, X, Y
from causalunet.errors import SpecError
from causalunet.report.pictures import captions, line_height, pack, sample_positions, show, wrap
from causalunet.report.style import legend_above, look, new_figure, step_axis, style
from causalunet.report.trend import band_name, bounded_axis, draw_curve, draw_threshold

__all__ = ["plot_estimate", "plot_estimates"]

_DEVIATIONS = 2  # of the band, as in the paper
_CELL = 0.8
_FONT = 7
_MOST_STEPS = 8


def plot_estimate(
    results: xr.DataTree,
    *,
    variable: str | Outcome | Sequence[str | Outcome] = ("ssim", "psnr"),
    threshold: Threshold = "own",
    allow_incomplete: bool = False,
    figure: Figure | None = None,
) -> Figure:
    """Draw how close the estimate of x_0 is to the final image, by step, in the run without intervention.

    Parameters
    ----------
    results : xarray.DataTree
    variable : str, Outcome or sequence of them
        As `causalunet.analysis.estimate_quality` takes them, one panel each.
    threshold : float, mapping of str to float, "own" or None
        As for `plot_trend`. The first step from which on the mean stays as alike as that of the first variable is
        marked in every panel.
    allow_incomplete : bool
        As for `causalunet.analysis.estimate_quality`.
    figure : matplotlib Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
        Mean over samples with plus and minus two standard deviations.

    Raises
    ------
    SpecError, StoreError
        As for `causalunet.analysis.estimate_quality`; also if a variable is not known.
    """
    variables = (variable,) if isinstance(variable, str | Outcome) else tuple(variable)
    data = estimate_quality(results, variables, allow_incomplete=allow_incomplete)
    told = [described(one, data[variable_name(one)].attrs) for one in variables]
    lines = thresholds_of(threshold, told)
    first = data[told[0].name].mean(SAMPLE, keep_attrs=True)
    settled = None if lines[0] is None else first_staying(first, lines[0])
    with style():
        figure = figure or new_figure(3.4 * len(variables), 2.7)
        axes = list(figure.subplots(1, len(variables), squeeze=False)[0])
        for ax, one, line in zip(axes, told, lines, strict=True):
            _draw(ax, data[one.name], one, line)
            if lines[0] is not None and settled is not None:
                stays = f"mean {told[0].title} stays {told[0].bound(lines[0])} from step {settled} on"
                _mark(ax, settled, stays)
        legend_above(figure, axes)
    return figure


def plot_estimates(
    results: xr.DataTree,
    *,
    variable: str | Outcome = "ssim",
    sample: int = 0,
    steps: Sequence[int] | None = None,
    figure: Figure | None = None,
) -> Figure:
    """Show x_t and the estimate of x_0 along the run without intervention, with the final image at the end.

    Parameters
    ----------
    results : xarray.DataTree
    variable : str or Outcome
        Told below each estimate, as `causalunet.analysis.estimate_quality` takes it.
    sample : int
        Coordinate of the sample.
    steps : sequence of int, optional
        Drawn in the order of the run. By default all steps, or eight spread evenly.
    figure : matplotlib Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    SpecError
        The sample or a step is not there.
    StoreError
        As for `causalunet.analysis.estimate_quality`.
    """
    baseline = results["baseline"].to_dataset()
    one = baseline.isel({SAMPLE: sample_positions(baseline, [sample])})
    quality = estimate_quality(results.from_dict({"baseline": one}), (variable,))[variable_name(variable)]
    told, quality = described(variable, quality.attrs), quality.isel({SAMPLE: 0})
    shown = _steps(one[STEP].values.tolist(), steps)
    strips = one[["x_t", "x0_hat"]].isel({SAMPLE: 0}).sel({STEP: shown}).transpose(STEP, CHANNEL, Y, X)
    rows = {"x_t": to_image(strips["x_t"].values), "estimate\nof x_0": to_image(strips["x0_hat"].values)}
    final = one["image"].isel({SAMPLE: 0}).transpose(CHANNEL, Y, X).values
    height, width = (_CELL * size / max(final.shape[-2:]) for size in final.shape[-2:])
    wide = 0.7 + (width + 0.05) * (len(shown) + 1)
    caption = wrap(captions(one)[0], wide, _FONT, lines=2)
    with style():
        figure = figure or new_figure(wide, 2 * (height + 0.05) + 0.55 + line_height(_FONT))
        pack(figure)
        axes = figure.subplots(2, len(shown) + 1, squeeze=False)
        for of_row, (label, images) in zip(axes, rows.items(), strict=True):
            for ax, image in zip(of_row, images, strict=False):
                show(ax, image, "S")
            of_row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=_FONT)
        for top, bottom, step in zip(*axes, shown, strict=False):
            top.set_title(f"step {step}", fontsize=_FONT, pad=3)
            bottom.set_xlabel(told.short(float(quality.sel({STEP: step}))), fontsize=_FONT, labelpad=2)
        axes[0, -1].set_axis_off()
        show(axes[1, -1], final, "S")
        axes[1, -1].set_xlabel("final image", fontsize=_FONT, labelpad=2)
        figure.suptitle(caption, fontsize=_FONT)
    return figure


def _draw(ax: Axes, values: xr.DataArray, told: Described, threshold: float | None) -> None:
    samples = values.sizes[SAMPLE]
    with np.errstate(invalid="ignore"):  # infinity minus infinity, where images are identical
        sd = values.std(SAMPLE, ddof=1) if samples > 1 else xr.full_like(values.isel({SAMPLE: 0}), np.nan)
    curve = xr.Dataset({"mean": values.mean(SAMPLE), "sd": sd})
    options = {"label": "mean", "band": "sd", "by": STEP, "deviations": _DEVIATIONS}
    draw_curve(ax, curve, look(0), **options)  # type: ignore[arg-type]
    infinite = values[STEP].values[~np.isfinite(curve["mean"].values)].tolist()
    bounded_axis([ax], told.axis)
    if threshold is not None:
        draw_threshold(ax, threshold)
    step_axis(ax, values.sizes[STEP])
    ax.set_xlabel("step" + (f"\ninfinite, not drawn: {', '.join(map(str, infinite))}" if infinite else ""))
    ax.set_ylabel(f"{told.label}\n{band_name('sd', samples, _DEVIATIONS)}")


def _mark(ax: Axes, step: int, label: str) -> None:
    ax.axvline(step, color=look(1).color, linewidth=1.0, linestyle=look(1).linestyle, label=label)


def _steps(known: list[int], steps: Sequence[int] | None) -> list[int]:
    if steps is None:
        return [known[i] for i in np.linspace(0, len(known) - 1, min(len(known), _MOST_STEPS)).round().astype(int)]
    missing = [step for step in steps if step not in known]
    if missing or not len(steps):
        raise SpecError(f"The run has no step {missing}; there are {known[0]} ... {known[-1]}.")
    return sorted(set(steps), reverse=True)
