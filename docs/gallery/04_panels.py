"""
From when on a part is redundant
================================

A panel for each number of decoder blocks removed, counted from the bottom. Vertical: mean SSIM to the uncut image (no
unit) with plus and minus one standard deviation of 12 open samples. Horizontal: the step at which the cut starts; it
lasts four steps. The ring marks the start from which on the mean stays at the threshold of 0.8 or above; where a later
start falls below it there is none.
"""

import causalunet as cu

results = cu.open_results("../tutorials/results/open.zarr")
figure = cu.report.plot_panels(
    results, {"kind": "ablate_block"}, panel="bottom", threshold=0.8
)
