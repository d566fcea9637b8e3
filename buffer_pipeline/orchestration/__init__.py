"""Dagster on top of the verbs: assets, checks, the hourly job, sensors."""
