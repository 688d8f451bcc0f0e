"""
The run, step by step
=====================

One open sample of the uncut run. Columns are steps, from noise to image. First row: the noisy image x_t that the U-Net
is given. Second row: its estimate of the final image x_0, with SSIM to the final image (no unit) below.
"""

import causalunet as cu

results = cu.open_results("../tutorials/results/open.zarr")
figure = cu.report.plot_estimates(results, sample=0, steps=(20, 17, 14, 11, 8, 5, 2, 1))
