"""Access to PostgreSQL: engines, the statements of `sql/`, the clock, migrations."""

from buffer_pipeline.database.books import (
    INSTALL_A_NEWER_VERSION,
    OLDEST_SERVER,
    REVISION,
    books_revision,
    bring_up_to_date,
    migrate,
    open_database,
)
from buffer_pipeline.database.engine import (
    CONNECTIONS_MAX,
    first_line,
    make_engine,
    psycopg_url,
    snapshot,
    with_limits,
)
from buffer_pipeline.database.statements import (
    AnyConnection,
    Row,
    array_text,
    confirm,
    database_clock,
    fetch,
    is_beyond_a_bigint,
    savepoint,
    server_clock,
    statement_text,
    wallet_capacity_or_refusal,
)

__all__ = [
    "CONNECTIONS_MAX",
    "INSTALL_A_NEWER_VERSION",
    "OLDEST_SERVER",
    "REVISION",
    "AnyConnection",
    "Row",
    "array_text",
    "books_revision",
    "bring_up_to_date",
    "confirm",
    "database_clock",
    "fetch",
    "first_line",
    "is_beyond_a_bigint",
    "make_engine",
    "migrate",
    "open_database",
    "psycopg_url",
    "savepoint",
    "server_clock",
    "snapshot",
    "statement_text",
    "wallet_capacity_or_refusal",
    "with_limits",
]
