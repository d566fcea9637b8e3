"""Mutation testing of the rooms that move money."""
