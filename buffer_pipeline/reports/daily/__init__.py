"""The daily report: a day compared with the 14 days before, as a table, as plots and as one HTML file."""

from buffer_pipeline.reports.daily.figures import LABELS, Figure
from buffer_pipeline.reports.daily.page import render_page
from buffer_pipeline.reports.daily.plots import draw
from buffer_pipeline.reports.daily.report import DailyReport, daily_report

__all__ = [
    "LABELS",
    "DailyReport",
    "Figure",
    "daily_report",
    "draw",
    "render_page",
]
