"""Rule 1: invalid earnings are refused by name."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Connection

from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.inputs import EARLIEST, LATEST
from buffer_pipeline_tests.support.builders import NOON, PAYER, books, hold_row
from buffer_pipeline_tests.support.earnings import add


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amount": "-1"}, "above zero"),
        ({"amount": "0"}, "above zero"),
        ({"amount": "10.005"}, "PHP has 2 places"),
        ({"amount": "10.5", "currency": "JPY"}, "JPY has 0 places"),
        ({"amount": "1.0005", "currency": "KWD"}, "KWD has 3 places"),
        ({"amount": "10000000000000.01"}, "too large"),
        ({"amount": "ten"}, "not a plain decimal number"),
        ({"amount": 10.5}, "never a float"),
        ({"amount": Decimal("NaN")}, "not a plain decimal number"),
        ({"currency": "QQQ"}, "not an ISO 4217 code"),
        ({"currency": ""}, "not an ISO 4217 code"),
        ({"payee": ""}, "payee: must not be empty"),
        ({"payer": "x" * 201}, "payer: 201 characters long"),
        ({"payee": "worker\x0017"}, "payee .* control character"),
        ({"job": " job-8"}, "job ' job-8': starts or ends with a space"),
        ({"reference": ""}, "reference: must not be empty"),
        ({"reference": "x" * 201}, "reference: 201 characters long"),
        ({"reference": "a\nb"}, "reference .* control character"),
        ({"title": "x" * 501}, "title: 501 characters long; at most 500"),
        ({"payee": PAYER}, "payer 'client-3': is the payee too"),
        ({"now": datetime(2026, 3, 2)}, "now .* no time zone"),  # noqa: DTZ001
        ({"held_at": datetime(2026, 3, 2)}, "held_at .* no time zone"),  # noqa: DTZ001
        ({"release_date": datetime(2026, 3, 9)}, "release_date .* no time zone"),  # noqa: DTZ001
        ({"release_date": NOON - timedelta(seconds=1)}, "before held_at"),
        ({"held_at": datetime(9999, 12, 30, tzinfo=UTC)}, "held_at .* outside the years"),
        ({"now": datetime(9999, 12, 31, tzinfo=UTC)}, "now .* outside the years"),
        pytest.param({"amount": 10**5_000}, "amount: an int of more than 30 digits", id="an int"),
        ({"amount": "9" * 5_000}, "not a plain decimal number"),
        ({"amount": Decimal(10**5_000)}, "not a plain decimal number"),
    ],
)
def test_bad_input_is_refused_and_nothing_is_written(
    connection: Connection, change: dict[str, Any], message: str
) -> None:
    """No wallet and no hold."""
    before = books(connection)

    with pytest.raises(InvalidInput, match=message):
        add(connection, **change)

    assert books(connection) == before


@pytest.mark.parametrize(
    ("dates", "message"),
    [
        ({"held_at": EARLIEST - timedelta(seconds=1)}, "held_at 1969-12-31T23:59:59+00:00"),
        ({"held_at": LATEST}, "held_at 3000-01-01T00:00:00+00:00"),
        ({"held_at": EARLIEST, "release_date": LATEST}, "release_date 3000-01-01T00:00:00+00:00"),
        ({"held_at": LATEST - timedelta(days=7)}, "release_date 3000-01-01T00:00:00+00:00"),
    ],
)
def test_date_out_of_range_is_refused(
    connection: Connection, dates: dict[str, datetime], message: str
) -> None:
    """The first moment outside the range is refused with the allowed years."""
    with pytest.raises(InvalidInput) as refusal:
        add(connection, **dates)

    assert str(refusal.value) == f"{message}: lies outside the years 1970 to 2999"


def test_date_at_either_end_is_held(connection: Connection) -> None:
    """The first and the last allowed moment."""
    last = LATEST - timedelta(microseconds=1)

    added = add(connection, held_at=EARLIEST, release_date=last)

    assert hold_row(connection, added.hold_id)["held_at"] == EARLIEST
    assert added.release_date == last


@pytest.mark.parametrize("name", ["held_at", "release_date"])
def test_date_that_has_no_utc_is_refused(connection: Connection, name: str) -> None:
    """A date outside the calendar in UTC is refused by its name."""
    off_the_calendar = datetime.max.replace(tzinfo=timezone(timedelta(hours=-5)))

    with pytest.raises(InvalidInput, match=f"^{name}"):
        add(connection, **{name: off_the_calendar})
