"""Figures, tables and pages from stored results: matplotlib's object interface, so that nothing needs a display."""

from causalunet.report.anatomy import plot_anatomy
from causalunet.report.card import card
from causalunet.report.deviation import plot_deviation
from causalunet.report.estimate import plot_estimate, plot_estimates
from causalunet.report.factors import plot_factors
from causalunet.report.files import save
from causalunet.report.grid import plot_grid
from causalunet.report.histogram import plot_histogram
from causalunet.report.page import report
from causalunet.report.pairs import plot_pairs
from causalunet.report.panels import plot_panels
from causalunet.report.phases import plot_phases
from causalunet.report.plan import plot_plan
from causalunet.report.samples import plot_samples
from causalunet.report.schedule import plot_schedule
from causalunet.report.series import series_along
from causalunet.report.shares import plot_shares
from causalunet.report.tables import table_by_start
from causalunet.report.tradeoff import plot_tradeoff
from causalunet.report.training import plot_training
from causalunet.report.trend import plot_trend

__all__ = [
    "card",
    "plot_anatomy",
    "plot_deviation",
    "plot_estimate",
    "plot_estimates",
    "plot_factors",
    "plot_grid",
    "plot_histogram",
    "plot_pairs",
    "plot_panels",
    "plot_phases",
    "plot_plan",
    "plot_samples",
    "plot_schedule",
    "plot_shares",
    "plot_tradeoff",
    "plot_training",
    "plot_trend",
    "report",
    "save",
    "series_along",
    "table_by_start",
]
