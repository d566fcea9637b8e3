"""Reconciliation: each invariant of the books as a query that returns the rows that break it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any, Final

from sqlalchemy import Connection, select

from buffer_pipeline.database import AnyConnection, Row, fetch, statement_text
from buffer_pipeline.errors import Refused
from buffer_pipeline.tables import metadata

INVARIANTS: Final = (
    "books_balance",
    "wallet_equals_its_transactions",
    "pending_equals_unsettled_holds",
    "hold_settled_once",
    "hold_equals_its_transactions",
    "frozen_iff_open_freeze",
    "backjob_open_iff_it_freezes",
    "job_names_its_open_backjob",
    "freeze_closed_with_its_backjob",
    "backjob_equals_its_refunds",
    "earning_follows_its_batch",
    "release_date_is_explained",
    "balance_after_follows",
)
"""The files of `sql/reconcile/`, by name."""

RUN_INVARIANTS: Final = (
    "books_balance",
    "wallet_equals_its_transactions",
    "hold_settled_once",
    "earning_follows_its_batch",
)
"""The files of `sql/reconcile_run/`: those of the invariants that can be proved of one release run."""


@dataclass(frozen=True, kw_only=True)
class Violation:
    """An invariant and the rows that break it, amounts in minor units."""

    invariant: str
    rows: list[dict[str, Any]]


def meaning_of(invariant: str) -> str:
    """Return the sentence that states an invariant: its statement's header."""
    return _header(f"reconcile/{invariant}")


def meaning_in_a_run(invariant: str) -> str:
    """Return the sentence that states what is proved of one release run: its statement's first sentence."""
    return _header(f"reconcile_run/{invariant}").partition(". ")[0] + "."


def _header(statement: str) -> str:
    lines = takewhile(lambda line: line.startswith("--"), statement_text(statement).splitlines())
    return " ".join(line.removeprefix("--").strip() for line in lines)


def reconcile(connection: AnyConnection, invariants: Iterable[str] = INVARIANTS) -> list[Violation]:
    """Check invariants and return those that are broken. Reads only.

    To see one moment of books that are in use, call it with `database.one_moment`.
    """
    found = ((invariant, fetch(connection, f"reconcile/{invariant}")) for invariant in invariants)
    return _violations(found)


def reconcile_run(
    connection: AnyConnection, invariants: Iterable[str] = RUN_INVARIANTS, *, source: str, since: datetime
) -> list[Violation]:
    """Check invariants of what one release run touched and return those that are broken. Reads only.

    The run is known by its batches' `source`, which has recorded nothing before `since`. At a cost
    proportional to what was released since then, however large the books are. What stood before the
    run is taken as proved: all of the books is `reconcile`'s.
    """
    # For the statements of the caller's transaction, of which these should be the last.
    fetch(connection, "read_by_index")
    found = (
        (invariant, fetch(connection, f"reconcile_run/{invariant}", source=source, since=since))
        for invariant in invariants
    )
    return _violations(found)


def _violations(found: Iterable[tuple[str, Sequence[Row]]]) -> list[Violation]:
    return [
        Violation(invariant=invariant, rows=[dict(row) for row in rows]) for invariant, rows in found if rows
    ]


def tables_in_use(connection: Connection) -> list[str]:
    """Return the tables of the books that have a row: none of them, in empty books."""
    tables = metadata.sorted_tables
    return sorted(
        table.name for table in tables if connection.execute(select(table).limit(1)).first() is not None
    )


def require_empty(connection: Connection, what: str) -> None:
    """Refuse books that hold anything, for `what` needs books of its own.

    Raises:
        Refused: a table has a row; the message names each that has.
    """
    filled = tables_in_use(connection)
    if filled:
        raise Refused(
            f"books: not empty ({', '.join(filled)}); {what} needs books of its own:"
            " another BUFFER_HOME, or another database"
        )
