"""The statements that run often, each in a function that runs it on large books."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, text

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.database import fetch
from buffer_pipeline.debts import ClawbackTo, claw_back, forgive_debt, recover_debts
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.hours import HOUR
from buffer_pipeline.intake import Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.monitoring.sent_alerts import unreported_stuck_payments
from buffer_pipeline.notifications.outbox import (
    Outcome,
    Route,
    Settlement,
    claim,
    delivery_figures,
    dispatch,
    list_deliveries,
    list_undispatched,
    replay,
    settle,
    to_send,
)
from buffer_pipeline.payouts import make_scheduled_batches
from buffer_pipeline.policy import PayoutPolicy
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import (
    ReleasePosition,
    ReleaseRange,
    Shard,
    boundaries,
    part_wallets,
    release_early,
    release_matured,
    release_range,
)
from buffer_pipeline.reports.audit_trail import audit_trail
from buffer_pipeline.reports.complete_hours import first_hour
from buffer_pipeline.reports.debts import debts_of_day
from buffer_pipeline.reports.due import due_holds
from buffer_pipeline.reports.holds import show_hold
from buffer_pipeline.reports.hourly_counts import compute_counts
from buffer_pipeline.reports.payouts import batches_of_day, stuck_batches, unbatched_payouts
from buffer_pipeline.reports.released import released_from, released_shares
from buffer_pipeline.reports.stuck import count_stuck, stuck_holds
from buffer_pipeline.reschedule import reschedule_hold
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.support.builders import NOON, WITH_A_FEE
from buffer_pipeline_tests.support.hot_reads import READS
from buffer_pipeline_tests.support.large_books import (
    BACKJOBS,
    LAST,
    WALLETS,
)
from buffer_pipeline_tests.support.read_rows import all_debts, all_holds, all_lines


def earnings(count: int, shares: Sequence[Share] = ()) -> list[Earning]:
    """Return new earnings, half of them for new owners."""
    return [
        Earning(
            reference=f"new-{number}",
            job=f"new-job-{number}",
            payee=f"owner-{number}" if number % 2 else f"worker-{number}",
            payer=f"owner-{number + 1}",
            amount="10.00",
            currency="PHP",
            shares=shares,
        )
        for number in range(count)
    ]


SINCE: Final = NOON - timedelta(days=2)
ADMIN: Final[dict[str, Any]] = {"by": "admin-1", "reason": "a look", "now": NOON}


def _deliver(connection: Connection) -> None:
    claimed = claim(
        connection, endpoint="app", owners_limit=50, per_owner_limit=5, lease_seconds=60, now=NOON
    )
    assert claimed
    settle(connection, [Settlement(claimed=one, outcome=Outcome.DELIVERED) for one in claimed], now=NOON)


def _range(connection: Connection, holds: int) -> None:
    """Release as many holds as a run does, from the first one to a boundary."""
    through = boundaries(
        connection,
        due_by=NOON,
        after=ReleasePosition(),
        every=holds,
        boundaries_max=1,
        shard=Shard(),
        whole_hours=True,
    )[0]
    hold_range = ReleaseRange(after=ReleasePosition(), through=through, shard=Shard())
    batch = release_range(connection, hold_range=hold_range, now=NOON, due_by=NOON, source="test")
    assert batch.holds_released == holds


def _boundaries(connection: Connection, *, shard: Shard, whole_hours: bool) -> None:
    assert boundaries(
        connection,
        due_by=NOON,
        after=ReleasePosition(),
        every=10,
        boundaries_max=20,
        shard=shard,
        whole_hours=whole_hours,
    )


def _add_with_shares(connection: Connection) -> None:
    stated = replace(earnings(1, WITH_A_FEE)[0], payee="owner-17", payer="owner-18")
    shares = (Share(kind=ShareKind.PAYEE), replace(WITH_A_FEE[1], owner="owner-19"))
    added = add_pending_earnings(connection, **{**vars(stated), "shares": shares}, now=NOON)
    release_early(connection, hold_id=added.hold_id, as_admin=True, **ADMIN)


def _freeze_and_refund_shares(connection: Connection) -> None:
    stated = replace(earnings(1, WITH_A_FEE)[0], payee="owner-17", payer="owner-18")
    hold_id = add_pending_earnings(connection, **vars(stated), now=NOON).hold_id
    freeze = freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, reference="case-1", **ADMIN)
    for _ in range(2):
        refund_hold(connection, hold_id=hold_id, amount="5.00", reference="back-1", **ADMIN)
    unfreeze_hold(connection, freeze_id=freeze.freeze_id, **ADMIN)


def _move_shares(connection: Connection) -> None:
    stated = replace(earnings(1, WITH_A_FEE)[0], payee="owner-17", payer="owner-18")
    hold_id = add_pending_earnings(connection, **vars(stated), now=NOON).hold_id
    to = NOON + timedelta(days=20)
    for replayed in (False, True):
        moved = reschedule_hold(
            connection, hold_id=hold_id, to=to, as_admin=True, reference="move-1", **ADMIN
        )
        assert (len(moved.hold_ids), moved.replayed) == (2, replayed)


def _payer_of(connection: Connection, hold_id: int) -> str:
    payer: str = connection.execute(
        text("SELECT payer FROM buffer.job INNER JOIN buffer.hold USING (job) WHERE hold_id = :hold_id"),
        {"hold_id": hold_id},
    ).scalar_one()
    return payer


def _count_shares(connection: Connection) -> None:
    _add_with_shares(connection)
    counts = compute_counts(connection, start=SINCE, end=NOON + HOUR)
    assert counts["released_fee_minor"].sum() == 120
    assert released_shares(connection, source="admin-1", since=NOON)


def _found_by_metadata(connection: Connection, **wanted: str) -> None:
    assert [row["hold_id"] for row in all_holds(connection, metadata=wanted)] == [300]


def _audit(connection: Connection, least: int, **filters: Any) -> None:
    assert len(audit_trail(connection, **filters)) >= least


def _claw_back(connection: Connection) -> None:
    stated = replace(earnings(1, WITH_A_FEE)[0], payee="owner-17", payer="owner-18")
    hold_id = add_pending_earnings(connection, **vars(stated), now=NOON).hold_id
    release_early(connection, hold_id=hold_id, as_admin=True, **ADMIN)
    _empty(connection, "owner-17")
    for _ in range(2):
        done = claw_back(
            connection, hold_id=hold_id, amount="9.00", to=ClawbackTo.PAYER, reference="back-1", **ADMIN
        )
    assert done.debt_minor
    deposit(connection, owner="owner-17", amount="1.00", currency="PHP", reference="in-1", now=NOON)
    for _ in range(2):
        recover_debts(connection, owner="owner-17", reference="recover-1", **ADMIN)
    for _ in range(2):
        forgive_debt(connection, debt_id=done.debt_ids[0], reference="forgive-1", **ADMIN)
    assert all_debts(connection, owner="owner-17")


def _release_to_debtors(connection: Connection) -> None:
    """Let the owner of the first due hold owe something, and release it on both paths."""
    first = connection.execute(text(FIRST_DUE)).one()
    stated = replace(earnings(1)[0], payee=first.owner, payer="owner-18")
    hold_id = add_pending_earnings(connection, **vars(stated), now=NOON).hold_id
    release_early(connection, hold_id=hold_id, as_admin=True, **ADMIN)
    _empty(connection, first.owner)
    claw_back(connection, hold_id=hold_id, amount="10.00", to=ClawbackTo.PAYER, reference="back-1", **ADMIN)
    with connection.begin_nested() as savepoint:
        assert release_matured(connection, now=NOON, batch_limit=1).recovered_minor
        savepoint.rollback()
    _range(connection, 100)


FIRST_DUE: Final = """
SELECT owner FROM buffer.wallet WHERE wallet_id = (
  SELECT payee_wallet_id FROM buffer.unsettled_hold WHERE state = 'BUFFERED'
  ORDER BY release_hour, payee_wallet_id, hold_id LIMIT 1
)
"""


def _empty(connection: Connection, owner: str) -> None:
    balance_minor = connection.scalar(
        text("SELECT balance_minor FROM buffer.wallet WHERE owner = :owner"), {"owner": owner}
    )
    amount = Decimal(balance_minor or 0) / 100
    withdraw(connection, owner=owner, amount=amount, currency="PHP", reference="empty", now=NOON)


HOT: Final[dict[str, Callable[[Connection], object]]] = {
    "release 1": lambda books: release_matured(books, now=NOON, batch_limit=1),
    "release 100": lambda books: release_matured(books, now=NOON, batch_limit=100),
    "release 5,000": lambda books: release_matured(books, now=NOON, batch_limit=5_000),
    "release a range of 100": lambda books: _range(books, 100),
    "release a range of 5,000": lambda books: _range(books, 5_000),
    "release/boundaries": lambda books: _boundaries(books, shard=Shard(), whole_hours=True),
    "boundaries of a shard": lambda books: _boundaries(
        books, shard=Shard(after=0, through=WALLETS // 20), whole_hours=True
    ),
    "boundaries of this hour": lambda books: _boundaries(books, shard=Shard(), whole_hours=False),
    "release early by id": lambda books: release_early(books, hold_id=LAST - 500, as_admin=True, **ADMIN),
    "release early by job": lambda books: release_early(
        books, job=f"job-{LAST - 500}", as_admin=True, **ADMIN
    ),
    "release a part early": lambda books: release_early(
        books, hold_id=LAST - 500, amount="0.01", reference="part-1", as_admin=True, **ADMIN
    ),
    "release a part early again": lambda books: [
        release_early(
            books, hold_id=LAST - 500, amount="0.01", reference="part-1", as_admin=True, **ADMIN
        ).replayed
        for _ in range(2)
    ],
    "release early as its payer": lambda books: release_early(
        books, hold_id=LAST - 500, by=_payer_of(books, LAST - 500), reason="well done", now=NOON
    ),
    "part wallets": lambda books: part_wallets(books, due_by=NOON, shards=4),
    "request backjob": lambda books: request_backjob(
        books, job=f"job-{LAST - 500}", by="client-1", reason="it leaks", now=NOON
    ),
    "reject backjob": lambda books: reject_backjob(books, backjob_id=BACKJOBS + 1, **ADMIN),
    "withdraw backjob": lambda books: withdraw_backjob(books, backjob_id=BACKJOBS + 2, **ADMIN),
    "approve backjob": lambda books: approve_backjob(books, backjob_id=BACKJOBS + 3, **ADMIN),
    "approve part of backjob": lambda books: approve_backjob(
        books, backjob_id=BACKJOBS + 4, amount="1.00", **ADMIN
    ),
    "freeze": lambda books: freeze_hold(books, hold_id=LAST - 500, kind=FreezeKind.RISK, **ADMIN),
    "unfreeze": lambda books: unfreeze_hold(books, freeze_id=2 * BACKJOBS + 300, **ADMIN),
    "refund": lambda books: refund_hold(books, hold_id=LAST - 300, reference="back-1", **ADMIN),
    "freeze, refund and unfreeze shares": _freeze_and_refund_shares,
    "reschedule": lambda books: reschedule_hold(
        books, hold_id=LAST - 500, to=NOON + timedelta(days=20), as_admin=True, reference="move-1", **ADMIN
    ),
    "reschedule shares": _move_shares,
    "add 1": lambda books: add_many_pending_earnings(books, earnings(1), now=NOON),
    "add 100": lambda books: add_many_pending_earnings(books, earnings(100), now=NOON),
    "add 1 with shares": lambda books: add_many_pending_earnings(books, earnings(1, WITH_A_FEE), now=NOON),
    "add 100 with shares": lambda books: add_many_pending_earnings(
        books, earnings(100, WITH_A_FEE), now=NOON
    ),
    "add 1 with shares of known owners": _add_with_shares,
    "deposit": lambda books: deposit(
        books, owner="owner-1", amount="1.00", currency="PHP", reference="in-1", now=NOON
    ),
    "withdraw": lambda books: withdraw(
        books, owner="owner-1", amount="1.00", currency="PHP", reference="out-1", now=NOON
    ),
    "deposit by somebody": lambda books: deposit(
        books, owner="owner-1", amount="1.00", currency="PHP", reference="in-1", **ADMIN
    ),
    "deposit again": lambda books: deposit(
        books, owner="owner-2", amount="1.00", currency="PHP", reference="deposit-2", now=NOON
    ),
    "dispatch": lambda books: dispatch(books, [Route(name="app")], batch_limit=500, now=NOON),
    "deliver": _deliver,
    "what to send": lambda books: to_send(books, endpoints=["app", "mail"], now=NOON),
    "delivery figures": delivery_figures,
    "list deliveries": lambda books: list_deliveries(books, limit=20),
    "list undispatched": lambda books: list_undispatched(books, limit=20),
    "replay": lambda books: replay(books, now=NOON, batch_limit=10),
    "count an hour": lambda books: compute_counts(books, start=SINCE, end=SINCE + HOUR),
    "count hours with shares": _count_shares,
    "first hour": first_hour,
    "newest transaction": lambda books: fetch(books, "seals/newest"),
    "first transaction": lambda books: fetch(books, "seals/first_line", after_id=LAST, through_id=2**40),
    "digest 1,000": lambda books: fetch(books, "seals/digest_lines", after_id=LAST - 1000, through_id=LAST),
    "what is due": lambda books: due_holds(books, due_by=NOON - timedelta(minutes=50)),
    "list overdue": lambda books: all_holds(books, due_by=NOON - timedelta(minutes=58), limit=20),
    "show hold": lambda books: show_hold(books, hold_id=17),
    "list holds of job": lambda books: all_holds(books, job="job-17"),
    "list holds by metadata": lambda books: _found_by_metadata(books, order="300"),
    "list holds by two keys": lambda books: _found_by_metadata(books, order="300", shop="shop-6"),
    "show hold by reference": lambda books: show_hold(books, reference="earning-17"),
    "statement of a wallet": lambda books: all_lines(books, owner="owner-17"),
    **READS,
    "audit trail": lambda books: _audit(books, 100),
    "audit trail of an owner": lambda books: _audit(books, 4, owner="owner-17"),
    "audit trail of a hold": lambda books: _audit(books, 6, hold_id=17),
    "audit trail by somebody": lambda books: _audit(books, 100, by="admin-7"),
    "audit trail by nobody": lambda books: _audit(books, 0, by="nobody"),
    "audit trail since an hour": lambda books: _audit(books, 100, since=NOON - HOUR),
    "released since": lambda books: released_from(books, source="test", since=NOON - HOUR),
    "count stuck": lambda books: count_stuck(
        books, now=NOON + timedelta(days=4), older_than=timedelta(days=3)
    ),
    "claw back": _claw_back,
    "debts of a day": lambda books: debts_of_day(books, day=NOON.date()),
    "batches of a day": lambda books: batches_of_day(books, day=NOON.date()),
    "make the batches of a day": lambda books: make_scheduled_batches(books, by="schedule", now=NOON),
    "stuck batches": lambda books: stuck_batches(books, now=NOON, policy=PayoutPolicy()),
    "payouts without a batch": lambda books: unbatched_payouts(
        books, now=NOON, policy=PayoutPolicy(batch_days=0)
    ),
    "metrics of debts and payouts": lambda books: [
        fetch(books, f"metrics/{name}") for name in ("debts", "payouts", "answered_payouts")
    ],
    "release what pays debts": _release_to_debtors,
    "list stuck": lambda books: stuck_holds(
        books, now=NOON + timedelta(days=4), older_than=timedelta(days=3), limit=20
    ),
    "unreported stuck": lambda books: unreported_stuck_payments(
        books, now=NOON + timedelta(days=4), older_than=timedelta(days=3), period=NOON, shown=20
    ),
}
