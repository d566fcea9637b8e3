"""Tests of installing, starting and operating the program, and of the documentation of that."""
