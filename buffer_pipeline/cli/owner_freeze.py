"""`buffer-pipeline freeze-owner`, `unfreeze-owner` and `frozen-owners`."""

from dataclasses import asdict
from typing import Annotated, Final

import typer

from buffer_pipeline.cli.freeze import Kind
from buffer_pipeline.cli.options import By, PayeeText, Reason, Reference
from buffer_pipeline.cli.output import Output, present
from buffer_pipeline.cli.session import one_snapshot, one_transaction
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.notifications.sanitize import counted
from buffer_pipeline.owner_freeze import freeze_owner, unfreeze_owner
from buffer_pipeline.reports.stuck import frozen_owners

app: Final = typer.Typer(rich_markup_mode="markdown")

Owner = Annotated[str, typer.Argument(help="The platform's id of the owner.")]


@app.command("freeze-owner")
def freeze(
    context: typer.Context,
    owner: Owner,
    kind: Annotated[Kind, typer.Option(case_sensitive=False, help="Who freezes the owner.")],
    by: By,
    reason: Reason,
    reference: Reference = None,
    payee_text: PayeeText = None,
) -> None:
    """Freeze an owner: all holds that wait for them, and each new one, until the owner is unfrozen.

    Their balance is not frozen. The answer's `holds` are those that this froze, also those that were frozen
    already.

    Example: `buffer-pipeline freeze-owner worker-17 --kind risk --by risk-2 --reason "card reported stolen"
    --reference case-12`
    """
    output: Output = context.obj
    with one_transaction() as (connection, _, now):
        done = freeze_owner(
            connection,
            owner=owner,
            kind=FreezeKind(kind.upper()),
            by=by,
            reason=reason,
            reference=reference,
            payee_text=payee_text,
            now=now,
        )
    word = "was frozen before" if done.replayed else "is frozen"
    output.answer(asdict(done), text=f"Owner {done.owner} {word}, with {counted(done.holds, 'hold')}.")


@app.command("unfreeze-owner")
def unfreeze(
    context: typer.Context,
    owner: Owner,
    by: By,
    reason: Reason,
    reference: Reference = None,
) -> None:
    """Unfreeze an owner: holds that no other freeze covers return to the buffer with unchanged dates.

    The answer's `holds` are those that returned.

    Example: `buffer-pipeline unfreeze-owner worker-17 --by risk-2 --reason "cleared"
    --reference case-12-closed`
    """
    output: Output = context.obj
    with one_transaction() as (connection, _, now):
        done = unfreeze_owner(connection, owner=owner, by=by, reason=reason, reference=reference, now=now)
    word = "was unfrozen already" if done.replayed else "is unfrozen"
    output.answer(
        asdict(done), text=f"Owner {done.owner} {word}; {counted(done.holds, 'hold')} returned to the buffer."
    )


@app.command("frozen-owners")
def frozen(context: typer.Context) -> None:
    """List the owners who are frozen now, the longest first, with the number of their holds.

    Example: `buffer-pipeline frozen-owners`
    """
    output: Output = context.obj
    with one_snapshot() as (connection, _, _now):
        rows = frozen_owners(connection)
    if not output.as_json:
        rows = [{**row, "opened_at": row["opened_at"].replace(microsecond=0)} for row in rows]
    output.table(
        present(rows),
        columns=("owner", "holds", "kind", "opened_by", "reason", "opened_at"),
        empty="No owner is frozen.",
    )
