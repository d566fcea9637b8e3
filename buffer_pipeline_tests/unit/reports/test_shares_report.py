"""Fees, taxes and reserves in the daily report: a day's commission, and the kept reserve."""

from sqlalchemy import Connection, Engine

from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import AddedHold, add_pending_earnings
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.reports.daily import daily_report, render_page
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline_tests.support.builders import place_hold
from buffer_pipeline_tests.support.commands import Run
from buffer_pipeline_tests.support.daily_reports import TODAY, at, release_at


def earn(
    connection: Connection, reference: str, day: int, amount: str = "1000.00", currency: str = "PHP"
) -> AddedHold:
    """Add an earning on a day of March: 12 % fee, 2 % tax at once, 10 % reserve for 14 days."""
    return add_pending_earnings(
        connection,
        reference=reference,
        job=reference,
        payee="worker-17",
        payer="client-3",
        amount=amount,
        currency=currency,
        shares=[
            Share(kind=ShareKind.PAYEE),
            Share(kind=ShareKind.PAYEE, owner="worker-18", percent=1),
            Share(kind=ShareKind.FEE, owner="platform", percent=12),
            Share(kind=ShareKind.TAX, owner="tax-office", percent=2, days=0),
            Share(kind=ShareKind.RESERVE, percent=10, days=14),
        ],
        now=at(day, 12),
    )


def test_shares_are_reported_by_kind(connection: Connection) -> None:
    """Released on the day and in the period, and in the buffer at the end of the day."""
    earn(connection, "invoice-1", 1)
    earn(connection, "invoice-2", 9)
    place_hold(connection, amount="70.00", held_at=at(9, 10))
    release_at(connection, at(9, 13))
    fee = earn(connection, "invoice-3", 10, "5000", "JPY").shares[2].hold_id
    release_at(connection, at(16, 13))
    freeze_hold(connection, hold_id=fee, kind=FreezeKind.ADMIN, by="admin-1", reason="Waived", now=at(16, 14))
    refund_hold(
        connection, hold_id=fee, by="admin-1", reason="Waived", reference="r-1", amount=200, now=at(16, 14)
    )
    # After the day, so not in its figures.
    earn(connection, "invoice-4", 17)
    release_at(connection, at(17, 13))

    report = daily_report(connection, day=TODAY, days=7)

    names = ("currency", "kind", "released_on_day_minor", "released_minor", "in_buffer_minor")
    assert [tuple(row[name] for name in names) for row in report.shares] == [
        ("JPY", "FEE", 0, 0, 400),
        ("JPY", "RESERVE", 0, 0, 500),
        ("JPY", "TAX", 100, 100, 0),
        ("PHP", "FEE", 12_000, 12_000, 0),
        ("PHP", "RESERVE", 10_000, 10_000, 10_000),
        ("PHP", "TAX", 0, 0, 0),
    ]
    page = render_page(report, made_at=at(17, 13))
    assert "Fees, taxes and reserves" in page
    assert "Reserve, PHP" in page


def test_books_without_shares_have_no_such_table(connection: Connection) -> None:
    """The report is as without shares."""
    place_hold(connection, amount="70.00", held_at=at(9, 10))

    report = daily_report(connection, day=TODAY)

    assert report.shares == []
    assert "Fees, taxes and reserves" not in render_page(report, made_at=at(17, 13))


def test_report_command_prints_the_shares(run: Run, engine: Engine) -> None:
    """As a separate table, and exactly in JSON."""
    with engine.begin() as connection:
        earn(connection, "invoice-1", 1)

    shown = run("report")
    document = run("report", "--json").json

    assert "Fees, taxes and reserves:\n currency  kind" in shown.out
    assert document["shares"] == [
        {
            "currency": "PHP",
            "kind": kind,
            "released_on_day": "0.00",
            "released": "0.00",
            "in_buffer": amount,
        }
        for kind, amount in (("FEE", "120.00"), ("RESERVE", "100.00"), ("TAX", "20.00"))
    ]
