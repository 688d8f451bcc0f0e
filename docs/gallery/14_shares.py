"""
Shares of samples
=================

How many of the images of 12 open samples stay at an SSIM of 0.8 or above, by the step at which a cut of four steps
starts. Horizontal: share of the images in per cent, with its 95 % Wilson interval. Vertical: start step. With 12 images
even "all of them" is compatible with a share of 76 %.
"""

import causalunet as cu

results = cu.open_results("../tutorials/results/open.zarr")
kinds: dict[str, dict] = {
    "top two skip connections": {"kind": "ablate_skip"},
    "bottom eight decoder blocks": {"kind": "ablate_block", "bottom": 8},
}
curves = {
    name: cu.analysis.curve(results, "ssim", **selection)["ssim"]
    for name, selection in kinds.items()
}
counts = {name: (one >= 0.8).sum("sample").to_series() for name, one in curves.items()}
shares = {
    name: {f"start {start}": int(n) for start, n in series.items()}
    for name, series in counts.items()
}
figure = cu.report.plot_shares(shares, samples=12)
