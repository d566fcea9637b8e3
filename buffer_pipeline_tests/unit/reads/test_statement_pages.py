"""Pages of a statement: the same lines and sums as the whole, in both orders, while others write."""

from dataclasses import astuple
from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, text

from buffer_pipeline.reads import StatementLine, find_wallet, statement
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    NOON,
    PAYEE,
    PAYER,
    next_generation,
    place_hold,
)

HOUR: Final = timedelta(hours=1)


def move_a_lot(connection: Connection) -> None:
    """Write transactions of each direction in two currencies, in generations with empty ones between."""
    for number in range(3):
        next_generation(connection, generations=number + 1)
        deposit(connection, owner=PAYEE, amount="50", currency="PHP", reference=f"in-{number}", now=NOON)
        place_hold(connection, job=f"job-{number}", amount="100")
        place_hold(connection, job=f"yen-{number}", amount="700", currency="JPY")
        release_early(
            connection,
            hold_id=place_hold(connection, job=f"early-{number}", amount="20"),
            by=ADMIN,
            reason="done",
            as_admin=True,
            now=NOON,
        )
        withdraw(connection, owner=PAYEE, amount="5", currency="PHP", reference=f"out-{number}", now=NOON)
    release_matured(connection, now=DAY_7, batch_limit=3)


def all_pages(connection: Connection, *, limit: int, **filters: Any) -> list[StatementLine]:
    """Return the lines of all pages."""
    lines: list[StatementLine] = []
    cursor = None
    while True:
        page = statement(connection, owner=PAYEE, limit=limit, cursor=cursor, **filters)
        lines += page.items
        cursor = page.next_cursor
        if cursor is None:
            return lines


@pytest.mark.parametrize("currency", [None, "PHP", "JPY"])
@pytest.mark.parametrize("limit", [1, 2, 5, 1000])
def test_pages_have_the_lines_and_sums_of_the_whole(
    connection: Connection, limit: int, currency: str | None
) -> None:
    """Whatever the size of a page and the order; the last line has what the wallet holds."""
    move_a_lot(connection)

    oldest = all_pages(connection, limit=limit, currency=currency, oldest_first=True)
    newest = all_pages(connection, limit=limit, currency=currency)

    assert [astuple(line) for line in newest] == [astuple(line) for line in oldest[::-1]]
    sums: dict[str, tuple[int, int]] = {}
    for line in oldest:
        balance, pending = sums.get(line.currency, (0, 0))
        sums[line.currency] = (balance + line.change_minor, pending + line.pending_change_minor)
        assert (line.balance_after_minor, line.pending_earnings_after_minor) == sums[line.currency]
    for code, held in sums.items():
        wallet = find_wallet(connection, owner=PAYEE, currency=code)
        assert held == (wallet.balance_minor, wallet.pending_earnings_minor)
    written = connection.scalar(
        text(
            "SELECT count(*) FROM buffer.transaction INNER JOIN buffer.wallet"
            " ON wallet_id IN (from_wallet_id, to_wallet_id)"
            " WHERE owner = :owner AND (CAST(:currency AS text) IS NULL OR wallet.currency = :currency)"
        ),
        {"owner": PAYEE, "currency": currency},
    )
    assert len(oldest) == written


@pytest.mark.parametrize("oldest_first", [False, True])
def test_lines_after_a_time_are_left_out(connection: Connection, oldest_first: bool) -> None:
    """Their sums count all the same: a line has what the wallet held after it."""
    move_a_lot(connection)
    whole = {line.transaction_id: line for line in all_pages(connection, limit=1000)}

    found = all_pages(connection, limit=2, as_of=NOON, oldest_first=oldest_first)

    assert {line.transaction_id for line in found} == {
        line.transaction_id for line in whole.values() if line.recorded_at <= NOON
    }
    assert all(line == whole[line.transaction_id] for line in found)


def test_a_line_that_is_added_changes_no_page(engine: Engine) -> None:
    """The sums of the pages after the first one are those of the lines, not of the wallet now."""
    with engine.begin() as connection:
        move_a_lot(connection)
        before = all_pages(connection, limit=1000)
    with engine.connect() as connection:
        first = statement(connection, owner=PAYEE, limit=3)
        connection.rollback()
        with engine.begin() as other:
            deposit(other, owner=PAYEE, amount="1", currency="PHP", reference="late", now=NOON)
        second = statement(connection, owner=PAYEE, limit=1000, cursor=first.next_cursor)

    assert [*first.items, *second.items] == before


def test_nobodys_statement_is_empty(connection: Connection) -> None:
    """And a payer's has their refunds and deposits only."""
    place_hold(connection)

    assert statement(connection, owner="nobody").items == ()
    assert statement(connection, owner=PAYER).items == ()
