"""Notifications in Dagster: the step of a release, the sensor between releases, and dead letters."""

from typing import Any, Final

import dagster as dg
from pydantic import Field

from buffer_pipeline.errors import InvalidInput, SettingError
from buffer_pipeline.inputs import parse_time
from buffer_pipeline.logs import logging_to_stderr
from buffer_pipeline.notifications.channels.channel import configured_endpoints
from buffer_pipeline.notifications.drain import Drained, drain
from buffer_pipeline.notifications.endpoint_drain import EndpointCounts
from buffer_pipeline.notifications.messages import Messages
from buffer_pipeline.notifications.outbox import Figures, delivery_figures, replay
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
from buffer_pipeline.orchestration.resources import Books, Clock
from buffer_pipeline.settings import Settings

RELEASE_SECONDS_MAX: Final = 15.0
"""How long a release sends. What is left is sent by the runs between releases."""

DRAIN_SECONDS_MAX: Final = 45.0
"""How long a run between releases sends. The next run continues."""

REPLAY_BATCH: Final = 5_000

DRAIN_TAG: Final = "buffer/notifications"


def drain_outbox(
    books: Books, clock: Clock, settings: Settings, *, run_id: str, seconds_max: float
) -> Drained:
    """Send what is due to the endpoints of the settings.

    After `seconds_max` it ends with the deliveries that are under way then.

    Raises:
        SettingError: an endpoint or a template cannot be used.
    """
    messages = Messages(templates=settings.templates, locale=settings.locale, time_zone=settings.time_zone)
    # Dagster keeps stderr as the compute log of the step.
    with logging_to_stderr(settings.log, run_id=run_id, text_format="%(asctime)s %(levelname)s %(message)s"):
        return drain(
            books.engine,
            configured_endpoints(settings.endpoints),
            messages,
            clock=clock.books,
            seconds_max=seconds_max,
        )


def drained_metadata(books: Books, drained: Drained) -> dict[str, Any]:
    """Return what a drain did and what is left, in total and for each endpoint.

    An endpoint that is no longer configured is included while deliveries to it wait.
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


def _endpoint_row(name: str, counts: EndpointCounts | None, left: Figures | None) -> dict[str, Any]:
    if counts is None:
        remark = "not in BUFFER_ENDPOINTS"
    else:
        remark = "its receiver does not answer" if counts.paused else ""
    return {
        "endpoint": name,
        "sent": counts.sent if counts else 0,
        "retried": counts.retried if counts else 0,
        "dead": counts.dead if counts else 0,
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
            description="The messages to owners, sent to the endpoints of BUFFER_ENDPOINTS: at least once, in"
            " order for each owner, with a stable id for deduplication. Starts after the checks of"
            " `released_transactions`. A message that a receiver does not accept stays in the outbox and is"
            " sent between releases, so no receiver can fail or delay a release. Sending moves no money.",
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
    context: dg.AssetExecutionContext,
    books: dg.ResourceParam[Books],
    clock: dg.ResourceParam[Clock],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[Any]:
    """Send the messages of the release, and all others that are due."""
    try:
        drained = drain_outbox(
            books, clock, settings, run_id=context.run.run_id, seconds_max=RELEASE_SECONDS_MAX
        )
    except SettingError as error:
        # The money has moved, so the release succeeds. The runs between releases fail with the same error,
        # and operators are alerted to them.
        with books.engine.begin() as connection:
            waiting = sum(figures.waiting for figures in delivery_figures(connection))
        return dg.MaterializeResult(metadata={"sent": 0, "waiting": waiting, "error": str(error)})
    return dg.MaterializeResult(metadata=drained_metadata(books, drained))


@dg.op(
    name="send_notifications",
    out=dg.Out(dg.Nothing),
    description="Sends what is due since the last release: messages about freezes, refunds and backjobs, and"
    " retries.",
    tags=TAGS,
)
def send_notifications(
    context: dg.OpExecutionContext,
    books: dg.ResourceParam[Books],
    clock: dg.ResourceParam[Clock],
    settings: dg.ResourceParam[Settings],
) -> None:
    """Send what is due."""
    drained = drain_outbox(books, clock, settings, run_id=context.run_id, seconds_max=DRAIN_SECONDS_MAX)
    context.add_output_metadata(drained_metadata(books, drained))


@dg.job(
    executor_def=dg.in_process_executor,
    tags={DRAIN_TAG: "1"},
    description="Sends the notifications that are due. The sensor `waiting_notifications` launches it. It may"
    " run at the same time as a release or as another run of its own. Moves no money.",
)
def deliver_notifications() -> None:
    """Send in one op."""
    send_notifications()


class ReplayConfig(dg.Config):
    """The dead letters to send again: `delivery_ids`, or `since` and `until`."""

    delivery_ids: list[int] = Field(
        default=[], description="Ids, as `buffer-pipeline notifications list --state DEAD` lists them."
    )
    since: str | None = Field(
        default=None, description="Dead since this time or later: ISO 8601 with a time zone."
    )
    until: str | None = Field(default=None, description="Dead before this time: ISO 8601 with a time zone.")
    endpoint: str | None = Field(default=None, description="Only dead letters of this endpoint.")


@dg.op(
    name="replay",
    out=dg.Out(dg.Nothing),
    description="Puts dead letters back into the outbox as if they had never been tried, and sends what is"
    " due.",
    tags=TAGS,
)
def replay_op(
    context: dg.OpExecutionContext,
    config: ReplayConfig,
    books: dg.ResourceParam[Books],
    clock: dg.ResourceParam[Clock],
    settings: dg.ResourceParam[Settings],
) -> None:
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
                now=clock.books(connection),
                ids=config.delivery_ids or None,
                since=since,
                until=until,
                endpoint=config.endpoint,
                batch_limit=REPLAY_BATCH,
            )
        replayed += len(batch)
        if len(batch) < REPLAY_BATCH:
            break
    drained = drain_outbox(books, clock, settings, run_id=context.run_id, seconds_max=DRAIN_SECONDS_MAX)
    context.add_output_metadata({"replayed": replayed, **drained_metadata(books, drained)})


@dg.job(
    executor_def=dg.in_process_executor,
    tags={DRAIN_TAG: "1"},
    description="Sends dead letters again, selected by id or by time. Moves no money.",
)
def replay_dead_letters() -> None:
    """Replay in one op."""
    replay_op()
