"""The sensor that alerts operators to failed runs.

It keeps what it has reported in its cursor, because it must work while the books are away: that is when runs
fail. It is not a `run_failure_sensor`, because the cursor of one moves past a run even if the alert could not
be sent.
"""

import json
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import dagster as dg

from buffer_pipeline.monitoring.alerts import (
    LINES_MAX,
    Alert,
    FailedRun,
    failed_runs_alert,
    send_alert,
)
from buffer_pipeline.orchestration.resources import Alerts, Clock
from buffer_pipeline.orchestration.sensor_messages import failed_runs_message

CURSOR_RUNS_MAX: Final = 100
"""Runs in the cursor. Further failed runs wait in Dagster's event log."""

RETRY_AWAITED_SECONDS_MAX: Final = 600
"""Dagster starts a retry within seconds after the failure, or never, without a message."""

ERROR_LENGTH_MAX: Final = 300

WILL_RETRY_TAG: Final = "dagster/will_retry"
RETRIED_BY_TAG: Final = "dagster/auto_retry_run_id"

FIRST_TICK_MESSAGE: Final = "from now on failed runs are reported; those that failed before are not"

# What looks like a credential: all of a URL after its scheme, and the value of a password or token.
_SECRETS: Final = (
    re.compile(r"(\w+://)\S+"),
    re.compile(
        r"(?i)(\w*(?:password|passwd|pwd|secret|token|api[_-]?key|authorization)\w*['\"]?\s*[=:]\s*).+"
    ),
)


class Seen(NamedTuple):
    """The cursor: the last failure that was read, and the failed runs that are not in an alert yet."""

    storage_id: int
    run_ids: list[str]


@dg.sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Alerts operators once to each failed run, with a link. If Dagster retries a run, the alert"
    " is about its last attempt. Works while the books are away.",
)
def failed_runs(
    context: dg.SensorEvaluationContext, alerts: dg.ResourceParam[Alerts], clock: dg.ResourceParam[Clock]
) -> dg.SensorResult:
    """Send one alert about the runs that have failed since the last tick."""
    instance = context.instance
    if not context.cursor:
        newest = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1).records
        since = Seen(newest[0].storage_id if newest else -1, [])
        return _result(since, FIRST_TICK_MESSAGE)
    seen = _read_failures(instance, Seen(*json.loads(context.cursor)))
    to_report, to_await, retried = _sort(context, seen.run_ids, now=clock.machine())
    failed_ids = [run.run_id for run in to_report]
    sent = None
    if to_report:
        sent = send_alert(
            _alert(instance, to_report, alerts), urls=alerts.urls, log=context.log, terminal=alerts.terminal
        )
        if not sent:
            to_await = failed_ids + to_await
    message = failed_runs_message(
        failed_ids=failed_ids,
        retried_ids=retried,
        sent=sent,
        urls=alerts.urls,
        dagster_url=alerts.dagster_url,
    )
    return _result(Seen(seen.storage_id, to_await), message)


def _result(seen: Seen, message: str) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=message, cursor=json.dumps(seen))


def _alert(instance: dg.DagsterInstance, runs: Sequence[dg.DagsterRun], alerts: Alerts) -> Alert:
    first = [_failed_run(instance, run, alerts=alerts) for run in runs[:LINES_MAX]]
    return failed_runs_alert(first, runs=len(runs), dagster_url=alerts.dagster_url)


def _read_failures(instance: dg.DagsterInstance, seen: Seen) -> Seen:
    """Return `seen` with the runs that have failed since."""
    limit = CURSOR_RUNS_MAX - len(seen.run_ids)
    if limit <= 0:
        return seen
    records = instance.fetch_run_status_changes(
        dg.RunStatusChangeRecordsFilter(
            event_type=dg.DagsterEventType.RUN_FAILURE, after_storage_id=seen.storage_id
        ),
        limit=limit,
        ascending=True,
    ).records
    run_ids = [*seen.run_ids, *(record.event_log_entry.run_id for record in records)]
    return Seen(records[-1].storage_id if records else seen.storage_id, list(dict.fromkeys(run_ids)))


def _sort(
    context: dg.SensorEvaluationContext, run_ids: Sequence[str], *, now: datetime
) -> tuple[list[dg.DagsterRun], list[str], list[str]]:
    """Return the runs for the alert, the ids to read again at the next tick, and the ids of retried runs."""
    records = context.instance.get_run_records(dg.RunsFilter(run_ids=list(run_ids))) if run_ids else []
    found = {record.dagster_run.run_id: record for record in records}
    to_report: list[dg.DagsterRun] = []
    to_await: list[str] = []
    retried: list[str] = []
    for record in (found[run_id] for run_id in run_ids if run_id in found):
        run = record.dagster_run
        failed_at = record.end_time or record.update_timestamp.timestamp()
        if not _is_of_this_location(context, run):
            continue
        if not run.is_finished:
            to_await.append(run.run_id)  # Dagster writes the run's state a moment after the event.
        elif RETRIED_BY_TAG in run.tags:
            retried.append(run.run_id)
        elif (
            _may_be_retried(context.instance, run) and now.timestamp() < failed_at + RETRY_AWAITED_SECONDS_MAX
        ):
            retried.append(run.run_id)
            to_await.append(run.run_id)
        else:
            to_report.append(run)
    return to_report, to_await, retried


def _may_be_retried(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    # Dagster writes this tag a moment after the event too.
    undecided = "true" if instance.run_retries_enabled else "false"
    return run.tags.get(WILL_RETRY_TAG, undecided) == "true"


def _is_of_this_location(context: dg.SensorEvaluationContext, run: dg.DagsterRun) -> bool:
    origin, here = run.remote_job_origin, context.code_location_origin
    return (origin and origin.location_name) == (here and here.location_name)


def _failed_run(instance: dg.DagsterInstance, run: dg.DagsterRun, *, alerts: Alerts) -> FailedRun:
    return FailedRun(
        job=run.job_name,
        error=_error_of(instance, run.run_id),
        link=f"{alerts.dagster_url}/runs/{run.run_id}",
    )


def _error_of(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return the first line of the error that failed the run."""
    records = instance.get_records_for_run(
        run_id, of_type=dg.DagsterEventType.RUN_FAILURE, limit=1, ascending=False
    ).records
    event = records[0].event_log_entry.dagster_event if records else None
    if event is None:
        return "the event log does not say why"
    # A run whose process died is failed by the daemon: its event has a message but no data.
    failure: Any = event.event_specific_data
    step = failure and failure.first_step_failure_event
    if not step:
        return first_line(_cause(failure and failure.error) or event.message or "")
    given = step.step_failure_data.user_failure_data
    text = given.description if given else _cause(step.step_failure_data.error)
    return f"{step.step_key}: {first_line(text or step.message or '')}"


def _cause(error: Any) -> str | None:
    """Return the message of an error in the event log, or of the error that Dagster wrapped in it."""
    return None if error is None else str((error.cause or error).message)


def first_line(text: str) -> str:
    """Return the first line without what looks like a credential, cut at `ERROR_LENGTH_MAX`."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    for secret in _SECRETS:
        line = secret.sub(r"\1…", line)
    return line if len(line) <= ERROR_LENGTH_MAX else f"{line[:ERROR_LENGTH_MAX]}…"
