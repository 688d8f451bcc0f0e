"""
Images, by start step
=====================

Columns are samples, rows are runs. First row: the uncut run. Below: the bottom eight decoder blocks are zero during the
steps named at the left. Left, open samples: the cut of the early steps paints another scene. Right, prompts that say
everything: the object keeps its colour, texture and shape, and may move or get another background. Images are 32 x 32
pixels.
"""

from matplotlib.figure import Figure

import causalunet as cu

selection = {"kind": "ablate_block", "bottom": 8}
figure = Figure(figsize=(8, 7.4), layout="constrained")
left, right = figure.subfigures(1, 2, wspace=0.04, squeeze=False)[0]
for half, name, samples in ((left, "open", (1, 2, 5)), (right, "when", (0, 2, 4))):
    results = cu.open_results(f"../tutorials/results/{name}.zarr")
    cu.report.plot_grid(results, selection, samples=samples, figure=half)
