"""Corruptions of the books, one for each invariant: what a superuser could change."""

from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.owner_freeze import freeze_owner
from buffer_pipeline.payouts import PayoutState
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import release_matured
from buffer_pipeline.wallet import deposit
from buffer_pipeline_tests.support.broken_debts import BROKEN_DEBTS
from buffer_pipeline_tests.support.builders import (
    ADMIN,
    DAY_7,
    NOON,
    PAYEE,
    PAYER,
    WITH_A_FEE,
    place_hold,
)
from buffer_pipeline_tests.support.checks import SECOND_EARNING
from buffer_pipeline_tests.support.payouts import place_payout
from buffer_pipeline_tests.support.rules import FEE, SELLER, add


def _wallet_off(connection: Connection) -> tuple[str, ...]:
    place_hold(connection)
    return ("UPDATE buffer.wallet SET balance_minor = balance_minor + 7",)


def _pending_off(connection: Connection) -> tuple[str, ...]:
    place_hold(connection)
    return (f"UPDATE buffer.wallet SET pending_earnings_minor = 1 WHERE owner = '{PAYEE}'",)


def _paid_twice(connection: Connection) -> tuple[str, ...]:
    place_hold(connection, state=HoldState.RELEASED)
    return SECOND_EARNING


def _another_amount(connection: Connection) -> tuple[str, ...]:
    place_hold(connection)
    return (
        "ALTER TABLE buffer.hold DISABLE TRIGGER ALL",
        "UPDATE buffer.hold SET amount_minor = amount_minor + 1",
    )


def _another_fee(connection: Connection) -> tuple[str, ...]:
    place_hold(connection, shares=WITH_A_FEE)
    return (
        "ALTER TABLE buffer.hold DISABLE TRIGGER ALL",
        "UPDATE buffer.hold SET amount_minor = amount_minor + 1 WHERE kind = 'FEE'",
    )


def _frozen_without_a_freeze(connection: Connection) -> tuple[str, ...]:
    place_hold(connection)
    return ("UPDATE buffer.unsettled_hold SET state = 'FROZEN'",)


def _backjob_that_freezes_nothing(connection: Connection) -> tuple[str, ...]:
    hold_id = place_hold(connection)
    request_backjob(connection, job="job-8", by=PAYER, reason="not as agreed", now=NOON)
    return (f"DELETE FROM buffer.hold_freeze WHERE hold_id = {hold_id}",)


def _a_job_without_its_backjob(connection: Connection) -> tuple[str, ...]:
    place_hold(connection)
    request_backjob(connection, job="job-8", by=PAYER, reason="not as agreed", now=NOON)
    return ("UPDATE buffer.job SET open_backjob_id = NULL",)


def _another_refund(connection: Connection) -> tuple[str, ...]:
    place_hold(connection)
    backjob = request_backjob(connection, job="job-8", by=PAYER, reason="not as agreed", now=NOON)
    approve_backjob(connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="indeed", now=NOON)
    return ("UPDATE buffer.backjob SET refunded_minor = refunded_minor - 1",)


def _closed_by_another(connection: Connection) -> tuple[str, ...]:
    place_hold(connection)
    backjob = request_backjob(connection, job="job-8", by=PAYER, reason="not as agreed", now=NOON)
    reject_backjob(connection, backjob_id=backjob.backjob_id, by=ADMIN, reason="no", now=NOON)
    return ("UPDATE buffer.hold_freeze SET closed_by = 'admin-2'",)


def _paid_before_its_date(connection: Connection) -> tuple[str, ...]:
    place_hold(connection)
    release_matured(connection, now=DAY_7, batch_limit=1)
    return ("UPDATE buffer.batch SET due_by = due_by - interval '1 s'",)


def _a_date_of_its_own(connection: Connection) -> tuple[str, ...]:
    place_hold(connection)
    return ("UPDATE buffer.unsettled_hold SET release_date = release_date + interval '1 s'",)


def _another_balance_after(connection: Connection) -> tuple[str, ...]:
    place_hold(connection, state=HoldState.RELEASED)
    return ("UPDATE buffer.transaction SET balance_after_minor = 5 WHERE type = 'EARNING'",)


def _a_wallet_without_the_freeze(connection: Connection) -> tuple[str, ...]:
    place_hold(connection)
    freeze_owner(connection, owner=PAYEE, kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=NOON)
    return ("UPDATE buffer.wallet SET owner_freeze_id = NULL",)


def _not_covered_by_the_owners(connection: Connection) -> tuple[str, ...]:
    hold_id = place_hold(connection, state=HoldState.FROZEN)
    freeze_owner(connection, owner=PAYEE, kind=FreezeKind.RISK, by=ADMIN, reason="a look", now=NOON)
    return (
        "UPDATE buffer.hold_freeze SET closed_at = opened_at, closed_by = 'x', closing_reason = 'x'"
        f" WHERE hold_id = {hold_id} AND owner_freeze_id IS NOT NULL",
    )


def _a_share_that_is_not_covered(connection: Connection) -> tuple[str, ...]:
    place_hold(connection, shares=WITH_A_FEE, state=HoldState.FROZEN)
    return ("DELETE FROM buffer.hold_freeze WHERE earning_freeze_id IS NOT NULL",)


def _a_refund_of_a_time_of_its_own(connection: Connection) -> tuple[str, ...]:
    hold_id = place_hold(connection, shares=WITH_A_FEE, state=HoldState.FROZEN)
    refund_hold(connection, hold_id=hold_id, by=ADMIN, reason="stolen", reference="refund-1", now=NOON)
    return ("UPDATE buffer.batch SET recorded_at = recorded_at + interval '1 s' WHERE kind = 'REFUND'",)


def _a_refund_of_a_kept_fee(connection: Connection) -> tuple[str, ...]:
    add(connection, **FEE)
    hold_id = place_hold(connection, rule=SELLER, state=HoldState.FROZEN)
    refund_hold(connection, hold_id=hold_id, by=ADMIN, reason="stolen", reference="refund-1", now=NOON)
    return ("UPDATE buffer.hold_rule SET fee_on_refund = 'keep'",)


def _a_line_of_another_owner(connection: Connection) -> tuple[str, ...]:
    deposit(connection, owner=PAYER, amount="1", currency="PHP", reference="in-1", by=ADMIN, now=NOON)
    return ("UPDATE buffer.audit_line SET owner = 'worker-99'",)


def _a_payout_of_another_amount(connection: Connection) -> tuple[str, ...]:
    place_payout(connection)
    return ("UPDATE buffer.payout SET amount_minor = amount_minor + 1",)


def _a_payout_that_was_never_paid(connection: Connection) -> tuple[str, ...]:
    place_payout(connection, PayoutState.RETURNED)
    return ("UPDATE buffer.payout SET paid_at = now()",)


def _a_batch_with_one_more(connection: Connection) -> tuple[str, ...]:
    place_payout(connection, PayoutState.SENT)
    return ("UPDATE buffer.payout_batch SET payouts = 2",)


CORRUPTIONS: Final[dict[str, Callable[[Connection], tuple[str, ...]]]] = {
    "books_balance": _wallet_off,
    "wallet_equals_its_transactions": _wallet_off,
    "pending_equals_unsettled_holds": _pending_off,
    "hold_settled_once": _paid_twice,
    "hold_equals_its_transactions": _another_amount,
    "earning_equals_its_shares": _another_fee,
    "frozen_iff_open_freeze": _frozen_without_a_freeze,
    "backjob_open_iff_it_freezes": _backjob_that_freezes_nothing,
    "job_names_its_open_backjob": _a_job_without_its_backjob,
    "freeze_closed_with_its_backjob": _closed_by_another,
    "owner_names_its_open_freeze": _a_wallet_without_the_freeze,
    "owner_freeze_covers_its_owner": _not_covered_by_the_owners,
    "earning_freeze_covers_its_shares": _a_share_that_is_not_covered,
    "backjob_equals_its_refunds": _another_refund,
    "earning_follows_its_batch": _paid_before_its_date,
    "refund_follows_its_batch": _a_refund_of_a_time_of_its_own,
    "kept_fee_is_not_refunded": _a_refund_of_a_kept_fee,
    "release_date_is_explained": _a_date_of_its_own,
    "audit_line_matches_what_it_names": _a_line_of_another_owner,
    "transit_equals_open_payouts": _a_payout_of_another_amount,
    "payout_equals_its_transactions": _a_payout_that_was_never_paid,
    "payout_batch_equals_its_payouts": _a_batch_with_one_more,
    "balance_after_follows": _another_balance_after,
    **BROKEN_DEBTS,
}
"""Invariant -> a function that sets up rows and returns a superuser's statements that break it."""
