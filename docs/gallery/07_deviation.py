"""
Where in the image
==================

Mean absolute difference to the uncut image, pixel by pixel, over 12 open samples and 3 channels; images are in [0, 1]
and 32 x 32 pixels. The bottom eight decoder blocks are zero for the steps 19 to 16.
"""

import causalunet as cu

results = cu.open_results("../tutorials/results/open.zarr")
figure = cu.report.plot_deviation(
    results, {"kind": "ablate_block", "bottom": 8, "start": 19}
)
