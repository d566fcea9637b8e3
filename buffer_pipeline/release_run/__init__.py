"""A release run: several workers release batches until nothing is due."""
