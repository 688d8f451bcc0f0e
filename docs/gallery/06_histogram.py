"""
How samples differ
==================

Three interventions, a panel each: the bottom eight decoder blocks are zero from step 19, 11 or 4 on, for four steps.
Horizontal: SSIM to the uncut image (no unit), in bins of 0.1. Vertical: number of the 12 open samples. Titles give the
mean, and the share below the threshold of 0.8 with its Wilson interval, which is wide for 12 samples.
"""

import causalunet as cu

results = cu.open_results("../tutorials/results/open.zarr")
selection = {"kind": "ablate_block", "bottom": 8, "start": [19, 11, 4]}
figure = cu.report.plot_histogram(results, selection, bins=10)
