"""Schedule: how much noise every spaced step takes away (figure 15)."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from causalunet.dims import STEP
from causalunet.report.style import look, new_figure, step_axis, style

__all__ = ["plot_schedule"]


def plot_schedule(results: xr.DataTree, *, figure: Figure | None = None) -> Figure:
    """Draw beta, alpha_bar and log SNR of the spaced steps.

    Parameters
    ----------
    results : xarray.DataTree
    figure : matplotlib Figure, optional
        To draw into; a new one by default.

    Returns
    -------
    matplotlib.figure.Figure
        One panel each, over the step from T down to 1.

    Notes
    -----
    beta of a spaced step is what its jump over the training timesteps adds together, 1 - alpha_bar_t / alpha_bar_(t-1)
    with alpha_bar_0 = 1 (Nichol & Dhariwal 2021, section 4). It is found from the stored coordinates of the steps.
    """
    steps = results["baseline"].to_dataset().drop_vars("sample", errors="ignore").sortby(STEP)
    alpha_bar = steps["alpha_bar"].values
    beta = 1 - alpha_bar / np.concatenate([[1.0], alpha_bar[:-1]])
    panels = {
        "beta, share of variance\nthat the step adds as noise": beta,
        "alpha_bar, share of variance\nthat is signal": alpha_bar,
        "log SNR (nats)": steps["log_snr"].values,
    }
    with style():
        figure = figure or new_figure(6.8, 2.3)
        for position, (ax, (label, values)) in enumerate(
            zip(figure.subplots(1, len(panels), sharex=True), panels.items(), strict=True)
        ):
            ax.plot(steps[STEP].values, values, color=look(0).color, marker="o", markersize=1.8)
            ax.set_title(f"({'abc'[position]})", loc="left")
            ax.set_ylabel(label)
            ax.set_xlabel("step")
        step_axis(figure.axes[0], len(alpha_bar))
        for ax in figure.axes[:2]:
            ax.set_ylim(-0.02, 1.02)
    return figure
