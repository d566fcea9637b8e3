"""Dagster on top of the verbs: assets, checks, the hourly job, sensors."""

from buffer_pipeline.extras import need

need("dagster", "dagster")
