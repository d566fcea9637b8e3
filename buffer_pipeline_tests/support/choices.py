"""Random values for the books' columns: plausible, hostile or NULL."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

from buffer_pipeline_tests.support.builders import ADMIN, JOB, NOON, PAYEE, PAYER
from buffer_pipeline_tests.support.judge import Snapshot

TABLES: Final = ("wallet", "hold", "unsettled_hold", "transaction", "batch", "backjob", "hold_freeze", "job")
"""The tables with money and decisions."""

_WORDS: Final[dict[str, tuple[object, ...]]] = {
    "state": ("BUFFERED", "FROZEN", "OPEN", "REJECTED", "APPROVED", "WITHDRAWN", "RELEASED"),
    "kind": ("DUE", "EARLY", "REFUND", "BACKJOB", "ADMIN", "RISK", "PAYEE", "FEE", "RESERVE"),
    "type": (
        "PENDING_EARNING",
        "EARNING",
        "EARNING_PART",
        "REFUND",
        "DEPOSIT",
        "WITHDRAWAL",
        "OPENING_BALANCE",
    ),
    "currency": ("PHP", "USD", "XXX"),
    "from_account": ("ESCROW", "PENDING_EARNINGS", "EXTERNAL", "BALANCE", "OPENING"),
    "rule_id": (None, None, 1, 404),
    "to_account": ("PENDING_EARNINGS", "BALANCE", "EXTERNAL"),
    "metadata": ('{"order": "A-17"}', "{}", "[]", "null", '{"n": [1]}', '{"n": {}}', '{"n": 1e999}', "x"),
}
_NAMES: Final = (PAYEE, PAYER, ADMIN, JOB, "nobody", "")


@dataclass(frozen=True)
class Choices:
    """Random values, from the books and others, for one transaction of a role."""

    random: Random
    books: Snapshot
    now: datetime

    def some(self, table: str, **wanted: object) -> dict[str, Any]:
        """Return a row with these values, or any row if there is none."""
        rows = list(getattr(self.books, table).values())
        fitting = [row for row in rows if all(row[name] == value for name, value in wanted.items())]
        found: dict[str, Any] = self.random.choice(fitting or rows)
        return found

    def value(self, column: str) -> object:
        """Return a value for a column: plausible, hostile or None."""
        if self.random.random() < 0.05:
            return None
        words = {**_WORDS, "job": (*self.books.job, "new")}
        if column in words:
            return self.random.choice(words[column])
        table = {"payee_wallet_id": "wallet", "payer_wallet_id": "wallet"}.get(column)
        table = table or next((name for name in TABLES if column in (f"{name}_id", f"from_{name}_id")), None)
        if column == "to_wallet_id":
            table = "wallet"
        if column == "open_backjob_id":
            table = "backjob"
        if column.endswith("_id"):
            ids = [*getattr(self.books, table or "hold")]
            return self.random.choice([*ids, *ids, 0, 404])
        if column.endswith("_minor"):
            amounts = [row["amount_minor"] for row in self.books.transaction.values()]
            return self.random.choice([*amounts, 1, 0, -1, 100_000, 10**15, 2**63 - 1])
        if column.endswith(("_at", "_date")) or column == "due_by":
            return self._moment()
        return self.random.choice([*_NAMES, f"new-{self.random.random()}"])

    def _moment(self) -> datetime:
        given = [row["release_date"] for row in self.books.unsettled_hold.values()]
        moment: datetime = self.random.choice(
            [
                *given,
                self.now,
                NOON,
                NOON - timedelta(days=900),
                self.now + timedelta(hours=1),
                self.now + timedelta(days=900 * 365),
                datetime(1969, 7, 20, tzinfo=UTC),
            ]
        )
        return moment
