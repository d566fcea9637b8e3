"""Revision 0016 on books with holds: upgrade and downgrade change only the metadata."""

from collections.abc import Iterator
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import REVISION, books_revision, migrate
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.hold import HoldState
from buffer_pipeline_tests.support.builders import place_hold
from buffer_pipeline_tests.support.earnings import add
from buffer_pipeline_tests.support.read_rows import all_holds
from buffer_pipeline_tests.support.revisions import books_of_revision, downgrade

ROLES: Final = ("buffer_platform", "buffer_releaser", "buffer_reader", "buffer_payouts")
GRANTS: Final = text(
    "SELECT grantee, privilege_type, '' AS column_name FROM information_schema.table_privileges"
    " WHERE table_schema = 'buffer' AND table_name = 'hold_status' AND grantee LIKE 'buffer\\_%'"
    " UNION ALL SELECT grantee, privilege_type, column_name FROM information_schema.column_privileges"
    " WHERE table_schema = 'buffer' AND table_name = 'hold' AND grantee LIKE 'buffer\\_%' ORDER BY 1, 2, 3"
)
OLD_COLUMNS: Final = (
    "hold_id, reference, job, title, amount_minor, refunded_minor, state, release_date, settled_at"
)


@pytest.fixture
def old_books(server: EmbeddedServer) -> Iterator[Engine]:
    """An engine on books of revision 0015."""
    with books_of_revision(server, "0015") as engine:
        yield engine


def holds(connection: Connection) -> list[tuple[Any, ...]]:
    """Return the view's rows without metadata."""
    rows = connection.execute(text(f"SELECT {OLD_COLUMNS} FROM buffer.hold_status ORDER BY hold_id"))
    return [tuple(row) for row in rows]


def grants(connection: Connection) -> list[tuple[Any, ...]]:
    """Return the privileges of the roles on holds."""
    return [tuple(row) for row in connection.execute(GRANTS)]


def test_metadata_migration_keeps_the_holds(old_books: Engine) -> None:
    """Holds in every state keep all other columns. Grants and dependent views stay too."""
    with old_books.begin() as connection:
        first_grants = grants(connection)
    migrate(old_books)
    with old_books.begin() as connection:
        for state in HoldState:
            place_hold(connection, state=state, job=f"job-{state}")
        add(connection, metadata={"order": "A-17"})
        before, new_grants = holds(connection), grants(connection)

    downgrade(old_books, "0015")

    with old_books.begin() as connection:
        assert books_revision(old_books) == "0015"
        assert (holds(connection), grants(connection)) == (before, first_grants)
        connection.execute(text("CREATE VIEW public.mine AS SELECT hold_id FROM buffer.hold_status"))
    migrate(old_books)
    with old_books.begin() as connection:
        assert books_revision(old_books) == REVISION
        assert (holds(connection), grants(connection)) == (before, new_grants)
        assert len(connection.execute(text("SELECT hold_id FROM public.mine")).all()) == len(before)
        assert {str(row["metadata"]) for row in all_holds(connection)} == {"{}"}
        add(connection, reference="invoice-2", metadata={"order": "A-18"})
        assert [row["reference"] for row in all_holds(connection, metadata={"order": "A-18"})] == [
            "invoice-2"
        ]
        assert reconcile(connection) == []
    assert {"buffer_platform"} == {
        row[0] for row in set(new_grants) - set(first_grants) if row[1] == "INSERT"
    }
    assert {row[0] for row in new_grants if row[2] == ""} == set(ROLES)
