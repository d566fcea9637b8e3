"""To list everything costs about one pass, and gives the same as pages that begin anew."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, event

from buffer_pipeline.backjob import request_backjob
from buffer_pipeline.database import snapshot
from buffer_pipeline.intake import add_pending_earnings
from buffer_pipeline.reads import (
    Page,
    every_item,
    list_backjobs,
    list_debts,
    list_holds,
    list_payouts,
    statement,
)
from buffer_pipeline.release import release_early
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.support.builders import ADMIN, DAY_7, JOB, NOON, PAYEE, PAYER, place_hold
from buffer_pipeline_tests.support.debts import place_debt
from buffer_pipeline_tests.unit.reads.test_statement_pages import all_pages, move_a_lot

ITEMS: Final = 12
ORDERS: Final = pytest.mark.parametrize("oldest_first", [False, True])
Listed = Callable[..., Page[Any]]


@contextmanager
def counted(connection: Connection) -> Iterator[Counter[str]]:
    """Count what is run: each statement's first line, and `sums` for lines of a statement that are summed."""
    counts: Counter[str] = Counter()

    def count(_c: Any, _cursor: Any, text: str, parameters: Any, _context: Any, _many: bool) -> None:
        counts[text.splitlines()[0]] += 1
        if "passed_from" in parameters and parameters["passed_from"] <= parameters["passed_to"]:
            counts["sums"] += 1

    event.listen(connection, "before_cursor_execute", count)
    try:
        yield counts
    finally:
        event.remove(connection, "before_cursor_execute", count)


def one_by_one(listed: Listed, connection: Connection, **filters: Any) -> list[Any]:
    """Return the items of pages that are read on their own."""
    items: list[Any] = []
    cursor = None
    while True:
        page = listed(connection, limit=2, cursor=cursor, **filters)
        items += page.items
        cursor = page.next_cursor
        if cursor is None:
            return items


def everything(listed: Listed, connection: Connection, **filters: Any) -> list[Any]:
    """Return what `every_item` yields with small pages."""
    return list(every_item(lambda cursor: listed(connection, limit=2, cursor=cursor, **filters)))


def fill(connection: Connection) -> None:
    """Add holds with metadata, of one job and of many, and open backjobs."""
    for number in range(ITEMS):
        add_pending_earnings(
            connection,
            reference=f"with-{number}",
            job=JOB,
            payee=PAYEE,
            payer=PAYER,
            amount="10",
            currency="PHP",
            metadata={"order": 17 if number % 2 else "17"},
            now=NOON,
        )
        place_hold(connection, job=f"job-{number}-redone")
        request_backjob(connection, job=f"job-{number}-redone", by=PAYER, reason="drips", now=NOON)


@ORDERS
@pytest.mark.parametrize(
    ("listed", "filters", "walk"),
    [
        (list_holds, {"due_by": DAY_7}, "a release takes at"),
        (list_holds, {"due_by": DAY_7, "kind": "PAYEE"}, "a release takes at"),
        (list_holds, {"metadata": {"order": "17"}}, "whose metadata contains"),
        (list_holds, {"job": JOB}, "holds of %(job)s"),
        (list_holds, {"job": JOB, "state": "BUFFERED"}, "holds of %(job)s"),
        (list_backjobs, {"state": "OPEN"}, "that are OPEN"),
    ],
)
def test_what_matches_is_read_twice_at_most(
    connection: Connection, listed: Listed, filters: dict[str, Any], walk: str, oldest_first: bool
) -> None:
    """For the first page, and once for all others, however many there are."""
    fill(connection)
    expected = one_by_one(listed, connection, oldest_first=oldest_first, **filters)

    with counted(connection) as counts:
        found = everything(listed, connection, oldest_first=oldest_first, **filters)

    assert found == expected
    assert len(found) == ITEMS
    assert sum(number for text, number in counts.items() if walk in text) == 2


@ORDERS
@pytest.mark.parametrize(
    "filters", [{"only_open": True}, {"owner": PAYEE}, {"owner": PAYEE, "only_open": True}]
)
def test_debts(connection: Connection, filters: dict[str, Any], oldest_first: bool) -> None:
    """The same as page by page."""
    place_debt(connection)

    assert everything(list_debts, connection, oldest_first=oldest_first, **filters) == one_by_one(
        list_debts, connection, oldest_first=oldest_first, **filters
    )


@pytest.mark.parametrize("filters", [{"state": "REQUESTED"}, {"state": "SENT"}, {"payout_batch_id": 1}])
def test_payouts(connection: Connection, filters: dict[str, Any]) -> None:
    """Nothing of nothing."""
    assert everything(list_payouts, connection, **filters) == []


@ORDERS
@pytest.mark.parametrize("currency", ["PHP", None])
def test_a_statement_is_not_added_up_again(engine: Engine, currency: str | None, oldest_first: bool) -> None:
    """The sums are carried on from page to page, of several wallets within one snapshot."""
    with engine.begin() as connection:
        move_a_lot(connection)
    filters: dict[str, Any] = {"owner": PAYEE, "currency": currency, "oldest_first": oldest_first}

    with snapshot(engine) as connection:
        expected = one_by_one(statement, connection, **filters)
        with counted(connection) as counts:
            found = everything(statement, connection, **filters)

    assert found == expected
    assert len(found) > 10
    assert counts["sums"] == 0


@ORDERS
def test_an_early_statement_passes_the_later_lines_once(connection: Connection, oldest_first: bool) -> None:
    """`as_of` leaves them out, and their sums count."""
    move_a_lot(connection)
    filters: dict[str, Any] = {"owner": PAYEE, "currency": "PHP", "as_of": NOON, "oldest_first": oldest_first}
    expected = one_by_one(statement, connection, **filters)

    with counted(connection) as counts:
        found = everything(statement, connection, **filters)

    assert found == expected
    assert counts["sums"] == 0


def test_several_wallets_without_a_snapshot_are_added_up(connection: Connection) -> None:
    """A line of another wallet could have come between: the sums of each page are those of the books."""
    move_a_lot(connection)

    with counted(connection) as counts:
        found = everything(statement, connection, owner=PAYEE)

    assert found == all_pages(connection, limit=1000)
    assert counts["sums"] > 1


def test_each_page_of_another_snapshot_is_added_up(engine: Engine) -> None:
    """If the caller ends the transaction between the pages of several wallets."""
    with engine.begin() as connection:
        move_a_lot(connection)
    with engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        lines = every_item(
            lambda cursor: statement(connection, owner=PAYEE, oldest_first=True, limit=2, cursor=cursor)
        )
        shown = [next(lines)]
        connection.rollback()
        with engine.begin() as other:
            deposit(other, owner=PAYEE, amount="1", currency="JPY", reference="late", now=NOON)
        shown += lines
        connection.rollback()

        assert shown == all_pages(connection, limit=1000, oldest_first=True)


def test_what_comes_meanwhile(engine: Engine) -> None:
    """A later deposit comes last with the right sum. A hold that was released is left out."""
    with engine.begin() as connection:
        move_a_lot(connection)
        holds = [place_hold(connection, job=JOB) for _ in range(6)]
    with engine.connect() as connection:
        lines = every_item(
            lambda cursor: statement(
                connection, owner=PAYEE, currency="PHP", oldest_first=True, limit=2, cursor=cursor
            )
        )
        waiting = every_item(
            lambda cursor: list_holds(connection, job=JOB, state="BUFFERED", limit=1, cursor=cursor)
        )
        shown, seen = [next(lines)], [next(waiting), next(waiting)]
        with engine.begin() as other:
            deposit(other, owner=PAYEE, amount="1", currency="PHP", reference="late", now=NOON)
            release_early(other, hold_id=holds[1], by=ADMIN, reason="done", as_admin=True, now=NOON)
        connection.rollback()
        shown += lines
        seen += waiting
        connection.rollback()
        whole = all_pages(connection, limit=1000, currency="PHP", oldest_first=True)

    assert shown == whole
    assert [hold.hold_id for hold in seen] == [*holds[:1:-1], holds[0]]
