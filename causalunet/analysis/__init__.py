"""Effects from stored results: numpy, scipy and xarray only."""

from causalunet.analysis.curves import curve, mean_curve
from causalunet.analysis.factors import factor_changes
from causalunet.analysis.intervals import bootstrap_mean
from causalunet.analysis.noise import noise_floor
from causalunet.analysis.summary import summary_table

__all__ = ["bootstrap_mean", "curve", "factor_changes", "mean_curve", "noise_floor", "summary_table"]
