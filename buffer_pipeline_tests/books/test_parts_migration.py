"""Revision 0022 on books with holds: parts released early, and references of early releases."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import REVISION, books_revision, migrate
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.hold import HoldState
from buffer_pipeline.hours import HOUR, hour_of
from buffer_pipeline.reports.complete_hours import differing_counts
from buffer_pipeline.reports.hourly_counts import count_hours
from buffer_pipeline_tests.support.builders import DAY_7, NOON, place_hold
from buffer_pipeline_tests.support.releases import early, release_all
from buffer_pipeline_tests.support.revisions import books_of_revision, downgrade

BEFORE: Final = "0020"


@pytest.fixture
def old_books(server: EmbeddedServer) -> Iterator[Engine]:
    """An engine on books of the previous revision."""
    with books_of_revision(server, BEFORE) as engine:
        yield engine


def common_rows(connection: Connection) -> list[list[tuple[object, ...]]]:
    """Return the columns of holds, batches and counted hours that both revisions have."""
    return [
        [tuple(row) for row in connection.execute(text(statement))]
        for statement in (
            "SELECT hold_id, amount_minor, refunded_minor, state, release_date, settled_at, earning_id"
            " FROM buffer.hold_status ORDER BY hold_id",
            "SELECT batch_id, kind, source, reason, recorded_at FROM buffer.batch ORDER BY batch_id",
            "SELECT hour, currency, holds_released, released_minor, payees"
            " FROM buffer.hourly_release_count ORDER BY hour, currency",
        )
    ]


def test_parts_migration_keeps_the_books(old_books: Engine) -> None:
    """Without a part, both directions keep counted hours and an early release's reference. With a part, the
    downgrade is refused.
    """
    migrate(old_books)
    with old_books.begin() as connection:
        for state in HoldState:
            place_hold(connection, state=state, job=f"job-{state}")
        early(connection, hold_id=place_hold(connection), reference="release-1")
        part_of = place_hold(connection)
    count_hours(old_books, start=hour_of(NOON), end=hour_of(NOON) + HOUR, counted_by="test")
    with old_books.begin() as connection:
        before = common_rows(connection)

    downgrade(old_books, BEFORE)

    with old_books.begin() as connection:
        assert common_rows(connection) == before
    migrate(old_books)
    with old_books.begin() as connection:
        assert books_revision(old_books) == REVISION
        assert common_rows(connection) == before
        assert reconcile(connection) == []
        assert differing_counts(connection, start=hour_of(NOON), end=hour_of(NOON) + HOUR) == []
        early(connection, hold_id=part_of, amount="1", reference="part-1")
    with pytest.raises(IntegrityError, match="transaction_type_names_its_accounts"):
        downgrade(old_books, BEFORE)
    with old_books.begin() as connection:
        assert books_revision(old_books) == REVISION
        assert release_all(connection, DAY_7 + timedelta(days=1)).holds_released == 2
        assert reconcile(connection) == []
