"""Two verbs on one case, and the result of each."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from buffer_pipeline.backjob import (
    Backjob,
    approve_backjob,
    reject_backjob,
    request_backjob,
    withdraw_backjob,
)
from buffer_pipeline.debts import ClawbackTo, claw_back, forgive_debt, recover_debts
from buffer_pipeline.errors import PaymentBufferError
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.intake import add_pending_earnings
from buffer_pipeline.owner_freeze import freeze_owner, unfreeze_owner
from buffer_pipeline.payouts import request_payout
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import (
    ReleaseBatch,
    ReleasePosition,
    ReleaseRange,
    release_early,
    release_matured,
    release_range,
)
from buffer_pipeline.reschedule import reschedule_hold
from buffer_pipeline.shares import ShareKind
from buffer_pipeline.wallet import Movement, deposit, withdraw
from buffer_pipeline_tests.support.builders import ADMIN, DAY_7
from buffer_pipeline_tests.support.cases import Case, earning, shares_of
from buffer_pipeline_tests.support.ends import Answer, as_answer

LAST_MINUTE: Final = DAY_7 - timedelta(minutes=1)
"""By this clock the window is still open, and the hold is due for a release at DAY_7."""

LOCK_NOT_AVAILABLE: Final = "55P03"


Action: TypeAlias = Callable[[Connection, Case, str], Answer]


def _batch(batch: ReleaseBatch) -> Answer:
    return (
        batch.holds_released,
        batch.parts_released,
        batch.amounts_minor,
        batch.left_minor,
        batch.recovered_minor,
        batch.replayed,
    )


def _backjob(backjob: Backjob) -> Answer:
    return backjob.state, len(backjob.hold_ids)


def _movement(movement: Movement) -> Answer:
    return movement.balance_minor, movement.replayed


def _release_matured(connection: Connection, case: Case, side: str) -> Answer:
    batch = release_matured(connection, now=DAY_7, batch_limit=100, source="a race", shard=case.shard)
    if batch.holds_released:
        return _batch(batch)
    # A batch skips locked holds. A run returns to them, and waits for a moment.
    return _release_range(connection, case, side)


def _release_range(connection: Connection, case: Case, _side: str) -> Answer:
    hold_range = ReleaseRange(after=ReleasePosition(), through=ReleasePosition.end(DAY_7), shard=case.shard)
    return _batch(release_range(connection, hold_range=hold_range, now=DAY_7, due_by=DAY_7, source="a race"))


def _release_early(connection: Connection, case: Case, _side: str) -> Answer:
    payer = f"client-{case.owners}"
    return _batch(
        release_early(connection, hold_id=case.hold_id, by=payer, reason="well done", now=LAST_MINUTE)
    )


def _release_part(connection: Connection, case: Case, side: str) -> Answer:
    return _batch(
        release_early(
            connection,
            hold_id=case.hold_id,
            amount="300.00",
            reference=f"part-{case.number}-{side}",
            by=f"client-{case.owners}",
            reason="a part is done",
            now=LAST_MINUTE,
        )
    )


def _release_part_once(connection: Connection, case: Case, _side: str) -> Answer:
    return _release_part(connection, case, "both")


def _request_backjob(connection: Connection, case: Case, _side: str) -> Answer:
    job, payer = f"job-{case.number}", f"client-{case.owners}"
    return _backjob(request_backjob(connection, job=job, by=payer, reason="it leaks", now=LAST_MINUTE))


def _decide(verb: Callable[..., Backjob], connection: Connection, case: Case, _side: str) -> Answer:
    return _backjob(
        verb(connection, backjob_id=case.backjob_id, by=ADMIN, reason="looked at", now=LAST_MINUTE)
    )


def _move(to: timedelta, connection: Connection, case: Case, side: str, *, as_admin: bool) -> Answer:
    moved = reschedule_hold(
        connection,
        hold_id=case.hold_id,
        to=DAY_7 + to,
        by=ADMIN if as_admin else f"client-{case.owners}",
        as_admin=as_admin,
        reason=f"asked by {side}",
        now=LAST_MINUTE,
    )
    return moved.release_date, moved.was, len(moved.hold_ids)


def _freeze(connection: Connection, case: Case, side: str) -> Answer:
    freeze = freeze_hold(
        connection,
        hold_id=case.hold_id,
        kind=FreezeKind.ADMIN,
        by=ADMIN,
        reason=f"a look by {side}",
        now=LAST_MINUTE,
    )
    return freeze.state, len(freeze.hold_ids)


def _unfreeze(connection: Connection, case: Case, _side: str) -> Answer:
    assert case.freeze_id is not None
    freeze = unfreeze_hold(
        connection, freeze_id=case.freeze_id, by=ADMIN, reason="looked at", now=LAST_MINUTE
    )
    return (freeze.state,)


def _freeze_owner(connection: Connection, case: Case, side: str, *, owner: str = "worker") -> Answer:
    done = freeze_owner(
        connection,
        owner=f"{owner}-{case.owners}",
        kind=FreezeKind.ADMIN,
        by=ADMIN,
        reason=f"a look by {side}",
        now=LAST_MINUTE,
    )
    return done.frozen, done.holds


def _unfreeze_owner(connection: Connection, case: Case, _side: str) -> Answer:
    owner = f"worker-{case.owners}"
    done = unfreeze_owner(connection, owner=owner, by=ADMIN, reason="looked at", now=LAST_MINUTE)
    return done.frozen, done.holds


def refund(connection: Connection, case: Case, side: str, *, amount: str | None = None) -> Answer:
    done = refund_hold(
        connection,
        hold_id=case.hold_id,
        by=ADMIN,
        reason="a fraud",
        reference=f"back-{case.number}-{side}",
        now=LAST_MINUTE,
        amount=amount,
    )
    return done.state, len(done.hold_ids), done.amount_minor, done.left_minor, done.replayed


def _refund_once(connection: Connection, case: Case, _side: str) -> Answer:
    return refund(connection, case, "both", amount="300.00")


def _deposit(connection: Connection, case: Case, side: str) -> Answer:
    reference, owner = f"in-{case.number}-{side}", f"worker-{case.owners}"
    return _movement(
        deposit(connection, owner=owner, amount="20.00", currency="PHP", reference=reference, now=LAST_MINUTE)
    )


def _deposit_once(connection: Connection, case: Case, _side: str) -> Answer:
    return _deposit(connection, case, "both")


def _withdraw(connection: Connection, case: Case, side: str) -> Answer:
    reference, owner = f"out-{case.number}-{side}", f"worker-{case.owners}"
    return _movement(
        withdraw(
            connection, owner=owner, amount="60.00", currency="PHP", reference=reference, now=LAST_MINUTE
        )
    )


def _claw_back(connection: Connection, case: Case, side: str, *, to: ClawbackTo = ClawbackTo.PAYER) -> Answer:
    # Of what the payee got before, and has not spent.
    done = claw_back(
        connection,
        earning_reference=f"paid-{case.owners}",
        amount="80.00",
        to=to,
        by=ADMIN,
        reason="a fraud",
        reference=f"taken-{case.number}-{side}",
        now=LAST_MINUTE,
    )
    return done.amount_minor, done.taken_minor, done.debt_minor, len(done.debt_ids), done.replayed


def _claw_back_once(connection: Connection, case: Case, _side: str) -> Answer:
    return _claw_back(connection, case, "both")


def _recover(connection: Connection, case: Case, _side: str) -> Answer:
    done = recover_debts(connection, owner=f"worker-{case.owners}", by=ADMIN, now=LAST_MINUTE)
    return done.recovered_minor, len(done.debts), done.replayed


def _forgive(connection: Connection, case: Case, _side: str) -> Answer:
    assert case.debt_id is not None
    done = forgive_debt(connection, debt_id=case.debt_id, by=ADMIN, reason="poor", now=LAST_MINUTE)
    return done.amount_minor, done.replayed


def _request_payout(connection: Connection, case: Case, side: str, *, everything: bool = False) -> Answer:
    done = request_payout(
        connection,
        owner=f"worker-{case.owners}",
        amount=None if everything else "60.00",
        everything=everything,
        currency="PHP",
        by=ADMIN,
        reference=f"payout-{case.number}-{side}",
        now=LAST_MINUTE,
    )
    return done.amount_minor, done.state, done.replayed


def _request_payout_once(connection: Connection, case: Case, _side: str) -> Answer:
    return _request_payout(connection, case, "both")


def _add(name: str, connection: Connection, case: Case, _side: str, **changes: Any) -> Answer:
    stated = earning(
        case.number, name, payee=f"worker-{case.owners}", payer=f"client-{case.owners}", **changes
    )
    added = add_pending_earnings(connection, **vars(stated), now=LAST_MINUTE)
    return added.state, added.release_date, added.replayed


def _add_divided(connection: Connection, case: Case, side: str) -> Answer:
    return _add("another", connection, case, side, shares=shares_of(case.owners))


def _release_as_admin(connection: Connection, case: Case, _side: str) -> Answer:
    return _batch(
        release_early(
            connection, hold_id=case.hold_id, by=ADMIN, as_admin=True, reason="trusted", now=LAST_MINUTE
        )
    )


def _of_share(kind: ShareKind, verb: Action, connection: Connection, case: Case, side: str) -> Answer:
    hold_id = connection.scalar(
        text("SELECT hold_id FROM buffer.hold WHERE earning_id = :first_id AND kind = :kind"),
        {"first_id": case.hold_id, "kind": kind},
    )
    assert hold_id is not None
    return verb(connection, replace(case, hold_id=hold_id), side)


def _freeze_fees(connection: Connection, case: Case, side: str) -> Answer:
    return _freeze_owner(connection, case, side, owner="fees")


VERBS: Final[dict[str, Action]] = {
    "release matured": _release_matured,
    "release a range": _release_range,
    "release early": _release_early,
    "release a part": _release_part,
    "move earlier": partial(_move, timedelta(seconds=-1), as_admin=False),
    "move later": partial(_move, timedelta(days=1), as_admin=True),
    "request a backjob": _request_backjob,
    "reject": partial(_decide, reject_backjob),
    "approve": partial(_decide, approve_backjob),
    "approve a part": partial(_decide, partial(approve_backjob, amount="300.00")),
    "withdraw the backjob": partial(_decide, withdraw_backjob),
    "freeze": _freeze,
    "unfreeze": _unfreeze,
    "freeze the owner": _freeze_owner,
    "unfreeze the owner": _unfreeze_owner,
    "refund": refund,
    "refund a part": partial(refund, amount="300.00"),
    "deposit": _deposit,
    "withdraw": _withdraw,
    "claw back": _claw_back,
    "claw back for a bank": partial(_claw_back, to=ClawbackTo.BANK),
    "recover the debt": _recover,
    "forgive the debt": _forgive,
    "request a payout": _request_payout,
    "request all of a balance": partial(_request_payout, everything=True),
    "add the same": partial(_add, "earning"),
    "add another": partial(_add, "another"),
    "add in another currency": partial(_add, "another", currency="JPY"),
}

ONCE: Final[dict[str, Action]] = {
    "deposit once": _deposit_once,
    "refund once": _refund_once,
    "request a payout once": _request_payout_once,
    "release a part once": _release_part_once,
    "claw back once": _claw_back_once,
}
"""Both sides with the same reference."""

ACTIONS: Final = {**VERBS, **ONCE}

OF_SHARES: Final[dict[str, Action]] = {
    **{
        name: VERBS[name]
        for name in (
            "release a range",
            "release early",
            "release a part",
            "move earlier",
            "move later",
            "request a backjob",
            "reject",
            "approve",
            "approve a part",
            "freeze",
            "unfreeze",
            "refund",
            "refund a part",
            "freeze the owner",
            "add the same",
        )
    },
    "add divided": _add_divided,
    "release the reserve": partial(_of_share, ShareKind.RESERVE, _release_as_admin),
    "freeze the reserve": partial(_of_share, ShareKind.RESERVE, _freeze),
    "refund the fee": partial(_of_share, ShareKind.FEE, refund),
    "move the fee later": partial(_of_share, ShareKind.FEE, VERBS["move later"]),
    "freeze the fees": _freeze_fees,
}
"""On cases whose earning has shares."""


def attempt(connection: Connection, verb: Action, case: Case, side: str) -> Answer:
    """Return the verb's result, or its refusal, without ids."""
    try:
        try:
            with connection.begin():
                return verb(connection, case, side)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
                raise
            # A range that timed out on a lock. A run then releases it in batches that skip locked holds.
            return attempt(connection, _release_matured, case, side)
    except PaymentBufferError as refusal:
        return as_answer(refusal)


def release_job_early(connection: Connection, case: Case, _side: str) -> Answer:
    job = f"job-{case.number}"
    return _batch(
        release_early(connection, job=job, by=ADMIN, as_admin=True, reason="well done", now=LAST_MINUTE)
    )
