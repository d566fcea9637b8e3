"""`buffer-pipeline clock …`: the clock of a sandbox, which moves only when told."""

import uuid
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

import typer
from sqlalchemy import Engine

from buffer_pipeline.cli.interrupt import between_batches
from buffer_pipeline.cli.output import Output, amounts_by_currency, iso, money, present
from buffer_pipeline.cli.session import books
from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import REVISION, books_revision, migrate
from buffer_pipeline.errors import ClockRefused, InvalidInput
from buffer_pipeline.extras import need
from buffer_pipeline.hours import HOUR
from buffer_pipeline.inputs import parse_time
from buffer_pipeline.logs import release_logged
from buffer_pipeline.money import Places
from buffer_pipeline.notifications.sanitize import counted
from buffer_pipeline.sandbox.clock import (
    SandboxClock,
    parse_duration,
    require_clock,
    start_clock,
    target_of,
)

app = typer.Typer(rich_markup_mode="markdown")


@app.command("start")
def start(
    context: typer.Context,
    time: Annotated[str, typer.Argument(metavar="TIME", help="The first time (ISO 8601).")],
    daily_payouts: Annotated[
        bool,
        typer.Option(
            "--daily-payouts",
            help="Make the batches of payouts each day at six, as Dagster's schedule daily_payouts does.",
        ),
    ] = False,
) -> None:
    """Make empty books a sandbox, whose clock moves only when told; they stay one.

    Books that hold anything, or that somebody writes into, are refused. If there are no books, they are
    created. Needs the login of the books' owner.

    Example: `buffer-pipeline --home sandbox clock start 2026-01-01T00:00Z`
    """
    output: Output = context.obj
    # Check the time before books are created for it.
    now = parse_time("clock", time)
    with books(migrated=False, make=True) as (engine, _):
        if (found := books_revision(engine)) is None:
            migrate(engine)
        elif found != REVISION:
            raise ClockRefused(
                f"books: at revision {found}, so they are not new; a sandbox is made of new books"
            )
        with engine.begin() as connection:
            clock = start_clock(connection, now=now, daily_payouts=daily_payouts)
    output.answer(_document(clock), text=f"The books are a sandbox now. Its clock is at {iso(clock.now)}.")


@app.command("show")
def show(context: typer.Context) -> None:
    """Show the clock of a sandbox.

    Example: `buffer-pipeline --home sandbox clock show`
    """
    output: Output = context.obj
    with books() as (engine, _), engine.connect() as connection:
        clock = require_clock(connection)
    text = f"The clock is at {iso(clock.now)}."
    if clock.advance_to is not None:
        text += f" An advance to {iso(clock.advance_to)} has not ended: `clock advance` goes on with it."
    output.answer(_document(clock), text=text)


@app.command("advance")
def advance_command(
    context: typer.Context,
    duration: Annotated[
        str | None, typer.Argument(metavar="[DURATION]", help="Such as 7d, 12h or 90m.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="The time to advance to (ISO 8601).")] = None,
) -> None:
    """Move the clock of a sandbox, and do what would have happened meanwhile, hour by hour.

    At each full hour, what is due is released and the waiting messages are sent to BUFFER_ENDPOINTS. If it is
    cut short, the same command goes on where it was and ends at the same time; so does one without a
    duration. At most a year at a time.

    Example: `buffer-pipeline --home sandbox clock advance 7d`
    """
    need("notifications", "jinja2")
    from buffer_pipeline.notifications.channels.channel import configured_endpoints
    from buffer_pipeline.notifications.messages import Messages
    from buffer_pipeline.sandbox.advance import Sandbox, advance

    output: Output = context.obj
    if duration is not None and to is not None:
        raise InvalidInput("clock: needs a duration or --to, not both")
    length = None if duration is None else parse_duration(duration)
    until = None if to is None else parse_time("to", to)
    with books() as (engine, settings):
        endpoints = configured_endpoints(settings.endpoints)
        messages = Messages(
            templates=settings.templates, locale=settings.locale, time_zone=settings.time_zone
        )
        with (
            output.progress("clock", total=_hours(engine, length, until), unit="hours") as step,
            release_logged(settings.log, run_id=str(uuid.uuid4())),
            between_batches("the hour in progress") as interruption,
        ):
            done = advance(
                Sandbox(
                    releaser=engine,
                    payouts=engine,
                    endpoints=endpoints,
                    messages=messages,
                    payout_policy=settings.payout_policy,
                    stop=interruption.asked,
                    after_hour=lambda: step(1),
                ),
                duration=length,
                to=until,
            )
        with engine.connect() as connection:
            places = places_of(connection)
    document = asdict(done)
    document["released"] = amounts_by_currency(document.pop("released_minor"), places)
    output.answer(present(document), text=_text(done, places))
    if done.interrupted:
        raise typer.Exit(interruption.exit_code)


def _hours(engine: Engine, length: timedelta | None, until: Any) -> int:
    with engine.connect() as connection:
        clock = require_clock(connection)
    return max(0, (target_of(clock, duration=length, to=until) - clock.worked_until) // HOUR)


def _text(done: Any, places: Places) -> str:
    lines = [f"The clock is at {iso(done.now)}."]
    if done.holds_released:
        lines.append(
            f"Released {counted(done.holds_released, 'payment')}, {money(done.released_minor, places)}."
        )
    if done.payout_batches:
        lines.append(
            f"Requested {counted(done.payouts, 'payout')}; made {done.payout_batches:,}"
            f" batch{'' if done.payout_batches == 1 else 'es'}."
        )
    if done.sent or done.dead:
        lines.append(f"Sent {counted(done.sent, 'message')}; {done.dead:,} given up.")
    if done.interrupted:
        lines.append(f"Interrupted: `clock advance` goes on to {iso(done.advance_to)}.")
    return "\n".join(lines)


def _document(clock: SandboxClock) -> dict[str, Any]:
    return {
        "now": iso(clock.now),
        "advance_to": present(clock.advance_to),
        "daily_payouts": clock.daily_payouts,
    }
