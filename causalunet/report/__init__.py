"""Figures and tables from stored results: matplotlib's object interface, so that nothing needs a display."""

from causalunet.report.files import save
from causalunet.report.grid import plot_grid
from causalunet.report.panels import plot_panels
from causalunet.report.samples import plot_samples
from causalunet.report.shares import plot_shares
from causalunet.report.tables import table_by_start
from causalunet.report.trend import plot_trend

__all__ = ["plot_grid", "plot_panels", "plot_samples", "plot_shares", "plot_trend", "save", "table_by_start"]
