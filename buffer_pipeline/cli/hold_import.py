"""`buffer-pipeline hold import`: a file is read and checked while the database holds what came before."""

import csv
import gc
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from sqlalchemy import Connection, Engine

from buffer_pipeline.cli.output import Output
from buffer_pipeline.cli.session import books
from buffer_pipeline.errors import InvalidInput, Refused
from buffer_pipeline.hours import clock_of_a_writer
from buffer_pipeline.inputs import parse_time, require_file
from buffer_pipeline.intake import (
    AddedHold,
    CheckedEarning,
    Earning,
    add_many_pending_earnings,
    check_earning,
)
from buffer_pipeline.policy import Policy

CHUNK: Final = 5_000
"""Earnings a transaction: more would touch fewer wallets twice, and lock them for longer."""
WRITERS: Final = 2
"""Connections that hold a chunk each. A chunk waits for another's wallets only in the second half of its
statement."""
SWITCH_SECONDS: Final = 0.0005
"""How long the thread that reads may keep Python's lock from the one whose answer has come."""
_REQUIRED: Final = ("reference", "job", "payee", "payer", "amount", "currency")
_OPTIONAL: Final = ("title", "held_at", "release_date")
_Chunk = list[tuple[int, CheckedEarning | Refused]]
_Outcome = tuple[int, AddedHold | Refused]


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
        chunks = _ahead(_chunks(file))
        held: Iterator[list[_Outcome]]
        if all_or_nothing:
            held = (_hold(connection, chunk, policy=settings.policy) for chunk in chunks)
        else:
            held = _hold_each(engine, chunks, policy=settings.policy)
        for outcomes in held:
            for line, outcome in outcomes:
                if isinstance(outcome, Refused):
                    refused.append({"line": line, "reason": str(outcome)})
                else:
                    counts["replayed" if outcome.replayed else "added"] += 1
            counts["read"] += len(outcomes)
            advance(len(outcomes))
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


def _hold(connection: Connection, chunk: _Chunk, *, policy: Policy) -> list[_Outcome]:
    """Hold a chunk in the caller's transaction, and return what became of each line."""
    good = [(line, item) for line, item in chunk if isinstance(item, CheckedEarning)]
    added = add_many_pending_earnings(
        connection, [item for _, item in good], now=clock_of_a_writer(connection), policy=policy
    )
    bad = [(line, item) for line, item in chunk if isinstance(item, Refused)]
    return [*bad, *((line, outcome) for (line, _), outcome in zip(good, added, strict=True))]


def _hold_each(engine: Engine, chunks: Iterator[_Chunk], *, policy: Policy) -> Iterator[list[_Outcome]]:
    """Hold each chunk in a transaction of its own, `WRITERS` at a time; yield outcomes in their order."""

    def hold(chunk: _Chunk) -> list[_Outcome]:
        with engine.begin() as connection:
            return _hold(connection, chunk, policy=policy)

    under_way: deque[tuple[set[str], Future[list[_Outcome]]]] = deque()
    with ThreadPoolExecutor(max_workers=WRITERS) as writers:
        for chunk in chunks:
            references = {item.earning.reference for _, item in chunk if isinstance(item, CheckedEarning)}
            # Of a reference that stands twice the first line is held, and two that wait for each other's
            # references would wait for ever.
            while len(under_way) == WRITERS or any(references & earlier for earlier, _ in under_way):
                yield under_way.popleft()[1].result()
            under_way.append((references, writers.submit(hold, chunk)))
        while under_way:
            yield under_way.popleft()[1].result()


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
