"""The sensor that has notifications sent between releases."""

from typing import Final

import dagster as dg

from buffer_pipeline.notifications.outbox import to_send
from buffer_pipeline.orchestration.checks import BLOCKING_CHECKS
from buffer_pipeline.orchestration.failed_checks import failed_among
from buffer_pipeline.orchestration.jobs import release_pending_payments
from buffer_pipeline.orchestration.notifications import DRAIN_TAG, deliver_notifications
from buffer_pipeline.orchestration.resources import Books, Clock
from buffer_pipeline.orchestration.sensor_messages import (
    held_back_message,
    left_message,
    released_first_message,
    sending_already_message,
)
from buffer_pipeline.settings import Settings

RETRY_SECONDS_MIN: Final = 60
"""The pause before a run for deliveries that an earlier run left, so that a receiver that is down costs one
run per minute."""

_UNFINISHED: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


@dg.sensor(
    job=deliver_notifications,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Launches `deliver_notifications` when notifications are due, so that owners learn within a"
    " minute of a freeze, a refund or a decision between two releases. Launches nothing during a release,"
    " which sends by itself once its checks have passed, and nothing while one of these checks has failed.",
)
def waiting_notifications(
    context: dg.SensorEvaluationContext,
    books: dg.ResourceParam[Books],
    clock: dg.ResourceParam[Clock],
    settings: dg.ResourceParam[Settings],
) -> dg.RunRequest | dg.SkipReason:
    """Ask for a run if notifications are due, no run sends already, and what they say is proved."""
    instance = context.instance
    running = instance.get_run_records(dg.RunsFilter(tags={DRAIN_TAG: "1"}, statuses=_UNFINISHED), limit=1)
    if running:
        return dg.SkipReason(sending_already_message(running[0].dagster_run.run_id))
    endpoints = [endpoint.name for endpoint in settings.endpoints]
    with books.engine.begin() as connection:
        found = to_send(connection, endpoints=endpoints, now=clock.books(connection))
    if not (found.new or found.due):
        return dg.SkipReason("nothing is due to be sent")
    if unproved := _unproved(instance):
        return dg.SkipReason(unproved)
    if found.new:
        return dg.RunRequest()
    latest = instance.get_run_records(dg.RunsFilter(tags={DRAIN_TAG: "1"}), limit=1)
    if latest and (latest[0].end_time or 0.0) > clock.machine().timestamp() - RETRY_SECONDS_MIN:
        return dg.SkipReason(left_message(latest[0].dagster_run.run_id, seconds=RETRY_SECONDS_MIN))
    return dg.RunRequest()


def _unproved(instance: dg.DagsterInstance) -> str:
    """Return why what was released is not proved yet, or an empty string."""
    releasing = instance.get_run_records(
        dg.RunsFilter(job_name=release_pending_payments.name, statuses=_UNFINISHED), limit=1
    )
    if releasing:
        return released_first_message(releasing[0].dagster_run.run_id)
    failed = failed_among(instance, BLOCKING_CHECKS)
    return held_back_message([key.name for key in failed]) if failed else ""
