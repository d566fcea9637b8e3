"""Tests of the channels that send notifications."""
