"""Fees, taxes and reserves in the hourly counts."""

from datetime import datetime, timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.hours import HOUR
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import release_early
from buffer_pipeline.reports.complete_hours import differing_counts
from buffer_pipeline.reports.hourly_counts import compute_counts, count_hours, counts_between
from buffer_pipeline.reports.released import released_shares
from buffer_pipeline.reports.totals import RELEASED_SHARES, counted_shares
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline_tests.support.builders import ADMIN, NOON, place_hold
from buffer_pipeline_tests.support.earnings import add
from buffer_pipeline_tests.support.hour_counts import release_due, rows
from buffer_pipeline_tests.support.runs import corrupt

DUE: Final = NOON + timedelta(days=7)
ALL_KINDS: Final = (
    Share(kind=ShareKind.PAYEE),
    Share(kind=ShareKind.PAYEE, owner="worker-18", percent=5),
    Share(kind=ShareKind.FEE, owner="platform", percent=12),
    Share(kind=ShareKind.TAX, owner="treasury", percent=2, days=0),
    Share(kind=ShareKind.RESERVE, percent=10, days=14),
)
"""A tax that is due at once, a fee due with the payee's share, and a reserve a week later."""


def shares_by_hour(connection: Connection, *hours: datetime) -> list[tuple[str, int, int, int, int]]:
    """Return currency, released amount, fee, tax and reserve of each row of these hours."""
    names = ("currency", "released_minor", *RELEASED_SHARES.values())
    return [
        tuple(row.get(name, 0) for name in names)
        for hour in hours
        for row in rows(compute_counts(connection, start=hour, end=hour + HOUR))
    ]


def test_an_hour_has_each_kind_within_its_total(connection: Connection) -> None:
    """Each kind counts in the hour of its own release. The total includes all holds."""
    add(connection, shares=ALL_KINDS)
    add(connection, reference="in-yen", job="job-9", amount="5000", currency="JPY", shares=ALL_KINDS)
    place_hold(connection, amount="70.00", job="job-10")
    for moment in (NOON, DUE, DUE + timedelta(days=7)):
        release_due(connection, now=moment)

    found = shares_by_hour(connection, NOON, DUE, DUE + timedelta(days=7))

    assert found == [
        ("JPY", 100, 0, 100, 0),
        ("PHP", 2_000, 0, 2_000, 0),
        ("JPY", 4_400, 600, 0, 0),
        ("PHP", 88_000 + 7_000, 12_000, 0, 0),
        ("JPY", 500, 0, 0, 500),
        ("PHP", 10_000, 0, 0, 10_000),
    ]


def test_an_early_release_and_the_rest_of_a_refund_are_counted(connection: Connection) -> None:
    """The rest of a partly refunded fee is counted, whoever released it."""
    fee = add(connection, shares=ALL_KINDS).shares[2].hold_id
    frozen: dict[str, Any] = {"hold_id": fee, "by": ADMIN, "reason": "waived", "now": NOON}
    freeze = freeze_hold(connection, kind=FreezeKind.ADMIN, **frozen)
    refund_hold(connection, amount="90.00", reference="back-1", **frozen)
    unfreeze_hold(connection, freeze_id=freeze.freeze_id, by=ADMIN, reason="done", now=NOON)
    release_early(connection, hold_id=fee, by=ADMIN, as_admin=True, reason="agreed", now=NOON + HOUR)

    (early,) = shares_by_hour(connection, NOON + HOUR)

    assert early == ("PHP", 3_000, 3_000, 0, 0)


def test_books_without_shares_count_zero(connection: Connection) -> None:
    """Each figure exists and is zero."""
    place_hold(connection)
    release_due(connection, now=DUE)

    counts = compute_counts(connection, start=DUE, end=DUE + HOUR)

    assert counts[list(RELEASED_SHARES.values())].to_numpy().tolist() == [[0, 0, 0]]
    assert counted_shares(connection) == set()


def test_stored_shares_are_proved(engine: Engine, superuser_url: str) -> None:
    """A stored fee that differs from the transactions is named."""
    end = DUE + HOUR
    with engine.begin() as connection:
        add(connection, shares=ALL_KINDS)
        release_due(connection, now=NOON)
        release_due(connection, now=DUE)
    count_hours(engine, start=NOON, end=end, counted_by="test")
    with engine.connect() as connection:
        before = differing_counts(connection, start=NOON, end=end)
        stored = rows(counts_between(connection, start=NOON, end=end))
        known = counted_shares(connection)

    corrupt(
        superuser_url, "UPDATE buffer.hourly_release_count SET released_fee_minor = 11999 WHERE payees = 3"
    )

    with engine.connect() as connection:
        after = differing_counts(connection, start=NOON, end=end)
        computed = rows(compute_counts(connection, start=NOON, end=end))
    assert before == []
    assert stored == computed
    assert known == {(ShareKind.FEE, "PHP"), (ShareKind.TAX, "PHP")}
    assert [(row["hour"], row["figure"], row["counted"], row["transactions_say"]) for row in after] == [
        (DUE, "released_fee_minor", "11999", "12000")
    ]


@pytest.mark.parametrize("fee", ["-1", "released_minor + 1"])
def test_more_than_was_released_cannot_be_stored(engine: Engine, fee: str) -> None:
    """A CHECK limits the shares of an hour to its released amount."""
    with engine.begin() as connection:
        place_hold(connection)
        release_due(connection, now=DUE)
    count_hours(engine, start=DUE, end=DUE + HOUR, counted_by="test")

    with (
        pytest.raises(IntegrityError, match="hourly_release_count_shares_in_released"),
        engine.begin() as connection,
    ):
        connection.execute(text(f"UPDATE buffer.hourly_release_count SET released_fee_minor = {fee}"))


def test_a_source_has_the_shares_that_it_released(connection: Connection) -> None:
    """By kind and currency, of this source only."""
    add(connection, shares=ALL_KINDS)
    add(connection, reference="in-yen", job="job-9", amount="5000", currency="JPY", shares=ALL_KINDS)
    release_due(connection, now=NOON)
    taxes = _released(connection, "test", NOON)
    release_due(connection, now=DUE)

    both = _released(connection, "test", NOON)

    assert taxes == {(ShareKind.TAX, "JPY"): 100, (ShareKind.TAX, "PHP"): 2_000}
    assert both == {**taxes, (ShareKind.FEE, "JPY"): 600, (ShareKind.FEE, "PHP"): 12_000}
    assert _released(connection, "another", NOON) == {}
    assert _released(connection, "test", DUE + HOUR) == {}


def _released(connection: Connection, source: str, since: datetime) -> dict[Any, int]:
    return released_shares(connection, source=source, since=since)
