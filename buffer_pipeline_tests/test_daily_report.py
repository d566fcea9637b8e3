"""The daily report: its figures by hand, its curve against the holds, its pictures, its page, its command."""

import base64
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from stat import S_IMODE
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sqlalchemy import Connection, Engine, event, func, select, text

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.counts import count_hours
from buffer_pipeline.daily_report import LABELS, DailyReport, Figure, daily_report, last_day_over, render_page
from buffer_pipeline.daily_report.curve import amounts_in_buffer
from buffer_pipeline.daily_report.figures import read_aloud
from buffer_pipeline.database import fetch
from buffer_pipeline.errors import HourInProgress, PaymentBufferError
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.hours import HOUR
from buffer_pipeline.release import release_early, release_matured
from buffer_pipeline.tables import backjob, hold_freeze, hold_status
from buffer_pipeline_tests import test_cli
from buffer_pipeline_tests.builders import ADMIN, PAYEE, PAYER, books, place_hold, row_counts

run = test_cli.run
"""The fixture that runs the command line on fresh books."""

TODAY: Final = date(2026, 3, 16)
PNG_BYTES_MAX: Final = 60_000


def at(day: int, hour: int = 0, minute: int = 0) -> datetime:
    """Return a time in March 2026, the month of TODAY."""
    return datetime(2026, 3, day, hour, minute, tzinfo=UTC)


def release_at(connection: Connection, now: datetime) -> None:
    """Release all that is due, as the schedule does."""
    release_matured(connection, now=now, batch_limit=1000)


def a_fortnight(connection: Connection) -> None:
    """Books whose figures for TODAY and the fortnight before are worked out in the tests by hand."""
    place_hold(connection, amount="70.00", held_at=at(3, 10))
    place_hold(connection, amount="140.00", held_at=at(9, 8), payee="worker-18")
    place_hold(connection, amount="60.00", held_at=at(9, 9))
    place_hold(connection, amount="1000", currency="JPY", held_at=at(9, 9, 5))
    release_at(connection, at(10, 10, 30))  # The first, 30 minutes late.
    release_at(connection, at(16, 8, 10))  # The second, 10 minutes late.
    release_at(connection, at(16, 9, 40))  # The third and the fourth, 40 and 35 minutes late.
    place_hold(connection, amount="14.00", held_at=at(16, 11), payee="worker-18", state=HoldState.RELEASED)
    place_hold(connection, amount="10.00", held_at=at(16, 12), state=HoldState.FROZEN)
    place_hold(connection, amount="5.00", held_at=at(16, 13), job="job-9", state=HoldState.REFUNDED)


def figure(report: DailyReport, name: str, currency: str | None) -> tuple[Any, Any, Any]:
    """Return a figure's day, mean of the fortnight and period."""
    (found,) = [line for line in report.figures if (line.name, line.currency) == (name, currency)]
    return found.day, found.fortnight_mean, found.period


def amounts_by_state(connection: Connection) -> dict[tuple[str, str], int]:
    """Return what the unsettled holds hold, by currency and state."""
    rows = connection.execute(
        select(
            hold_status.c.currency,
            hold_status.c.state,
            func.sum(hold_status.c.amount_minor - hold_status.c.refunded_minor),
        )
        .where(hold_status.c.state.in_([HoldState.BUFFERED, HoldState.FROZEN]))
        .group_by(hold_status.c.currency, hold_status.c.state)
    )
    return {(row[0], row[1]): int(row[2]) for row in rows}


def amounts_at(curve: pd.DataFrame, moment: datetime) -> dict[tuple[str, str], int]:
    """Return what the curve has at a moment, as `amounts_by_state` does."""
    found: dict[tuple[str, str], int] = {}
    for row in curve[curve["moment"] == moment].to_dict("records"):
        found[row["currency"], "BUFFERED"] = row["buffered_minor"]
        found[row["currency"], "FROZEN"] = row["frozen_minor"]
    return {key: amount for key, amount in found.items() if amount}


def pixels(png: bytes) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Decode a PNG, whole."""
    with Image.open(BytesIO(png)) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def has_colour(png: bytes, colour: str) -> bool:
    """Return whether the picture has a colour such as #0072b2, but for what its palette rounds."""
    wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
    return bool((np.abs(pixels(png).astype(int) - wanted).sum(axis=2) < 12).any())


def test_a_day_stands_beside_the_fortnight_before(connection: Connection) -> None:
    """Each figure is the day's, with the mean of fourteen days in which empty ones count as zero."""
    a_fortnight(connection)

    report = daily_report(connection, day=TODAY, days=7)

    assert report.currencies == ("JPY", "PHP")
    assert [(name, *figure(report, name, "PHP")) for name in LABELS] == [
        ("holds_added", 3, Fraction(3, 14), 3),
        ("added_minor", 29_00, Fraction(270_00, 14), 29_00),
        ("holds_released", 3, Fraction(1, 14), 4),
        ("released_minor", 214_00, 5_00, 284_00),
        ("holds_released_early", 1, 0, 1),
        ("payees", 2, Fraction(1, 14), 2),
        ("lateness_median_seconds", 1500, 1800, 1800),
        ("lateness_max_seconds", 2400, 1800, 2400),
        ("refunds", 1, 0, 1),
        ("refunded_minor", 5_00, 0, 5_00),
        ("freezes_opened", 2, 0, 2),
        ("freezes_closed", 1, 0, 1),
        # 70.00 at the end of seven days, 200.00 at the end of seven others.
        ("buffered_minor", 0, 135_00, None),
        ("frozen_minor", 10_00, 0, None),
    ]


def test_over_all_currencies_there_are_people_and_times_but_no_amounts(connection: Connection) -> None:
    """A payee in two currencies is one payee, a median is over all releases, and PHP and JPY have no sum."""
    a_fortnight(connection)

    report = daily_report(connection, day=TODAY)

    assert figure(report, "payees", None) == (2, Fraction(1, 14), 2)
    assert figure(report, "lateness_median_seconds", None) == (2100, 1800, 1950)
    assert figure(report, "holds_released", None) == (4, Fraction(1, 14), 5)
    assert figure(report, "holds_added", None) == (3, Fraction(4, 14), 7)
    assert not [line.name for line in report.figures if line.currency is None and "_minor" in line.name]


def test_a_payee_of_two_hours_and_of_two_days_is_one(connection: Connection) -> None:
    """Payees are counted from the transactions of the whole day and period, not summed from the hours."""
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
    """Not the median of the hours' medians: an hour with three releases weighs three times as much."""
    for released_at, minutes in ((at(16, 9), (1, 2, 3)), (at(16, 12), (50,)), (at(16, 15), (60,))):
        for late in minutes:
            due = released_at - timedelta(minutes=late)
            place_hold(connection, held_at=due, release_date=due)
        release_at(connection, released_at)

    report = daily_report(connection, day=TODAY)

    # Of 1, 2, 3, 50 and 60 minutes; the hours' medians are 2, 50 and 60.
    assert figure(report, "lateness_median_seconds", "PHP") == (180, None, 180)


def test_counted_hours_and_uncounted_ones_report_the_same(engine: Engine) -> None:
    """Whether the hours' counts are stored or not changes no figure."""
    with engine.begin() as connection:
        a_fortnight(connection)
        uncounted = daily_report(connection, day=TODAY)
    count_hours(engine, start=at(9), end=at(16, 10), counted_by="a test")

    with engine.begin() as connection:
        counted = daily_report(connection, day=TODAY)

    assert counted.figures == uncounted.figures
    assert counted.days == uncounted.days


def test_a_late_writer_brings_a_currency_that_no_count_has(engine: Engine) -> None:
    """What is written into an hour behind its count is in the report, with a currency of its own."""
    with engine.begin() as connection:
        a_fortnight(connection)
    count_hours(engine, start=at(16, 14), end=at(16, 15), counted_by="a test")
    with engine.begin() as connection:
        # Held and released between two full hours, so that the curve does not have it either.
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


def test_figures_read_as_people_write_them(connection: Connection) -> None:
    """Thousands are apart, each currency has its places, and a change from nothing has no per cent."""
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
    """Less than nothing reads so, be it less than one whole unit."""
    assert read_aloud("buffered_minor", amount_minor, places) == aloud


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
    """A change is exact to a tenth of a per cent, and there is none from nothing or from zero."""
    line = Figure(name="holds_added", currency="PHP", places=2, day=day, fortnight_mean=mean, period=None)

    assert line.change_percent == change


def test_one_currency_needs_no_lines_over_all_of_them(connection: Connection) -> None:
    """The table of a single currency says nothing twice; the figures for programs keep their shape."""
    place_hold(connection, held_at=at(16, 9))

    report = daily_report(connection, day=TODAY)

    assert {row["currency"] for row in report.table} == {"PHP"}
    assert {line.currency for line in report.figures} == {"PHP", None}


def test_empty_books_have_a_report(connection: Connection) -> None:
    """Nothing held, nothing released: zeros, no currency, and pictures that say so."""
    report = daily_report(connection, day=TODAY)

    assert report.books_begin is None
    assert report.currencies == ()
    assert figure(report, "holds_released", None) == (0, 0, 0)
    assert figure(report, "lateness_median_seconds", None) == (None, None, None)
    assert len(report.days) == 15
    for png in report.plots.values():
        assert pixels(png).shape == (320, 900, 3)
        assert not has_colour(png, "#0072b2")
    assert "The books are empty." in render_page(report, made_at=at(17))


def test_a_report_reads_only(connection: Connection) -> None:
    """A report leaves every row of every table as it was."""
    a_fortnight(connection)
    before = books(connection)

    daily_report(connection, day=TODAY, days=30)

    assert books(connection) == before


def test_the_curve_is_what_the_holds_were_at_each_hour(connection: Connection) -> None:
    """Derived back from now, the amounts by state are what the holds said when it was that hour."""
    chance = random.Random(20)
    seen: dict[datetime, dict[tuple[str, str], int]] = {}
    verbs: set[str] = set()
    for hour in range(96):
        now = at(2) + hour * HOUR
        seen[now] = amounts_by_state(connection)
        # The full hour itself is among the times: what happens then belongs to the hour that begins.
        for minute in sorted(chance.sample((0, 0, 7, 21, 21, 43, 59), 3)):
            verbs.add(something_happens(connection, chance, now=now + timedelta(minutes=minute)))
    # There is a past before the curve begins, and a present behind its end.
    start, end = at(3), at(5, 18)

    curve = amounts_in_buffer(connection, start=start, end=end)

    moments = [moment for moment in seen if start <= moment <= end]
    assert {moment: amounts_at(curve, moment) for moment in moments} == {
        moment: seen[moment] for moment in moments
    }
    assert set(curve["currency"]) == {"JPY", "PHP"}
    assert verbs >= {
        "add",
        "freeze",
        "unfreeze",
        "request",
        "reject",
        "withdraw",
        "approve",
        "approve a part",
    }
    assert verbs >= {"release", "release early"}


def something_happens(connection: Connection, chance: random.Random, *, now: datetime) -> str:
    """Run one verb, whichever chance picks, and return what it was; "nothing" when it was refused."""

    def one_of(query: Any) -> Any:
        return chance.choice(list(connection.scalars(query)) or [0])

    def add() -> None:
        job, currency = f"job-{chance.randint(1, 40)}", chance.choice(("PHP", "PHP", "JPY"))
        place_hold(
            connection,
            job=f"{job}-{currency}",
            amount=str(chance.randint(1, 5000)),
            currency=currency,
            held_at=now,
            release_date=now + timedelta(hours=chance.randint(6, 60)),
        )

    a_hold = (
        select(hold_status.c.hold_id)
        .where(hold_status.c.state.in_(["BUFFERED", "FROZEN"]))
        .order_by(hold_status.c.hold_id)
    )
    a_job = (
        select(hold_status.c.job)
        .where(hold_status.c.state.in_(["BUFFERED", "FROZEN"]))
        .order_by(hold_status.c.hold_id)
    )
    a_freeze = select(hold_freeze.c.freeze_id).where(hold_freeze.c.closed_at.is_(None)).order_by("freeze_id")
    a_backjob = select(backjob.c.backjob_id).where(backjob.c.state == "OPEN").order_by("backjob_id")
    why: dict[str, Any] = {"by": ADMIN, "reason": "a test", "now": now}
    verbs: dict[str, tuple[int, Callable[[], object]]] = {
        "add": (6, add),
        "freeze": (
            4,
            lambda: freeze_hold(connection, hold_id=one_of(a_hold), kind=FreezeKind.RISK, **why),
        ),
        "unfreeze": (4, lambda: unfreeze_hold(connection, freeze_id=one_of(a_freeze), **why)),
        "request": (5, lambda: request_backjob(connection, job=str(one_of(a_job)), **why)),
        "reject": (1, lambda: reject_backjob(connection, backjob_id=one_of(a_backjob), **why)),
        "withdraw": (1, lambda: withdraw_backjob(connection, backjob_id=one_of(a_backjob), **why)),
        "approve": (1, lambda: approve_backjob(connection, backjob_id=one_of(a_backjob), **why)),
        "approve a part": (
            3,
            lambda: approve_backjob(connection, backjob_id=one_of(a_backjob), amount=7, **why),
        ),
        "release": (2, lambda: release_at(connection, now)),
        "release early": (1, lambda: release_early(connection, hold_id=one_of(a_hold), as_admin=True, **why)),
    }
    (verb,) = chance.choices(list(verbs), [weight for weight, _ in verbs.values()])
    try:
        verbs[verb][1]()
    except PaymentBufferError:
        return "nothing"
    return verb


def test_a_freeze_that_follows_a_part_refund_at_once_freezes_the_rest(connection: Connection) -> None:
    """A refund that ends one freeze is not frozen by the next, even when both are of one moment."""
    hold_id = place_hold(connection, amount="100.00", held_at=at(2, 9))
    requested = request_backjob(connection, job="job-8", by=PAYER, reason="not as agreed", now=at(2, 10, 30))
    approve_backjob(
        connection,
        backjob_id=requested.backjob_id,
        by=ADMIN,
        reason="in part",
        now=at(2, 12, 30),
        amount="30.00",
    )
    freeze_hold(
        connection, hold_id=hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=at(2, 12, 30)
    )

    curve = amounts_in_buffer(connection, start=at(2, 10), end=at(2, 14))

    assert curve["frozen_minor"].tolist() == [0, 100_00, 100_00, 70_00, 70_00]
    assert curve["buffered_minor"].tolist() == [100_00, 0, 0, 0, 0]


def test_freezes_that_overlap_freeze_the_amount_once(connection: Connection) -> None:
    """Two freezes on one hold are its amount once, until the last of them is closed."""
    hold_id = place_hold(connection, amount="100.00", held_at=at(2, 9))
    freezes = [
        freeze_hold(connection, hold_id=hold_id, kind=kind, by=ADMIN, reason="a look", now=now).freeze_id
        for kind, now in ((FreezeKind.RISK, at(2, 10, 30)), (FreezeKind.ADMIN, at(2, 11, 30)))
    ]
    for freeze_id, now in zip(freezes, (at(2, 12, 30), at(2, 13, 30)), strict=True):
        unfreeze_hold(connection, freeze_id=freeze_id, by=ADMIN, reason="all well", now=now)

    curve = amounts_in_buffer(connection, start=at(2, 10), end=at(2, 14))

    assert curve["frozen_minor"].tolist() == [0, 100_00, 100_00, 100_00, 0]


def test_a_freeze_ends_with_its_hold(connection: Connection) -> None:
    """A hold that is settled before a clock ahead closed its freeze is in the buffer no longer."""
    hold_id = place_hold(connection, amount="100.00", held_at=at(2, 9), release_date=at(2, 11, 45))
    opened = freeze_hold(
        connection, hold_id=hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=at(2, 10, 30)
    )
    unfreeze_hold(connection, freeze_id=opened.freeze_id, by=ADMIN, reason="all well", now=at(2, 13, 30))
    release_at(connection, at(2, 11, 45))

    whole = amounts_in_buffer(connection, start=at(2, 10), end=at(2, 14))
    behind = amounts_in_buffer(connection, start=at(2, 12), end=at(2, 14))

    assert whole["frozen_minor"].tolist() == [0, 100_00, 0, 0, 0]
    assert whole["buffered_minor"].tolist() == [100_00, 0, 0, 0, 0]
    assert behind.empty


def test_what_happens_at_a_full_hour_belongs_to_the_hour_that_begins(connection: Connection) -> None:
    """At an hour stands what was recorded before it, wherever the curve begins."""
    hold_id = place_hold(connection, amount="100.00", held_at=at(2, 9))
    opened = freeze_hold(
        connection, hold_id=hold_id, kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=at(2, 10)
    )
    unfreeze_hold(connection, freeze_id=opened.freeze_id, by=ADMIN, reason="all well", now=at(2, 12))

    whole = amounts_in_buffer(connection, start=at(2, 9), end=at(2, 13))
    late = amounts_in_buffer(connection, start=at(2, 12), end=at(2, 13))

    assert whole["frozen_minor"].tolist() == [0, 0, 100_00, 100_00, 0]
    assert whole["buffered_minor"].tolist() == [0, 100_00, 0, 0, 100_00]
    assert late["frozen_minor"].tolist() == [100_00, 0]


def test_a_backjob_that_came_over_freezes_no_more_than_there_is(connection: Connection) -> None:
    """An imported backjob is older than its hold is in these books; nothing is frozen before it is held."""
    hold_id = place_hold(connection, amount="100.00", held_at=at(2, 9))
    fetch(
        connection,
        "open_backjob",
        reference="legacy-dispute-1",
        job="job-8",
        requested_by=PAYER,
        reason="not as agreed",
        requested_at=at(1, 9),
        hold_ids=[hold_id],
        now=at(2, 9),
        notify=False,
    )

    curve = amounts_in_buffer(connection, start=at(2, 8), end=at(2, 11))

    assert curve["frozen_minor"].tolist() == [0, 0, 100_00, 100_00]
    assert curve["buffered_minor"].tolist() == [0, 0, 0, 0]


def write_into(connection: Connection, moment: datetime) -> None:
    """Mark the hour of a time as being written until the connection's transaction ends."""
    connection.execute(text("SELECT buffer.enter_hour(:moment)"), {"moment": moment})


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
def test_a_writer_into_the_past_does_not_choose_the_day(engine: Engine, moment: datetime) -> None:
    """An hour in progress before yesterday is named; no earlier day is reported in yesterday's place."""
    with engine.connect() as reader, engine.connect() as writer:
        write_into(writer, moment)

        with pytest.raises(HourInProgress) as refused:
            last_day_over(reader, now=at(17, 0, 1))

    assert refused.value.hour == moment.replace(minute=0)


def test_pictures_decode_and_show_what_there_is(connection: Connection) -> None:
    """Three small PNGs with a panel a currency, blue for BUFFERED and amber for FROZEN."""
    a_fortnight(connection)
    place_hold(connection, amount="500.00", held_at=at(15, 9))

    plots = daily_report(connection, day=TODAY).plots

    assert list(plots) == ["released", "in_buffer", "lateness"]
    assert [pixels(png).shape for png in plots.values()] == [(510, 900, 3), (510, 900, 3), (320, 900, 3)]
    assert max(map(len, plots.values())) < PNG_BYTES_MAX
    assert has_colour(plots["released"], "#0072b2")
    assert has_colour(plots["in_buffer"], "#0072b2")
    assert has_colour(plots["in_buffer"], "#e69f00")
    assert has_colour(plots["lateness"], "#0072b2")
    assert has_colour(plots["lateness"], "#e69f00")


@pytest.mark.parametrize("days", [1, 366])
def test_pictures_of_any_period_stay_small(connection: Connection, days: int) -> None:
    """From a day to a year, and with more currencies than have room."""
    for currency in ("EUR", "GBP", "JPY", "PHP", "SGD", "USD"):
        for day in range(1, 17):
            place_hold(
                connection, amount="90", currency=currency, held_at=at(day), release_date=at(day, day, 30)
            )
            release_at(connection, at(day, day, 30 + day))

    plots = daily_report(connection, day=TODAY, days=days).plots

    assert [pixels(png).shape for png in plots.values()] == [(890, 900, 3), (890, 900, 3), (320, 900, 3)]
    assert max(map(len, plots.values())) < PNG_BYTES_MAX


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.alts: list[str] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.alts += [value or "" for name, value in attrs if name == "alt"]

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


def test_the_page_is_one_file_that_needs_nothing(connection: Connection) -> None:
    """The pictures are inside with words for those who do not see them; nothing is loaded from elsewhere."""
    a_fortnight(connection)
    report = daily_report(connection, day=TODAY)

    rendered = render_page(report, made_at=at(17, 6, 30))

    page = Page(rendered)
    assert [base64.b64decode(link.removeprefix("data:image/png;base64,")) for link in page.links] == list(
        report.plots.values()
    )
    assert page.alts == list(report.plot_titles.values())
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert not re.search(r"url\(|@import", rendered)
    assert "Covers 2026-03-02 00:00 UTC to 2026-03-17 00:00 UTC. Made at 2026-03-17 06:30 UTC." in rendered
    for cell in ("214.00", "5.00", "+4,180.0 %", "284.00", "1,000", "0:25:00"):
        assert cell in page.texts


def test_the_page_escapes_what_it_shows(connection: Connection) -> None:
    """Text from the books is text on the page, whatever it looks like."""
    hostile = '<script>alert("1")</script>'
    report = replace(
        daily_report(connection, day=TODAY),
        figures=(Figure(name="refunds", currency=hostile, places=2, day=1, fortnight_mean=None, period=1),),
    )

    page = Page(render_page(report, made_at=at(17)))

    assert "script" not in page.tags
    assert hostile in page.texts


def fill_yesterday(engine: Engine) -> date:
    """Hold and release in two currencies on the day before today; return that day."""
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    noon = datetime(yesterday.year, yesterday.month, yesterday.day, 12, tzinfo=UTC)
    with engine.begin() as connection:
        for amount, currency in (("1250.50", "PHP"), ("30000", "JPY"), ("0.05", "PHP")):
            place_hold(connection, amount=amount, currency=currency, held_at=noon, release_date=noon)
        release_at(connection, noon + timedelta(minutes=5))
        # Today does not count: it is not over.
        place_hold(connection, amount="7.00", held_at=noon + timedelta(days=1))
    return yesterday


def test_report_prints_a_table(run: test_cli.Run, engine: Engine) -> None:
    """People get a line a figure, with the day, the mean, the change and the period."""
    yesterday = fill_yesterday(engine)

    result = run("report", "--days", "3")

    assert result.code == 0
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    first_day = yesterday - timedelta(days=2)
    assert (
        lines[0]
        == f"{yesterday} against the 14 days before it; the period is {first_day} to {yesterday} (UTC)."
    )
    assert lines[1] == "currency figure day fortnight mean change period"
    assert "PHP amount released 1,250.55 0.00 – 1,250.55" in lines
    assert "JPY amount released 30,000 0 – 30,000" in lines
    assert "all currencies holds released 3 0.0 – 3" in lines


def test_report_has_exact_amounts_for_programs(run: test_cli.Run, engine: Engine) -> None:
    """Amounts are text with the currency's places, counts and seconds numbers, and nothing is written."""
    yesterday = fill_yesterday(engine)
    with engine.connect() as connection:
        before = row_counts(connection)

    document = run("report", "--json").json

    assert document["day"] == yesterday.isoformat()
    assert document["first_day"] == (yesterday - timedelta(days=29)).isoformat()
    assert document["html"] is None
    by_name = {(line["currency"], line["figure"]): line for line in document["figures"]}
    assert by_name["PHP", "released"] == {
        "currency": "PHP",
        "figure": "released",
        "day": "1250.55",
        "fortnight_mean": "0.00",
        "change_percent": None,
        "period": "1250.55",
    }
    assert by_name["JPY", "released"]["day"] == "30000"
    assert by_name[None, "lateness_median_seconds"]["day"] == 300.0
    assert by_name[None, "payees"]["day"] == 1
    assert (None, "released") not in by_name
    assert len(document["days"]) == 30 * 3
    (day,) = [row for row in document["days"] if (row["day"], row["currency"]) == (str(yesterday), "PHP")]
    assert day["released"] == "1250.55"
    assert day["buffered"] == "0.00"
    with engine.connect() as connection:
        assert row_counts(connection) == before


def test_report_says_when_its_day_is_not_yesterday(run: test_cli.Run, engine: Engine) -> None:
    """While a transaction writes into yesterday the day before is reported, and a remark says why."""
    yesterday = fill_yesterday(engine)
    with engine.connect() as writer:
        write_into(writer, datetime(yesterday.year, yesterday.month, yesterday.day, 23, tzinfo=UTC))

        table = run("report", "--days", "3")
        document = run("report", "--days", "3", "--json")

    remark = f"yesterday is not complete: a transaction still writes into {yesterday}"
    assert (table.code, document.code) == (0, 0)
    assert table.out.splitlines()[0] == remark
    assert table.out.splitlines()[1].startswith(f"{yesterday - timedelta(days=1)} against")
    assert document.json["day"] == (yesterday - timedelta(days=1)).isoformat()
    assert document.err == remark + "\n"
    assert run("report", "--json").err == ""


def test_report_refuses_while_the_past_is_written(run: test_cli.Run, engine: Engine, tmp_path: Path) -> None:
    """A transaction that writes into a day before yesterday is named, and nothing is reported."""
    fill_yesterday(engine)
    file = tmp_path / "report.html"
    with engine.connect() as writer:
        write_into(writer, datetime(2024, 2, 29, 5, 30, tzinfo=UTC))

        result = run("report", "--html", str(file))

    assert (result.code, result.out) == (1, "")
    assert result.err == f"{HourInProgress(datetime(2024, 2, 29, 5, tzinfo=UTC))}\n"
    assert not file.exists()


def test_a_report_is_of_one_moment(run: test_cli.Run, engine: Engine) -> None:
    """What is committed between two of its statements is in all of its figures or in none."""
    yesterday = fill_yesterday(engine)
    noon = datetime(yesterday.year, yesterday.month, yesterday.day, 12, tzinfo=UTC)
    payees: list[str] = []

    def pay_somebody(connection: Connection, *_: Any) -> None:
        if connection.engine is not engine:
            payees.append(f"late-{len(payees)}")
            with engine.begin() as writer:
                place_hold(writer, payee=payees[-1], currency="SGD", held_at=noon, state=HoldState.RELEASED)

    event.listen(Engine, "before_cursor_execute", pay_somebody)
    try:
        document = run("report", "--json").json
    finally:
        event.remove(Engine, "before_cursor_execute", pay_somebody)

    day = {line["figure"]: line["day"] for line in document["figures"] if line["currency"] == "SGD"}
    assert day["holds_added"] == day["holds_released"] == day["holds_released_early"] == day["payees"]
    assert day["added"] == day["released"]
    assert day["buffered"] == "0.00"
    assert 0 < day["payees"] < len(payees), "nobody was paid between two statements"


def test_report_writes_a_page(run: test_cli.Run, engine: Engine, tmp_path: Path) -> None:
    """The file is whole or not there: what stood before is replaced, and nothing is left beside it."""
    yesterday = fill_yesterday(engine)
    file, link = tmp_path / "report.html", tmp_path / "latest.html"
    file.write_text("yesterday's")
    link.symlink_to(file)

    result = run("report", "--days", "2", "--html", str(link), "--json")

    assert result.code == 0
    assert result.json["html"] == str(link)
    assert link.is_symlink()
    assert (
        f"<title>Payment buffer, {yesterday - timedelta(days=1)} to {yesterday}</title>" in file.read_text()
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest.html", "report.html"]


def test_a_page_is_no_more_open_than_its_place(run: test_cli.Run, tmp_path: Path) -> None:
    """A file keeps the permissions that it has; a new one gets those of any new file."""
    private, shared, new = (tmp_path / name for name in ("private.html", "shared.html", "new.html"))
    for file, mode in ((private, 0o600), (shared, 0o664)):
        file.touch()
        file.chmod(mode)

    umask = os.umask(0o027)
    try:
        codes = [run("report", "--html", str(file)).code for file in (private, shared, new)]
    finally:
        restored = os.umask(umask)

    assert codes == [0, 0, 0]
    assert [S_IMODE(file.stat().st_mode) for file in (private, shared, new)] == [0o600, 0o664, 0o640]
    assert restored == 0o027
    assert all("</html>" in file.read_text() for file in (private, shared, new))


def test_report_refuses_a_place_that_it_cannot_write_to(run: test_cli.Run, tmp_path: Path) -> None:
    """A folder that is not there is named, and neither a folder nor a device is replaced by a file."""
    absent = tmp_path / "absent" / "report.html"

    results = [run("report", "--html", str(place)) for place in (absent, tmp_path, "/dev/null", "x" * 300)]

    assert [result.code for result in results] == [1, 1, 1, 1]
    assert results[0].err == f"--html {absent}: the folder {absent.parent} does not exist; make it first\n"
    assert (
        results[1].err == f"--html {tmp_path}: stands there and is no file; name one, such as report.html\n"
    )
    assert results[2].err == "--html /dev/null: stands there and is no file; name one, such as report.html\n"
    assert results[3].err == f"--html {'x' * 300}: File name too long\n"
    assert Path("/dev/null").is_char_device()


def test_report_days_have_bounds(run: test_cli.Run) -> None:
    """From a day to a leap year; what lies outside is wrong usage, not a shorter report."""
    codes = {days: run("report", "--days", days, "--json").code for days in ("0", "1", "366", "367", "-1")}

    assert codes == {"0": 2, "1": 0, "366": 0, "367": 2, "-1": 2}


def test_the_command_line_loads_no_frames_until_it_reports() -> None:
    """Every other command starts without pandas, matplotlib and Jinja2."""
    heavy = ("pandas", "matplotlib", "jinja2")
    code = f"import sys, buffer_pipeline.cli.app; print([name for name in {heavy} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
