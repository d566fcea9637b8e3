"""The verbs that move money or a date, each with a reference."""

from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, text

from buffer_pipeline.debts import ClawbackTo, claw_back, forgive_debt, recover_debts
from buffer_pipeline.freeze import freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import add_pending_earnings
from buffer_pipeline.owner_freeze import freeze_owner, unfreeze_owner
from buffer_pipeline.payouts import (
    PayoutResult,
    approve_payout_batch,
    bank_ids,
    cancel_payout,
    cancel_payout_batch,
    mark_payouts,
    request_payout,
    send_payout_batch,
)
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import release_early
from buffer_pipeline.reschedule import reschedule_hold
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.support.builders import ADMIN, PAYEE, PAYER, WITH_A_FEE
from buffer_pipeline_tests.support.money_books import (
    DEBTOR,
    FROZEN_OWNER,
    NOW,
    batch_named,
    named,
    payout_named,
)
from buffer_pipeline_tests.support.payouts import APPROVER, DAY_3, MAKER, make_batch


def _add(connection: Connection) -> object:
    return add_pending_earnings(
        connection,
        reference="earning-new",
        job="job-9",
        payee=PAYEE,
        payer=PAYER,
        amount="10.00",
        currency="PHP",
        now=NOW,
    )


def _deposit(connection: Connection) -> object:
    return deposit(connection, owner=PAYEE, amount="5.00", currency="PHP", reference="in-1", now=NOW)


def _withdraw(connection: Connection) -> object:
    return withdraw(connection, owner=PAYEE, amount="5.00", currency="PHP", reference="out-1", now=NOW)


def _refund(
    connection: Connection,
    *,
    amount: str | None = None,
    reference: str = "suspect",
    key: str = "back-1",
) -> object:
    return refund_hold(
        connection,
        hold_id=named(connection, reference),
        by=ADMIN,
        reason="a fraud",
        reference=key,
        now=NOW,
        amount=amount,
    )


def _refund_a_part(connection: Connection) -> object:
    return _refund(connection, amount="300.00")


def _refund_earning(connection: Connection) -> object:
    return _refund(connection, amount="300.00", reference="suspect-shares", key="back-2")


def _add_to_a_backjob(connection: Connection) -> object:
    # Uses add_holds, buffer_holds and cover_holds, but not the statement add_hold.
    return add_pending_earnings(
        connection,
        reference="earning-late",
        job="job-asked",
        payee="worker-late",
        payer=PAYER,
        amount="10.00",
        currency="PHP",
        now=NOW,
    )


def _add_divided(connection: Connection, *, payee: str = PAYEE) -> object:
    # All owners have wallets. Uses add_earning and buffer_holds.
    return add_pending_earnings(
        connection,
        reference=f"divided-{payee}",
        job="job-11",
        payee=payee,
        payer=PAYER,
        amount="10.00",
        currency="PHP",
        shares=WITH_A_FEE,
        now=NOW,
    )


def _add_divided_to_a_new_owner(connection: Connection) -> object:
    # Uses add_holds, add_shares and buffer_holds.
    return _add_divided(connection, payee="worker-new")


def _add_to_a_frozen_owner(connection: Connection) -> object:
    return add_pending_earnings(
        connection,
        reference="earning-frozen",
        job="job-10",
        payee=FROZEN_OWNER,
        payer=PAYER,
        amount="10.00",
        currency="PHP",
        now=NOW,
    )


def _freeze_owner(connection: Connection) -> object:
    # With a waiting hold and a frozen one.
    return freeze_owner(
        connection, owner=PAYEE, kind=FreezeKind.RISK, by=ADMIN, reason="a fraud", reference="all-1", now=NOW
    )


def _unfreeze_owner(connection: Connection) -> object:
    return unfreeze_owner(
        connection, owner=FROZEN_OWNER, by=ADMIN, reason="cleared", reference="all-2", now=NOW
    )


def _deposit_by_somebody(connection: Connection) -> object:
    return deposit(
        connection,
        owner=PAYEE,
        amount="5.00",
        currency="PHP",
        reference="in-2",
        now=NOW,
        by=ADMIN,
        reason="goodwill",
    )


def _reschedule(connection: Connection, *, reference: str = "suspect", key: str = "move-1") -> object:
    return reschedule_hold(
        connection,
        hold_id=named(connection, reference),
        to=NOW + timedelta(days=30),
        by=ADMIN,
        as_admin=True,
        reason="abroad",
        reference=key,
        now=NOW,
    )


def _reschedule_earning(connection: Connection) -> object:
    return _reschedule(connection, reference="divided", key="move-2")


def _release_part(connection: Connection, *, reference: str = "waits") -> object:
    return release_early(
        connection,
        hold_id=named(connection, reference),
        amount="300.00",
        by=PAYER,
        reason="a part is done",
        reference="part-1",
        now=NOW,
    )


def _release_part_of_shares(connection: Connection) -> object:
    return _release_part(connection, reference="divided")


def _release_early(connection: Connection) -> object:
    return release_early(
        connection,
        hold_id=named(connection, "waits"),
        by=PAYER,
        reason="well done",
        reference="whole-1",
        now=NOW,
    )


def _freeze_earning(connection: Connection) -> object:
    return freeze_hold(
        connection,
        hold_id=named(connection, "divided"),
        kind=FreezeKind.RISK,
        by=ADMIN,
        reason="a look",
        reference="shares-1",
        now=NOW,
    )


def _take_back(connection: Connection, to: ClawbackTo, key: str, advanced_by: str | None) -> object:
    return claw_back(
        connection,
        hold_id=named(connection, "spent"),
        amount="1000.00",
        to=to,
        by=ADMIN,
        reason="a fraud",
        reference=key,
        advanced_by=advanced_by,
        now=NOW,
    )


def _claw_back(connection: Connection) -> object:
    # Covered in part, and advanced by somebody else.
    return _take_back(connection, ClawbackTo.PAYER, "taken-1", "shop")


def _claw_back_for_a_bank(connection: Connection) -> object:
    return _take_back(connection, ClawbackTo.BANK, "taken-2", None)


def _recover(connection: Connection) -> object:
    return recover_debts(connection, owner=DEBTOR, by=ADMIN, reference="recovered-1", now=NOW)


def _forgive(connection: Connection) -> object:
    debt_id = connection.scalar(text("SELECT min(debt_id) FROM buffer.debt"))
    assert debt_id is not None
    return forgive_debt(
        connection, debt_id=debt_id, by=ADMIN, reason="too poor", reference="forgiven-1", now=NOW
    )


def _release_to_a_debtor(connection: Connection) -> object:
    return release_early(
        connection,
        hold_id=named(connection, "pays"),
        by=PAYER,
        reason="well done",
        reference="pays-1",
        now=NOW,
    )


def _request_payout(connection: Connection) -> object:
    return request_payout(
        connection, owner=PAYEE, amount="5.00", currency="PHP", by=PAYEE, reference="payout-1", now=NOW
    )


def _cancel_payout(connection: Connection) -> object:
    return cancel_payout(
        connection, payout_id=payout_named(connection, "made"), by=ADMIN, reason="asked", now=NOW
    )


def _approve_payouts(connection: Connection) -> object:
    return approve_payout_batch(
        connection, payout_batch_id=batch_named(connection, "made"), by=APPROVER, now=NOW
    )


def _send_payouts(connection: Connection) -> object:
    return send_payout_batch(
        connection, payout_batch_id=batch_named(connection, "approved"), by=MAKER, now=NOW
    )


def _cancel_payouts(connection: Connection) -> object:
    return cancel_payout_batch(
        connection, payout_batch_id=batch_named(connection, "approved"), by=MAKER, reason="no", now=NOW
    )


def _make_payouts(connection: Connection) -> object:
    return make_batch(connection)


def _mark_payouts(connection: Connection) -> object:
    ids = bank_ids(connection)
    paid, returned = (ids.of_payout(payout_named(connection, name)) for name in ("sent", "sent too"))
    return mark_payouts(
        connection,
        payout_batch_id=batch_named(connection, "sent"),
        results=[
            PayoutResult(end_to_end_id=paid, outcome="PAID"),
            PayoutResult(end_to_end_id=returned, outcome="RETURNED", reason="AC04 account closed"),
        ],
        by=MAKER,
        file_digest=b"1" * 32,
        now=DAY_3,
    )


REFUSED_AGAIN: Final = (_make_payouts, _mark_payouts)
"""Repeated, these are refused: nothing is left to pay, and the file was imported."""

MONEY: Final = (
    _request_payout,
    _cancel_payout,
    _approve_payouts,
    _send_payouts,
    _cancel_payouts,
    _add,
    _deposit,
    _deposit_by_somebody,
    _withdraw,
    _refund,
    _refund_a_part,
    _add_to_a_backjob,
    _add_divided,
    _add_divided_to_a_new_owner,
    _add_to_a_frozen_owner,
    _freeze_owner,
    _unfreeze_owner,
    _reschedule,
    _release_part,
    _release_part_of_shares,
    _release_early,
    _freeze_earning,
    _refund_earning,
    _reschedule_earning,
    _claw_back,
    _claw_back_for_a_bank,
    _recover,
    _forgive,
    _release_to_a_debtor,
)
