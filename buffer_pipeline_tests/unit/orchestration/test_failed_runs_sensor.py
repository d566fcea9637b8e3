"""The sensor of failed runs, tick by tick."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, RunFailureReason
from dagster._core.events.log import EventLogEntry
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from buffer_pipeline.orchestration import failed_runs as failed_runs_module
from buffer_pipeline.orchestration.failed_runs import RETRIED_BY_TAG, first_line
from buffer_pipeline.orchestration.resources import Alerts
from buffer_pipeline_tests.support.receiver import Receiver
from buffer_pipeline_tests.support.runs import JOB_NAME, release
from buffer_pipeline_tests.support.sensors import DAGSTER_URL, Sensor, fail

# One alert per day or hour, so no test may run across the full hour.
pytestmark = pytest.mark.usefixtures("this_hour")

FAILED: Final = "failed_runs"

SECRET: Final = "hunter2"


@pytest.fixture
def failed_sensor(receiver: Receiver, lasting_instance: dg.DagsterInstance) -> Sensor:
    """The sensor of failed runs, already active."""
    sensor = Sensor(FAILED, lasting_instance, alerts=Alerts(urls=(receiver.url,), dagster_url=DAGSTER_URL))
    sensor.tick()
    return sensor


@pytest.mark.usefixtures("environment")
def test_a_failed_run_is_reported_with_a_link(
    failed_sensor: Sensor, receiver: Receiver, lasting_instance: dg.DagsterInstance
) -> None:
    """Once, with the job, the step and the error's first line."""
    run_id = release(lasting_instance, raise_on_error=False, as_of="2026-03-02T12:00:00").run_id

    first, second = failed_sensor.tick(), failed_sensor.tick()

    link = f"{DAGSTER_URL}/runs/{run_id}"
    assert first.skip_message == f"1 failed run reported: {link}"
    [(title, message)] = receiver.got
    assert title == f"{JOB_NAME} failed"
    assert message.splitlines() == [
        f"{JOB_NAME}: released_transactions.select_matured_transactions: as_of 2026-03-02T12:00:00: has no"
        " time zone; write 2026-03-02T12:00:00Z for UTC",
        link,
    ]
    assert second.skip_message == "no run has failed since the last tick"


@pytest.mark.usefixtures("environment")
def test_successful_run_is_not_reported(
    failed_sensor: Sensor, receiver: Receiver, lasting_instance: dg.DagsterInstance
) -> None:
    """There is nothing to say about it."""
    release(lasting_instance)

    tick = failed_sensor.tick()

    assert tick.skip_message == "no run has failed since the last tick"
    assert receiver.got == []


def test_failed_runs_are_reported_without_the_database(
    failed_sensor: Sensor,
    receiver: Receiver,
    lasting_instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sensor needs no database, and the report has no secret of the URL."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", f"postgresql://platform:{SECRET}@127.0.0.1:1/books")
    release(lasting_instance, raise_on_error=False)

    tick = failed_sensor.tick()

    assert tick.skip_message is not None
    assert tick.skip_message.startswith("1 failed run reported")
    [(_, message)] = receiver.got
    assert "BUFFER_DATABASE_URL" in message
    assert SECRET not in message
    assert len(message.splitlines()) == 2


def test_runs_that_failed_before_the_first_tick_are_not_reported(
    receiver: Receiver, lasting_instance: dg.DagsterInstance
) -> None:
    """A newly activated sensor does not report earlier failures, and says so."""
    fail(lasting_instance)
    sensor = Sensor(FAILED, lasting_instance, alerts=Alerts(urls=(receiver.url,)))

    first = sensor.tick()
    run_id = fail(lasting_instance)
    second = sensor.tick()

    assert first.skip_message == "from now on failed runs are reported; those that failed before are not"
    assert second.skip_message == f"1 failed run reported: http://127.0.0.1:3000/runs/{run_id}"
    assert len(receiver.got) == 1


def test_many_failed_runs_are_one_message(
    failed_sensor: Sensor, receiver: Receiver, lasting_instance: dg.DagsterInstance
) -> None:
    """They are counted, and the first twenty are described."""
    run_ids = [fail(lasting_instance, f"reason {number}") for number in range(22)]

    failed_sensor.tick()

    [(title, message)] = receiver.got
    assert title == "22 runs failed"
    assert message.count("/runs/") == 20
    assert message.endswith(f"and 2 more: {DAGSTER_URL}/runs?q=status:FAILURE")
    assert f"{JOB_NAME}: reason 0\n{DAGSTER_URL}/runs/{run_ids[0]}" in message


def test_failed_run_of_another_code_location_is_not_reported(
    failed_sensor: Sensor, receiver: Receiver, lasting_instance: dg.DagsterInstance
) -> None:
    """Only runs of the sensor's own code location are reported."""
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(module_name="elsewhere"), location_name="elsewhere"
    )
    job = RemoteRepositoryOrigin(origin, "__repository__").get_job_origin(JOB_NAME)
    fail(lasting_instance, remote_job_origin=job)

    tick = failed_sensor.tick()

    assert tick.skip_message == "no run has failed since the last tick"
    assert receiver.got == []


@pytest.fixture
def retrying_instance() -> Iterator[dg.DagsterInstance]:
    """A Dagster instance that retries a failed run once, as the daemon would."""
    with dg.instance_for_test(overrides={"run_retries": {"enabled": True, "max_retries": 1}}) as instance:
        yield instance


@pytest.fixture
def retrying_sensor(receiver: Receiver, retrying_instance: dg.DagsterInstance) -> Sensor:
    """The sensor of failed runs on this instance, already active."""
    alerts = Alerts(urls=(receiver.url,), dagster_url=DAGSTER_URL)
    sensor = Sensor(FAILED, retrying_instance, alerts=alerts)
    sensor.tick()
    return sensor


def test_a_run_that_dagster_retries_is_not_reported_but_its_last_attempt_is(
    retrying_sensor: Sensor, receiver: Receiver, retrying_instance: dg.DagsterInstance
) -> None:
    """The tick says that the run is retried. If the retry fails too, that is reported."""
    first_id = fail(retrying_instance)

    waiting = retrying_sensor.tick()
    group = {"dagster/parent_run_id": first_id, "dagster/root_run_id": first_id}
    second_id = fail(retrying_instance, parent_run_id=first_id, root_run_id=first_id, tags=group)
    # As the daemon does when it has started the retry.
    retrying_instance.add_run_tags(first_id, {RETRIED_BY_TAG: second_id})
    failed_too = retrying_sensor.tick()
    after = retrying_sensor.tick()

    link = f"{DAGSTER_URL}/runs/{first_id}"
    retried = f"1 failed run retried by Dagster itself, whose last attempt is reported: {link}"
    assert waiting.skip_message == retried
    assert failed_too.skip_message == f"1 failed run reported: {DAGSTER_URL}/runs/{second_id}; {retried}"
    assert after.skip_message == "no run has failed since the last tick"
    assert len(receiver.got) == 1
    assert second_id in receiver.got[0][1]


def test_a_retry_that_never_comes_is_reported(
    retrying_sensor: Sensor,
    receiver: Receiver,
    retrying_instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If Dagster promises a retry and starts none, the failed run is reported after a while."""
    run_id = fail(retrying_instance)
    retrying_sensor.tick()
    monkeypatch.setattr(failed_runs_module, "RETRY_AWAITED_SECONDS_MAX", 0)

    late, after = retrying_sensor.tick(), retrying_sensor.tick()

    assert late.skip_message == f"1 failed run reported: {DAGSTER_URL}/runs/{run_id}"
    assert after.skip_message == "no run has failed since the last tick"
    assert len(receiver.got) == 1


@pytest.mark.usefixtures("environment")
def test_a_run_that_gives_up_its_retries_is_reported_at_once(
    retrying_sensor: Sensor, receiver: Receiver, retrying_instance: dg.DagsterInstance
) -> None:
    """A refusal that no retry would change cancels the retry."""
    release(retrying_instance, raise_on_error=False, as_of="yesterday")

    tick = retrying_sensor.tick()

    assert tick.skip_message is not None
    assert tick.skip_message.startswith("1 failed run reported")
    assert len(receiver.got) == 1


def test_failure_without_a_stored_state_is_checked_again(
    failed_sensor: Sensor, lasting_instance: dg.DagsterInstance
) -> None:
    """Dagster writes the event before the run's state, and a tick between them loses nothing."""
    run = create_run_for_test(lasting_instance, job_name=JOB_NAME, status=dg.DagsterRunStatus.STARTED)
    event = DagsterEvent.job_failure(JOB_NAME, "it broke", RunFailureReason.UNKNOWN)
    entry = EventLogEntry(  # type: ignore[no-untyped-call]
        None, "error", "it broke", run.run_id, time.time(), job_name=JOB_NAME, dagster_event=event
    )
    lasting_instance.event_log_storage.store_event(entry)

    between = failed_sensor.tick()
    lasting_instance.run_storage.handle_run_event(run.run_id, event, datetime.now(UTC))
    after = failed_sensor.tick()

    assert between.skip_message == "no run has failed since the last tick"
    assert after.skip_message == f"1 failed run reported: {DAGSTER_URL}/runs/{run.run_id}"


@pytest.mark.parametrize(
    "line",
    [
        f"Client error '404' for url 'https://user:{SECRET}@hooks.example.com/{SECRET}'",
        f"connection to postgresql://platform:{SECRET}@127.0.0.1/books failed",
        f"invalid dsn: host=127.0.0.1 password={SECRET} port=1",
        f"PGPASSWORD = {SECRET}",
        f'{{"api_key": "{SECRET}"}}',
        f"Authorization: Bearer {SECRET}",
        f"the first line\npassword of the second: {SECRET}",
    ],
)
def test_an_error_that_carries_a_credential_is_reported_without_it(line: str) -> None:
    """The report ends before a URL or password, and has only the first line."""
    line_reported = first_line(line)

    assert SECRET not in line_reported
    assert line_reported


def test_a_long_error_is_cut() -> None:
    """To a few hundred characters."""
    line_reported = first_line("long " * 1000)

    assert len(line_reported) == failed_runs_module.ERROR_LENGTH_MAX + 1
