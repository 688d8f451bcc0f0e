"""
What an intervention leaves out
===============================

Horizontal: step, from 20 (noise) to 1. Vertical: the component whose output is replaced. A bar covers the steps of its
window: here the eighth decoder block from the bottom, number 7 as counting starts at 0, is zero for the steps 11 to 8.
What feeds only that block does not run.
"""

import causalunet as cu

results = cu.open_results("../tutorials/results/open.zarr")
figure = cu.report.plot_plan(
    results, {"kind": "ablate_block", "bottom": 8, "start": 11}
)
