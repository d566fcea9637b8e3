"""The tests mirror the rooms; each runs on a real PostgreSQL."""
