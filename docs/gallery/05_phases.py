"""
Phases
======

Vertical: mean SSIM to the uncut image (no unit) with plus and minus one standard deviation of 6 samples. The top two
skip connections are zero for four steps. Horizontal: the step at which the cut starts. Shaded: the phases found, with
the level of each. The mark at the bottom is the boundary with its 95 % interval; only the five starts tested count.
"""

import causalunet as cu

results = cu.open_results("../tutorials/results/when.zarr")
selection = {"kind": "ablate_skip"}
# five starts are too few for lines
found = cu.analysis.phases(results, model="constant", **selection)
figure = cu.report.plot_phases(results, selection, found, threshold=0.8)
