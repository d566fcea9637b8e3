"""The work of a platform's backend: earnings, backjobs, freezes, refunds, movements, contacts, the inbox."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import Engine, text

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.errors import Refused, WalletFull
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.hours import HOUR, clock_of_a_writer
from buffer_pipeline.intake import Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.legacy.importer import import_legacy
from buffer_pipeline.money import AMOUNT_MINOR_MAX, format_amount
from buffer_pipeline.notifications.contact import change_contact, find_contacts, set_contact
from buffer_pipeline.notifications.inbox import (
    count_unread,
    list_inbox,
    mark_all_read,
    mark_read,
)
from buffer_pipeline.owner_freeze import freeze_owner, unfreeze_owner
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import release_early
from buffer_pipeline.reschedule import reschedule_hold
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.support.builders import ADMIN, NOON, PAYEE, PAYER, place_hold, state_of
from buffer_pipeline_tests.support.earnings import HALF_A_FEE, earning
from buffer_pipeline_tests.support.legacy import EXPORT

LATE: Final = NOON + timedelta(days=3_000)
"""When the last holds of the work are released."""


def earnings_come_in(platform: Engine) -> None:
    """Add earnings: one, several, a replay, and an export."""
    with platform.begin() as connection:
        for state in HoldState:
            place_hold(connection, state=state, job=f"job-{state}")
        # These are still in the buffer when all is done.
        for number in range(2):
            place_hold(connection, job=f"job-late-{number}", release_date=LATE)
        for _ in ("first", "again"):
            add_many_pending_earnings(
                connection,
                [
                    Earning(
                        reference=f"team-{payee}",
                        job="job-team",
                        payee=payee,
                        payer=PAYER,
                        amount="10.00",
                        currency="PHP",
                    )
                    for payee in ("worker-1", "worker-2")
                ],
                now=NOON,
            )
            alone = earning(
                reference="alone",
                job="job-alone",
                payee="worker-new",
                payer="client-new",
                metadata={"order": "A-17"},
            )
            add_pending_earnings(connection, **vars(alone), now=NOON)
            shared = earning(reference="shared", job="job-shared", shares=HALF_A_FEE)
            add_many_pending_earnings(connection, [shared], now=NOON)
        add_pending_earnings(
            connection, **vars(replace(shared, reference="shared-2", metadata={"order": "A-17"})), now=NOON
        )
        arguments: dict[str, Any] = {"by": "client-new", "reason": "well done", "now": NOON}
        alone_id = connection.scalar(text("SELECT hold_id FROM buffer.hold WHERE reference = 'alone'"))
        for _ in ("first", "again"):
            release_early(connection, hold_id=alone_id, amount="1", reference="part-1", **arguments)
        release_early(connection, job="job-alone", reference="rest-1", **arguments)
        too_much = Earning(
            reference="",
            job="job-rich",
            payee="worker-1",
            payer=PAYER,
            amount=format_amount(AMOUNT_MINOR_MAX, 2),
            currency="PHP",
        )
        with connection.begin_nested() as savepoint:
            riches = [replace(too_much, reference=f"rich-{number}") for number in range(9_224)]
            assert isinstance(add_many_pending_earnings(connection, riches, now=NOON)[-1], WalletFull)
            savepoint.rollback()
    with platform.begin() as connection:
        import_legacy(connection, EXPORT, now=clock_of_a_writer(connection))


def backjobs_are_decided(platform: Engine) -> None:
    """Request backjobs and decide them in each way, with other freezes."""
    with platform.begin() as connection:
        for decide in (reject_backjob, withdraw_backjob, approve_backjob):
            hold_id = place_hold(connection, job=decide.__name__)
            risk = freeze_hold(
                connection,
                hold_id=hold_id,
                kind=FreezeKind.RISK,
                by="risk-2",
                reason="a look",
                payee_text="Please call us.",
                now=NOON,
            )
            request = request_backjob(connection, job=decide.__name__, by=PAYER, reason="hm", now=NOON)
            by = PAYER if decide is withdraw_backjob else ADMIN
            if decide is approve_backjob:
                with pytest.raises(Refused), connection.begin_nested():
                    decide(connection, backjob_id=request.backjob_id, by=by, reason="so be it", now=NOON)
            unfreeze_hold(connection, freeze_id=risk.freeze_id, by="risk-2", reason="cleared", now=NOON)
            decide(connection, backjob_id=request.backjob_id, by=by, reason="so be it", now=NOON)
            with pytest.raises(Refused), connection.begin_nested():
                unfreeze_hold(connection, freeze_id=risk.freeze_id, by="risk-2", reason="again", now=NOON)


def owners_are_frozen(platform: Engine) -> None:
    """Freeze an owner, add an earning for them and unfreeze them, each twice. Leave one frozen."""
    with platform.begin() as connection:
        arguments: dict[str, Any] = {"owner": "worker-cold", "by": "risk-2", "reason": "a look", "now": NOON}
        first = place_hold(connection, job="job-cold", payee="worker-cold")
        for _ in ("first", "again"):
            freeze_owner(
                connection, kind=FreezeKind.RISK, reference="cold-1", payee_text="Call us.", **arguments
            )
        with pytest.raises(Refused), connection.begin_nested():
            freeze_owner(connection, kind=FreezeKind.RISK, **arguments)
        late = place_hold(connection, job="job-cold", payee="worker-cold", currency="JPY", amount="10")
        for hold_id in (first, late):
            assert state_of(connection, hold_id) is HoldState.FROZEN
        for _ in ("first", "again"):
            unfreeze_owner(connection, reference="cold-1", **arguments)
        with pytest.raises(Refused), connection.begin_nested():
            unfreeze_owner(connection, **arguments)
        freeze_owner(connection, kind=FreezeKind.ADMIN, **arguments)


def admins_refund(platform: Engine) -> None:
    """Refund a frozen hold twice, and add an earning to a job with an open backjob."""
    with platform.begin() as connection:
        hold_id = place_hold(connection, state=HoldState.FROZEN, job="job-refund")
        for _ in ("first", "again"):
            refund_hold(
                connection, hold_id=hold_id, by=ADMIN, reason="a thief", reference="refund-1", now=NOON
            )
        place_hold(connection, job="job-late")
        for _ in ("first", "again"):
            request_backjob(
                connection, job="job-late", by=PAYER, reason="hm", reference="request-1", now=NOON
            )
        late = place_hold(connection, job="job-late")
        assert state_of(connection, late) is HoldState.FROZEN


def dates_are_moved(platform: Engine) -> None:
    """Move a release date twice with the same reference, and to a later time."""
    with platform.begin() as connection:
        hold_id = place_hold(connection, job="job-moved")
        refund_arguments: dict[str, Any] = {"hold_id": hold_id, "reason": "asked", "now": NOON}
        for _ in ("first", "again"):
            reschedule_hold(connection, to=NOON + HOUR, by=PAYER, reference="move-1", **refund_arguments)
        reschedule_hold(connection, to=NOON + 9 * HOUR, by=ADMIN, as_admin=True, **refund_arguments)


def money_moves(platform: Engine) -> None:
    """Deposit and withdraw, each twice."""
    with platform.begin() as connection:
        for _ in ("first", "again"):
            deposit(
                connection, owner=PAYER, amount="9.00", currency="PHP", reference="in-1", by=ADMIN, now=NOON
            )
            withdraw(connection, owner=PAYER, amount="4.00", currency="PHP", reference="out-1", now=NOON)


def owners_are_known(platform: Engine) -> None:
    """Keep contacts."""
    with platform.begin() as connection:
        set_contact(connection, owner=PAYEE, locale="en_PH", email="worker-17@example.com", now=NOON)
        change_contact(connection, owner=PAYEE, changes={"time_zone": "Asia/Manila"}, now=NOON)
        assert find_contacts(connection, [PAYEE])[PAYEE].time_zone == "Asia/Manila"


def owners_read_their_inbox(platform: Engine) -> None:
    """List an inbox and mark it as read."""
    with platform.begin() as connection:
        assert count_unread(connection, owner=PAYEE) == 2
        newest, oldest = list_inbox(connection, owner=PAYEE)
        assert list_inbox(connection, owner=PAYEE, unread=True) == [newest, oldest]
        assert mark_read(connection, owner=PAYEE, notification_ids=[oldest.notification_id], now=NOON) == 1
        assert mark_all_read(connection, owner=PAYEE, up_to=newest.notification_id, now=NOON) == 1
