"""
What is lost, by start step
===========================

Vertical: SSIM to the uncut image (no unit, 1 means equal), the mean over 6 samples and its 95 % bootstrap interval.
Horizontal: the step at which the part goes missing, for four steps. The run goes from left to right, from step 20 to 1.
The dotted line is the threshold of 0.8.
"""

import causalunet as cu

results = cu.open_results("../tutorials/results/when.zarr")
kinds = {
    "whole steps": {"kind": "skip_steps"},
    "top two skip connections": {"kind": "ablate_skip"},
    "bottom eight decoder blocks": {"kind": "ablate_block", "bottom": 8},
}
figure = cu.report.plot_trend(results, kinds, band="interval")
