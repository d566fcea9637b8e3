"""Checks that the books are right: reconciliation and seals."""
