"""A simulated marketplace: many random days of it, or a small sample."""
