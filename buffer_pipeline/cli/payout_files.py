"""`buffer-pipeline payout export` and `import-status`: files for a bank or a provider, and from it."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from datetime import UTC
from decimal import Decimal
from pathlib import Path
from typing import IO, Annotated, Final

import typer
from sqlalchemy import Connection

from buffer_pipeline.cli.not_marked import lines_to_look_at, summary_of, to_look_at
from buffer_pipeline.cli.output import Output, iso
from buffer_pipeline.cli.session import login_of, one_transaction
from buffer_pipeline.cli.whole_file import require_writable, whole_file
from buffer_pipeline.currencies import places_of
from buffer_pipeline.inputs import require_file
from buffer_pipeline.money import format_amount
from buffer_pipeline.notifications.sanitize import counted
from buffer_pipeline.payouts import (
    PayoutExported,
    bank_ids,
    mark_payouts,
    payout_lines,
    record_payout_export,
)
from buffer_pipeline.payouts.files.debtor import debtor_of
from buffer_pipeline.payouts.files.export import BatchHeader, write_payouts
from buffer_pipeline.payouts.files.status import DUPLICATE, detect_status_format, read_statuses
from buffer_pipeline.reports.payouts import show_payout_batch
from buffer_pipeline.settings import Settings

app = typer.Typer(rich_markup_mode="markdown")

ASK: Final = "nothing was marked, because the bank may pay the first one; ask it"

Batch = Annotated[int, typer.Argument(help="The batch's id.")]
Operator = Annotated[
    str | None, typer.Option(help="Who does it; stored in the books. By default the database's login.")
]


@app.command("export")
def export(
    context: typer.Context,
    batch: Batch,
    out: Annotated[Path, typer.Option(help="The file to write; an existing one is replaced.")],
    format_name: Annotated[
        str, typer.Option("--format", help="`csv`, `pain.001`, or another installed format.")
    ] = "csv",
    by: Operator = None,
) -> None:
    """Write a sent batch as a file for a bank or a provider. It has the accounts: only you can read it.

    The same batch gives the same bytes. The books note each export: a second one says so, because a bank that
    gets two files may pay twice. pain.001 names who pays: set BUFFER_PAYOUT_DEBTOR_NAME, _IBAN and _BIC.

    Example: `buffer-pipeline payout export 3 --format pain.001 --out batch-3.xml`
    """
    output: Output = context.obj
    require_writable(out, option="--out", such_as="batch-3.xml")
    # The file gets its name only after the books have noted it, so no file is unknown to them.
    with (
        whole_file(out, option="--out", private=True) as file,
        one_transaction() as (connection, settings, now),
    ):
        header = _write(connection, settings, batch, format_name, file)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").digest()  # type: ignore[arg-type]
        exports = record_payout_export(
            connection,
            payout_batch_id=batch,
            format_name=format_name,
            file_digest=digest,
            by=by or login_of(connection),
            now=now,
        )
    total = f"{header.total:f}"
    for line in _warnings(exports):
        output.remark(line)
    output.answer(
        {
            "batch_id": batch,
            "format": format_name,
            "payouts": header.payouts,
            "amount": total,
            "file": str(out),
            "sha256": digest.hex(),
            "exports": len(exports),
        },
        text=f"Batch {batch} is in {out}: {counted(header.payouts, 'payout')}, {total} {header.currency}.",
    )


def _write(
    connection: Connection, settings: Settings, batch: int, format_name: str, file: IO[bytes]
) -> BatchHeader:
    lines = payout_lines(connection, payout_batch_id=batch)
    found = show_payout_batch(connection, payout_batch_id=batch)
    sent_at = found["sent_at"].astimezone(UTC)
    header = BatchHeader(
        batch_id=batch,
        message_id=bank_ids(connection).of_batch(batch),
        currency=found["currency"],
        # Both are facts of the batch, so that a repeated export is the same.
        created_at=sent_at,
        execution_date=sent_at.date(),
        payouts=found["payouts"],
        total=Decimal(format_amount(found["amount_minor"], places_of(connection)[found["currency"]])),
        debtor=debtor_of(settings),
    )
    write_payouts(format_name, header, lines, file)
    return header


def _warnings(exports: Sequence[PayoutExported]) -> list[str]:
    """Return what to tell about earlier exports of the batch."""
    *before, this = exports
    if not before:
        return []
    return [
        f"This is export {this.number} of batch {this.payout_batch_id}. A bank that gets two files may pay"
        " twice: make sure that only one of them is sent.",
        *(
            f"export {each.number}: {each.format} by {each.exported_by} at {iso(each.exported_at)},"
            f" {_compared(each, this)}"
            for each in before
        ),
    ]


def _compared(before: PayoutExported, this: PayoutExported) -> str:
    if before.digest == this.digest:
        return "the same bytes"
    if before.format == this.format:
        return "other bytes: the settings of who pays have changed since"
    return "another format"


@app.command("import-status")
def import_status(
    context: typer.Context,
    batch: Batch,
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="The file of the bank or the provider."),
    ],
    by: Operator = None,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="`csv`, `pain.002`, `camt.054`, or another installed format; by default what the file is.",
        ),
    ] = None,
) -> None:
    """Mark the payouts of a batch as paid or returned, as a status file says.

    Money that came back is in its balance again at once. Lines that are no payout of the batch, have another
    amount, or contradict what became of a payout are reported and kept (`payout batch show`), and change
    nothing. The same file is imported once.

    Example: `buffer-pipeline payout import-status 3 status.xml`
    """
    output: Output = context.obj
    skipped: Counter[str] = Counter()
    require_file(file)
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").digest()
        content.seek(0)
        known_format = format_name or detect_status_format(content)
        with one_transaction() as (connection, _, now):
            message_id = bank_ids(connection).of_batch(batch)
            done = mark_payouts(
                connection,
                payout_batch_id=batch,
                results=read_statuses(known_format, content, message_id=message_id, skipped=skipped),
                by=by or login_of(connection),
                file_digest=digest,
                now=now,
            )
    for status, times in sorted(skipped.items()):
        why = ASK if status == DUPLICATE else "nothing was marked"
        output.remark(f"{counted(times, 'line')} with status {status}: {why}")
    for text in lines_to_look_at(done):
        output.remark(text)
    output.answer(
        {"paid": done.paid, "returned": done.returned, **to_look_at(done)},
        text=f"Batch {batch}: {summary_of(done)}.",
    )
