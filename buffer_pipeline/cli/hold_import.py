"""`buffer-pipeline hold import`: a chunk of the file is read while the database holds the one before."""

import gc
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from sqlalchemy import Connection, Engine

from buffer_pipeline.cli.output import Output
from buffer_pipeline.cli.session import books
from buffer_pipeline.cli.share_texts import parse_shares
from buffer_pipeline.csv_records import BrokenRecord, csv_records
from buffer_pipeline.currencies import places_of
from buffer_pipeline.database import confirm
from buffer_pipeline.errors import InvalidInput, Refused
from buffer_pipeline.hold_metadata import parse_metadata
from buffer_pipeline.hours import clock_of_a_writer
from buffer_pipeline.inputs import NAME_LENGTH_MAX, REASON_LENGTH_MAX, parse_time, require_file
from buffer_pipeline.intake import (
    AddedHold,
    CheckedEarning,
    Earning,
    add_many_pending_earnings,
    check_earning,
)
from buffer_pipeline.money import Places
from buffer_pipeline.notifications.sanitize import shorten
from buffer_pipeline.policy import Policy
from buffer_pipeline.release_run.run import retrying_conflicts

EARNINGS_PER_TRANSACTION: Final = 5_000
"""Earnings per transaction. With more, fewer wallets are locked twice, but each for longer."""
WRITERS: Final = 2
"""Connections that write a chunk each. A chunk waits for the wallets of another one only in the second half
of its statement."""
SWITCH_SECONDS: Final = 0.0005
"""How long the reading thread may keep Python's lock while another thread has an answer to process."""
_REQUIRED: Final = ("reference", "job", "payee", "payer", "amount", "currency")
_OPTIONAL: Final = ("title", "held_at", "release_date", "rule", "shares", "metadata")
_Chunk = list[tuple[int, CheckedEarning | Refused]]
_Outcome = tuple[int, AddedHold | Refused]


def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A CSV file in UTF-8 with a header line.")],
    all_or_nothing: Annotated[
        bool, typer.Option("--all-or-nothing", help="Refuse the whole file if a line is bad.")
    ] = False,
) -> None:
    """Hold the earnings of a CSV file; bad lines are reported, the others are held. Safe to run again.

    The columns are reference, job, payee, payer, amount, currency and, optionally, title, held_at,
    release_date, rule, metadata (a JSON object), shares (as `hold add --share`, separated by semicolons).
    Reading stops at a line that is not CSV. Exit 1 if a line was refused. If BUFFER_HOME has no books, they
    are created.

    Example: `buffer-pipeline hold import earnings.csv --all-or-nothing`
    """
    output: Output = context.obj
    lines = _check(file)
    with (
        books(make=True) as (engine, settings),
        output.progress("hold import", total=lines, unit="lines") as advance,
    ):
        hold_file = _hold_whole if all_or_nothing else _hold_each
        tally = hold_file(engine, file, policy=settings.policy, advance=advance)
    tally.refused.sort(key=lambda row: row["line"])
    counts = {name: getattr(tally, name) for name in ("read", "not_read", "added", "replayed")}
    text = "{read} lines read, {added} holds added, {replayed} existed already, ".format(**counts)
    text += f"{len(tally.refused)} refused."
    text += "".join(f"\nline {row['line']}: {row['reason']}" for row in tally.refused)
    output.answer({**counts, "refused": tally.refused}, text=text)
    if tally.refused:
        raise typer.Exit(1)


@dataclass
class _Tally:
    """The results of the lines of a file."""

    read: int = 0
    not_read: int = 0
    """Lines after a broken one."""
    added: int = 0
    replayed: int = 0
    refused: list[dict[str, Any]] = field(default_factory=list)
    refused_by_books: bool = False
    """True if a line conflicts with the books; False if all refused lines are wrong in themselves."""

    def take(self, outcomes: list[_Outcome]) -> None:
        """Count the outcomes of a chunk."""
        self.read += len(outcomes)
        for line, outcome in outcomes:
            if isinstance(outcome, Refused):
                self.refused.append({"line": line, "reason": shorten(str(outcome), REASON_LENGTH_MAX)})
                self.refused_by_books |= not isinstance(outcome, InvalidInput)
                if isinstance(outcome, BrokenRecord):
                    self.not_read += outcome.lines_not_read
            else:
                self.added += not outcome.replayed
                self.replayed += outcome.replayed


def _hold(connection: Connection, chunk: _Chunk, *, policy: Policy) -> list[_Outcome]:
    """Hold a chunk in the caller's transaction, and return the outcome of each line."""
    good = [(line, item) for line, item in chunk if isinstance(item, CheckedEarning)]
    added = add_many_pending_earnings(
        connection, [item for _, item in good], now=clock_of_a_writer(connection), policy=policy
    )
    bad = [(line, item) for line, item in chunk if isinstance(item, Refused)]
    return [*bad, *((line, outcome) for (line, _), outcome in zip(good, added, strict=True))]


def _hold_whole(engine: Engine, file: Path, *, policy: Policy, advance: Callable[[int], None]) -> _Tally:
    """Hold the whole file in one transaction, or nothing. Retry if the database aborts the transaction."""
    tally = _Tally()
    for attempt in retrying_conflicts():
        advance(-tally.read)
        tally = _Tally()
        with (
            attempt,
            engine.connect() as connection,
            connection.begin() as transaction,
            closing(_ahead(_chunks(file, places_of(connection)))) as chunks,
        ):
            for chunk in chunks:
                tally.take(_hold(connection, chunk, policy=policy))
                advance(len(chunk))
            if tally.refused:
                transaction.rollback()
                tally.added = tally.replayed = 0
        if tally.refused_by_books:
            # As in `one_transaction`: report conflicts only after the standby has the rows that caused them.
            with engine.begin() as connection:
                confirm(connection)
    return tally


def _hold_each(engine: Engine, file: Path, *, policy: Policy, advance: Callable[[int], None]) -> _Tally:
    """Hold each chunk in a transaction of its own, `WRITERS` at a time."""
    tally = _Tally()

    def hold(chunk: _Chunk) -> list[_Outcome]:
        for attempt in retrying_conflicts():
            with attempt, engine.begin() as connection:
                outcomes = _hold(connection, chunk, policy=policy)
        return outcomes

    def take(writing: Future[list[_Outcome]]) -> None:
        outcomes = writing.result()
        tally.take(outcomes)
        advance(len(outcomes))

    with engine.connect() as connection:
        places = places_of(connection)
    under_way: deque[tuple[set[str], Future[list[_Outcome]]]] = deque()
    with closing(_ahead(_chunks(file, places))) as chunks, ThreadPoolExecutor(max_workers=WRITERS) as writers:
        for chunk in chunks:
            references = {item.earning.reference for _, item in chunk if isinstance(item, CheckedEarning)}
            # Two chunks with the same references may wait for each other forever, and the first line with a
            # reference must win. So wait for an earlier chunk that has one of these references.
            while len(under_way) == WRITERS or any(references & earlier for earlier, _ in under_way):
                take(under_way.popleft()[1])
            under_way.append((references, writers.submit(hold, chunk)))
        while under_way:
            take(under_way.popleft()[1])
    return tally


def _check(file: Path) -> int:
    """Return the number of lines after the header, and refuse a wrong encoding or header.

    Called before books are created for the file or written to.
    """
    require_file(file)
    try:
        with file.open(encoding="utf-8-sig") as stream:
            lines = max(sum(1 for _ in stream) - 1, 0)
        with file.open(encoding="utf-8-sig", newline="") as stream:
            _header(file, csv_records(stream))
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file}: not UTF-8 ({error.reason} at byte {error.start})") from None
    return lines


def _ahead(chunks: Iterator[_Chunk]) -> Generator[_Chunk]:
    """Yield each chunk while the next one is read and checked."""
    # The loaded modules stay in memory, so the garbage collector need not scan them with each chunk.
    gc.freeze()
    # With Python's default interval each answer of the database would wait 5 ms for the reading thread.
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


def _chunks(file: Path, places: Places) -> Iterator[_Chunk]:
    chunk: _Chunk = []
    for numbered in _read(file, places):
        chunk.append(numbered)
        if len(chunk) == EARNINGS_PER_TRANSACTION:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _read(file: Path, places: Places) -> Iterator[tuple[int, CheckedEarning | Refused]]:
    """Yield each line number with its earning or its refusal. Stop after a broken record."""
    with file.open(encoding="utf-8-sig", newline="") as stream:
        records = csv_records(stream)
        header = _header(file, records)
        try:
            for line, fields in records:
                if fields:
                    yield line, _earning(header, fields, places)
        except BrokenRecord as broken:
            yield broken.line, broken


def _header(file: Path, records: Iterator[tuple[int, list[str]]]) -> list[str]:
    try:
        _, header = next(records, (1, []))
    except BrokenRecord as broken:
        raise InvalidInput(f"{file}: line 1: {broken}") from None
    missing = [name for name in _REQUIRED if name not in header]
    if missing:
        raise InvalidInput(f"{file}: column {missing[0]!r} is missing")
    unknown = [name for name in header if name not in _REQUIRED + _OPTIONAL]
    if unknown:
        raise InvalidInput(f"{file}: column {shorten(unknown[0], NAME_LENGTH_MAX)!r} is unknown")
    if len(set(header)) < len(header):
        raise InvalidInput(f"{file}: a column occurs twice")
    return header


def _earning(header: list[str], fields: list[str], places: Places) -> CheckedEarning | Refused:
    if len(fields) != len(header):
        return InvalidInput(f"broken line: {len(fields)} fields, the header has {len(header)}")
    # An empty optional field counts as not given.
    row = {name: field for name, field in zip(header, fields, strict=True) if field or name in _REQUIRED}
    try:
        times = {name: parse_time(name, row.pop(name)) for name in ("held_at", "release_date") if name in row}
        metadata = parse_metadata(row.pop("metadata")) if "metadata" in row else None
        shares = parse_shares(row.pop("shares")) if "shares" in row else ()
        earning = Earning(**row, **times, shares=shares, metadata=metadata)  # type: ignore[arg-type]
        return check_earning(earning, places=places)
    except InvalidInput as refusal:
        return refusal
