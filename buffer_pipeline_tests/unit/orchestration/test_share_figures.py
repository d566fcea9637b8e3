"""Fees, taxes and reserves in Dagster: of a run, of an hour, and the outstanding reserve of a day."""

from datetime import datetime, timedelta
from typing import Any, Final

import dagster as dg
import pytest
from sqlalchemy import Engine

from buffer_pipeline.hours import HOUR
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.orchestration.report_assets import RANGE_END_TAG, RANGE_START_TAG
from buffer_pipeline_tests.support.builders import WITH_A_FEE, place_hold
from buffer_pipeline_tests.support.hour_counts import release_due
from buffer_pipeline_tests.support.report_runs import COUNTS, REPORT, count, figures, key_of
from buffer_pipeline_tests.support.runs import outcomes, release, reported

OF_SHARES: Final = ("released_fee", "released_tax", "released_reserve", "reserve_outstanding", "shares")


def of_shares(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of fees, taxes and reserves in metadata."""
    return {name: value for name, value in metadata.items() if name.startswith(OF_SHARES)}


@pytest.mark.usefixtures("environment")
def test_a_run_has_its_commission(engine: Engine, instance: dg.DagsterInstance, this_hour: datetime) -> None:
    """By currency and exact. Zero in a later run, once an hour with a fee is counted."""
    held_at = this_hour - timedelta(days=8)
    with engine.begin() as connection:
        place_hold(connection, shares=WITH_A_FEE, held_at=held_at)
        place_hold(connection, shares=WITH_A_FEE, held_at=held_at, currency="JPY", amount="5000")
        place_hold(connection, shares=WITH_A_FEE, held_at=held_at - timedelta(days=1), job="job-9")
        release_due(connection, now=this_hour - timedelta(days=2))
    count(instance, this_hour - timedelta(days=2), this_hour - HOUR)

    first, second = release(instance), release(instance)

    assert of_shares(reported(first, "release_counts")) == {
        "released_fee": "600 JPY, 120.00 PHP",
        "released_fee_JPY": 600.0,
        "released_fee_PHP": 120.0,
    }
    assert reported(first, "release_counts")["amount_PHP"] == 900.0
    assert of_shares(reported(first, "released_transactions")) == {}
    assert of_shares(reported(second, "release_counts")) == {"released_fee": "none", "released_fee_PHP": 0.0}


@pytest.mark.usefixtures("environment")
def test_an_hour_has_its_commission(
    engine: Engine, instance: dg.DagsterInstance, this_hour: datetime
) -> None:
    """In its figures and its table, and zero in a quiet hour, so that plots have no gap."""
    busy, quiet = this_hour - 3 * HOUR, this_hour - 2 * HOUR
    with engine.begin() as connection:
        place_hold(connection, shares=WITH_A_FEE, held_at=busy - timedelta(days=8))
        release_due(connection, now=busy)

    result = count(instance, busy, quiet)

    counted = figures(result, COUNTS)
    assert outcomes(result) == {"counts_equal_transactions": True}
    assert of_shares(counted[key_of(busy)]) == {"released_fee": "120.00 PHP", "released_fee_PHP": 120.0}
    assert of_shares(counted[key_of(quiet)]) == {"released_fee": "none", "released_fee_PHP": 0.0}
    (row,) = [dict(record.data) for record in counted[key_of(busy)]["counts"].records]
    assert (row["released"], row["released_fee"], row["released_tax"]) == ("900.00", "120.00", "0.00")


@pytest.mark.usefixtures("environment")
def test_a_day_has_the_reserve_outstanding(
    engine: Engine, instance: dg.DagsterInstance, this_hour: datetime
) -> None:
    """The sum of the payees' reserves at the end of the day, exact and for plots."""
    day = this_hour.replace(hour=0) - timedelta(days=2)
    with engine.begin() as connection:
        place_hold(connection, shares=WITH_A_FEE, held_at=day + HOUR)
        place_hold(connection, shares=WITH_A_FEE, held_at=day + HOUR, currency="JPY", amount="5000")
        place_hold(connection, shares=WITH_A_FEE, held_at=day + timedelta(days=1), job="job-9")

    shown = report_of(instance, day)

    assert {name: value for name, value in shown.items() if name.startswith("reserve")} == {
        "reserve_outstanding": "500 JPY, 100.00 PHP",
        "reserve_outstanding_JPY": 500.0,
        "reserve_outstanding_PHP": 100.0,
    }


@pytest.mark.usefixtures("environment")
def test_books_without_shares_have_no_such_figures(
    engine: Engine, instance: dg.DagsterInstance, this_hour: datetime
) -> None:
    """Neither a run nor an hour nor a day has them, and no table has an empty column."""
    hour = this_hour - timedelta(days=1)
    with engine.begin() as connection:
        place_hold(connection, held_at=hour - timedelta(days=8))
        place_hold(connection, held_at=hour - timedelta(days=7, hours=-2))
        release_due(connection, now=hour)
    run = release(instance)

    counted = figures(count(instance, hour, hour), COUNTS)[key_of(hour)]
    shown = report_of(instance, hour.replace(hour=0))

    assert (reported(run, "release_counts")["holds_released"], counted["holds_released"]) == (1, 1)
    for metadata in (reported(run, "release_counts"), counted, shown):
        assert of_shares(metadata) == {}
    (row,) = [dict(record.data) for record in counted["counts"].records]
    assert of_shares(row) == {}


def report_of(instance: dg.DagsterInstance, day: datetime) -> dict[str, Any]:
    """Return the metadata of a day's report."""
    key = f"{day:%Y-%m-%d}"
    result = defs.resolve_job_def("report_days").execute_in_process(
        instance=instance, tags={RANGE_START_TAG: key, RANGE_END_TAG: key}
    )
    return figures(result, REPORT)[key]
