"""Tests of the files of payouts."""
