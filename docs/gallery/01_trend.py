"""
What is lost, by start step
===========================

Vertical: SSIM to the uncut image (no unit, 1 means equal), the mean and its 95 % bootstrap interval. Horizontal: the
step at which the part goes missing, for four steps. The run goes from left to right, from step 20 to 1. The dotted line
is the threshold of 0.8. Left, 12 open samples: without a prompt the early steps and the deep blocks have to decide.
Right, 6 samples of prompts that say everything: little is left to decide.
"""

from matplotlib.figure import Figure

import causalunet as cu

kinds = {
    "whole steps": {"kind": "skip_steps"},
    "top two skip connections": {"kind": "ablate_skip"},
    "bottom eight decoder blocks": {"kind": "ablate_block", "bottom": 8},
}
figure = Figure(figsize=(8.4, 3.9), layout="constrained")
left, right = figure.subplots(1, 2, sharey=True)
for ax, name in ((left, "open"), (right, "when")):
    results = cu.open_results(f"../tutorials/results/{name}.zarr")
    cu.report.plot_trend(results, kinds, band="interval", ax=ax)
    ax.get_legend().remove()
figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2)
