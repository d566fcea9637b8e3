"""The real books for comparison with the model: all content at one moment, read by one statement."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, Engine

from buffer_pipeline.database import make_engine
from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState
from buffer_pipeline.shares import ShareKind
from buffer_pipeline.tables import metadata
from buffer_pipeline_tests.support.model.records import Account, Line, ModelNotification
from buffer_pipeline_tests.support.observed_records import (
    Seen,
    SeenBackjob,
    SeenDebt,
    SeenFreeze,
    SeenHold,
    SeenOwnerFreeze,
    SeenPayout,
    SeenPayoutBatch,
    SeenWallet,
)

TABLES: Final = sorted(table.name for table in metadata.sorted_tables)
_CLEARED: Final = [table for table in TABLES if table != "payout_ids"]
"""All but the number of the books, which never changes."""
_DIGESTS: Final = ", ".join(
    f"'{table}', (SELECT md5(string_agg(line::text, ' ' ORDER BY line::text COLLATE \"C\"))"
    f" FROM buffer.{table} AS line)"
    for table in TABLES
)
_OBSERVE: Final = f"""
SELECT
  json_build_object({_DIGESTS}),
  (
    SELECT json_agg(json_build_array(
      wallet_id, owner, currency, balance_minor, pending_earnings_minor, debt_minor))
    FROM buffer.wallet
  ),
  (
    SELECT json_agg(json_build_array(
      hold_id, reference, state, amount_minor, refunded_minor, released_minor, release_date, settled_at,
      payee_wallet_id, kind, earning_id, earning_minor, hold_rule.name, hold_rule.version))
    FROM buffer.hold_status
    LEFT JOIN buffer.hold_rule USING (rule_id)
  ),
  (
    SELECT json_agg(json_build_array(payee_wallet_id, amount_minor))
    FROM (
      SELECT payee_wallet_id, sum(amount_minor) AS amount_minor
      FROM buffer.unsettled_hold GROUP BY payee_wallet_id
    ) AS waiting
  ),
  (
    SELECT json_agg(json_build_array(
      freeze_id, hold_id, kind, backjob_id, owner_freeze_id, earning_id, earning_freeze_id,
      closed_at IS NULL))
    FROM buffer.hold_freeze
  ),
  (
    SELECT json_agg(json_build_array(owner_freeze_id, owner, kind, holds_frozen, holds_resumed))
    FROM buffer.owner_freeze
  ),
  (SELECT json_agg(json_build_array(backjob_id, job, state, refunded_minor)) FROM buffer.backjob),
  (
    SELECT json_agg(json_build_array(
      debt_id, hold_id, wallet_id, creditor_wallet_id, amount_minor, outstanding_minor, closed_at IS NULL,
      forgiven_id IS NOT NULL))
    FROM buffer.debt
  ),
  (
    SELECT json_agg(json_build_array(payout_id, wallet_id, currency, amount_minor, state, payout_batch_id))
    FROM buffer.payout
  ),
  (
    SELECT json_agg(json_build_array(
      payout_batch_id, currency, method, state, payouts, amount_minor, four_eyes))
    FROM buffer.payout_batch
  ),
  (
    SELECT json_agg(json_build_array(currency, account, wallet_id, amount_minor))
    FROM (
      SELECT currency, account, wallet_id, sum(amount_minor) AS amount_minor
      FROM (
        SELECT currency, from_account AS account, from_wallet_id AS wallet_id, -amount_minor AS amount_minor
        FROM buffer.transaction
        UNION ALL
        SELECT currency, to_account, to_wallet_id, amount_minor FROM buffer.transaction
      ) AS side
      GROUP BY currency, account, wallet_id
    ) AS account_total
  ),
  (
    SELECT json_agg(json_build_array(
      transaction_id, type, from_account, from_wallet_id, to_account, to_wallet_id, currency, amount_minor,
      recorded_at, hold_id, backjob_id, release_date, reference, debt_id, payout_id, balance_after_minor,
      from_balance_after_minor, batch_id)
      ORDER BY transaction_id)
    FROM buffer.transaction
    WHERE transaction_id > %(last_line)s
  ),
  (
    SELECT json_agg(json_build_array(
      notification_id, type, owner, created_at, hold_id, backjob_id, currency, amount_minor, release_date,
      left_minor, clawback_id, payout_id) ORDER BY notification_id)
    FROM buffer.notification
    WHERE notification_id > %(last_notification)s
  )
"""
_SEQUENCES: Final = """
SELECT format('%I.%I', schemaname, sequencename), coalesce(last_value, 0) FROM pg_sequences
WHERE schemaname = 'buffer'
"""


class RealBooks:
    """Books to which sequences of verbs are committed. Each sequence begins with what is kept of them."""

    def __init__(
        self,
        engine: Engine,
        connection: Connection,
        observer: "psycopg.Connection[Any]",
        superuser: "psycopg.Connection[Any]",
    ) -> None:
        self.engine = engine
        self.connection = connection
        self._observer = observer
        self._superuser = superuser
        self._kept: list[str] = []
        self._sequences: dict[str, int] = {}

    def clear(self) -> None:
        """Empty the tables and restart all ids at 1."""
        self._kept = []
        self._sequences = {name: 0 for name, _ in self._superuser.execute(_SEQUENCES).fetchall()}
        self.restore()

    def keep(self) -> None:
        """Keep what is in the books now, as that with which each sequence begins."""
        for table in _CLEARED:
            self._superuser.execute(f"CREATE TEMP TABLE kept_{table} AS SELECT * FROM buffer.{table}")
            if self._superuser.execute(f"SELECT FROM kept_{table} LIMIT 1").fetchone() is not None:
                self._kept.append(table)
        self._sequences = dict(self._superuser.execute(_SEQUENCES).fetchall())

    def restore(self) -> None:
        """Bring the books and their ids back to what was kept."""
        self._superuser.execute(
            "; ".join(
                [
                    *(f"DELETE FROM buffer.{table}" for table in _CLEARED),
                    *(
                        f"INSERT INTO buffer.{table} OVERRIDING SYSTEM VALUE SELECT * FROM kept_{table}"
                        for table in self._kept
                    ),
                    *(
                        f"SELECT setval('{name}', {max(last, 1)}, {last > 0})"
                        for name, last in self._sequences.items()
                    ),
                ]
            )
        )

    def observe(self, *, since: Seen | None = None) -> Seen:
        """Read all books, and the lines and notifications since another moment."""
        last_line = 0 if since is None else since.last_line
        last_notification = 0 if since is None else since.last_notification
        row = self._observer.execute(
            _OBSERVE,
            {"last_line": last_line, "last_notification": last_notification},
            prepare=True,
        ).fetchone()
        assert row is not None
        digests, *rest = row
        (
            wallet_rows,
            hold_rows,
            waiting_rows,
            freeze_rows,
            owner_freeze_rows,
            backjob_rows,
            debt_rows,
            payout_rows,
            payout_batch_rows,
            account_rows,
            line_rows,
            notification_rows,
        ) = (rows or [] for rows in rest)
        owners: dict[int | None, str | None] = {wallet_id: owner for wallet_id, owner, *_ in wallet_rows}
        owners[None] = None
        waiting = dict(waiting_rows)
        by_lines: dict[tuple[str, int], int] = {}
        sums_minor: dict[str, int] = {}
        for currency, account, wallet_id, amount_minor in account_rows:
            if wallet_id is None:
                sums_minor[currency] = sums_minor.get(currency, 0) + amount_minor
            else:
                by_lines[account, wallet_id] = amount_minor
        wallets: dict[tuple[str, str], SeenWallet] = {}
        for wallet_id, owner, currency, balance_minor, pending_minor, debt_minor in wallet_rows:
            sums_minor[currency] = sums_minor.get(currency, 0) + balance_minor + pending_minor
            wallets[owner, currency] = SeenWallet(
                balance_minor,
                pending_minor,
                debt_minor,
                waiting.get(wallet_id, 0),
                by_lines.get(("BALANCE", wallet_id), 0),
                by_lines.get(("PENDING_EARNINGS", wallet_id), 0),
            )
        return Seen(
            digests=digests,
            wallets=wallets,
            holds={
                hold_id: SeenHold(
                    reference,
                    HoldState(state),
                    amount,
                    refunded,
                    released,
                    _time(release_date),
                    _moment(settled_at),
                    owners[wallet_id],
                    ShareKind(kind),
                    *earning,
                )
                for (
                    hold_id,
                    reference,
                    state,
                    amount,
                    refunded,
                    released,
                    release_date,
                    settled_at,
                    wallet_id,
                    kind,
                    *earning,
                ) in hold_rows
            },
            freezes={
                freeze_id: SeenFreeze(hold_id, FreezeKind(kind), *rest)
                for freeze_id, hold_id, kind, *rest in freeze_rows
            },
            owner_freezes={
                owner_freeze_id: SeenOwnerFreeze(owner, FreezeKind(kind), holds_frozen, holds_resumed)
                for owner_freeze_id, owner, kind, holds_frozen, holds_resumed in owner_freeze_rows
            },
            backjobs={
                backjob_id: SeenBackjob(job, BackjobState(state), refunded)
                for backjob_id, job, state, refunded in backjob_rows
            },
            debts={
                debt_id: SeenDebt(hold_id, owners[debtor_id], owners[creditor_id], *rest)
                for debt_id, hold_id, debtor_id, creditor_id, *rest in debt_rows
            },
            payouts={
                payout_id: SeenPayout(owners[wallet_id], *rest) for payout_id, wallet_id, *rest in payout_rows
            },
            payout_batches={batch_id: SeenPayoutBatch(*rest) for batch_id, *rest in payout_batch_rows},
            sums_minor=sums_minor,
            lines=[_line(line_row, owners) for line_row in line_rows],
            batches={row[9]: row[-1] for row in line_rows if row[1] == "EARNING"},
            notifications=[_notification(one) for one in notification_rows],
            last_line=line_rows[-1][0] if line_rows else last_line,
            last_notification=notification_rows[-1][0] if notification_rows else last_notification,
        )


@contextmanager
def real_books(database_url: str, superuser_url: str) -> Iterator[RealBooks]:
    """Yield books with their own connections."""
    engine, superuser_engine = make_engine(database_url), make_engine(superuser_url)
    with (
        engine.connect() as connection,
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as observer,
        superuser_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as superuser,
    ):
        observing: Any = observer.connection.driver_connection
        calling: Any = connection.connection.driver_connection
        # Both repeat the same statements on small tables, so plan each once: planning took more time than
        # running them. Other tests plan the verbs' statements each time, as a platform does.
        observing.prepare_threshold, calling.prepare_threshold = 0, 1
        for session in (observing, calling):
            session.prepared_max = 1000
            session.execute("SET plan_cache_mode = force_generic_plan")
            session.commit()
        clearing: Any = superuser.connection.driver_connection
        # Triggers prevent rewriting history, even by a superuser.
        clearing.execute("SET session_replication_role = replica")
        yield RealBooks(engine, connection, observing, clearing)
    engine.dispose()
    superuser_engine.dispose()


def _line(row: list[Any], owners: dict[int | None, str | None]) -> tuple[Line, int | None, int | None]:
    _, type_, from_account, from_id, to_account, to_id, currency, amount_minor, recorded_at, *more = row
    hold_id, backjob_id, release_date, reference, debt_id, payout_id, *balances, _ = more
    source: Account = (from_account, owners[from_id])
    target: Account = (to_account, owners[to_id])
    line = Line(
        type_,
        source,
        target,
        currency,
        amount_minor,
        _time(recorded_at),
        hold_id,
        backjob_id,
        _moment(release_date),
        reference,
        debt_id,
        payout_id,
    )
    return line, balances[0], balances[1]


def _notification(row: list[Any]) -> ModelNotification:
    _, type_, owner, created_at, hold_id, backjob_id, currency, amount_minor, *of_rest = row
    release_date, left_minor, clawback_id, payout_id = of_rest
    return ModelNotification(
        type_,
        owner,
        _time(created_at),
        hold_id,
        backjob_id,
        currency,
        amount_minor,
        _moment(release_date),
        left_minor,
        clawback_id,
        payout_id,
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else _time(text)
