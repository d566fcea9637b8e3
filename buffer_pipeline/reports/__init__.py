"""Reports: hourly counts, the daily report, statements, lists of holds."""
