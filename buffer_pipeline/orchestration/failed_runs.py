"""The sensor that tells operators of failed runs.

It needs no books, so that it works while they are away, which is when runs fail; it remembers in its
cursor. And it is a sensor of its own kind rather than a `run_failure_sensor`, whose cursor goes past
a run whether or not anybody was told of it.
"""

import json
import re
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import dagster as dg

from buffer_pipeline.delivery.alerts import (
    LINES_MAX,
    FailedRun,
    failed_runs_alert,
    outcome_of,
    send_alert,
)
from buffer_pipeline.orchestration.resources import Alerts
from buffer_pipeline.texts import counted

RUNS_MAX: Final = 100
"""In hand at once. What fails beyond that waits in Dagster's own event log."""

RETRY_AWAITED_SECONDS_MAX: Final = 600
"""Dagster starts the retry that it promises within seconds, or silently never."""

ERROR_LENGTH_MAX: Final = 300

WILL_RETRY_TAG: Final = "dagster/will_retry"
RETRIED_BY_TAG: Final = "dagster/auto_retry_run_id"

# What looks like a credential: all of a URL behind its scheme, the value of a password or token.
_SECRETS: Final = (
    re.compile(r"(\w+://)\S+"),
    re.compile(
        r"(?i)(\w*(?:password|passwd|pwd|secret|token|api[_-]?key|authorization)\w*['\"]?\s*[=:]\s*).+"
    ),
)


class Seen(NamedTuple):
    """The cursor: the last failure that was read, and the runs of which nobody could be told yet."""

    storage_id: int
    run_ids: list[str]


@dg.sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Tells operators of each failed run, once, with a link to it. A run that Dagster retries"
    " by itself is passed over: its last attempt is told. Works while the books are away.",
)
def failed_runs(context: dg.SensorEvaluationContext, alerts: dg.ResourceParam[Alerts]) -> dg.SensorResult:
    """Tell of the runs that have failed since the last tick, in one message."""
    instance = context.instance
    if not context.cursor:
        newest = instance.fetch_run_status_changes(dg.DagsterEventType.RUN_FAILURE, limit=1).records
        since = Seen(newest[0].storage_id if newest else -1, [])
        return _result(since, ["from now on failed runs are told; those that failed before are not"])
    seen = _read_failures(instance, Seen(*json.loads(context.cursor)))
    to_tell, to_await, retried = _sort(context, seen.run_ids)
    facts = []
    if to_tell:
        first = [_failed_run(instance, run, alerts=alerts) for run in to_tell[:LINES_MAX]]
        sent = send_alert(
            failed_runs_alert(first, runs=len(to_tell), dagster_url=alerts.dagster_url),
            urls=alerts.urls,
            log=context.log,
            terminal=alerts.terminal,
        )
        said = outcome_of(sent=sent, urls=alerts.urls)
        facts.append(f"{counted(len(to_tell), 'failed run')} {said}: {first[0].link}")
        if not sent:
            to_await = [run.run_id for run in to_tell] + to_await
    if retried:
        facts.append(
            f"{counted(len(retried), 'failed run')} retried by Dagster itself, whose last attempt is told:"
            f" {alerts.dagster_url}/runs/{retried[0]}"
        )
    return _result(Seen(seen.storage_id, to_await), facts)


def _result(seen: Seen, facts: Sequence[str]) -> dg.SensorResult:
    return dg.SensorResult(
        skip_reason="; ".join(facts) or "no run has failed since the last tick", cursor=json.dumps(seen)
    )


def _read_failures(instance: dg.DagsterInstance, seen: Seen) -> Seen:
    """Return `seen` with the runs that have failed since."""
    room = RUNS_MAX - len(seen.run_ids)
    if room <= 0:
        return seen
    records = instance.fetch_run_status_changes(
        dg.RunStatusChangeRecordsFilter(
            event_type=dg.DagsterEventType.RUN_FAILURE, after_storage_id=seen.storage_id
        ),
        limit=room,
        ascending=True,
    ).records
    run_ids = [*seen.run_ids, *(record.event_log_entry.run_id for record in records)]
    return Seen(records[-1].storage_id if records else seen.storage_id, list(dict.fromkeys(run_ids)))


def _sort(
    context: dg.SensorEvaluationContext, run_ids: Sequence[str]
) -> tuple[list[dg.DagsterRun], list[str], list[str]]:
    """Return the runs to tell of, the ids of those to look at again, and of those that are retried."""
    records = context.instance.get_run_records(dg.RunsFilter(run_ids=list(run_ids))) if run_ids else []
    found = {record.dagster_run.run_id: record for record in records}
    to_tell: list[dg.DagsterRun] = []
    to_await: list[str] = []
    retried: list[str] = []
    for record in (found[run_id] for run_id in run_ids if run_id in found):
        run = record.dagster_run
        failed_at = record.end_time or record.update_timestamp.timestamp()
        if not _is_of_this_location(context, run):
            continue
        if not run.is_finished:
            to_await.append(run.run_id)  # Its state follows the event by a moment.
        elif RETRIED_BY_TAG in run.tags:
            retried.append(run.run_id)
        elif _may_be_retried(context.instance, run) and time.time() < failed_at + RETRY_AWAITED_SECONDS_MAX:
            retried.append(run.run_id)
            to_await.append(run.run_id)
        else:
            to_tell.append(run)
    return to_tell, to_await, retried


def _may_be_retried(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    # The tag follows the event by a moment too.
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
    """Return the first line of why the run failed, as whoever raised it says it."""
    records = instance.get_records_for_run(
        run_id, of_type=dg.DagsterEventType.RUN_FAILURE, limit=1, ascending=False
    ).records
    event = records[0].event_log_entry.dagster_event if records else None
    if event is None:
        return "why is not in the event log"
    # A run that is failed from outside, as when its process died, has a message and no data.
    failure: Any = event.event_specific_data
    step = failure and failure.first_step_failure_event
    if not step:
        return first_line(_cause(failure and failure.error) or event.message or "")
    given = step.step_failure_data.user_failure_data
    text = given.description if given else _cause(step.step_failure_data.error)
    return f"{step.step_key}: {first_line(text or step.message or '')}"


def _cause(error: Any) -> str | None:
    """Return the message of an error in the event log, or of the one that Dagster has wrapped in it."""
    return None if error is None else str((error.cause or error).message)


def first_line(text: str) -> str:
    """Return the first line, cut at `ERROR_LENGTH_MAX`, what looks like a credential left out."""
    line = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
    for secret in _SECRETS:
        line = secret.sub(r"\1…", line)
    return line if len(line) <= ERROR_LENGTH_MAX else f"{line[:ERROR_LENGTH_MAX]}…"
