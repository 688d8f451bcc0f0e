"""
What is lost, by start step
===========================

SSIM to the uncut image (1 means equal), mean and 95 % band over samples, by the step at which the part goes missing.
"""

import causalunet as cu

results = cu.open_results("../tutorials/results/when.zarr")
kinds = {
    "whole steps": {"kind": "skip_steps"},
    "top two skip connections": {"kind": "ablate_skip"},
    "bottom eight decoder blocks": {"kind": "ablate_block", "bottom": 8},
}
figure = cu.report.plot_trend(results, kinds)
