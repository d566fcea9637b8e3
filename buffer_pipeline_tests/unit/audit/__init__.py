"""Tests of the audit: invariants and seals."""
