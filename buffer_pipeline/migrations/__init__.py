"""The books' schema over time, by Alembic."""
