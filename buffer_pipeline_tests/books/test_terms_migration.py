"""Revision 0021 on books with a frozen earning: the way back keeps its shares frozen."""

from collections.abc import Iterator
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import REVISION, books_revision, migrate
from buffer_pipeline.embedded import EmbeddedServer
from buffer_pipeline.freeze import unfreeze_hold
from buffer_pipeline_tests.support.builders import ADMIN, NOON, place_hold
from buffer_pipeline_tests.support.refunds import freeze_for_risk, place_frozen, refund
from buffer_pipeline_tests.support.revisions import books_of_revision, downgrade

BEFORE: Final = "0020"


@pytest.fixture
def books(server: EmbeddedServer) -> Iterator[Engine]:
    """An engine on books that came from the previous revision."""
    with books_of_revision(server, BEFORE) as engine:
        migrate(engine)
        yield engine


def freezes(connection: Connection) -> list[tuple[Any, ...]]:
    """Return the columns of freezes that both revisions have, and the state of their holds."""
    statement = (
        "SELECT freeze_id, hold_id, hold_freeze.kind, reference, opened_by, closed_at, state"
        " FROM buffer.hold_freeze LEFT JOIN buffer.unsettled_hold USING (hold_id) ORDER BY freeze_id"
    )
    return [tuple(row) for row in connection.execute(text(statement))]


def test_shares_of_a_frozen_earning_stay_frozen_on_the_way_back(books: Engine) -> None:
    """Each keeps a freeze of its own, which can be closed. A refund of one hold stays too."""
    with books.begin() as connection:
        place_frozen(connection)
        alone = place_hold(connection, job="job-alone")
        freeze_for_risk(connection, alone)
        refund(connection, alone, amount="300.00")
        before = freezes(connection)

    downgrade(books, BEFORE)

    with books.begin() as connection:
        assert books_revision(books) == BEFORE
        assert freezes(connection) == before
    migrate(books)
    with books.begin() as connection:
        assert freezes(connection) == before
        closed = [
            unfreeze_hold(connection, freeze_id=freeze_id, by=ADMIN, reason="fine", now=NOON).hold_ids
            for freeze_id, *_ in before
        ]
        assert closed == [(hold_id,) for _, hold_id, *_ in before]
        assert reconcile(connection) == []


def test_way_back_is_refused_where_one_refund_took_from_several_shares(books: Engine) -> None:
    """Only one of its transactions has a reference. Nothing is changed."""
    with books.begin() as connection:
        refund(connection, place_frozen(connection)[0])

    with pytest.raises(IntegrityError, match="transaction_reference_iff_named_by_caller"):
        downgrade(books, BEFORE)

    assert books_revision(books) == REVISION
    with books.begin() as connection:
        assert reconcile(connection) == []
