"""The sensor that tells operators of failed checks: books that do not add up, history that was altered.

As the sensor of failed runs it needs no books, and remembers in its cursor.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)

from buffer_pipeline.delivery.alerts import (
    LINES_MAX,
    FailedCheck,
    failed_checks_alert,
    outcome_of,
    send_alert,
)
from buffer_pipeline.orchestration.checks import (
    COUNTS_EQUAL_TRANSACTIONS,
    OFFENDING_ROWS,
    PROVED,
    no_payment_stuck,
    nothing_overdue,
)
from buffer_pipeline.orchestration.metadata import text_of
from buffer_pipeline.orchestration.resources import Alerts
from buffer_pipeline.texts import counted

INTERVAL_SECONDS_MIN: Final = 30

TOLD_BY_THEIR_OWN_SENSORS: Final = frozenset({no_payment_stuck.check_key, nothing_overdue.check_key})

ROWS_MAX: Final = 5
"""Rows of one check in an alert; its page in the UI has the first hundred."""

_OVER: Final = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}


class Told(NamedTuple):
    """In the cursor, by check: the evaluation that was told, and the day (UTC) on which it was."""

    evaluation_id: int
    day: str


@dg.sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=INTERVAL_SECONDS_MIN,
    description="Tells operators of each failed check, with the rows that it found and a link: an ERROR at"
    " once, at each evaluation that fails and at least once a day (UTC), a WARN once a day, until the check"
    " passes again. `no_payment_stuck` and `nothing_overdue` are told by their own sensors. Works while the"
    " books are away.",
)
def failed_checks(context: dg.SensorEvaluationContext, alerts: dg.ResourceParam[Alerts]) -> dg.SensorResult:
    """Tell of the checks whose latest evaluation has failed, in one message."""
    definitions = context.repository_def
    assert definitions is not None, "a sensor is evaluated with its repository"
    keys = sorted(
        definitions.asset_graph.asset_check_keys - TOLD_BY_THEIR_OWN_SENSORS,
        key=lambda key: key.to_user_string(),
    )
    failed = _failed(context.instance, keys)
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    told = {name: Told(*each) for name, each in json.loads(context.cursor or "{}").items()}
    to_tell = {
        key: record
        for key, record in failed.items()
        if _is_new(told.get(key.to_user_string()), record, today=today)
    }
    # A check that has passed meanwhile is told at once when it fails again.
    told = {
        key.to_user_string(): told[key.to_user_string()] for key in failed if key.to_user_string() in told
    }
    if not failed:
        reason = "no check has failed"
    elif not to_tell:
        reason = f"{counted(len(failed), 'failed check')}, told already"
    else:
        first = [_failed_check(key, to_tell[key], alerts=alerts) for key in list(to_tell)[:LINES_MAX]]
        sent = send_alert(
            failed_checks_alert(first, checks=len(to_tell), dagster_url=alerts.dagster_url),
            urls=alerts.urls,
            log=context.log,
            terminal=alerts.terminal,
        )
        if sent:
            told |= {key.to_user_string(): Told(record.id, today) for key, record in to_tell.items()}
        reason = f"{counted(len(to_tell), 'failed check')} {outcome_of(sent=sent, urls=alerts.urls)}"
    return dg.SensorResult(skip_reason=reason, cursor=json.dumps(told))


def _failed(
    instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey]
) -> dict[dg.AssetCheckKey, AssetCheckExecutionRecord]:
    """Return the checks whose latest evaluation has failed; one that is under way says nothing yet."""
    latest: dict[dg.AssetCheckKey, AssetCheckExecutionRecord] = dict(
        instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    )
    for key, record in latest.items():
        if record.status not in _OVER:
            evaluated = instance.event_log_storage.get_asset_check_execution_history(
                key, limit=1, status=_OVER
            )
            latest[key] = evaluated[0] if evaluated else record
    return {
        key: latest[key]
        for key in keys
        if key in latest and latest[key].status is AssetCheckExecutionRecordStatus.FAILED
    }


def _severity(record: AssetCheckExecutionRecord) -> dg.AssetCheckSeverity:
    return record.evaluation.severity if record.evaluation else dg.AssetCheckSeverity.ERROR


def _is_new(told: Told | None, record: AssetCheckExecutionRecord, *, today: str) -> bool:
    if told is None or told.day != today:
        return True
    return _severity(record) is dg.AssetCheckSeverity.ERROR and told.evaluation_id != record.id


def _failed_check(key: dg.AssetCheckKey, record: AssetCheckExecutionRecord, *, alerts: Alerts) -> FailedCheck:
    metadata = record.evaluation.metadata if record.evaluation else {}
    asset = key.asset_key.to_user_string()
    return FailedCheck(
        check=key.name,
        asset=asset,
        severity=_severity(record).value,
        found=[*_figures(metadata), *_rows(metadata)],
        advice=_advice(key, dagster_url=alerts.dagster_url),
        link=f"{alerts.dagster_url}/assets/{'/'.join(key.asset_key.path)}?view=checks&checkDetail={key.name}",
    )


def _advice(key: dg.AssetCheckKey, *, dagster_url: str) -> str:
    if key.name == COUNTS_EQUAL_TRANSACTIONS:
        return (
            "Materialize hourly_release_counts for these hours again:"
            f" {dagster_url}/assets/hourly_release_counts. No money is affected."
        )
    return (
        "If a check of severity ERROR failed, first stop the schedule hourly_release."
        " `buffer-pipeline reconcile` and `verify` list all rows. Once the books are right, run"
        f" reconcile_books: {dagster_url}/locations/buffer_pipeline/jobs/reconcile_books/playground"
    )


def _figures(metadata: Mapping[str, dg.MetadataValue[Any]]) -> list[str]:
    return [
        f"{name}: {text_of(value)}"
        for name, value in metadata.items()
        if name != PROVED and not isinstance(value, dg.TableMetadataValue)
    ]


def _rows(metadata: Mapping[str, dg.MetadataValue[Any]]) -> list[str]:
    rows = [
        record.data
        for value in metadata.values()
        if isinstance(value, dg.TableMetadataValue)
        for record in value.records
    ]
    shown = [", ".join(f"{name} {cell}" for name, cell in row.items()) for row in rows[:ROWS_MAX]]
    # The table has the first of them.
    total = int(text_of(metadata[OFFENDING_ROWS])) if OFFENDING_ROWS in metadata else len(rows)
    return shown if total <= len(shown) else [*shown, f"and {counted(total - len(shown), 'more row')}"]
