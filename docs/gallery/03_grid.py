"""
Images, by start step
=====================

Columns are samples with their prompts, rows are runs. First row: the uncut run. Below: the bottom eight decoder blocks
are zero during the steps named at the left. Images are 32 x 32
pixels.
"""

import causalunet as cu

results = cu.open_results("../tutorials/results/when.zarr")
figure = cu.report.plot_grid(results, {"kind": "ablate_block", "bottom": 8})
