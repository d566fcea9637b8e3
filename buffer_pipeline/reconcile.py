"""Reconciliation: each invariant of the books as a query that returns the rows that break it."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Final

from buffer_pipeline.database import AnyConnection, fetch, statement_text

INVARIANTS: Final = (
    "books_balance",
    "wallet_equals_its_transactions",
    "pending_equals_unsettled_holds",
    "hold_settled_once",
    "hold_equals_its_transactions",
    "frozen_iff_open_freeze",
    "backjob_open_iff_it_freezes",
    "backjob_equals_its_refunds",
    "balance_after_follows",
)
"""The files of `sql/reconcile/`, by name."""


@dataclass(frozen=True, kw_only=True)
class Violation:
    """An invariant and the rows that break it, amounts in minor units."""

    invariant: str
    rows: list[dict[str, Any]]


def meaning_of(invariant: str) -> str:
    """Return the sentence that states an invariant: its statement's header."""
    statement = statement_text(f"reconcile/{invariant}")
    lines = takewhile(lambda line: line.startswith("--"), statement.splitlines())
    return " ".join(line.removeprefix("--").strip() for line in lines)


def reconcile(connection: AnyConnection, invariants: Iterable[str] = INVARIANTS) -> list[Violation]:
    """Check invariants and return those that are broken. Reads only.

    To see one moment of books that are in use, call it with `database.one_moment`.
    """
    violations = []
    for invariant in invariants:
        rows = fetch(connection, f"reconcile/{invariant}")
        if rows:
            violations.append(Violation(invariant=invariant, rows=[dict(row) for row in rows]))
    return violations
