"""Tests of the books' guarantees, across verbs."""
