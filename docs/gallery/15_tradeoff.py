"""
Quality against cost
====================

Vertical: mean SSIM to the uncut image (no unit) with its 95 % bootstrap interval over 12 open samples. Horizontal:
U-Net calls of a run as a share of the uncut run's. A run that stops early has the estimate of x_0 at its last step as
its image, so the uncut run holds these points already, for all its steps.
"""

import xarray as xr

import causalunet as cu

results = cu.open_results("../tutorials/results/open.zarr")
ssim = cu.analysis.estimate_quality(results)["ssim"].sel(step=[13, 10, 7, 5, 3, 2])
ssim = ssim.rename(step="method")
time, interval = (21 - ssim.method) / 20, cu.analysis.bootstrap_mean(ssim)
points = xr.Dataset({"time": time, "ssim": ssim.mean("sample")}, attrs={"samples": 12})
points["interval"] = ("method", "bound"), interval, {"probability": 0.95}
points["label"] = "method", [f"at {step}" for step in points.method.values]
points["family"] = "method", ["stop early"] * points.sizes["method"]
figure = cu.report.plot_tradeoff(points)
figure.axes[0].set_xlabel("U-Net calls, as a share of the uncut run's")
