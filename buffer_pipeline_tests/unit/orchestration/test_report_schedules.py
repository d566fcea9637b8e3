"""The schedules of the hourly counts and daily reports."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine

from buffer_pipeline.hours import HOUR
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.orchestration.lineage import DEBTS
from buffer_pipeline.orchestration.report_assets import HOURS_PER_RUN_MAX, RANGE_END_TAG, RANGE_START_TAG
from buffer_pipeline.orchestration.resources import RESOURCES
from buffer_pipeline.reports.hourly_counts import count_hours
from buffer_pipeline_tests.support.builders import place_hold
from buffer_pipeline_tests.support.report_runs import COUNTS, REPORT, figures, key_of

# ---- the schedule of the hours


@pytest.fixture
def tick(lasting_instance: dg.DagsterInstance) -> Callable[[str], Any]:
    """Evaluates a schedule as the daemon does."""

    def evaluate(name: str) -> Any:
        with dg.build_schedule_context(
            instance=lasting_instance,
            scheduled_execution_time=datetime.now(UTC),
            repository_def=defs.get_repository_def(),
            resources=RESOURCES,
        ) as context:
            return defs.resolve_schedule_def(name).evaluate_tick(context)

    return evaluate


def asked_for(outcome: Any) -> tuple[str, str]:
    """Return the first and last partition of the only run that a tick requests."""
    (request,) = outcome.run_requests
    return request.tags[RANGE_START_TAG], request.tags[RANGE_END_TAG]


@pytest.mark.usefixtures("environment")
def test_an_outage_leaves_no_gap(engine: Engine, tick: Callable[[str], Any], this_hour: datetime) -> None:
    """The tick requests everything from the earliest missing hour to the last full one, in one run."""
    with engine.begin() as connection:
        place_hold(connection, held_at=this_hour - 10 * HOUR)
    count_hours(engine, start=this_hour - 10 * HOUR, end=this_hour - 6 * HOUR, counted_by="test")
    count_hours(engine, start=this_hour - 3 * HOUR, end=this_hour - 2 * HOUR, counted_by="test")

    outcome = tick("hourly_counts")

    assert asked_for(outcome) == (key_of(this_hour - 6 * HOUR), key_of(this_hour - HOUR))


@pytest.mark.usefixtures("environment")
def test_run_counts_what_the_tick_requested(
    engine: Engine, lasting_instance: dg.DagsterInstance, tick: Callable[[str], Any], this_hour: datetime
) -> None:
    """The next tick finds every hour counted."""
    with engine.begin() as connection:
        place_hold(connection, held_at=this_hour - 5 * HOUR)
    outcome = tick("hourly_counts")

    result = defs.resolve_job_def("count_hours").execute_in_process(
        instance=lasting_instance, tags=outcome.run_requests[0].tags
    )

    assert len(figures(result, COUNTS)) == 5
    assert "is counted" in tick("hourly_counts").skip_message


@pytest.mark.usefixtures("environment")
def test_empty_books_have_no_hour(tick: Callable[[str], Any]) -> None:
    """Hours before the first payment are not requested."""
    outcome = tick("hourly_counts")

    assert not outcome.run_requests
    assert "the books are empty" in outcome.skip_message


@pytest.mark.usefixtures("environment")
def test_a_long_gap_is_closed_by_several_ticks(
    engine: Engine, tick: Callable[[str], Any], this_hour: datetime
) -> None:
    """One run takes a month of hours, and the next tick continues."""
    begin = this_hour - 800 * HOUR
    with engine.begin() as connection:
        place_hold(connection, held_at=begin)

    first = asked_for(tick("hourly_counts"))
    count_hours(engine, start=begin, end=begin + HOURS_PER_RUN_MAX * HOUR, counted_by="test")
    second = asked_for(tick("hourly_counts"))

    assert first == (key_of(begin), key_of(begin + 719 * HOUR))
    assert second == (key_of(begin + 720 * HOUR), key_of(this_hour - HOUR))


@pytest.mark.usefixtures("environment")
def test_an_hour_in_progress_is_left_to_the_next_tick(
    engine: Engine, tick: Callable[[str], Any], this_hour: datetime
) -> None:
    """The tick requests the hours before it. If there are none, it skips and names the hour."""
    with engine.begin() as connection:
        place_hold(connection, held_at=this_hour - 4 * HOUR)
    with engine.connect() as writer, writer.begin():
        place_hold(writer, held_at=this_hour - 2 * HOUR, job="job-9", payee="worker-2", payer="client-2")
        before = asked_for(tick("hourly_counts"))
        count_hours(engine, start=this_hour - 4 * HOUR, end=this_hour - 2 * HOUR, counted_by="test")

        outcome = tick("hourly_counts")

    assert before == (key_of(this_hour - 4 * HOUR), key_of(this_hour - 3 * HOUR))
    assert not outcome.run_requests
    assert f"hour {this_hour - 2 * HOUR:%Y-%m-%dT%H:%MZ}: an open transaction" in outcome.skip_message


@pytest.mark.usefixtures("environment")
def test_tick_skips_while_a_count_is_running(
    engine: Engine, lasting_instance: dg.DagsterInstance, tick: Callable[[str], Any], this_hour: datetime
) -> None:
    """Queued or in progress; the tick names it."""
    with engine.begin() as connection:
        place_hold(connection, held_at=this_hour - 4 * HOUR)
    run = lasting_instance.create_run_for_job(
        defs.resolve_job_def("count_hours"), status=dg.DagsterRunStatus.STARTED
    )

    outcome = tick("hourly_counts")

    assert not outcome.run_requests
    assert outcome.skip_message == f"run {run.run_id} is counting hours already"


# ---- days


def has_reported(
    instance: dg.DagsterInstance, day: str, *, assets: tuple[Any, ...] = (REPORT, DEBTS)
) -> None:
    """Note in Dagster's history that a run has reported the day."""
    for asset in assets:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=day))


@pytest.mark.usefixtures("environment")
def test_tick_requests_the_days_since_the_latest_report(
    engine: Engine, lasting_instance: dg.DagsterInstance, tick: Callable[[str], Any], this_hour: datetime
) -> None:
    """At first from the books' first day. None if all reports exist."""
    today = this_hour.replace(hour=0)
    days = [f"{today - timedelta(days=number):%Y-%m-%d}" for number in range(6)]
    empty = tick("daily_report")
    with engine.begin() as connection:
        place_hold(connection, held_at=today - timedelta(days=5))

    first = asked_for(tick("daily_report"))
    has_reported(lasting_instance, days[3])
    second = asked_for(tick("daily_report"))
    has_reported(lasting_instance, days[1])
    done = tick("daily_report")

    assert "the books are empty" in empty.skip_message
    assert first == (days[5], days[1])
    assert second == (days[2], days[1])
    assert done.skip_message == f"every day up to {days[1]}, the last one that is over, is reported"


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("assets", [(REPORT,), (DEBTS,)], ids=["the debts", "the report"])
def test_tick_requests_a_day_of_which_one_asset_failed(
    engine: Engine,
    lasting_instance: dg.DagsterInstance,
    tick: Callable[[str], Any],
    this_hour: datetime,
    assets: tuple[Any, ...],
) -> None:
    """Of a day without one of them, both are reported again. An asset that was never reported begins with
    the books' first day.
    """
    today = this_hour.replace(hour=0)
    days = [f"{today - timedelta(days=number):%Y-%m-%d}" for number in range(6)]
    with engine.begin() as connection:
        place_hold(connection, held_at=today - timedelta(days=5))

    has_reported(lasting_instance, days[1], assets=assets)
    never = asked_for(tick("daily_report"))
    has_reported(lasting_instance, days[3])
    later = asked_for(tick("daily_report"))

    assert never == (days[5], days[1])
    assert later == (days[2], days[1])


@pytest.mark.usefixtures("environment")
def test_a_day_in_progress_is_left_to_the_next_tick(
    engine: Engine, tick: Callable[[str], Any], this_hour: datetime
) -> None:
    """An open transaction in yesterday's last hour delays yesterday, not the days before."""
    today = this_hour.replace(hour=0)
    days = [f"{today - timedelta(days=number):%Y-%m-%d}" for number in range(4)]
    with engine.begin() as connection:
        place_hold(connection, held_at=today - timedelta(days=3))
    with engine.connect() as writer, writer.begin():
        place_hold(
            writer, held_at=today - timedelta(minutes=5), job="job-9", payee="worker-2", payer="client-2"
        )

        outcome = tick("daily_report")

    assert asked_for(outcome) == (days[3], days[2])
    assert asked_for(tick("daily_report")) == (days[3], days[1])


@pytest.mark.usefixtures("environment")
def test_the_books_are_proved_every_night(tick: Callable[[str], Any]) -> None:
    """The nightly tick requests one run of every invariant."""
    outcome = tick("daily_reconciliation")

    assert len(outcome.run_requests) == 1
    assert defs.resolve_schedule_def("daily_reconciliation").job_name == "reconcile_books"
