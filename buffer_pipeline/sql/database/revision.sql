-- The migration that the books are at. The table is missing if there are no books.
SELECT version_num FROM buffer.alembic_version
