"""
Samples
=======

Images of one intervention on open samples, 32 x 32 pixels, with SSIM to the uncut image (no unit) and seed below: the
top two skip connections are zero for the last four steps. Without a selection the same function shows the uncut images.
"""

import causalunet as cu

results = cu.open_results("../tutorials/results/open.zarr")
figure = cu.report.plot_samples(results, {"kind": "ablate_skip", "start": 4}, columns=3)
