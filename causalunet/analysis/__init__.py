"""Effects from stored results: numpy, scipy and xarray only."""

from causalunet.analysis.across import across
from causalunet.analysis.bisection import bisection
from causalunet.analysis.calibration import calibrated, quantized, quantizer_range
from causalunet.analysis.compare import compare
from causalunet.analysis.controls import excess
from causalunet.analysis.criteria import Criterion, frontier
from causalunet.analysis.curves import curve, mean_curve
from causalunet.analysis.effects import effects
from causalunet.analysis.estimates import estimate_quality
from causalunet.analysis.factors import factor_changes, factor_effects
from causalunet.analysis.frames import to_frame
from causalunet.analysis.gaussian import LinearRun, gaussian_theory, kick, linear_run, psi, xi
from causalunet.analysis.interactions import interactions
from causalunet.analysis.interchange import interchange
from causalunet.analysis.intervals import bootstrap_mean
from causalunet.analysis.mediation import mediation
from causalunet.analysis.noise import noise_floor
from causalunet.analysis.phases import phases
from causalunet.analysis.proposals import fewer_steps, propose_shortcuts, stopping_step
from causalunet.analysis.ranks import (
    agreement,
    depth_trend,
    rank_correlation,
    redundancy_trend,
    windows_until_redundant,
)
from causalunet.analysis.redundancy import first_redundant_step, longest_window, relaxation_needed
from causalunet.analysis.spectra import power_spectrum, wiener_gain
from causalunet.analysis.summary import summary_table

__all__ = [
    "Criterion",
    "LinearRun",
    "across",
    "agreement",
    "bisection",
    "bootstrap_mean",
    "calibrated",
    "compare",
    "curve",
    "depth_trend",
    "effects",
    "estimate_quality",
    "excess",
    "factor_changes",
    "factor_effects",
    "fewer_steps",
    "first_redundant_step",
    "frontier",
    "gaussian_theory",
    "interactions",
    "interchange",
    "kick",
    "linear_run",
    "longest_window",
    "mean_curve",
    "mediation",
    "noise_floor",
    "phases",
    "power_spectrum",
    "propose_shortcuts",
    "psi",
    "quantized",
    "quantizer_range",
    "rank_correlation",
    "redundancy_trend",
    "relaxation_needed",
    "stopping_step",
    "summary_table",
    "to_frame",
    "wiener_gain",
    "windows_until_redundant",
    "xi",
]
