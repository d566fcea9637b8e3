"""Failed nightly checks are reported to operators with the rows, and stay visible until they pass."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.definitions.instigation_logger import get_instigation_log_records
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.test_utils import create_run_for_test
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster_graphql.cli import execute_query
from sqlalchemy import Engine

from buffer_pipeline.audit.seals import seal
from buffer_pipeline.hold import HoldState
from buffer_pipeline.orchestration import definitions
from buffer_pipeline.orchestration.checks import OFFENDING_ROWS
from buffer_pipeline.orchestration.definitions import defs
from buffer_pipeline.orchestration.failed_checks import REPORTED_BY_THEIR_OWN_SENSORS
from buffer_pipeline.orchestration.metadata import table_metadata
from buffer_pipeline.orchestration.resources import Alerts
from buffer_pipeline_tests.support.builders import place_hold
from buffer_pipeline_tests.support.checks import RECONCILE_JOB
from buffer_pipeline_tests.support.receiver import Receiver
from buffer_pipeline_tests.support.runs import corrupt, outcomes, release
from buffer_pipeline_tests.support.sensors import DAGSTER_URL, FAILED_CHECKS, Sensor

# Once a day, so no test may run across midnight.
pytestmark = pytest.mark.usefixtures("this_hour")

HISTORY: Final = "history_as_sealed"
FROZEN_ALONE: Final = "UPDATE buffer.unsettled_hold SET state = 'FROZEN' WHERE release_date > now()"


@pytest.fixture
def sensor(receiver: Receiver, lasting_instance: dg.DagsterInstance) -> Sensor:
    """The sensor of failed checks."""
    alerts = Alerts(urls=(receiver.url,), dagster_url=DAGSTER_URL)
    return Sensor(FAILED_CHECKS, lasting_instance, alerts=alerts)


def prove(instance: dg.DagsterInstance) -> dict[str, bool]:
    """Run `reconcile_books`, which succeeds in any case, and return its outcomes."""
    result = defs.resolve_job_def(RECONCILE_JOB).execute_in_process(instance=instance)
    assert result.success
    return outcomes(result)


def evaluate(
    instance: dg.DagsterInstance,
    key: dg.AssetCheckKey,
    *,
    passed: bool = False,
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Evaluate a check outside any run, as a sensor does."""
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=key.asset_key,
            check_name=key.name,
            passed=passed,
            metadata=metadata or {"offence": f"found by {key.name}"},
            severity=severity,
        )
    )


def a_day_earlier(sensor: Sensor) -> None:
    """Date the last alerts to yesterday. To the sensor this looks like the next day."""
    yesterday = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}"
    last_alerts = json.loads(sensor.cursor or "{}")
    sensor.cursor = json.dumps({name: [number, yesterday] for name, (number, _) in last_alerts.items()})


def of_books(name: str) -> dg.AssetCheckKey:
    """Return the key of a check of all books."""
    return dg.AssetCheckKey(dg.AssetKey("books"), name)


# ---- reported


@pytest.mark.usefixtures("environment")
def test_altered_transactions_are_reported_with_the_rows_and_a_link(
    engine: Engine,
    superuser_url: str,
    lasting_instance: dg.DagsterInstance,
    sensor: Sensor,
    receiver: Receiver,
) -> None:
    """A superuser alters two transactions. The nightly job succeeds, its checks fail, and the next tick
    reports them with the rows, the altered line and a link.
    """
    with engine.begin() as connection:
        place_hold(connection, state=HoldState.RELEASED)
        place_hold(connection, payee="worker-18", job="job-9", state=HoldState.RELEASED)
    seal(engine)
    before = prove(lasting_instance)
    nothing = sensor.tick()
    corrupt(
        superuser_url, "UPDATE buffer.transaction SET amount_minor = amount_minor + 7 WHERE type = 'EARNING'"
    )

    found = prove(lasting_instance)
    tick = sensor.tick()

    assert set(before.values()) == {True}
    assert nothing.skip_message == "no check has failed"
    failed = {name for name, passed in found.items() if not passed}
    assert {"wallet_equals_its_transactions", "hold_equals_its_transactions", HISTORY} <= failed
    assert tick.skip_message == f"{len(failed)} failed checks reported"
    [(title, message)] = receiver.got
    assert title.startswith(f"{len(failed)} checks failed: ")
    assert f"{HISTORY} of books, ERROR\n" in message
    assert "offence: transaction 2: was altered; it is not what was sealed" in message
    assert "wallet_equals_its_transactions of books, ERROR\n" in message
    assert "owner worker-17" in message
    assert "owner worker-18" in message
    assert f"{DAGSTER_URL}/assets/books?view=checks&checkDetail=wallet_equals_its_transactions" in message


def test_an_error_is_reported_at_each_evaluation_and_once_a_day_until_it_passes(
    lasting_instance: dg.DagsterInstance,
    sensor: Sensor,
    receiver: Receiver,
) -> None:
    """The same failure is reported once a day; a new one at once, also after a pass."""
    evaluate(lasting_instance, of_books(HISTORY))
    first, same = sensor.tick(), sensor.tick()
    evaluate(lasting_instance, of_books(HISTORY))
    again = sensor.tick()
    a_day_earlier(sensor)
    next_day = sensor.tick()
    evaluate(lasting_instance, of_books(HISTORY), passed=True)
    passed = sensor.tick()
    evaluate(lasting_instance, of_books(HISTORY))

    broken_again = sensor.tick()

    assert [tick.skip_message for tick in (first, same, again, next_day, passed, broken_again)] == [
        "1 failed check reported",
        "1 failed check, already reported",
        "1 failed check reported",
        "1 failed check reported",
        "no check has failed",
        "1 failed check reported",
    ]
    assert [title for title, _ in receiver.got] == [f"check failed: {HISTORY} of books"] * 4


def test_a_warning_is_reported_once_a_day(
    lasting_instance: dg.DagsterInstance,
    sensor: Sensor,
    receiver: Receiver,
) -> None:
    """A second evaluation on that day is silent, unless it is an error."""
    evaluate(lasting_instance, of_books(HISTORY), severity=dg.AssetCheckSeverity.WARN)
    first = sensor.tick()
    evaluate(lasting_instance, of_books(HISTORY), severity=dg.AssetCheckSeverity.WARN)
    same_day = sensor.tick()
    a_day_earlier(sensor)
    next_day = sensor.tick()
    evaluate(lasting_instance, of_books(HISTORY))
    worse = sensor.tick()

    assert [tick.skip_message for tick in (first, same_day, next_day, worse)] == [
        "1 failed check reported",
        "1 failed check, already reported",
        "1 failed check reported",
        "1 failed check reported",
    ]
    assert [f"{HISTORY} of books, {severity}" for severity in ("WARN", "WARN", "ERROR")] == [
        message.splitlines()[0] for _, message in receiver.got
    ]


def test_each_check_is_reported_by_a_sensor(
    lasting_instance: dg.DagsterInstance,
    sensor: Sensor,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By this one, except for two checks with their own sensors."""
    keys = defs.get_repository_def().asset_graph.asset_check_keys
    # An alert names the first of many.
    for module in ("orchestration.failed_checks", "monitoring.alerts"):
        monkeypatch.setattr(f"buffer_pipeline.{module}.LINES_MAX", len(keys))
    for key in keys:
        evaluate(lasting_instance, key)

    sensor.tick()

    [(_, message)] = receiver.got
    assert {key.name for key in REPORTED_BY_THEIR_OWN_SENSORS} == {
        "no_payment_stuck",
        "nothing_overdue",
        "no_payout_stuck",
    }
    reported = {key for key in keys if f"{key.name} of {key.asset_key.to_user_string()}, ERROR\n" in message}
    assert reported == keys - REPORTED_BY_THEIR_OWN_SENSORS


def test_wrong_count_has_its_own_advice(
    lasting_instance: dg.DagsterInstance, sensor: Sensor, receiver: Receiver
) -> None:
    """No money is affected. Together with a broken invariant, each advice appears once."""
    counts = dg.AssetCheckKey(dg.AssetKey("hourly_release_counts"), "counts_equal_transactions")
    evaluate(lasting_instance, counts, severity=dg.AssetCheckSeverity.WARN)
    sensor.tick()
    for key in (of_books("counts_equal_transactions"), of_books("books_balance"), of_books(HISTORY)):
        evaluate(lasting_instance, key)
    sensor.tick()

    (_, alone), (_, both) = receiver.got
    advice = (
        "Materialize hourly_release_counts for these hours again:"
        f" {DAGSTER_URL}/assets/hourly_release_counts. No money is affected."
    )
    assert alone.endswith(f"\n\n{advice}\nThis alert repeats until the check passes.")
    assert both.count(advice) == both.count("first stop the schedule hourly_release") == 1
    assert f"run reconcile_books: {DAGSTER_URL}/locations/buffer_pipeline/jobs/reconcile_books/" in both
    assert both.endswith("This alert repeats until the checks pass.")


def test_alert_counts_rows_beyond_the_first_hundred(
    lasting_instance: dg.DagsterInstance, sensor: Sensor, receiver: Receiver
) -> None:
    """The check's table ends at its hundredth row."""
    rows = [{"wallet_id": number} for number in range(250)]
    metadata = {OFFENDING_ROWS: len(rows), **table_metadata("rows", rows)}
    evaluate(lasting_instance, of_books("books_balance"), metadata=metadata)

    sensor.tick()

    [(_, message)] = receiver.got
    assert "  wallet_id 4\n  and 245 more rows\n" in message


def test_running_proof_does_not_hide_the_last_failure(
    lasting_instance: dg.DagsterInstance, sensor: Sensor
) -> None:
    """Until the next proof has an outcome, the one before is what counts."""
    evaluate(lasting_instance, of_books(HISTORY))
    run = create_run_for_test(lasting_instance, job_name=RECONCILE_JOB, status=dg.DagsterRunStatus.STARTED)
    planned = DagsterEvent(
        event_type_value=DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value,
        job_name=RECONCILE_JOB,
        event_specific_data=AssetCheckEvaluationPlanned(asset_key=dg.AssetKey("books"), check_name=HISTORY),
    )
    lasting_instance.report_dagster_event(planned, run.run_id)

    tick = sensor.tick()

    assert tick.skip_message == "1 failed check reported"


def test_without_urls_it_is_in_the_log_of_the_tick(
    lasting_instance: dg.DagsterInstance,
) -> None:
    """The UI shows the sensor's log with the tick."""
    evaluate(lasting_instance, of_books(HISTORY))
    sensor = Sensor(FAILED_CHECKS, lasting_instance, alerts=Alerts(dagster_url=DAGSTER_URL))

    tick = sensor.tick()

    assert tick.skip_message == (
        "1 failed check reported in this tick's log, as BUFFER_ALERT_URLS is not set"
    )
    assert tick.log_key
    logged = [record["msg"] for record in get_instigation_log_records(lasting_instance, tick.log_key)]
    assert len(logged) == 1
    assert f"check failed: {HISTORY} of books\n{HISTORY} of books, ERROR\n" in logged[0]
    assert f"offence: found by {HISTORY}" in logged[0]


# ---- in the UI


IN_SIGHT: Final = """query {assetNodes(assetKeys: [{path: ["books"]}]) {
  assetChecksOrError {... on AssetChecks {checks {name executionForLatestMaterialization {status}}}}}}"""


def in_sight(context: WorkspaceProcessContext) -> dict[str, str | None]:
    """Return the state of each check in the UI; None is "not evaluated"."""
    answer: Any = execute_query(context, IN_SIGHT)
    (node,) = answer["data"]["assetNodes"]
    latest = {
        check["name"]: check["executionForLatestMaterialization"]
        for check in node["assetChecksOrError"]["checks"]
    }
    return {name: execution and execution["status"] for name, execution in latest.items()}


@pytest.mark.usefixtures("environment")
def test_a_failed_proof_stays_visible_after_a_release(
    engine: Engine, superuser_url: str, lasting_instance: dg.DagsterInstance
) -> None:
    """A later release does not change the outcomes of a proof; only the next proof does."""
    with engine.begin() as connection:
        place_hold(connection)
        place_hold(connection, job="job-9", held_at=datetime.now(UTC))
    corrupt(superuser_url, FROZEN_ALONE)
    target = ModuleTarget(
        module_name=definitions.__name__, attribute="defs", working_directory=None, location_name="here"
    )
    with WorkspaceProcessContext(lasting_instance, target) as context:
        found = prove(lasting_instance)
        proved = in_sight(context)
        later = release(lasting_instance)
        behind_a_release = in_sight(context)
        corrupt(superuser_url, "UPDATE buffer.unsettled_hold SET state = 'BUFFERED'")
        prove(lasting_instance)
        healed = in_sight(context)

    assert found["frozen_iff_open_freeze"] is False
    assert later.success
    assert proved == {name: "SUCCEEDED" if passed else "FAILED" for name, passed in found.items()}
    assert behind_a_release == proved
    assert healed == dict.fromkeys(found, "SUCCEEDED")
