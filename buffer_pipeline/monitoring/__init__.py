"""Monitoring: alerts, heartbeat, metrics and the checks of `doctor`."""
