"""The sensors, tick by tick, and what they tell a real HTTP server."""

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.events import DagsterEvent, RunFailureReason
from dagster._core.events.log import EventLogEntry
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from pytest_httpserver import HTTPServer
from sqlalchemy import Engine, func, select, text
from werkzeug import Request, Response

from buffer_pipeline.delivery import alerts as delivery
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.orchestration import failed_runs as room
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.orchestration.failed_runs import RETRIED_BY_TAG, first_line
from buffer_pipeline.orchestration.resources import Alerts, Books
from buffer_pipeline.policy import Policy
from buffer_pipeline.release import release_matured
from buffer_pipeline.tables import alert, hold_freeze
from buffer_pipeline_tests.builders import ADMIN, DAY_7, PAYEE, place_hold, state_of
from buffer_pipeline_tests.conftest import NOON
from buffer_pipeline_tests.receiver import Receiver
from buffer_pipeline_tests.runs import JOB_NAME, corrupt, release, rows_of

# One alert a day or an hour: no test may lie across the full hour.
pytestmark = pytest.mark.usefixtures("this_hour")

STUCK: Final = "stuck_frozen_payments"
OVERDUE: Final = "overdue_releases"
FAILED: Final = "failed_runs"
FAILED_CHECKS: Final = "failed_checks"

DAGSTER_URL: Final = "https://dagster.example.com"
SECRET: Final = "hunter2"


@pytest.fixture
def receiver(httpserver: HTTPServer) -> Receiver:
    """A service that takes every alert."""
    return Receiver(httpserver)


class Sensor:
    """A sensor of the definitions with its own books and cursor, as the daemon keeps them."""

    def __init__(self, name: str, instance: dg.DagsterInstance, **resources: object) -> None:
        self._name = name
        self._instance = instance
        self._resources = resources
        self.cursor: str | None = None

    def tick(self) -> SensorExecutionData:
        """Evaluate it once."""
        with dg.build_sensor_context(
            instance=self._instance,
            # With both the tick has a log of its own, as the daemon gives it one.
            instance_ref=self._instance.get_ref(),
            repository_name="__repository__",
            repository_def=defs.get_repository_def(),
            sensor_name=self._name,
            cursor=self.cursor,
            resources=self._resources,
        ) as context:
            data = defs.resolve_sensor_def(self._name).evaluate_tick(context)
        self.cursor = data.cursor
        assert not data.run_requests
        return data


@pytest.fixture
def books_of(engine: Engine) -> Books:
    """The books of the test, under which a payment is stuck after 72 hours."""
    return Books(engine=engine, policy=Policy(stuck_after_hours=72))


@pytest.fixture
def stuck_sensor(books_of: Books, receiver: Receiver, lasting_instance: dg.DagsterInstance) -> Sensor:
    """The sensor of stuck payments."""
    alerts = Alerts(urls=(receiver.url,), dagster_url=DAGSTER_URL)
    return Sensor(STUCK, lasting_instance, books=books_of, alerts=alerts)


@pytest.fixture
def overdue_sensor(books_of: Books, receiver: Receiver, lasting_instance: dg.DagsterInstance) -> Sensor:
    """The sensor of overdue releases."""
    alerts = Alerts(urls=(receiver.url,), dagster_url=DAGSTER_URL)
    return Sensor(OVERDUE, lasting_instance, books=books_of, alerts=alerts)


@pytest.fixture
def failed_sensor(receiver: Receiver, lasting_instance: dg.DagsterInstance) -> Sensor:
    """The sensor of failed runs, which watches already."""
    sensor = Sensor(FAILED, lasting_instance, alerts=Alerts(urls=(receiver.url,), dagster_url=DAGSTER_URL))
    sensor.tick()
    return sensor


def evaluation_of(tick: SensorExecutionData) -> dg.AssetCheckEvaluation:
    """Return the tick's one check evaluation."""
    found = [event for event in tick.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
    assert len(found) == 1
    return found[0]


def place(engine: Engine, **facts: Any) -> int:
    """Place a hold in a transaction of its own."""
    with engine.begin() as connection:
        return place_hold(connection, **facts)


def told_a_period_earlier(engine: Engine, interval: str) -> None:
    """Let what was told have been told earlier: for the sensor that is as if the time had come."""
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE buffer.alert SET period = period - CAST(:by AS interval)"), {"by": interval}
        )


# ---- stuck payments


def test_a_stuck_payment_is_flagged_and_told(
    engine: Engine, stuck_sensor: Sensor, receiver: Receiver
) -> None:
    """It is observed, fails the check that lists it, and operators get who, how much and since when."""
    stuck = place(engine, state=HoldState.FROZEN)

    tick = stuck_sensor.tick()

    evaluation = evaluation_of(tick)
    assert (evaluation.check_name, evaluation.passed) == ("no_payment_stuck", False)
    assert evaluation.metadata["stuck_holds"].value == 1
    assert rows_of(evaluation, "holds") == [
        {
            "hold_id": stuck,
            "job": "job-8",
            "payee": PAYEE,
            "frozen_since": NOON.isoformat(),
            "kinds": "ADMIN",
        }
    ]
    observation = next(event for event in tick.asset_events if isinstance(event, dg.AssetObservation))
    assert observation.asset_key == dg.AssetKey("frozen_payments")
    assert observation.metadata == evaluation.metadata
    assert tick.skip_message == "1 payment frozen for more than 72 hours; told"
    [(title, message)] = receiver.got
    assert "without an open freeze" not in message
    assert title == "1 payment frozen for more than 72 hours: 1000.00 PHP"
    assert (
        f"hold {stuck}, job job-8, to {PAYEE}, 1000.00 PHP, frozen since 2026-03-02 12:00 UTC (ADMIN)"
        in message
    )
    assert f"{DAGSTER_URL}/assets/frozen_payments" in message


def test_without_a_stuck_payment_the_check_passes_and_nobody_is_told(
    engine: Engine, stuck_sensor: Sensor, receiver: Receiver
) -> None:
    """One frozen an hour too short does not count; the next tick has nothing new to say."""
    place(engine, state=HoldState.FROZEN, held_at=datetime.now(UTC) - timedelta(hours=71))

    first, second = stuck_sensor.tick(), stuck_sensor.tick()

    assert evaluation_of(first).passed
    assert first.skip_message == "no payment has been frozen for more than 72 hours"
    assert second.asset_events == []
    assert second.skip_message == first.skip_message
    assert receiver.got == []


def test_a_payment_is_told_once_a_day(engine: Engine, stuck_sensor: Sensor, receiver: Receiver) -> None:
    """A second tick is silent; the next day tells it, and observes it, again."""
    place(engine, state=HoldState.FROZEN)
    stuck_sensor.tick()

    same_day = stuck_sensor.tick()
    told_by_then = len(receiver.got)
    told_a_period_earlier(engine, "1 day")
    next_day = stuck_sensor.tick()

    assert same_day.asset_events == []
    assert (
        same_day.skip_message
        == "1 payment frozen for more than 72 hours, the same as before; told today already"
    )
    assert told_by_then == 1
    assert not evaluation_of(next_day).passed
    assert next_day.skip_message == "1 payment frozen for more than 72 hours, the same as before; told"
    assert len(receiver.got) == 2


def test_a_payment_that_gets_stuck_later_is_told_alone(
    engine: Engine, stuck_sensor: Sensor, receiver: Receiver
) -> None:
    """Another stuck payment on the same day is a message about that one; the check lists both."""
    place(engine, state=HoldState.FROZEN)
    stuck_sensor.tick()
    later = place(engine, state=HoldState.FROZEN, job="job-9", amount="250.50")

    tick = stuck_sensor.tick()

    assert tick.skip_message == "2 payments frozen for more than 72 hours; 1 of them told"
    assert evaluation_of(tick).metadata["stuck_holds"].value == 2
    title, message = receiver.got[-1]
    assert title == "1 payment frozen for more than 72 hours: 250.50 PHP"
    assert f"hold {later}, job job-9" in message
    assert "job-8" not in message
    assert len(receiver.got) == 2


def test_when_the_last_freeze_is_lifted_the_check_passes_again(engine: Engine, stuck_sensor: Sensor) -> None:
    """The tick after a payment is unfrozen says that nothing is stuck."""
    place(engine, state=HoldState.FROZEN)
    stuck_sensor.tick()
    with engine.begin() as connection:
        freeze_id = connection.scalars(select(hold_freeze.c.freeze_id)).one()
        unfreeze_hold(connection, freeze_id=freeze_id, by=ADMIN, reason="looked", now=DAY_7)

    tick = stuck_sensor.tick()

    assert evaluation_of(tick).passed
    assert tick.skip_message == "no payment has been frozen for more than 72 hours"


def test_as_many_other_stuck_payments_are_a_change(engine: Engine, stuck_sensor: Sensor) -> None:
    """One payment unfrozen and another stuck instead: the check is evaluated anew."""
    first = place(engine, state=HoldState.FROZEN)
    stuck_sensor.tick()
    with engine.begin() as connection:
        freeze_id = connection.scalars(select(hold_freeze.c.freeze_id)).one()
        unfreeze_hold(connection, freeze_id=freeze_id, by=ADMIN, reason="looked", now=DAY_7)
        second = place_hold(connection, state=HoldState.FROZEN)

    tick = stuck_sensor.tick()

    assert [row["hold_id"] for row in rows_of(evaluation_of(tick), "holds")] == [second] != [first]


def test_a_flood_of_stuck_payments_is_one_message(
    engine: Engine, stuck_sensor: Sensor, receiver: Receiver
) -> None:
    """All are counted and summed by currency; the check lists a hundred, the message twenty."""
    with engine.begin() as connection:
        for number in range(101):
            place_hold(connection, state=HoldState.FROZEN, held_at=NOON + timedelta(seconds=number))
        place_hold(connection, state=HoldState.FROZEN, currency="JPY", amount="700", held_at=DAY_7)

    tick = stuck_sensor.tick()

    evaluation = evaluation_of(tick)
    assert evaluation.metadata["stuck_holds"].value == 102
    shown = rows_of(evaluation, "holds")
    assert len(shown) == 100
    assert [row["frozen_since"] for row in shown] == sorted(row["frozen_since"] for row in shown)
    [(title, message)] = receiver.got
    assert title == "102 payments frozen for more than 72 hours: 700 JPY, 101000.00 PHP"
    assert message.count("hold ") == 20
    assert f"hold {shown[0]['hold_id']}," in message
    assert "and 82 more" in message


def test_a_payment_frozen_without_a_freeze_is_told_at_once(
    engine: Engine, superuser_url: str, stuck_sensor: Sensor, receiver: Receiver
) -> None:
    """Nothing would ever release it: it is stuck however short it has been so; a freeze that is opened and
    lifted lets it go.
    """
    now = datetime.now(UTC)
    alone = place(engine, held_at=now)
    long_frozen = place(engine, state=HoldState.FROZEN, job="job-9")
    corrupt(superuser_url, f"UPDATE buffer.unsettled_hold SET state = 'FROZEN' WHERE hold_id = {alone}")

    tick, again = stuck_sensor.tick(), stuck_sensor.tick()
    with engine.begin() as connection:
        freeze = freeze_hold(
            connection, hold_id=alone, kind=FreezeKind.ADMIN, by=ADMIN, reason="stray", now=now
        )
        unfreeze_hold(connection, freeze_id=freeze.freeze_id, by=ADMIN, reason="stray", now=now)
        state = state_of(connection, alone)
    after = stuck_sensor.tick()

    rows = rows_of(evaluation_of(tick), "holds")
    assert [(row["hold_id"], row["kinds"]) for row in rows] == [
        (alone, "no open freeze"),
        (long_frozen, "ADMIN"),
    ]
    assert again.skip_message is not None
    assert again.skip_message.endswith("told today already")
    [(title, message)] = receiver.got
    assert title == "2 payments frozen for more than 72 hours or with no open freeze: 2000.00 PHP"
    assert (
        "A payment frozen without an open freeze is an error in the books; docs/operations.md says how to"
        " release it.\n"
    ) in message
    assert (
        f"hold {alone}, job job-8, to {PAYEE}, 1000.00 PHP, frozen since {now:%Y-%m-%d %H:%M} UTC" in message
    )
    assert state is HoldState.BUFFERED
    assert [row["hold_id"] for row in rows_of(evaluation_of(after), "holds")] == [long_frozen]


def test_a_payment_under_two_freezes_is_one(engine: Engine, stuck_sensor: Sensor, receiver: Receiver) -> None:
    """It counts once and with its own amount, since the older freeze, and names both kinds."""
    hold_id = place(engine, state=HoldState.FROZEN)
    with engine.begin() as connection:
        freeze_hold(
            connection, hold_id=hold_id, kind=FreezeKind.RISK, by="risk-1", reason="a pattern", now=DAY_7
        )

    tick = stuck_sensor.tick()

    assert tick.skip_message == "1 payment frozen for more than 72 hours; told"
    [(title, message)] = receiver.got
    assert title.endswith(": 1000.00 PHP")
    assert "frozen since 2026-03-02 12:00 UTC (ADMIN, RISK)" in message


# ---- overdue releases


def test_an_overdue_payment_is_flagged_and_told(
    engine: Engine, overdue_sensor: Sensor, receiver: Receiver
) -> None:
    """A hold that nobody released within the hour fails the check that lists it; operators are told."""
    overdue = place(engine)

    tick = overdue_sensor.tick()

    evaluation = evaluation_of(tick)
    assert (evaluation.check_name, evaluation.passed) == ("nothing_overdue", False)
    assert evaluation.metadata["overdue_holds"].value == 1
    assert evaluation.metadata["amounts"].value == "1000.00 PHP"
    assert rows_of(evaluation, "holds")[0]["hold_id"] == overdue
    assert tick.skip_message == "1 payment due for more than an hour and not released; told"
    [(title, message)] = receiver.got
    assert title == "1 payment due for more than an hour and not released: 1000.00 PHP"
    assert f"hold {overdue}, job job-8, to {PAYEE}, 1000.00 PHP, due since 2026-03-09 12:00 UTC" in message
    assert "buffer-pipeline release" in message
    assert f"{DAGSTER_URL}/locations/buffer_pipeline/jobs/{JOB_NAME}/playground" in message


def test_a_payment_due_just_now_is_not_overdue(
    engine: Engine, overdue_sensor: Sensor, receiver: Receiver
) -> None:
    """Within the hour the next run is expected to take it; a frozen one is not due at all."""
    place(engine, held_at=datetime.now(UTC) - timedelta(days=7, minutes=30))
    place(engine, state=HoldState.FROZEN)

    first, second = overdue_sensor.tick(), overdue_sensor.tick()

    assert evaluation_of(first).passed
    assert first.skip_message == "no payment has been due for more than an hour"
    assert second.asset_events == []
    assert second.skip_message == first.skip_message
    assert receiver.got == []


def test_overdue_payments_are_told_every_hour_while_it_lasts(
    engine: Engine, overdue_sensor: Sensor, receiver: Receiver
) -> None:
    """Within the hour one alert, though more come due; the next hour again; once released, silence."""
    place(engine)
    overdue_sensor.tick()

    unchanged = overdue_sensor.tick()
    place(engine)
    more = overdue_sensor.tick()
    told_by_then = len(receiver.got)
    told_a_period_earlier(engine, "1 hour")
    next_hour = overdue_sensor.tick()
    with engine.begin() as connection:
        release_matured(
            connection, due_by=datetime.now(UTC), now=datetime.now(UTC), batch_limit=10, source="a test"
        )
    released = overdue_sensor.tick()

    fact = "due for more than an hour and not released"
    assert unchanged.skip_message == f"1 payment {fact}, the same as before; told this hour already"
    assert unchanged.asset_events == []
    assert more.skip_message == f"2 payments {fact}; told this hour already"
    assert evaluation_of(more).metadata["overdue_holds"].value == 2
    assert told_by_then == 1
    assert next_hour.skip_message == f"2 payments {fact}, the same as before; told"
    assert evaluation_of(released).passed
    assert [title for title, _ in receiver.got] == [
        f"1 payment {fact}: 1000.00 PHP",
        f"2 payments {fact}: 2000.00 PHP",
    ]


@pytest.mark.usefixtures("environment")
def test_a_sensors_tick_reads_the_books_of_the_environment(
    engine: Engine, lasting_instance: dg.DagsterInstance
) -> None:
    """As the daemon evaluates it, the sensor opens the books that the environment names."""
    place(engine)
    resources = dict(defs.resources or {})

    tick = Sensor(OVERDUE, lasting_instance, books=resources["books"], alerts=resources["alerts"]).tick()

    assert tick.skip_message == (
        "1 payment due for more than an hour and not released;"
        " told in this tick's log, as BUFFER_ALERT_URLS is not set"
    )
    assert len(tick.asset_events) == 1


# ---- failed runs


def fail(instance: dg.DagsterInstance, message: str = "it broke", **facts: Any) -> str:
    """Let a run fail as a monitor reports it, and return its id."""
    run: dg.DagsterRun = create_run_for_test(instance, job_name=JOB_NAME, **facts)
    instance.report_run_failed(run, message=message)
    return run.run_id


@pytest.mark.usefixtures("environment")
def test_a_failed_run_is_told_with_a_link(
    failed_sensor: Sensor, receiver: Receiver, lasting_instance: dg.DagsterInstance
) -> None:
    """The message has the job, the step, the error's first line and where to look; it comes once."""
    run_id = release(lasting_instance, raise_on_error=False, as_of="2026-03-02T12:00:00").run_id

    first, second = failed_sensor.tick(), failed_sensor.tick()

    link = f"{DAGSTER_URL}/runs/{run_id}"
    assert first.skip_message == f"1 failed run told: {link}"
    [(title, message)] = receiver.got
    assert title == f"{JOB_NAME} failed"
    assert message.splitlines() == [
        f"{JOB_NAME}: released_transactions.select_matured_transactions: as_of 2026-03-02T12:00:00: has no"
        " time zone; write 2026-03-02T12:00:00Z for UTC",
        link,
    ]
    assert second.skip_message == "no run has failed since the last tick"


@pytest.mark.usefixtures("environment")
def test_a_run_that_succeeds_is_not_told(
    failed_sensor: Sensor, receiver: Receiver, lasting_instance: dg.DagsterInstance
) -> None:
    """There is nothing to say about it."""
    release(lasting_instance)

    tick = failed_sensor.tick()

    assert tick.skip_message == "no run has failed since the last tick"
    assert receiver.got == []


def test_failed_runs_are_told_while_the_books_are_away(
    failed_sensor: Sensor,
    receiver: Receiver,
    lasting_instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that finds no database is told by a sensor that needs none, without the URL's secrets."""
    monkeypatch.setenv("BUFFER_DATABASE_URL", f"postgresql://platform:{SECRET}@127.0.0.1:1/books")
    release(lasting_instance, raise_on_error=False)

    tick = failed_sensor.tick()

    assert tick.skip_message is not None
    assert tick.skip_message.startswith("1 failed run told")
    [(_, message)] = receiver.got
    assert "BUFFER_DATABASE_URL" in message
    assert SECRET not in message
    assert len(message.splitlines()) == 2


def test_runs_that_failed_before_the_first_tick_are_not_told(
    receiver: Receiver, lasting_instance: dg.DagsterInstance
) -> None:
    """A sensor that is switched on does not tell the whole past, and says so."""
    fail(lasting_instance)
    sensor = Sensor(FAILED, lasting_instance, alerts=Alerts(urls=(receiver.url,)))

    first = sensor.tick()
    run_id = fail(lasting_instance)
    second = sensor.tick()

    assert first.skip_message == "from now on failed runs are told; those that failed before are not"
    assert second.skip_message == f"1 failed run told: http://127.0.0.1:3000/runs/{run_id}"
    assert len(receiver.got) == 1


def test_many_failed_runs_are_one_message(
    failed_sensor: Sensor, receiver: Receiver, lasting_instance: dg.DagsterInstance
) -> None:
    """They are counted; the first twenty are told in full."""
    run_ids = [fail(lasting_instance, f"reason {number}") for number in range(22)]

    failed_sensor.tick()

    [(title, message)] = receiver.got
    assert title == "22 runs failed"
    assert message.count("/runs/") == 20
    assert message.endswith(f"and 2 more: {DAGSTER_URL}/runs?q=status:FAILURE")
    assert f"{JOB_NAME}: reason 0\n{DAGSTER_URL}/runs/{run_ids[0]}" in message


def test_a_run_of_another_code_location_is_its_own_business(
    failed_sensor: Sensor, receiver: Receiver, lasting_instance: dg.DagsterInstance
) -> None:
    """Only runs of the sensor's own code location are told."""
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
    """The sensor of failed runs there, which watches already."""
    alerts = Alerts(urls=(receiver.url,), dagster_url=DAGSTER_URL)
    sensor = Sensor(FAILED, retrying_instance, alerts=alerts)
    sensor.tick()
    return sensor


def test_a_run_that_dagster_retries_is_not_told_its_last_attempt_is(
    retrying_sensor: Sensor, receiver: Receiver, retrying_instance: dg.DagsterInstance
) -> None:
    """The tick says that the run is retried; when the retry fails too, that one is told."""
    first_id = fail(retrying_instance)

    waiting = retrying_sensor.tick()
    group = {"dagster/parent_run_id": first_id, "dagster/root_run_id": first_id}
    second_id = fail(retrying_instance, parent_run_id=first_id, root_run_id=first_id, tags=group)
    # What the daemon does when it has started the retry.
    retrying_instance.add_run_tags(first_id, {RETRIED_BY_TAG: second_id})
    failed_too = retrying_sensor.tick()
    after = retrying_sensor.tick()

    retried = (
        f"1 failed run retried by Dagster itself, whose last attempt is told: {DAGSTER_URL}/runs/{first_id}"
    )
    assert waiting.skip_message == retried
    assert failed_too.skip_message == f"1 failed run told: {DAGSTER_URL}/runs/{second_id}; {retried}"
    assert after.skip_message == "no run has failed since the last tick"
    assert len(receiver.got) == 1
    assert second_id in receiver.got[0][1]


def test_a_retry_that_never_comes_is_told(
    retrying_sensor: Sensor,
    receiver: Receiver,
    retrying_instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dagster may promise a retry and start none; then the failed run itself is told after a while."""
    run_id = fail(retrying_instance)
    retrying_sensor.tick()
    monkeypatch.setattr(room, "RETRY_AWAITED_SECONDS_MAX", 0)

    late, after = retrying_sensor.tick(), retrying_sensor.tick()

    assert late.skip_message == f"1 failed run told: {DAGSTER_URL}/runs/{run_id}"
    assert after.skip_message == "no run has failed since the last tick"
    assert len(receiver.got) == 1


@pytest.mark.usefixtures("environment")
def test_a_run_that_gives_up_its_retries_is_told_at_once(
    retrying_sensor: Sensor, receiver: Receiver, retrying_instance: dg.DagsterInstance
) -> None:
    """A refusal that no retry would change takes back the retry, and is told."""
    release(retrying_instance, raise_on_error=False, as_of="yesterday")

    tick = retrying_sensor.tick()

    assert tick.skip_message is not None
    assert tick.skip_message.startswith("1 failed run told")
    assert len(receiver.got) == 1


def test_a_failure_whose_state_is_not_written_yet_is_looked_at_again(
    failed_sensor: Sensor, lasting_instance: dg.DagsterInstance
) -> None:
    """Dagster writes the event first and the run's state a moment later; a tick between loses nothing."""
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
    assert after.skip_message == f"1 failed run told: {DAGSTER_URL}/runs/{run.run_id}"


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
def test_an_error_that_carries_a_credential_is_told_without_it(line: str) -> None:
    """What looks like a URL or a password ends where it begins; only the first line is told."""
    told = first_line(line)

    assert SECRET not in told
    assert told


def test_a_long_error_is_cut() -> None:
    """An error is told in a few hundred characters."""
    told = first_line("long " * 1000)

    assert len(told) == room.ERROR_LENGTH_MAX + 1


# ---- a receiver that fails


@pytest.mark.parametrize("name", [STUCK, OVERDUE, FAILED, FAILED_CHECKS])
def test_what_no_receiver_took_is_sent_again_at_the_next_tick(
    engine: Engine,
    books_of: Books,
    receiver: Receiver,
    lasting_instance: dg.DagsterInstance,
    name: str,
) -> None:
    """A tick whose alert is answered with 500 ends well and says so; the next one sends it again, once."""
    resources = {"alerts": Alerts(urls=(receiver.url,))} | (
        {} if name in {FAILED, FAILED_CHECKS} else {"books": books_of}
    )
    sensor = Sensor(name, lasting_instance, **resources)
    sensor.tick()
    place(engine)
    place(engine, state=HoldState.FROZEN)
    fail(lasting_instance)
    lasting_instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=dg.AssetKey("books"), check_name="books_balance", passed=False, metadata={}
        )
    )
    receiver.answers(500)

    refused = sensor.tick()
    receiver.answers(200)
    taken, after = sensor.tick(), sensor.tick()

    assert refused.skip_message is not None
    assert (
        "not told: no receiver took the alert, which is sent again at the next tick" in refused.skip_message
    )
    assert taken.skip_message is not None
    assert "not told" not in taken.skip_message
    assert "told" in taken.skip_message
    assert len(receiver.got) == 2
    assert receiver.got[0] == receiver.got[1]
    assert after.asset_events == []


def test_a_receiver_that_hangs_does_not_hold_the_tick(
    engine: Engine,
    books_of: Books,
    lasting_instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A service that takes the connection and never answers costs a bounded time, and no transaction."""
    place(engine, state=HoldState.FROZEN)
    monkeypatch.setattr(delivery, "SECONDS_MAX", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        alerts = Alerts(urls=(f"json://127.0.0.1:{hanging.getsockname()[1]}/",))
        sensor = Sensor(STUCK, lasting_instance, books=books_of, alerts=alerts)
        began = time.monotonic()

        tick = sensor.tick()

        seconds = time.monotonic() - began
    assert tick.skip_message is not None
    assert "not told" in tick.skip_message
    assert seconds < 3
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(alert)) == 0


def test_the_network_is_touched_outside_any_transaction(
    engine: Engine, stuck_sensor: Sensor, httpserver: HTTPServer
) -> None:
    """While the receiver has the message, no transaction is open on the books."""
    place(engine, state=HoldState.FROZEN)
    open_transactions: list[int] = []

    def look(_request: Request) -> Response:
        with engine.connect() as connection:
            open_transactions.append(
                connection.execute(
                    text(
                        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                        " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
                    )
                ).scalar_one()
            )
        return Response()

    httpserver.clear_all_handlers()
    httpserver.expect_request("/alerts").respond_with_handler(look)

    stuck_sensor.tick()

    assert open_transactions == [0]
