"""Compares the books with the oracle after applying what was committed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, Engine, text

from buffer_pipeline.audit.reconcile import reconcile
from buffer_pipeline.database import snapshot
from buffer_pipeline_tests.stress.findings import Findings
from buffer_pipeline_tests.stress.oracle import Oracle
from buffer_pipeline_tests.stress.oracle_books import Wrong
from buffer_pipeline_tests.stress.oracle_rows import Batch, Line
from buffer_pipeline_tests.stress.record import Attempt, Call, Outcome
from buffer_pipeline_tests.stress.tally import Tally

WRONG_MAX: Final = 3
"""After one wrong answer many others are wrong too, so a round ends with the first few."""

_SERIALS: Final = "SELECT call, serial FROM stress.call WHERE serial > :after ORDER BY serial"
_LINES: Final = (
    "SELECT transaction_id, type, source.owner AS from_owner, target.owner AS to_owner,"
    " transaction.currency, amount_minor, recorded_at, hold_id, backjob_id, reference, release_date, batch_id"
    " FROM buffer.transaction"
    " LEFT JOIN buffer.wallet AS source ON source.wallet_id = from_wallet_id"
    " LEFT JOIN buffer.wallet AS target ON target.wallet_id = to_wallet_id"
    " WHERE transaction_id > :after ORDER BY transaction_id"
)
_UNSETTLED: Final = "SELECT hold_id, state, amount_minor, release_date FROM buffer.unsettled_hold"
_WALLETS: Final = (
    "SELECT owner, currency, balance_minor, pending_earnings_minor FROM buffer.wallet"
    " WHERE balance_minor <> 0 OR pending_earnings_minor <> 0"
)
_BACKJOBS: Final = "SELECT backjob_id, job, state, refunded_minor FROM buffer.backjob"
_OPEN_FREEZES: Final = (
    "SELECT hold_id, kind, coalesce(backjob_id, freeze_id) FROM buffer.hold_freeze WHERE closed_at IS NULL"
)
_FREEZES_OF_PEOPLE: Final = "SELECT freeze_id, hold_id FROM buffer.hold_freeze WHERE backjob_id IS NULL"
_MESSAGES: Final = (
    "SELECT hold_id, type, count(*) FROM buffer.notification"
    " WHERE type IN ('PAYMENT_PENDING', 'PAYMENT_RELEASED', 'PAYMENT_REFUNDED') GROUP BY hold_id, type"
)


@dataclass
class Audit:
    """Compares the books of a round with the oracle repeatedly. Nobody may write meanwhile."""

    engine: Engine
    findings: Findings
    tally: Tally
    oracle: Oracle = field(default_factory=Oracle)
    _last_serial: int = 0
    _last_line: int = 0

    def compare(self, ended: list[Attempt]) -> bool:
        """Apply the finished transactions, and return True if the books match."""
        before = sum(self.findings.counts.values())
        with snapshot(self.engine) as connection:
            lines = connection.execute(text(_LINES), {"after": self._last_line}).mappings().all()
            self._apply(connection, ended, _batches(lines))
            if sum(self.findings.counts.values()) == before:
                self._compare_lines(lines)
                self._compare_rows(connection)
            for violation in reconcile(connection):
                self.findings.add(
                    f"invariant {violation.invariant}",
                    "broken",
                    rows=self._explained(connection, violation.rows),
                )
        self.tally.count("comparison")
        return sum(self.findings.counts.values()) == before

    def _apply(self, connection: Connection, ended: list[Attempt], batches: dict[int, Batch]) -> None:
        rows = connection.execute(text(_SERIALS), {"after": self._last_serial}).all()
        serials: dict[int, int] = dict(rows)
        self._last_serial = max(serials.values(), default=self._last_serial)
        calls = [(call, attempt) for attempt in ended for call in self._committed(attempt, serials)]
        for call, _ in calls:
            call.serial = serials.pop(call.number, None)
        if serials:
            self.findings.add("rolled back, but in the books", f"calls {sorted(serials)[:20]}")
        wrong = 0
        for call, attempt in sorted(calls, key=lambda pair: pair[0].serial or 0):
            try:
                self.oracle.apply(call, attempt, batches=batches)
            except (Wrong, KeyError) as error:
                self.findings.add(
                    "answer that cannot be",
                    f"{attempt.actor}, {attempt.isolation}: {call} -> {call.answer}: {error!r}",
                )
                wrong += 1
            if wrong == WRONG_MAX:
                return

    def _committed(self, attempt: Attempt, serials: dict[int, int]) -> Iterator[Call]:
        """Yield the calls of a committed transaction. Its acknowledged calls must be in the books."""
        calls = [call for call in attempt.calls if not call.undone]
        there = [call for call in calls if call.number in serials]
        if attempt.outcome is Outcome.UNKNOWN:
            self.tally.count(f"unknown outcome, {'committed' if there else 'rolled back'}")
            if there and len(there) < len(calls):
                self.findings.add(
                    "committed by half", f"{[str(call) for call in calls]}, only {len(there)} are there"
                )
        elif attempt.outcome is Outcome.COMMITTED and len(there) < len(calls):
            self.findings.add("committed, but not in the books", f"{[str(call) for call in calls]}")
        elif attempt.outcome is Outcome.ROLLED_BACK:
            return
        yield from there

    def _compare_lines(self, rows: Iterable[Any]) -> None:
        found = []
        for row in rows:
            self._last_line = max(self._last_line, row["transaction_id"])
            found.append(Line(**{name: row[name] for name in Line._fields}))
        self._compare("lines", found, self.oracle.lines)
        self.oracle.lines.clear()

    def _compare_rows(self, connection: Connection) -> None:
        oracle, holds = self.oracle, self.oracle.holds.values()

        def rows(statement: str) -> list[tuple[Any, ...]]:
            return [tuple(row) for row in connection.execute(text(statement))]

        unsettled = [
            (hold.hold_id, hold.state.value, hold.held_minor, hold.release_date)
            for hold in holds
            if hold.held_minor
        ]
        self._compare("holds", rows(_UNSETTLED), unsettled)
        wallets = [
            (*key, wallet.balance_minor, wallet.pending_minor)
            for key, wallet in oracle.wallets.items()
            if wallet.balance_minor or wallet.pending_minor
        ]
        self._compare("wallets", rows(_WALLETS), wallets)
        backjobs = [
            (backjob.backjob_id, backjob.job, backjob.state.value, backjob.refunded_minor)
            for backjob in oracle.backjobs.values()
        ]
        self._compare("backjobs", rows(_BACKJOBS), backjobs)
        open_ = [(hold.hold_id, name.kind.value, name.id) for hold in holds for name in hold.freezes]
        self._compare("open freezes", rows(_OPEN_FREEZES), open_)
        self._compare("freezes", rows(_FREEZES_OF_PEOPLE), oracle.freezes.items())
        self._compare("messages", rows(_MESSAGES), oracle.messages())

    def _compare(
        self, what: str, books: Iterable[tuple[Any, ...]], oracle: Iterable[tuple[Any, ...]]
    ) -> None:
        in_books, in_oracle = set(books), set(oracle)
        if in_books != in_oracle:
            rows = [("only in the books", *row) for row in sorted(in_books - in_oracle, key=str)]
            rows += [("only in the oracle", *row) for row in sorted(in_oracle - in_books, key=str)]
            self.findings.add(f"{what} differ", f"{len(rows)} rows", rows=rows)

    def _explained(self, connection: Connection, rows: list[dict[str, Any]]) -> list[object]:
        """Return the rows that break an invariant, with the freezes of each hold."""
        freezes = text(
            "SELECT freeze_id, kind, backjob_id, opened_at, closed_at FROM buffer.hold_freeze"
            " WHERE hold_id = :hold_id"
        )
        return [
            (row, [tuple(freeze) for freeze in connection.execute(freezes, {"hold_id": row["hold_id"]})])
            if "hold_id" in row
            else row
            for row in rows[:3]
        ]


def _batches(lines: Iterable[Any]) -> dict[int, Batch]:
    batches: dict[int, Batch] = {}
    for line in lines:
        if line["batch_id"] is not None:
            batch = batches.setdefault(line["batch_id"], Batch([], line["recorded_at"]))
            batch.hold_ids.append(line["hold_id"])
    return batches
