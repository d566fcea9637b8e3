"""`buffer-pipeline notifications …`: the messages to owners, deliveries that wait, and dead letters."""

from dataclasses import asdict, fields
from enum import StrEnum
from typing import Annotated, Any, Final

import typer
from sqlalchemy import Engine

from buffer_pipeline.cli.interrupt import between_batches
from buffer_pipeline.cli.output import Output, iso, present
from buffer_pipeline.cli.session import books, one_snapshot, one_transaction
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.extras import need
from buffer_pipeline.inputs import parse_time, require_id, require_text
from buffer_pipeline.logs import logging_to_stderr
from buffer_pipeline.notifications.outbox import (
    Delivery,
    DeliveryState,
    Undispatched,
    delivery_figures,
    list_deliveries,
    list_undispatched,
)
from buffer_pipeline.notifications.outbox import replay as replay_dead
from buffer_pipeline.settings import load_settings
from buffer_pipeline.shares import ShareKind

app = typer.Typer(rich_markup_mode="markdown")

LIST_LIMIT: Final = 100
LIST_LIMIT_MAX: Final = 10_000
REPLAY_BATCH: Final = 5_000


class Type(StrEnum):
    """The types of notifications. A test compares them with those of the table."""

    PAYMENT_PENDING = "PAYMENT_PENDING"
    PAYMENT_RELEASED = "PAYMENT_RELEASED"
    PAYMENT_FROZEN = "PAYMENT_FROZEN"
    PAYMENT_RESUMED = "PAYMENT_RESUMED"
    PAYMENT_RESCHEDULED = "PAYMENT_RESCHEDULED"
    PAYMENT_REFUNDED = "PAYMENT_REFUNDED"
    BACKJOB_RECEIVED = "BACKJOB_RECEIVED"
    BACKJOB_REJECTED = "BACKJOB_REJECTED"
    BACKJOB_APPROVED = "BACKJOB_APPROVED"
    EARNING_CLAWED_BACK = "EARNING_CLAWED_BACK"
    DEBT_RECOVERED = "DEBT_RECOVERED"
    DEBT_FORGIVEN = "DEBT_FORGIVEN"
    PAYOUT_SENT = "PAYOUT_SENT"
    PAYOUT_PAID = "PAYOUT_PAID"
    PAYOUT_RETURNED = "PAYOUT_RETURNED"


EndpointName = Annotated[str | None, typer.Option("--endpoint", help="Only of this endpoint.")]


@app.command("list")
def list_(
    context: typer.Context,
    state: Annotated[
        DeliveryState | None, typer.Option(case_sensitive=False, help="Only in this state.")
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Only to this owner.")] = None,
    type_: Annotated[
        Type | None, typer.Option("--type", case_sensitive=False, help="Only of this type.")
    ] = None,
    endpoint: EndpointName = None,
    before: Annotated[
        int | None, typer.Option(help="For the next page: the last delivery_id of this page.")
    ] = None,
    limit: Annotated[
        int, typer.Option(help="At most this number of deliveries.", min=1, max=LIST_LIMIT_MAX)
    ] = LIST_LIMIT,
) -> None:
    """List deliveries, the newest first: one for each notification and endpoint.

    The first page begins with the notifications that have no deliveries yet, without an id and an endpoint.

    Example: `buffer-pipeline notifications list --state DEAD --owner worker-17`
    """
    output: Output = context.obj
    owner = None if owner is None else require_text("owner", owner)
    of_type = None if type_ is None else type_.value
    rows: list[Delivery | Undispatched] = []
    with one_snapshot() as (connection, _, _now):
        if before is None and endpoint is None and state in {None, DeliveryState.WAITING}:
            rows += list_undispatched(connection, owner=owner, type_=of_type, limit=limit)
        rows += list_deliveries(
            connection,
            state=state,
            owner=owner,
            type_=of_type,
            endpoint=endpoint,
            before_id=before,
            limit=limit - len(rows),
        )
    output.table(
        [present(_row(row)) for row in rows],
        columns=(
            "delivery_id",
            "notification_id",
            "type",
            "owner",
            "endpoint",
            "state",
            "attempts",
            "next_attempt_at",
            "reason",
        ),
        empty="No deliveries.",
    )


def _row(listed: Delivery | Undispatched) -> dict[str, Any]:
    if isinstance(listed, Delivery):
        return asdict(listed)
    waiting = {"endpoint": "", "state": DeliveryState.WAITING, "attempts": 0, "reason": "not dispatched yet"}
    return {**dict.fromkeys(field.name for field in fields(Delivery)), **waiting, **asdict(listed)}


@app.command("drain")
def drain(
    context: typer.Context,
    seconds: Annotated[
        float | None, typer.Option(help="End after this number of seconds, even if more is due.", min=0)
    ] = None,
) -> None:
    """Send the waiting notifications to every endpoint of BUFFER_ENDPOINTS.

    Safe to run again, and at the same time as another drain. Ctrl-C, SIGTERM and `--seconds` end it after the
    deliveries that are being sent: at most the timeout of an endpoint later, and 5 seconds for a transaction
    that waits in the books. A second signal waits for no endpoint.

    Example: `buffer-pipeline notifications drain --seconds 30`
    """
    need("notifications", "jinja2")
    from buffer_pipeline.notifications.channels.channel import configured_endpoints
    from buffer_pipeline.notifications.drain import drain as drain_waiting
    from buffer_pipeline.notifications.messages import Messages

    output: Output = context.obj
    with books() as (engine, settings):
        endpoints = configured_endpoints(settings.endpoints)
        waiting = _waiting_at(engine, {each.name for each in endpoints}) if output.shows_progress else None
        with (
            output.progress("drain", total=waiting, unit="messages") as advance,
            # Inside the progress bar, so that the log lines appear above it.
            logging_to_stderr(settings.log),
            between_batches("the deliveries in progress", grace_seconds=None) as interruption,
        ):
            done = drain_waiting(
                engine,
                endpoints,
                Messages(templates=settings.templates, locale=settings.locale, time_zone=settings.time_zone),
                stop=interruption.asked,
                seconds_max=seconds,
                after_dispatch=lambda deliveries: advance(0, more=deliveries),
                after_settle=advance,
            )
    text = f"Sent {done.sent:,}; {done.retried:,} to be tried again, {done.dead:,} dead."
    if done.waiting:
        since = "" if done.oldest_waiting is None else f", the oldest since {iso(done.oldest_waiting)}"
        text += f" {done.waiting:,} wait{since}."
    output.answer(present(asdict(done)), text=text)


def _waiting_at(engine: Engine, endpoints: set[str]) -> int:
    """Return how many deliveries wait at these endpoints. Undispatched notifications have no endpoint yet."""
    with engine.connect() as connection:
        return sum(each.waiting for each in delivery_figures(connection) if each.endpoint in endpoints)


@app.command("replay")
def replay(
    context: typer.Context,
    ids: Annotated[
        list[int] | None, typer.Option("--id", help="The id of a delivery; can be given several times.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Dead since this time or later (ISO 8601).")] = None,
    until: Annotated[str | None, typer.Option(help="Dead before this time (ISO 8601).")] = None,
    endpoint: EndpointName = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead letters.")] = False,
) -> None:
    """Send dead letters again, as if they had never been tried. They wait for the next drain.

    Example: `buffer-pipeline notifications replay --since 2026-11-18T00:00Z --endpoint backend`
    """
    if (bool(ids) + (since is not None or until is not None) + everything) != 1:
        raise typer.BadParameter("give --id, --since and --until, or --all")
    output: Output = context.obj
    began = None if since is None else parse_time("since", since)
    ended = None if until is None else parse_time("until", until)
    if began is not None and ended is not None and began >= ended:
        raise InvalidInput(f"until {until}: must be after since {since}")
    wanted = [require_id("delivery", each) for each in ids] if ids else None
    replayed: list[int] = []
    while True:
        with one_transaction() as (connection, _, now):
            batch = replay_dead(
                connection,
                now=now,
                ids=wanted,
                since=began,
                until=ended,
                endpoint=endpoint,
                batch_limit=REPLAY_BATCH,
            )
        replayed += batch
        if len(batch) < REPLAY_BATCH:
            break
    if wanted is not None and (missing := sorted(set(wanted) - set(replayed))):
        output.remark(f"Not dead letters, so not changed: {', '.join(map(str, missing))}.")
    output.answer(
        {"replayed": len(replayed), "delivery_ids": replayed},
        text=f"{len(replayed):,} deliver{'y waits' if len(replayed) == 1 else 'ies wait'} again.",
    )


@app.command("preview")
def preview(
    context: typer.Context,
    type_: Annotated[
        Type, typer.Argument(metavar="TYPE", case_sensitive=False, help="Such as PAYMENT_RELEASED.")
    ],
    locale: Annotated[
        str | None, typer.Option(help="The locale of the reader; default: BUFFER_LOCALE.")
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option(help="The time zone of the reader; default: BUFFER_TIME_ZONE.")
    ] = None,
    kind: Annotated[
        ShareKind | None,
        typer.Option(case_sensitive=False, help="Of an earning with shares: the one about this share."),
    ] = None,
) -> None:
    """Show a sample notification as every channel would send it to each of its readers.

    Example: `buffer-pipeline notifications preview PAYMENT_REFUNDED --locale fil_PH` or
    `buffer-pipeline notifications preview PAYMENT_PENDING --kind PAYEE`
    """
    need("notifications", "jinja2")
    from buffer_pipeline.cli.previews import previews

    output: Output = context.obj
    shown = list(previews(load_settings(), type_.value, locale=locale, time_zone=time_zone, kind=kind))
    texts = []
    for each in shown:
        reader = "payer" if each.to_payer else "payee"
        texts.append(f"--- {each.endpoint} ({each.channel}), to the {reader} ---\n{each.text}".rstrip())
    output.answer([asdict(each) for each in shown], text="\n\n".join(texts))


@app.command("test-webhook")
def send_to_webhook(
    context: typer.Context,
    url: Annotated[str, typer.Argument(help="The URL that receives the POST request.")],
    secret: Annotated[
        str | None,
        typer.Option(
            envvar="BUFFER_WEBHOOK_SECRET",
            help="whsec_…; default: that of the endpoint with this URL, else a new one, which is printed.",
        ),
    ] = None,
    type_: Annotated[
        Type, typer.Option("--type", case_sensitive=False, help="The type of the sample.")
    ] = Type.PAYMENT_RELEASED,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Allow http:// and addresses of private networks.")
    ] = False,
) -> None:
    """Send one signed sample notification to a URL, and report the answer. It needs no books.

    Its owner is test-webhook, and its titles begin with "Test: ". Its id is random, 9,000,000,000,000,000 or
    above, so that no real notification is taken for a repetition of it.

    Example: `buffer-pipeline notifications test-webhook https://backend.example.com/notifications`
    """
    need("notifications", "jinja2")
    from buffer_pipeline.cli.previews import try_webhook

    output: Output = context.obj
    tried = try_webhook(load_settings(), url, secret=secret, type_=type_.value, allow_private=allow_private)
    if tried.made_up_secret is not None:
        output.remark(f"Signed with a new secret for this test: {tried.made_up_secret}")
    output.answer(asdict(tried), text=f"{tried.webhook_id}: {tried.outcome} after {tried.seconds:.2f} s.")
    if not tried.delivered:
        raise typer.Exit(1)
