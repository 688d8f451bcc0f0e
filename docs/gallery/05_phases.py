"""
Phases
======

Vertical: mean SSIM to the uncut image (no unit) with plus and minus one standard deviation of 12 open samples. Four
steps are skipped. Horizontal: the step at which the window starts. Shaded: the phases found, with the level of each.
The mark at the bottom is the boundary with its 95 % interval; only the five starts tested count.
"""

import causalunet as cu

results = cu.open_results("../tutorials/results/open.zarr")
selection: dict = {"kind": "skip_steps"}
# five starts are too few for lines
found = cu.analysis.phases(results, model="constant", **selection)
figure = cu.report.plot_phases(results, selection, found, threshold=0.8)
