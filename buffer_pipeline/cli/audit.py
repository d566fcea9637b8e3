"""`buffer-pipeline audit list`: who did what, when and why."""

from typing import Annotated, Final

import typer

from buffer_pipeline.cli.output import Output, present
from buffer_pipeline.cli.session import one_snapshot
from buffer_pipeline.currencies import places_of
from buffer_pipeline.inputs import parse_time
from buffer_pipeline.reports.audit_trail import LIMIT, LIMIT_MAX, audit_trail

app = typer.Typer(rich_markup_mode="markdown")

_AUDIT_COLUMNS: Final = ("at", "by", "verb", "owner", "hold_id", "reason", "detail")


@app.command("list")
def list_(
    context: typer.Context,
    owner: Annotated[
        str | None,
        typer.Option(help="Only what is about this owner: their holds, wallet, freezes and rule."),
    ] = None,
    hold: Annotated[int | None, typer.Option(help="Only this hold, by its id.")] = None,
    by: Annotated[str | None, typer.Option(help="Only what this person did.")] = None,
    since: Annotated[str | None, typer.Option(help="Only from this time on (ISO 8601).")] = None,
    limit: Annotated[int, typer.Option(min=1, max=LIMIT_MAX, help="At most this number of lines.")] = LIMIT,
) -> None:
    """List who did what and why, the newest first.

    Has freezes of holds and owners, backjobs and their decisions, early releases, refunds, claw-backs,
    recovered and forgiven debts, moved release dates, deposits, withdrawals, rules and their assignments,
    payouts, their batches, status files, destinations and schedules, but no scheduled release. A decision on
    a backjob has a line for each hold. With `--hold`, the hold's freezes by its owner's freeze are listed
    too.

    Example: `buffer-pipeline audit list --owner worker-17 --since 2026-11-01T00:00Z`
    """
    output: Output = context.obj
    with one_snapshot() as (connection, _, _now):
        rows = audit_trail(
            connection,
            owner=owner,
            hold_id=hold,
            by=by,
            since=None if since is None else parse_time("since", since),
            limit=limit,
        )
        places = places_of(connection)
    output.table(present(rows, places), columns=_AUDIT_COLUMNS, empty="Nobody did anything like that.")
