"""`buffer-pipeline payout schedule` and `request-scheduled`: payouts that owners get automatically."""

from dataclasses import asdict
from datetime import date
from enum import StrEnum
from typing import Annotated

import typer

from buffer_pipeline.cli.options import By, Reason
from buffer_pipeline.cli.output import Output, amounts_by_currency, money, present
from buffer_pipeline.cli.session import one_transaction
from buffer_pipeline.currencies import places_of
from buffer_pipeline.errors import InvalidInput
from buffer_pipeline.notifications.sanitize import counted
from buffer_pipeline.payouts import request_scheduled_payouts, set_payout_schedule

app = typer.Typer(rich_markup_mode="markdown")


class When(StrEnum):
    """The schedules of an owner."""

    MANUAL = "manual"
    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


@app.command("schedule")
def schedule(
    context: typer.Context,
    owner: Annotated[str, typer.Argument(help="The platform's id of the owner.")],
    when: Annotated[When, typer.Argument(case_sensitive=False, help="When all of the balance is paid out.")],
    by: By,
    reason: Reason,
) -> None:
    """Set when an owner's balances are paid out automatically: every day, on Mondays, on the first, or not.

    Example: `buffer-pipeline payout schedule worker-17 weekly --by admin-1 --reason "the owner asked"`
    """
    output: Output = context.obj
    with one_transaction() as (connection, _, now):
        done = set_payout_schedule(
            connection, owner=owner, schedule=when.upper(), by=by, reason=reason, now=now
        )
    output.answer(present(asdict(done)), text=f"Owner {done.owner} is paid out {done.schedule.lower()}.")


@app.command("request-scheduled")
def request_scheduled(
    context: typer.Context,
    by: Annotated[str, typer.Option(help="Who requests, in the books.")] = "schedule",
    day: Annotated[
        str | None,
        typer.Option(help="An earlier day (UTC) that was missed, at most 31 days ago. By default today."),
    ] = None,
) -> None:
    """Request the payouts that owners' schedules have on a day, once for each balance and day.

    Owners who are frozen, owe a debt, have no destination, or set their schedule after that day are skipped.
    So are balances below the minimum.
    Then make the batches: `payout batch make`.

    Example: `buffer-pipeline payout request-scheduled --json`
    """
    output: Output = context.obj
    with one_transaction() as (connection, settings, now):
        done = request_scheduled_payouts(
            connection, by=by, day=_day(day), policy=settings.payout_policy, now=now
        )
        places = places_of(connection)
    output.answer(
        {"payouts": done.payouts, "amounts": amounts_by_currency(done.amounts_minor, places)},
        text=f"{counted(done.payouts, 'payout')} requested: {money(done.amounts_minor, places)}."
        if done.payouts
        else "No payout is due that was not requested before.",
    )


def _day(given: str | None) -> date | None:
    try:
        return None if given is None else date.fromisoformat(given)
    except ValueError:
        raise InvalidInput(f"--day {given!r}: not a day such as 2026-03-02") from None
