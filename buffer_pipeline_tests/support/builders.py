"""What the tests build on: a hold in any state, what the books say, and two transactions at once."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import Barrier
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, func, select, text

from buffer_pipeline.backjob import approve_backjob, request_backjob
from buffer_pipeline.errors import PaymentBufferError
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.intake import add_pending_earnings
from buffer_pipeline.policy import Policy
from buffer_pipeline.release import release_early
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline.tables import (
    audit_line,
    debt,
    hold_freeze,
    hold_status,
    metadata,
    notification,
    payout,
    payout_batch,
    payout_status_file,
    transaction,
    wallet,
)

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
"""When the tests' first holds begin."""

ADMIN: Final = "admin-1"
PAYEE: Final = "worker-17"
PAYER: Final = "client-3"
JOB: Final = "job-8"
DAY_7: Final = NOON + timedelta(days=7)
"""When a hold that began at NOON matures by the default policy."""

SAMPLE_HOLDS: Final = 264
"""What `load_sample` holds, at whatever moment."""

WITH_A_FEE: Final = (
    Share(kind=ShareKind.PAYEE),
    Share(kind=ShareKind.FEE, owner="platform", percent=12),
    Share(kind=ShareKind.RESERVE, percent=10, days=90),
)
"""Shares of an earning: 78 % are the payee's own, and 10 % wait for the payee until day 90."""

LEFT: Final = ("BGN", "ANG", "HRK")
"""Currencies that ISO 4217's list no longer has."""

WAIT_SECONDS_MAX: Final = 30
_REFERENCES: Final = count(1)

First = TypeVar("First")
Second = TypeVar("Second")


def place_hold(
    connection: Connection,
    *,
    state: HoldState = HoldState.BUFFERED,
    reference: str | None = None,
    job: str = JOB,
    payee: str = PAYEE,
    payer: str = PAYER,
    amount: str = "1000.00",
    currency: str = "PHP",
    held_at: datetime = NOON,
    release_date: datetime | None = None,
    shares: Sequence[Share] = (),
    rule: str | None = None,
    policy: Policy | None = None,
) -> int:
    """Hold an earning and bring it to `state` by the verbs; return its id, or that of its first share.

    FROZEN is an admin's freeze. REFUNDED comes by a backjob, so of the whole job.
    """
    hold_id = add_pending_earnings(
        connection,
        reference=reference or f"earning-{next(_REFERENCES)}",
        job=job,
        payee=payee,
        payer=payer,
        amount=amount,
        currency=currency,
        held_at=held_at,
        release_date=release_date,
        shares=shares,
        rule=rule,
        now=held_at,
        policy=policy,
    ).hold_id
    if state is HoldState.FROZEN:
        freeze_hold(
            connection, hold_id=hold_id, kind=FreezeKind.ADMIN, by=ADMIN, reason="a look", now=held_at
        )
    elif state is HoldState.RELEASED:
        release_early(
            connection, hold_id=hold_id, by=ADMIN, as_admin=True, reason="a good client", now=held_at
        )
    elif state is HoldState.REFUNDED:
        backjob = request_backjob(connection, job=job, by=payer, reason="not as agreed", now=held_at)
        approve_backjob(connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="indeed", now=held_at)
    return hold_id


def bring_in(connection: Connection, **places: int) -> None:
    """Let the books have had these currencies since long ago, with so many places each."""
    connection.execute(
        text("INSERT INTO buffer.currency (currency, places) VALUES (:currency, :places)"),
        [{"currency": currency, "places": number} for currency, number in places.items()],
    )


def hold_row(connection: Connection, hold_id: int) -> dict[str, Any]:
    """Return the hold as it stands, by column name."""
    return dict(
        connection.execute(select(hold_status).where(hold_status.c.hold_id == hold_id)).mappings().one()
    )


def state_of(connection: Connection, hold_id: int) -> HoldState:
    """Return where the hold is."""
    return HoldState(hold_row(connection, hold_id)["state"])


def release_date_of(connection: Connection, hold_id: int) -> datetime:
    """Return when the hold matures."""
    release_date = hold_row(connection, hold_id)["release_date"]
    assert isinstance(release_date, datetime)
    return release_date


def open_freezes(connection: Connection, hold_id: int) -> list[str]:
    """Return the kinds of the hold's open freezes, the oldest first."""
    return list(
        connection.scalars(
            select(hold_freeze.c.kind)
            .where(hold_freeze.c.hold_id == hold_id, hold_freeze.c.closed_at.is_(None))
            .order_by(hold_freeze.c.freeze_id)
        )
    )


@dataclass(frozen=True)
class Wallet:
    """An owner's money in minor units; zeros where there is no wallet."""

    balance_minor: int = 0
    pending_earnings_minor: int = 0


def wallet_of(connection: Connection, owner: str, currency: str = "PHP") -> Wallet:
    """Return what the owner has."""
    row = connection.execute(
        select(wallet.c.balance_minor, wallet.c.pending_earnings_minor).where(
            wallet.c.owner == owner, wallet.c.currency == currency
        )
    ).one_or_none()
    return Wallet() if row is None else Wallet(*row)


def transactions_of(connection: Connection, hold_id: int) -> list[tuple[str, int]]:
    """Return (type, amount_minor) of the hold's transactions, the oldest first."""
    rows = connection.execute(
        select(transaction.c.type, transaction.c.amount_minor)
        .where(transaction.c.hold_id == hold_id)
        .order_by(transaction.c.transaction_id)
    )
    return [(row.type, row.amount_minor) for row in rows]


def notifications_of(connection: Connection, owner: str) -> list[str]:
    """Return the types of the owner's notifications, the oldest first."""
    return list(
        connection.scalars(
            select(notification.c.type)
            .where(notification.c.owner == owner)
            .order_by(notification.c.notification_id)
        )
    )


def row_counts(connection: Connection) -> dict[str, int]:
    """Return how many rows each table has, but the one row of the books' number."""
    return {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in metadata.sorted_tables
        if table.name != "payout_ids"
    }


def books(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table: two equal answers mean that nothing was written between.

    The number of the books, which never changes, is left out: new books are empty.
    """
    return {
        table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
        for table in metadata.sorted_tables
        if table.name != "payout_ids"
    }


def end_state(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Return every wallet, hold, payout, debt, transaction and notification, without ids and times."""
    by_hold = (
        select(hold_status.c.reference)
        .where(hold_status.c.hold_id == transaction.c.hold_id)
        .scalar_subquery()
    )
    notified_hold = (
        select(hold_status.c.reference)
        .where(hold_status.c.hold_id == notification.c.hold_id)
        .scalar_subquery()
    )
    statements = {
        "wallets": select(
            wallet.c.owner, wallet.c.currency, wallet.c.balance_minor, wallet.c.pending_earnings_minor
        ),
        "holds": select(
            hold_status.c.reference,
            hold_status.c.job,
            hold_status.c.state,
            hold_status.c.amount_minor,
            hold_status.c.refunded_minor,
            hold_status.c.release_date - hold_status.c.original_release_date,
        ),
        "payouts": select(payout.c.reference, payout.c.state, payout.c.amount_minor, payout.c.return_reason),
        "payout batches": select(
            payout_batch.c.state,
            payout_batch.c.payouts,
            payout_batch.c.amount_minor,
            payout_batch.c.approved_by,
            payout_batch.c.sent_by,
            payout_batch.c.cancelled_by,
        ),
        "status files": select(payout_status_file.c.paid, payout_status_file.c.returned),
        "debts": select(debt.c.amount_minor, debt.c.outstanding_minor),
        "audit lines": select(audit_line.c.verb, audit_line.c.by, audit_line.c.owner, audit_line.c.reason),
        "transactions": select(
            by_hold,
            transaction.c.type,
            transaction.c.from_account,
            transaction.c.to_account,
            transaction.c.amount_minor,
            transaction.c.balance_after_minor,
        ),
        "notifications": select(
            notified_hold, notification.c.type, notification.c.owner, notification.c.amount_minor
        ),
    }
    return {
        name: sorted((tuple(row) for row in connection.execute(statement)), key=repr)
        for name, statement in statements.items()
    }


def all_at_once(engine: Engine, *verbs: Callable[[Connection], First]) -> list[First | PaymentBufferError]:
    """Run each verb in a transaction and a thread of its own, begun together at a barrier.

    A refusal is returned at its verb's place; any other error is raised.
    """
    barrier = Barrier(len(verbs))

    def run(verb: Callable[[Connection], First]) -> First | PaymentBufferError:
        try:
            with engine.begin() as connection:
                connection.execute(text("SELECT 1"))
                barrier.wait(timeout=WAIT_SECONDS_MAX)
                return verb(connection)
        except PaymentBufferError as refusal:
            return refusal

    with ThreadPoolExecutor(len(verbs)) as threads:
        return list(threads.map(run, verbs))


def one_after_the_other(
    engine: Engine, first: Callable[[Connection], First], second: Callable[[Connection], Second]
) -> tuple[First, Second | PaymentBufferError]:
    """Run `first`; run `second` before it commits; commit `first` once `second` waits or is through.

    A refusal of `second` is returned at its place.
    """

    def run() -> Second | PaymentBufferError:
        try:
            with engine.begin() as connection:
                return second(connection)
        except PaymentBufferError as refusal:
            return refusal

    with ThreadPoolExecutor(1) as threads, engine.connect() as watcher:
        with engine.begin() as connection:
            outcome = first(connection)
            running = threads.submit(run)
            deadline = time.monotonic() + WAIT_SECONDS_MAX
            while not running.done() and not waiting_for_a_lock(watcher):
                assert time.monotonic() < deadline, "the second neither waits nor ends"
        return outcome, running.result(timeout=WAIT_SECONDS_MAX)


def waiting_for_a_lock(connection: Connection) -> int:
    """Return how many sessions of this database wait for a lock."""
    waiting: int = connection.execute(
        text(
            "SELECT count(DISTINCT pid) FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE NOT granted AND datname = current_database()"
        )
    ).scalar_one()
    connection.rollback()  # A transaction sees one state of pg_stat_activity.
    return waiting


def next_generation(connection: Connection, *, generations: int = 1) -> None:
    """Let the next transaction be one of so many generations later (docs/decisions/0019)."""
    last: int = connection.scalar(text("SELECT max(transaction_id) FROM buffer.transaction")) or 0
    first = ((last >> 17) + generations) << 17
    connection.execute(
        text(f"ALTER TABLE buffer.transaction ALTER COLUMN transaction_id RESTART WITH {first}")
    )
