"""Reconciliation: each invariant of the books is a query that returns the rows that break it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import Any, Final

from sqlalchemy import Connection, select

from buffer_pipeline.database import AnyConnection, Row, fetch, statement_text
from buffer_pipeline.errors import Refused
from buffer_pipeline.tables import metadata, payout_ids, sandbox

INVARIANTS: Final = (
    "books_balance",
    "wallet_equals_its_transactions",
    "pending_equals_unsettled_holds",
    "hold_settled_once",
    "hold_equals_its_transactions",
    "earning_equals_its_shares",
    "frozen_iff_open_freeze",
    "backjob_open_iff_it_freezes",
    "job_names_its_open_backjob",
    "freeze_closed_with_its_backjob",
    "owner_names_its_open_freeze",
    "owner_freeze_covers_its_owner",
    "earning_freeze_covers_its_shares",
    "backjob_equals_its_refunds",
    "earning_follows_its_batch",
    "refund_follows_its_batch",
    "kept_fee_is_not_refunded",
    "release_date_is_explained",
    "audit_line_matches_what_it_names",
    "transit_equals_open_payouts",
    "payout_equals_its_transactions",
    "payout_batch_equals_its_payouts",
    "balance_after_follows",
    "debt_equals_its_transactions",
    "wallet_names_its_debts",
    "claw_back_equals_its_shares",
    "hold_gave_back_no_more_than_it_earned",
    "receivable_equals_debts_to_banks",
)
"""The files of `sql/reconcile/`, by name."""

RUN_INVARIANTS: Final = (
    "books_balance",
    "wallet_equals_its_transactions",
    "hold_settled_once",
    "earning_follows_its_batch",
)
"""The files of `sql/reconcile_run/`: the invariants that can be checked for one release run."""


@dataclass(frozen=True, kw_only=True)
class Violation:
    """An invariant and the rows that break it; amounts are in minor units."""

    invariant: str
    rows: list[dict[str, Any]]


def meaning_of(invariant: str) -> str:
    """Return the sentence that states an invariant: the header of its statement."""
    return _header(f"reconcile/{invariant}")


def meaning_in_a_run(invariant: str) -> str:
    """Return what is checked for one release run: the first sentence of its statement's header."""
    return _header(f"reconcile_run/{invariant}").partition(". ")[0] + "."


def _header(statement: str) -> str:
    lines = takewhile(lambda line: line.startswith("--"), statement_text(statement).splitlines())
    return " ".join(line.removeprefix("--").strip() for line in lines)


def reconcile(connection: AnyConnection, invariants: Iterable[str] = INVARIANTS) -> list[Violation]:
    """Check invariants and return those that are broken. Reads only.

    If the books are in use, call it on a connection of `database.snapshot`.
    """
    found = ((invariant, fetch(connection, f"reconcile/{invariant}")) for invariant in invariants)
    return _violations(found)


def reconcile_run(
    connection: AnyConnection, invariants: Iterable[str] = RUN_INVARIANTS, *, source: str, since: datetime
) -> list[Violation]:
    """Check invariants for what one release run changed and return those that are broken. Reads only.

    The run is identified by its batches' `source`, which wrote nothing before `since`. The cost is
    proportional to what was released since then, however large the books are. The state before the run is
    assumed to be right; `reconcile` checks all of the books.
    """
    # This applies to the rest of the caller's transaction, so these should be its last statements.
    fetch(connection, "database/read_by_index")
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
    """Return the names of the tables that have a row. In empty books there are none.

    `payout_ids` does not count: its row is the number of the books, which a migration writes. Nor does
    `sandbox`, which has the clock of books that are made for tests.
    """
    tables = [table for table in metadata.sorted_tables if table not in {payout_ids, sandbox}]
    return sorted(
        table.name for table in tables if connection.execute(select(table).limit(1)).first() is not None
    )


def require_empty(connection: Connection, what: str) -> None:
    """Refuse books that are not empty, because `what` needs books of its own.

    Raises:
        Refused: the message names each table that has a row.
    """
    filled = tables_in_use(connection)
    if filled:
        raise Refused(
            f"books: not empty ({', '.join(filled)}); {what} needs books of its own:"
            " another BUFFER_HOME, or another database"
        )
