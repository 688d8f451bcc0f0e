"""
Quality against cost
====================

Vertical: mean SSIM to the uncut image (no unit) with its 95 % bootstrap interval over 6 samples. Horizontal: FLOPs of a
run as a share of the uncut run's. A run that stops early has the estimate of x_0 at its last step as its image, so the
uncut run holds these points already. Beside them, by start step: single cuts of four steps.
"""

import numpy as np
import xarray as xr

import causalunet as cu

results = cu.open_results("../tutorials/results/when.zarr")
stops = cu.analysis.estimate_quality(results)["ssim"].sel(step=[13, 10, 7, 5, 3, 2])
cuts = cu.analysis.effects(results, kind="ablate_block", bottom=8).isel(intervention=slice(1, None, 2))
figure = cu.report.plot_tradeoff(
    xr.Dataset(
        {
            "time": ("method", np.concatenate([(21 - stops.step) / 20, 1 - cuts.flops_saved])),
            "ssim": ("method", np.concatenate([stops.mean("sample"), cuts["mean"]])),
            "interval": (
                ("method", "bound"),
                np.concatenate([cu.analysis.bootstrap_mean(stops), cuts.interval]),
                cuts.interval.attrs,
            ),
            "label": ("method", [f"at {s}" for s in stops.step.values] + [f"from {s}" for s in cuts.start.values]),
            "family": ("method", ["stop early"] * 6 + ["bottom eight blocks cut for four steps"] * cuts.start.size),
        },
        attrs={"samples": 6},
    ),
    joined=("stop early",),
)
figure.axes[0].set_xlabel("FLOPs, as a share of the uncut run's")
