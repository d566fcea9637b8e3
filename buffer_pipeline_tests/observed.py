"""The real books beside the model: what all of them say at one moment, read by one statement."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

import psycopg
from sqlalchemy import Connection, Engine

from buffer_pipeline.database import make_engine
from buffer_pipeline.hold import BackjobState, FreezeKind, HoldState
from buffer_pipeline.tables import metadata
from buffer_pipeline_tests.model import Account, Line, Told

TABLES: Final = sorted(table.name for table in metadata.sorted_tables)
_WITH_IDS: Final = ("wallet", "hold", "backjob", "hold_freeze", "batch", "transaction", "notification")

_DIGESTS: Final = ", ".join(
    f"'{table}', (SELECT md5(string_agg(line::text, ' ' ORDER BY line::text COLLATE \"C\"))"
    f" FROM buffer.{table} AS line)"
    for table in TABLES
)
_OBSERVE: Final = f"""
SELECT
  json_build_object({_DIGESTS}),
  (
    SELECT json_agg(json_build_array(wallet_id, owner, currency, balance_minor, pending_earnings_minor))
    FROM buffer.wallet
  ),
  (
    SELECT json_agg(json_build_array(
      hold_id, reference, state, amount_minor, refunded_minor, release_date, settled_at))
    FROM buffer.hold_status
  ),
  (
    SELECT json_agg(json_build_array(payee_wallet_id, amount_minor))
    FROM (
      SELECT payee_wallet_id, sum(amount_minor) AS amount_minor
      FROM buffer.unsettled_hold GROUP BY payee_wallet_id
    ) AS waiting
  ),
  (
    SELECT json_agg(json_build_array(freeze_id, hold_id, kind, backjob_id, closed_at IS NULL))
    FROM buffer.hold_freeze
  ),
  (SELECT json_agg(json_build_array(backjob_id, job, state, refunded_minor)) FROM buffer.backjob),
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
      recorded_at, hold_id, backjob_id, release_date, reference, balance_after_minor) ORDER BY transaction_id)
    FROM buffer.transaction
    WHERE transaction_id > %(last_line)s
  ),
  (
    SELECT json_agg(json_build_array(
      notification_id, type, owner, created_at, hold_id, backjob_id, currency, amount_minor, release_date)
      ORDER BY notification_id)
    FROM buffer.notification
    WHERE notification_id > %(last_told)s
  )
"""
_CLEAR: Final = "; ".join(
    [f"DELETE FROM buffer.{table}" for table in TABLES]
    + [
        f"SELECT setval(pg_get_serial_sequence('buffer.{table}', '{key}'), 1, false)"
        for table, key in (
            (name, metadata.tables[f"buffer.{name}"].primary_key.columns.keys()[0]) for name in _WITH_IDS
        )
    ]
)


class SeenWallet(NamedTuple):
    """A wallet as its row has it, what its unsettled holds hold, and what its lines come to."""

    balance_minor: int
    pending_minor: int
    waiting_minor: int
    balance_by_lines_minor: int
    pending_by_lines_minor: int


class SeenHold(NamedTuple):
    """A hold as it stands."""

    reference: str
    state: HoldState
    amount_minor: int
    refunded_minor: int
    release_date: datetime
    settled_at: datetime | None


class SeenFreeze(NamedTuple):
    """A freeze, and whether it stands."""

    hold_id: int
    kind: FreezeKind
    backjob_id: int | None
    stands: bool


class SeenBackjob(NamedTuple):
    """A backjob as it stands."""

    job: str
    state: BackjobState
    refunded_minor: int | None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """All of the books at a moment; `lines` and `told` are those since the moment before, in order."""

    digests: dict[str, str | None]
    wallets: dict[tuple[str, str], SeenWallet]
    holds: dict[int, SeenHold]
    freezes: dict[int, SeenFreeze]
    backjobs: dict[int, SeenBackjob]
    sums_minor: dict[str, int]
    """By currency: all wallets' money as their rows have it, and what the lines say of system accounts."""
    lines: list[tuple[Line, int | None]]
    """Each with its wallet's balance behind it."""
    told: list[Told]
    last_line: int
    last_told: int


class RealBooks:
    """Books that one sequence of verbs after another is committed to, each beginning with empty ones."""

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

    def clear(self) -> None:
        """Empty every table and begin all ids at 1 again."""
        self._superuser.execute(_CLEAR)

    def observe(self, *, since: Seen | None = None) -> Seen:
        """Read all of the books, and the lines and notifications since another moment."""
        row = self._observer.execute(
            _OBSERVE,
            {
                "last_line": 0 if since is None else since.last_line,
                "last_told": 0 if since is None else since.last_told,
            },
            prepare=True,
        ).fetchone()
        assert row is not None
        digests, *rest = row
        (
            wallet_rows,
            hold_rows,
            waiting_rows,
            freeze_rows,
            backjob_rows,
            account_rows,
            line_rows,
            told_rows,
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
        for wallet_id, owner, currency, balance_minor, pending_minor in wallet_rows:
            sums_minor[currency] = sums_minor.get(currency, 0) + balance_minor + pending_minor
            wallets[owner, currency] = SeenWallet(
                balance_minor,
                pending_minor,
                waiting.get(wallet_id, 0),
                by_lines.get(("BALANCE", wallet_id), 0),
                by_lines.get(("PENDING_EARNINGS", wallet_id), 0),
            )
        return Seen(
            digests=digests,
            wallets=wallets,
            holds={
                hold_id: SeenHold(
                    reference, HoldState(state), amount, refunded, _time(release_date), _moment(settled_at)
                )
                for hold_id, reference, state, amount, refunded, release_date, settled_at in hold_rows
            },
            freezes={
                freeze_id: SeenFreeze(hold_id, FreezeKind(kind), backjob_id, stands)
                for freeze_id, hold_id, kind, backjob_id, stands in freeze_rows
            },
            backjobs={
                backjob_id: SeenBackjob(job, BackjobState(state), refunded)
                for backjob_id, job, state, refunded in backjob_rows
            },
            sums_minor=sums_minor,
            lines=[_line(line_row, owners) for line_row in line_rows],
            told=[_told(told_row) for told_row in told_rows],
            last_line=line_rows[-1][0] if line_rows else 0 if since is None else since.last_line,
            last_told=told_rows[-1][0] if told_rows else 0 if since is None else since.last_told,
        )


@contextmanager
def real_books(database_url: str, superuser_url: str) -> Iterator[RealBooks]:
    """Yield books of their own connections."""
    engine, superuser_engine = make_engine(database_url), make_engine(superuser_url)
    with (
        engine.connect() as connection,
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as observer,
        superuser_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as superuser,
    ):
        observing: Any = observer.connection.driver_connection
        # It asks the same all the time: planned once.
        observing.prepare_threshold = 0
        clearing: Any = superuser.connection.driver_connection
        # Triggers keep history from being rewritten, from a superuser as well.
        clearing.execute("SET session_replication_role = replica")
        yield RealBooks(engine, connection, observing, clearing)
    engine.dispose()
    superuser_engine.dispose()


def _line(row: list[Any], owners: dict[int | None, str | None]) -> tuple[Line, int | None]:
    _, type_, from_account, from_id, to_account, to_id, currency, amount_minor, recorded_at, *more = row
    hold_id, backjob_id, release_date, reference, balance_after_minor = more
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
    )
    return line, balance_after_minor


def _told(row: list[Any]) -> Told:
    _, type_, owner, created_at, hold_id, backjob_id, currency, amount_minor, release_date = row
    return Told(
        type_, owner, _time(created_at), hold_id, backjob_id, currency, amount_minor, _moment(release_date)
    )


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else _time(text)
