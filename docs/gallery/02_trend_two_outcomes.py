"""
Two outcomes of one sweep
=========================

The top two skip connections are zero for four steps. Left: SSIM to the uncut image (no unit). Right: PSNR in dB; more
means more alike. Both by the step at which the cut starts: mean over 12 open samples, and plus and minus one standard
deviation of the samples. That band says how much samples differ, not how well their mean is known.
"""

import causalunet as cu

results = cu.open_results("../tutorials/results/open.zarr")
selection = {"top two skip connections": {"kind": "ablate_skip"}}
figure = cu.report.plot_trend(results, selection, variable=("ssim", "psnr"), band="sd")
