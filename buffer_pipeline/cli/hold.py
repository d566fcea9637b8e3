"""`buffer-pipeline hold …`: add, import, show and list holds."""

import csv
import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from buffer_pipeline.cli.output import Output, present
from buffer_pipeline.cli.session import books, one_look, one_transaction
from buffer_pipeline.errors import InvalidInput, Refused
from buffer_pipeline.hold import HoldState
from buffer_pipeline.hours import clock_of_a_writer
from buffer_pipeline.inputs import parse_time, require_file
from buffer_pipeline.intake import (
    CheckedEarning,
    Earning,
    add_many_pending_earnings,
    add_pending_earnings,
    check_earning,
)
from buffer_pipeline.reports import list_holds, show_hold

app = typer.Typer(help="Earnings in the buffer.")

CHUNK: Final = 5_000
"""Earnings a transaction: more would touch fewer wallets twice, and lock them for longer."""
SWITCH_SECONDS: Final = 0.0005
"""How long the thread that reads may keep Python's lock from the one whose answer has come."""
_Chunk = list[tuple[int, CheckedEarning | Refused]]
_REQUIRED: Final = ("reference", "job", "payee", "payer", "amount", "currency")
_OPTIONAL: Final = ("title", "held_at", "release_date")
_COLUMNS: Final = ("hold_id", "reference", "job", "payee", "amount", "currency", "state", "release_date")


@app.command("add")
def add(
    context: typer.Context,
    reference: Annotated[str, typer.Option(help="Idempotency key: the same earning, the same reference.")],
    job: Annotated[str, typer.Option(help="The platform's id of the work.")],
    payee: Annotated[str, typer.Option(help="The owner who earns.")],
    payer: Annotated[str, typer.Option(help="The owner who paid, to whom a refund goes.")],
    amount: Annotated[str, typer.Option(help="In the currency's major unit, such as 1250.50.")],
    currency: Annotated[str, typer.Option(help="ISO 4217, such as PHP.")],
    title: Annotated[str, typer.Option(help="What the work was.")] = "",
    held_at: Annotated[str | None, typer.Option(help="ISO 8601; now without it.")] = None,
    release_date: Annotated[
        str | None, typer.Option(help="ISO 8601; BUFFER_DAYS after held-at without it.")
    ] = None,
) -> None:
    """Hold an earning until its release date. The same again changes nothing.

    Example: `buffer-pipeline hold add --reference job-8-done --job job-8 --payee worker-17
    --payer client-3 --amount 1250.50 --currency PHP --title "Fix kitchen faucet"`
    """
    output: Output = context.obj
    with one_transaction() as (connection, settings, now):
        added = add_pending_earnings(
            connection,
            reference=reference,
            job=job,
            payee=payee,
            payer=payer,
            amount=amount,
            currency=currency,
            title=title,
            held_at=None if held_at is None else parse_time("held_at", held_at),
            release_date=None if release_date is None else parse_time("release_date", release_date),
            now=now,
            policy=settings.policy,
        )
    document = present(asdict(added))
    word = "stands already" if added.replayed else "is held"
    output.answer(
        {key: document[key] for key in ("hold_id", "reference", "state", "release_date", "replayed")},
        text=f"Hold {added.hold_id} {word}: {added.state}, release date {document['release_date']}.",
    )


@app.command("show")
def show(
    context: typer.Context,
    hold_id: Annotated[int | None, typer.Argument(help="The hold's id.")] = None,
    reference: Annotated[str | None, typer.Option(help="Instead of the id.")] = None,
) -> None:
    """Show a hold with its freezes and transactions.

    Example: `buffer-pipeline hold show 41` or `buffer-pipeline hold show --reference job-8-done`
    """
    if (hold_id is None) == (reference is None):
        raise typer.BadParameter("give a HOLD_ID or --reference, one of them")
    output: Output = context.obj
    with one_look() as (connection, _, _now):
        document = present(show_hold(connection, hold_id=hold_id, reference=reference))
    if output.as_json:
        output.answer(document)
        return
    freezes, transactions = document.pop("freezes"), document.pop("transactions")
    output.answer(document)
    output.answer(None, text="\nfreezes")
    output.table(
        freezes,
        columns=("freeze_id", "kind", "opened_by", "reason", "opened_at", "closed_by", "closed_at"),
        empty="none",
    )
    output.answer(None, text="\ntransactions")
    output.table(
        transactions,
        columns=("transaction_id", "type", "amount", "currency", "balance_after", "recorded_at"),
        empty="none",
    )


@app.command("list")
def list_(
    context: typer.Context,
    state: Annotated[HoldState | None, typer.Option(help="Only in this state.")] = None,
    payee: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    job: Annotated[str | None, typer.Option(help="Only of this job.")] = None,
    due: Annotated[bool, typer.Option("--due", help="Only what the next release takes.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, max=2**31, help="At most so many.")] = None,
) -> None:
    """List holds by release date.

    Example: `buffer-pipeline hold list --payee worker-17 --state BUFFERED`
    """
    output: Output = context.obj
    with one_look() as (connection, _, now):
        rows = list_holds(
            connection, state=state, payee=payee, job=job, due_by=now if due else None, limit=limit
        )
    output.table(present(rows), columns=_COLUMNS, empty="No such hold.")


@app.command("import")
def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="UTF-8, with a header line.")],
    all_or_nothing: Annotated[
        bool, typer.Option("--all-or-nothing", help="One bad line refuses the file.")
    ] = False,
) -> None:
    """Hold the earnings of a CSV file; bad lines are reported and good ones go in. Safe to run again.

    The columns are reference, job, payee, payer, amount, currency and, where wanted, title,
    held_at, release_date. Exit 1 when a line was refused.

    Example: `buffer-pipeline hold import earnings.csv --all-or-nothing`
    """
    output: Output = context.obj
    lines = _count_lines(file)
    counts = {"read": 0, "added": 0, "replayed": 0}
    refused: list[dict[str, Any]] = []
    with (
        books() as (engine, settings),
        output.progress("hold import", total=lines, unit="lines") as advance,
        engine.connect() as connection,
    ):
        for chunk in _ahead(_chunks(file)):
            now = clock_of_a_writer(connection)
            good = [(line, item) for line, item in chunk if isinstance(item, CheckedEarning)]
            outcomes = add_many_pending_earnings(
                connection, [item for _, item in good], now=now, policy=settings.policy
            )
            for line, item in chunk:
                if isinstance(item, Refused):
                    refused.append({"line": line, "reason": str(item)})
            for (line, _), outcome in zip(good, outcomes, strict=True):
                if isinstance(outcome, Refused):
                    refused.append({"line": line, "reason": str(outcome)})
                else:
                    counts["replayed" if outcome.replayed else "added"] += 1
            counts["read"] += len(chunk)
            advance(len(chunk))
            if not all_or_nothing:
                connection.commit()
        if all_or_nothing and refused:
            connection.rollback()
            counts["added"] = counts["replayed"] = 0
        else:
            connection.commit()
    refused.sort(key=lambda row: row["line"])
    text = "{read} lines read, {added} holds added, {replayed} stood already, ".format(**counts)
    text += f"{len(refused)} refused."
    text += "".join(f"\nline {row['line']}: {row['reason']}" for row in refused)
    output.answer({**counts, "refused": refused}, text=text)
    if refused:
        raise typer.Exit(1)


def _count_lines(file: Path) -> int:
    """Count the lines behind the header; so a wrong encoding is found before anything is written."""
    require_file(file)
    try:
        with file.open(encoding="utf-8-sig") as stream:
            return max(sum(1 for _ in stream) - 1, 0)
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file}: not UTF-8 ({error.reason} at byte {error.start})") from None


def _ahead(chunks: Iterator[_Chunk]) -> Iterator[_Chunk]:
    """Yield each chunk while the next is read: the file is read and checked while the database works."""
    # What the program has loaded stays: the garbage collector need not look at all of it with each chunk.
    gc.freeze()
    # By Python's own interval each answer of the database would wait five milliseconds for the reader.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    end: _Chunk = []
    try:
        with ThreadPoolExecutor(max_workers=1) as reader:
            coming = reader.submit(next, chunks, end)
            while chunk := coming.result():
                coming = reader.submit(next, chunks, end)
                yield chunk
    finally:
        sys.setswitchinterval(interval)
        gc.unfreeze()


def _chunks(file: Path) -> Iterator[_Chunk]:
    chunk: _Chunk = []
    for numbered in _read(file):
        chunk.append(numbered)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _read(file: Path) -> Iterator[tuple[int, CheckedEarning | Refused]]:
    """Yield each line's number and its earning, or why there is none."""
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        try:
            header = next(reader, [])
        except csv.Error as error:
            raise InvalidInput(f"{file}: line 1: {error}") from None
        missing = [name for name in _REQUIRED if name not in header]
        if missing:
            raise InvalidInput(f"{file}: column {missing[0]!r} is missing")
        unknown = [name for name in header if name not in _REQUIRED + _OPTIONAL]
        if unknown:
            raise InvalidInput(f"{file}: column {unknown[0]!r} is unknown")
        if len(set(header)) < len(header):
            raise InvalidInput(f"{file}: a column stands twice")
        while True:
            line = reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                last = "" if reader.line_num == line else f"; nothing up to line {reader.line_num} was read"
                yield line, InvalidInput(f"broken line: {error}{last}")
                continue
            if fields:
                yield line, _earning(header, fields)


def _earning(header: list[str], fields: list[str]) -> CheckedEarning | Refused:
    if len(fields) != len(header):
        return InvalidInput(f"broken line: {len(fields)} fields, the header has {len(header)}")
    # An empty optional field is one that was not given.
    row = {name: field for name, field in zip(header, fields, strict=True) if field or name in _REQUIRED}
    try:
        times = {name: parse_time(name, row.pop(name)) for name in ("held_at", "release_date") if name in row}
        return check_earning(Earning(**row, **times))  # type: ignore[arg-type]
    except InvalidInput as refusal:
        return refusal
