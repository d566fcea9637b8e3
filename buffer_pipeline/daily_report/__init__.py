"""A day's figures against the fortnight before: as a table, as pictures and as one HTML file."""

from buffer_pipeline.daily_report.figures import LABELS, Figure
from buffer_pipeline.daily_report.page import render_page
from buffer_pipeline.daily_report.report import FORTNIGHT, DailyReport, daily_report, last_day_over

__all__ = [
    "FORTNIGHT",
    "LABELS",
    "DailyReport",
    "Figure",
    "daily_report",
    "last_day_over",
    "render_page",
]
