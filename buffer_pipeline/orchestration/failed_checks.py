"""The sensor that alerts operators to failed checks: books that do not add up, or history that was altered.

It keeps what it has reported in its cursor, because it must work while the books are away.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import dagster as dg

from buffer_pipeline.monitoring.alerts import (
    LINES_MAX,
    Alert,
    FailedCheck,
    failed_checks_alert,
    send_alert,
)
from buffer_pipeline.notifications.sanitize import counted
from buffer_pipeline.orchestration.checks import (
    COUNTS_EQUAL_TRANSACTIONS,
    OFFENDING_ROWS,
    PROVED,
    no_payment_stuck,
    nothing_overdue,
)
from buffer_pipeline.orchestration.dagster_internals import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)
from buffer_pipeline.orchestration.metadata import text_of
from buffer_pipeline.orchestration.payout_checks import no_payout_stuck
from buffer_pipeline.orchestration.resources import Alerts, Clock
from buffer_pipeline.orchestration.sensor_messages import failed_checks_message

FAILED_CHECKS_INTERVAL_SECONDS_MIN: Final = 30

REPORTED_BY_THEIR_OWN_SENSORS: Final = frozenset(
    {no_payment_stuck.check_key, nothing_overdue.check_key, no_payout_stuck.check_key}
)

ROWS_MAX: Final = 5
"""Rows of one check in an alert. Its page in the UI shows the first hundred."""

_OVER: Final = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}


class LastAlert(NamedTuple):
    """The last alert about a check, in the cursor: the evaluation and the day (UTC)."""

    evaluation_id: int
    day: str


@dg.sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=FAILED_CHECKS_INTERVAL_SECONDS_MIN,
    description="Alerts operators to each failed check until it passes again, with the rows that it found and"
    " a link. An ERROR is reported immediately, at each evaluation that fails, and at least once a day (UTC)."
    " A WARN is reported once a day. `no_payment_stuck`, `nothing_overdue` and `no_payout_stuck` have sensors"
    " of their own. Works while the books are away.",
)
def failed_checks(
    context: dg.SensorEvaluationContext, alerts: dg.ResourceParam[Alerts], clock: dg.ResourceParam[Clock]
) -> dg.SensorResult:
    """Send one alert about the checks whose latest evaluation has failed."""
    definitions = context.repository_def
    assert definitions is not None, "a sensor is evaluated with its repository"
    keys = sorted(
        definitions.asset_graph.asset_check_keys - REPORTED_BY_THEIR_OWN_SENSORS,
        key=lambda key: key.to_user_string(),
    )
    failed = failed_among(context.instance, keys)
    today = f"{clock.machine():%Y-%m-%d}"
    last_alerts = {name: LastAlert(*each) for name, each in json.loads(context.cursor or "{}").items()}
    to_report = {
        key: record
        for key, record in failed.items()
        if _is_new(last_alerts.get(key.to_user_string()), record, today=today)
    }
    # A check that has passed is left out, so that its next failure is reported immediately.
    last_alerts = {
        key.to_user_string(): last_alerts[key.to_user_string()]
        for key in failed
        if key.to_user_string() in last_alerts
    }
    sent = None
    if to_report:
        sent = send_alert(
            _alert(to_report, alerts), urls=alerts.urls, log=context.log, terminal=alerts.terminal
        )
    if sent:
        last_alerts |= {
            key.to_user_string(): LastAlert(record.id, today) for key, record in to_report.items()
        }
    message = failed_checks_message(
        failed_checks=len(failed), new_checks=len(to_report), sent=sent, urls=alerts.urls
    )
    return dg.SensorResult(skip_reason=message, cursor=json.dumps(last_alerts))


def _alert(to_report: Mapping[dg.AssetCheckKey, AssetCheckExecutionRecord], alerts: Alerts) -> Alert:
    first = [_failed_check(key, to_report[key], alerts=alerts) for key in list(to_report)[:LINES_MAX]]
    return failed_checks_alert(first, checks=len(to_report), dagster_url=alerts.dagster_url)


def failed_among(
    instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey]
) -> dict[dg.AssetCheckKey, AssetCheckExecutionRecord]:
    """Return the checks whose latest completed evaluation has failed."""
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


def _is_new(last_alert: LastAlert | None, record: AssetCheckExecutionRecord, *, today: str) -> bool:
    if last_alert is None or last_alert.day != today:
        return True
    return _severity(record) is dg.AssetCheckSeverity.ERROR and last_alert.evaluation_id != record.id


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
    # The table has only the first rows.
    total = int(text_of(metadata[OFFENDING_ROWS])) if OFFENDING_ROWS in metadata else len(rows)
    return shown if total <= len(shown) else [*shown, f"and {counted(total - len(shown), 'more row')}"]
