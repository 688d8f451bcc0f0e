"""
The best and the worst samples
==============================

Columns are open samples, from the highest SSIM to the lowest. Rows: the uncut image, the image with the bottom eight
decoder blocks zero for the steps 19 to 16, and their absolute difference times four. Below: SSIM (no unit), PSNR in dB,
seed.
"""

import causalunet as cu

results = cu.open_results("../tutorials/results/open.zarr")
selection = {"kind": "ablate_block", "bottom": 8, "start": 19}
figure = cu.report.plot_pairs(results, selection, best=3, worst=3)
