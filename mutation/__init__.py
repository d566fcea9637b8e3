"""Mutation testing of the modules that move money."""
