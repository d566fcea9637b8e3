"""Tests of monitoring: alerts, doctor, heartbeat, metrics."""
