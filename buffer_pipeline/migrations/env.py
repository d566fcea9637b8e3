"""How Alembic runs here: on the connection that `database.migrate` hands over."""

from alembic import context
from sqlalchemy import text

from buffer_pipeline.tables import SCHEMA, metadata

connection = context.config.attributes["connection"]
# Two processes may start together: the second waits here and then finds nothing to do.
connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('buffer.migrate'))"))
# Alembic keeps its own table beside the books, so their schema stands before the first migration
# and stays behind the last. Where somebody has made it, no right to create one is needed.
if connection.scalar(text(f"SELECT to_regnamespace('{SCHEMA}')")) is None:
    connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
)
with context.begin_transaction():
    context.run_migrations()
