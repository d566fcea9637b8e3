"""Tests of a release run."""
