"""Notifications in Dagster: a release's own step, a sensor for the time between hours, the dead letters."""

import time
from typing import Any, Final

import dagster as dg
from pydantic import Field

from buffer_pipeline.database import database_clock
from buffer_pipeline.delivery.channel import configured_endpoints
from buffer_pipeline.delivery.drain import Drained, Tally, drain
from buffer_pipeline.errors import InvalidInput, SettingError
from buffer_pipeline.inputs import parse_time
from buffer_pipeline.logs import logging_to_stderr
from buffer_pipeline.messages import Messages
from buffer_pipeline.orchestration.assets import FRESH_FOR, refuse
from buffer_pipeline.orchestration.lineage import (
    GROUP,
    NOTIFICATION_COLUMNS,
    NOTIFICATIONS,
    OWNERS,
    RELEASED,
    TAGS,
)
from buffer_pipeline.orchestration.metadata import table_metadata
from buffer_pipeline.orchestration.resources import Books
from buffer_pipeline.outbox import Figures, delivery_figures, replay, to_send
from buffer_pipeline.settings import load_settings

RELEASE_SECONDS_MAX: Final = 15.0
"""What a release gives its receivers: what they do not take meanwhile goes out between the hours."""

DRAIN_SECONDS_MAX: Final = 45.0
"""What a run between the hours gives them; the next one goes on."""

RETRY_SECONDS_MIN: Final = 60
"""Between two runs for what an earlier one has left: while a receiver is down, one run a minute."""

REPLAY_BATCH: Final = 5_000

DRAIN_TAG: Final = "buffer/notifications"

_UNFINISHED: Final = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


def drain_outbox(books: Books, *, run_id: str, seconds_max: float) -> Drained:
    """Send what is due to the endpoints of the settings, for `seconds_max` and what is under way then.

    Raises:
        SettingError: an endpoint or a template cannot be used.
    """
    settings = load_settings()
    messages = Messages(templates=settings.templates, locale=settings.locale, time_zone=settings.time_zone)
    # Dagster keeps what is on stderr as the step's compute log.
    with logging_to_stderr(settings.log, run_id=run_id, text_format="%(asctime)s %(levelname)s %(message)s"):
        return drain(
            books.engine,
            configured_endpoints(settings.endpoints),
            messages,
            seconds_max=seconds_max,
        )


def drained_metadata(books: Books, drained: Drained) -> dict[str, Any]:
    """Return what a drain did and what is left, over all endpoints and at each that has something.

    What waits at an endpoint that is no longer configured is shown with the others.
    """
    with books.engine.begin() as connection:
        left = {figures.endpoint: figures for figures in delivery_figures(connection)}
    oldest = drained.oldest_waiting
    names = sorted({*drained.endpoints, *(name for name in left if name is not None)})
    return {
        "sent": drained.sent,
        "retried": drained.retried,
        "dead": drained.dead,
        "lost_leases": drained.lost,
        "waiting": drained.waiting,
        "oldest_waiting": "none" if oldest is None else dg.MetadataValue.timestamp(oldest),
        **table_metadata(
            "endpoints",
            [_endpoint_row(name, drained.endpoints.get(name), left.get(name)) for name in names],
        ),
    }


def _endpoint_row(name: str, tally: Tally | None, left: Figures | None) -> dict[str, Any]:
    if tally is None:
        remark = "not in BUFFER_ENDPOINTS"
    else:
        remark = "its receiver does not answer" if tally.paused else ""
    return {
        "endpoint": name,
        "sent": tally.sent if tally else 0,
        "retried": tally.retried if tally else 0,
        "dead": tally.dead if tally else 0,
        "waiting": left.waiting if left else 0,
        "dead_letters": left.dead if left else 0,
        "remark": remark,
    }


@dg.multi_asset(
    name="emit_notifications",
    specs=[
        dg.AssetSpec(
            NOTIFICATIONS,
            deps=[RELEASED],
            description="What owners are told, sent to the endpoints of BUFFER_ENDPOINTS: at least once, in"
            " order for each owner, with a stable id to dedupe on. Waits for the checks of"
            " `released_transactions`. What a receiver does not take stays in the outbox and goes out"
            " between the hours; no receiver can fail a release or hold it up. Sending moves no money.",
            group_name=GROUP,
            owners=OWNERS,
            kinds={"postgres"},
            tags=TAGS,
            code_version="2",
            freshness_policy=FRESH_FOR,
            metadata=NOTIFICATION_COLUMNS,
        )
    ],
)
def release_notifications(
    context: dg.AssetExecutionContext, books: dg.ResourceParam[Books]
) -> dg.MaterializeResult[Any]:
    """Send what the release has written, and whatever else waits."""
    try:
        drained = drain_outbox(books, run_id=context.run.run_id, seconds_max=RELEASE_SECONDS_MAX)
    except SettingError as error:
        # The money has moved. The runs between the hours fail with this, and operators hear of those.
        with books.engine.begin() as connection:
            waiting = sum(figures.waiting for figures in delivery_figures(connection))
        return dg.MaterializeResult(metadata={"sent": 0, "waiting": waiting, "error": str(error)})
    return dg.MaterializeResult(metadata=drained_metadata(books, drained))


@dg.op(
    name="send_notifications",
    out=dg.Out(dg.Nothing),
    description="Sends what freezes, refunds, backjobs and retries have left since the last release.",
    tags=TAGS,
)
def send_notifications(context: dg.OpExecutionContext, books: dg.ResourceParam[Books]) -> None:
    """Send what is due."""
    drained = drain_outbox(books, run_id=context.run_id, seconds_max=DRAIN_SECONDS_MAX)
    context.add_output_metadata(drained_metadata(books, drained))


@dg.job(
    executor_def=dg.in_process_executor,
    tags={DRAIN_TAG: "1"},
    description="Sends the notifications that are due. Launched by `waiting_notifications`; safe beside a"
    " release and beside another one. Moves no money.",
)
def deliver_notifications() -> None:
    """Send in one op."""
    send_notifications()


class ReplayConfig(dg.Config):
    """Which dead letters are to be sent again; one of the ways must be given."""

    delivery_ids: list[int] = Field(
        default=[], description="By id, as `buffer-pipeline notifications list --state DEAD` shows them."
    )
    since: str | None = Field(
        default=None, description="Given up at or after this time: ISO 8601 with a zone."
    )
    until: str | None = Field(default=None, description="Given up before this time: ISO 8601 with a zone.")
    endpoint: str | None = Field(default=None, description="Only those of this endpoint.")


@dg.op(
    name="replay",
    out=dg.Out(dg.Nothing),
    description="Lets deliveries that were given up wait again, as if never tried, and sends what is due.",
    tags=TAGS,
)
def replay_op(context: dg.OpExecutionContext, config: ReplayConfig, books: dg.ResourceParam[Books]) -> None:
    """Replay batch by batch, then send."""
    if not config.delivery_ids and config.since is None and config.until is None:
        refuse(context, "replay: needs delivery_ids, since or until")
    if config.delivery_ids and (config.since is not None or config.until is not None):
        refuse(context, "replay: needs delivery_ids, or since and until, not both")
    try:
        since = None if config.since is None else parse_time("since", config.since)
        until = None if config.until is None else parse_time("until", config.until)
    except InvalidInput as refusal:
        refuse(context, str(refusal))
    replayed = 0
    while True:
        with books.engine.begin() as connection:
            batch = replay(
                connection,
                now=database_clock(connection),
                ids=config.delivery_ids or None,
                since=since,
                until=until,
                endpoint=config.endpoint,
                batch_limit=REPLAY_BATCH,
            )
        replayed += len(batch)
        if len(batch) < REPLAY_BATCH:
            break
    drained = drain_outbox(books, run_id=context.run_id, seconds_max=DRAIN_SECONDS_MAX)
    context.add_output_metadata({"replayed": replayed, **drained_metadata(books, drained)})


@dg.job(
    executor_def=dg.in_process_executor,
    tags={DRAIN_TAG: "1"},
    description="Sends dead letters again, by id or by when they were given up. Moves no money.",
)
def replay_dead_letters() -> None:
    """Replay in one op."""
    replay_op()


@dg.sensor(
    job=deliver_notifications,
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Launches `deliver_notifications` when something is due to be sent, so that whoever is"
    " frozen, refunded or rejected between two hours hears of it within a minute.",
)
def waiting_notifications(
    context: dg.SensorEvaluationContext, books: dg.ResourceParam[Books]
) -> dg.RunRequest | dg.SkipReason:
    """Ask the outbox, and whether somebody sends already."""
    instance = context.instance
    running = instance.get_run_records(dg.RunsFilter(tags={DRAIN_TAG: "1"}, statuses=_UNFINISHED), limit=1)
    if running:
        return dg.SkipReason(f"run {running[0].dagster_run.run_id} is sending already")
    endpoints = [endpoint.name for endpoint in load_settings().endpoints]
    with books.engine.begin() as connection:
        found = to_send(connection, endpoints=endpoints, now=database_clock(connection))
    if found.new:
        return dg.RunRequest()
    if not found.due:
        return dg.SkipReason("nothing is due to be sent")
    latest = instance.get_run_records(dg.RunsFilter(tags={DRAIN_TAG: "1"}), limit=1)
    if latest and (latest[0].end_time or 0.0) > time.time() - RETRY_SECONDS_MIN:
        return dg.SkipReason(
            f"what is due was left by run {latest[0].dagster_run.run_id}, whose receivers did not answer or"
            f" whose time was over; it is tried again {RETRY_SECONDS_MIN} seconds behind its end"
        )
    return dg.RunRequest()
