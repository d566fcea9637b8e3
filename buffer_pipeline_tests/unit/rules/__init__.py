"""Tests of the hold rules."""
