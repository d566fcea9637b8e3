"""Tests of claw-backs, debts and their recovery."""
