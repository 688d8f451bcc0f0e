"""
The noise schedule
==================

Of the 20 spaced steps, over the step: beta, the share of variance that a step adds as noise; alpha_bar, the share of
variance that is signal (both without unit); and the logarithm of the signal-to-noise ratio in nats.
"""

import causalunet as cu

results = cu.open_results("../tutorials/results/open.zarr")
figure = cu.report.plot_schedule(results)
