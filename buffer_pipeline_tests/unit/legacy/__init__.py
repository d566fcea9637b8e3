"""Tests of the import from the legacy application, and of the comparison with it."""
