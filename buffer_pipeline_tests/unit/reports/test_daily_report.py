"""The figures of the daily report, calculated by hand, and its day."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from sqlalchemy import Connection, Engine

from buffer_pipeline.errors import HourInProgress
from buffer_pipeline.hold import HoldState
from buffer_pipeline.reports.complete_hours import last_day_over
from buffer_pipeline.reports.daily import LABELS, Figure, daily_report, draw, render_page
from buffer_pipeline.reports.daily.figures import value_text
from buffer_pipeline.reports.hourly_counts import count_hours
from buffer_pipeline_tests.support.builders import PAYEE, books, place_hold
from buffer_pipeline_tests.support.daily_reports import (
    TODAY,
    Page,
    a_fortnight,
    at,
    colours,
    figure,
    release_at,
    size,
    write_into,
)


def test_figures_have_the_mean_of_the_previous_fortnight(connection: Connection) -> None:
    """Empty days count as zero."""
    a_fortnight(connection)

    report = daily_report(connection, day=TODAY, days=7)

    assert report.currencies == ("JPY", "PHP")
    assert [(name, *figure(report, name, "PHP")) for name in LABELS] == [
        ("holds_added", 3, Fraction(3, 14), 3),
        ("added_minor", 29_00, Fraction(270_00, 14), 29_00),
        ("holds_released", 3, Fraction(1, 14), 4),
        ("released_minor", 214_00, 5_00, 284_00),
        ("holds_released_early", 1, 0, 1),
        ("parts_released", 0, 0, 0),
        ("payees", 2, Fraction(1, 14), 2),
        ("lateness_median_seconds", 1500, 1800, 1800),
        ("lateness_max_seconds", 2400, 1800, 2400),
        ("refunds", 1, 0, 1),
        ("refunded_minor", 5_00, 0, 5_00),
        ("freezes_opened", 2, 0, 2),
        ("freezes_closed", 1, 0, 1),
        # 70.00 at the end of seven days, and 200.00 at the end of seven others.
        ("buffered_minor", 0, 135_00, None),
        ("frozen_minor", 10_00, 0, None),
    ]


def test_over_all_currencies_there_are_people_and_times_but_no_amounts(connection: Connection) -> None:
    """A payee in two currencies counts once, a median covers all releases, and PHP and JPY have no sum."""
    a_fortnight(connection)

    report = daily_report(connection, day=TODAY)

    assert figure(report, "payees", None) == (2, Fraction(1, 14), 2)
    assert figure(report, "lateness_median_seconds", None) == (2100, 1800, 1950)
    assert figure(report, "holds_released", None) == (4, Fraction(1, 14), 5)
    assert figure(report, "holds_added", None) == (3, Fraction(4, 14), 7)
    assert not [line.name for line in report.figures if line.currency is None and "_minor" in line.name]


def test_payee_of_several_hours_and_days_counts_once(connection: Connection) -> None:
    """Payees are counted from the transactions of the whole day and period."""
    for number, released_at in enumerate((at(15, 9), at(16, 9), at(16, 10), at(16, 11))):
        place_hold(
            connection,
            payee=PAYEE if number < 3 else "worker-18",
            held_at=released_at,
            release_date=released_at,
        )
        release_at(connection, released_at)

    report = daily_report(connection, day=TODAY, days=2)

    assert figure(report, "payees", "PHP") == (2, Fraction(1, 14), 2)


def test_the_median_of_a_day_is_over_its_releases(connection: Connection) -> None:
    """Not over the hours' medians: an hour with three releases weighs three times as much."""
    for released_at, minutes in ((at(16, 9), (1, 2, 3)), (at(16, 12), (50,)), (at(16, 15), (60,))):
        for late in minutes:
            due = released_at - timedelta(minutes=late)
            place_hold(connection, held_at=due, release_date=due)
        release_at(connection, released_at)

    report = daily_report(connection, day=TODAY)

    # Of 1, 2, 3, 50 and 60 minutes; the hours' medians are 2, 50 and 60.
    assert figure(report, "lateness_median_seconds", "PHP") == (180, None, 180)


def test_counted_hours_and_uncounted_ones_report_the_same(engine: Engine) -> None:
    """Stored counts change no figure."""
    with engine.begin() as connection:
        a_fortnight(connection)
        uncounted = daily_report(connection, day=TODAY)
    count_hours(engine, start=at(9), end=at(16, 10), counted_by="a test")

    with engine.begin() as connection:
        counted = daily_report(connection, day=TODAY)

    assert counted.figures == uncounted.figures
    assert counted.days == uncounted.days


def test_late_write_with_a_new_currency_is_reported(engine: Engine) -> None:
    """What is written into an hour after its count is in the report."""
    with engine.begin() as connection:
        a_fortnight(connection)
    count_hours(engine, start=at(16, 14), end=at(16, 15), counted_by="a test")
    with engine.begin() as connection:
        # Added and released between two full hours, so that the curve does not have it either.
        place_hold(
            connection, amount="9.00", currency="SGD", held_at=at(16, 14, 20), state=HoldState.RELEASED
        )

    with engine.begin() as connection:
        report = daily_report(connection, day=TODAY, days=2)

    assert report.currencies == ("JPY", "PHP", "SGD")
    assert figure(report, "payees", "SGD") == (1, 0, 1)
    assert figure(report, "payees", None) == (2, Fraction(1, 14), 2)
    assert {row["currency"] for row in report.days if row["day"] == TODAY} == {"JPY", "PHP", "SGD", None}
    assert "SGD" in Page(render_page(report, made_at=at(17))).texts


def test_figures_are_formatted(connection: Connection) -> None:
    """Thousands separators, each currency's decimal places, and no percentage for a change from nothing."""
    a_fortnight(connection)
    place_hold(connection, amount="1234567.50", held_at=at(16, 14))
    place_hold(connection, amount="1234567", currency="JPY", held_at=at(16, 14))

    rows = {(row["currency"], row["figure"]): row for row in daily_report(connection, day=TODAY).table}

    assert rows["PHP", "amount added"] == {
        "currency": "PHP",
        "figure": "amount added",
        "day": "1,234,596.50",
        "fortnight_mean": "19.29",
        "change": "+6,401,511.5 %",
        "period": "1,234,866.50",
    }
    assert rows["JPY", "amount added"]["day"] == "1,234,567"
    assert rows["JPY", "amount added"]["fortnight_mean"] == "71"
    assert rows["PHP", "holds released early"]["change"] == "–"
    assert rows["PHP", "lateness, median"]["day"] == "0:25:00"
    assert rows["PHP", "lateness, median"]["change"] == "-16.7 %"
    assert rows["PHP", "BUFFERED at the end"]["period"] == "–"
    assert rows["all currencies", "holds added"]["fortnight_mean"] == "0.3"


@pytest.mark.parametrize(
    ("amount_minor", "places", "aloud"),
    [
        (-50, 2, "-0.50"),
        (-125050, 2, "-1,250.50"),
        (-1234, 0, "-1,234"),
        (Fraction(-1, 3), 2, "0.00"),
        (0, 2, "0.00"),
        (5, 2, "0.05"),
    ],
)
def test_an_amount_keeps_its_sign(amount_minor: int | Fraction, places: int, aloud: str) -> None:
    """Negative amounts have a minus, also those below one unit."""
    assert value_text("buffered_minor", amount_minor, places) == aloud


@pytest.mark.parametrize(
    ("day", "mean", "change"),
    [
        (3, Fraction(2), Decimal("50.0")),
        (2, Fraction(2), Decimal("0.0")),
        (0, Fraction(1, 14), Decimal("-100.0")),
        (10**15 + 1, Fraction(10**15), Decimal("0.0")),
        (5, Fraction(0), None),
        (None, Fraction(2), None),
        (5, None, None),
    ],
)
def test_a_change_is_in_per_cent_of_the_mean(
    day: int | None, mean: Fraction | None, change: Decimal | None
) -> None:
    """Exact to a tenth of a per cent; none from nothing or zero."""
    line = Figure(name="holds_added", currency="PHP", places=2, day=day, fortnight_mean=mean, period=None)

    assert line.change_percent == change


def test_single_currency_has_no_lines_for_all_currencies(connection: Connection) -> None:
    """JSON keeps its shape."""
    place_hold(connection, held_at=at(16, 9))

    report = daily_report(connection, day=TODAY)

    assert {row["currency"] for row in report.table} == {"PHP"}
    assert {line.currency for line in report.figures} == {"PHP", None}


def test_empty_books_have_a_report(connection: Connection) -> None:
    """Zeros, no currency, and pictures that say so."""
    report = daily_report(connection, day=TODAY)

    assert report.books_begin is None
    assert report.currencies == ()
    assert figure(report, "holds_released", None) == (0, 0, 0)
    assert figure(report, "lateness_median_seconds", None) == (None, None, None)
    assert len(report.days) == 15
    for svg in draw(report).values():
        assert size(svg) == (900, 230)
        assert colours(svg) == set()
        assert b"in these days." in svg
    assert "The books are empty." in render_page(report, made_at=at(17))


def test_report_writes_nothing(connection: Connection) -> None:
    """Every row of every table is unchanged."""
    a_fortnight(connection)
    before = books(connection)

    daily_report(connection, day=TODAY, days=30)

    assert books(connection) == before


def test_a_day_is_over_once_nobody_writes_into_it(engine: Engine) -> None:
    """The last day is yesterday, or the day before while a transaction still writes into yesterday."""
    with engine.connect() as reader, engine.connect() as writer:

        def last_day_beside(moment: datetime) -> date:
            write_into(writer, moment)
            found = last_day_over(reader, now=at(17, 0, 1))
            writer.rollback()
            return found

        before = last_day_over(reader, now=at(17, 0, 1))
        during = [last_day_beside(moment) for moment in (at(16), at(16, 23, 59), at(17))]
        after = last_day_over(reader, now=at(17, 23, 59))

    assert before == after == TODAY
    assert during == [date(2026, 3, 15), date(2026, 3, 15), TODAY]


@pytest.mark.parametrize("moment", [at(15, 23, 59), datetime(2024, 2, 29, 5, 30, tzinfo=UTC)])
def test_hour_in_progress_before_yesterday_is_an_error(engine: Engine, moment: datetime) -> None:
    """It is named, and no earlier day is reported instead of yesterday."""
    with engine.connect() as reader, engine.connect() as writer:
        write_into(writer, moment)

        with pytest.raises(HourInProgress) as refused:
            last_day_over(reader, now=at(17, 0, 1))

    assert refused.value.hour == moment.replace(minute=0)
