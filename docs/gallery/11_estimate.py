"""
When the estimate of the image is good enough
=============================================

At every step the model also gives an estimate of the final image. Left: SSIM (no unit) of that estimate to the final
image; right: PSNR in dB, infinite at the last step. Horizontal: step of the uncut run. Drawn are the mean over 12 open
samples and plus and minus two standard deviations. The line marks the step from which on the mean SSIM stays at or
above 0.8.
"""

import causalunet as cu

results = cu.open_results("../tutorials/results/open.zarr")
figure = cu.report.plot_estimate(results, variable=("ssim", "psnr"), threshold=0.8)
