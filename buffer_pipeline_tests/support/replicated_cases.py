"""Every verb that is repeated after a failover: its preparation, and the expected result of the
repetition.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection

from buffer_pipeline.backjob import approve_backjob, reject_backjob, request_backjob, withdraw_backjob
from buffer_pipeline.debts import ClawbackTo, claw_back, forgive_debt, recover_debts
from buffer_pipeline.errors import (
    BackjobRefused,
    DateRefused,
    DebtRefused,
    FreezeRefused,
    ReferenceConflict,
    Refused,
    StateRefused,
)
from buffer_pipeline.freeze import freeze_hold, unfreeze_hold
from buffer_pipeline.hold import FreezeKind, HoldState
from buffer_pipeline.intake import Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.owner_freeze import freeze_owner, unfreeze_owner
from buffer_pipeline.payouts import (
    approve_payout_batch,
    cancel_payout,
    cancel_payout_batch,
    make_payout_batch,
    request_payout,
    send_payout_batch,
    set_destination,
)
from buffer_pipeline.policy import PayoutPolicy
from buffer_pipeline.refund import refund_hold
from buffer_pipeline.release import ReleaseBatch, release_early, release_matured
from buffer_pipeline.reschedule import reschedule_hold
from buffer_pipeline.wallet import deposit, withdraw
from buffer_pipeline_tests.support.builders import ADMIN, place_hold

SAID: Final[dict[str, Any]] = {"by": ADMIN, "reason": "so be it"}

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A verb, its arguments, and the expected result of its repetition.

    Each has its own job, owners and login, so that it waits only for the standby.
    """

    verb: Callable[..., Any]
    prepare: Callable[[Connection, str, datetime], Arguments]
    again: Callable[[Any], bool]
    changes: Arguments = field(default_factory=dict)
    """Arguments that differ in the repetition."""
    role: str = "buffer_platform"


def earning_of(name: str) -> Arguments:
    return {
        "reference": f"earning of {name}",
        "job": f"job of {name}",
        "payee": f"payee of {name}",
        "payer": f"payer of {name}",
        "amount": "100.00",
        "currency": "PHP",
    }


def _hold(connection: Connection, name: str, now: datetime, **changes: Any) -> int:
    return place_hold(connection, **{**earning_of(name), "held_at": now, **changes})


def _freeze(connection: Connection, name: str, now: datetime) -> int:
    hold_id = _hold(connection, name, now)
    return freeze_hold(connection, hold_id=hold_id, kind=FreezeKind.RISK, **SAID, now=now).freeze_id


def _backjob(connection: Connection, name: str, now: datetime) -> Arguments:
    _hold(connection, name, now)
    backjob = request_backjob(connection, job=f"job of {name}", **SAID, now=now)
    return {"backjob_id": backjob.backjob_id, **SAID}


def _movement(name: str) -> Arguments:
    return {
        "owner": f"payee of {name}",
        "amount": "60",
        "currency": "PHP",
        "reference": f"movement of {name}",
    }


def _has_a_balance(connection: Connection, name: str, now: datetime) -> Arguments:
    deposit(connection, **{**_movement(name), "amount": "100", "reference": f"first of {name}"}, now=now)
    return _movement(name)


def _frozen(connection: Connection, name: str, now: datetime) -> Arguments:
    hold_id = _hold(connection, name, now, state=HoldState.FROZEN)
    return {"hold_id": hold_id, **SAID, "reference": f"refund of {name}"}


def _frozen_owner(connection: Connection, name: str, now: datetime) -> Arguments:
    _hold(connection, name, now)
    owner = f"payee of {name}"
    freeze_owner(connection, owner=owner, kind=FreezeKind.RISK, **SAID, now=now)
    return {"owner": owner, **SAID, "reference": f"owner closing of {name}"}


def _claw_back(connection: Connection, name: str, now: datetime) -> Arguments:
    hold_id = _hold(connection, name, now, state=HoldState.RELEASED)
    withdraw(connection, **_movement(name), now=now)
    return {
        "hold_id": hold_id,
        "amount": "100.00",
        "to": ClawbackTo.PAYER,
        **SAID,
        "reference": f"claw-back of {name}",
    }


def _debt(connection: Connection, name: str, now: datetime) -> int:
    return claw_back(connection, **_claw_back(connection, name, now), now=now).debt_ids[0]


def _recovery(connection: Connection, name: str, now: datetime) -> Arguments:
    _debt(connection, name, now)
    deposit(connection, **{**_movement(name), "reference": f"first of {name}"}, now=now)
    return {"owner": f"payee of {name}", "by": ADMIN, "reference": f"recovery of {name}"}


def _due(connection: Connection, name: str, now: datetime) -> Arguments:
    _hold(connection, name, now - timedelta(days=2), release_date=now - timedelta(days=1))
    return {"batch_limit": 10}


def _payable(connection: Connection, name: str, now: datetime, *, currency: str = "PHP") -> Arguments:
    movement = {**_movement(name), "currency": currency}
    deposit(connection, **{**movement, "amount": "100", "reference": f"first of {name}"}, now=now)
    token = {"method": "TOKEN", "account": f"acct of {name}", **SAID}
    set_destination(connection, owner=movement["owner"], **token, now=now)
    return {**movement, "by": movement["owner"]}


def _requested(connection: Connection, name: str, now: datetime, *, currency: str = "PHP") -> Arguments:
    done = request_payout(connection, **_payable(connection, name, now, currency=currency), now=now)
    return {"payout_id": done.payout_id, **SAID}


def _batched(connection: Connection, name: str, now: datetime) -> int:
    _requested(connection, name, now)
    at_once = PayoutPolicy(destination_wait_hours=0)
    made = make_payout_batch(connection, currency="PHP", by="finance-1", policy=at_once, now=now)
    return made.payout_batch_id


def _approved(connection: Connection, name: str, now: datetime) -> int:
    id_ = _batched(connection, name, now)
    approve_payout_batch(connection, payout_batch_id=id_, by="finance-2", now=now)
    return id_


def _replayed(answer: Any) -> bool:
    return bool(answer.replayed)


def _refused(refusal: type[Refused], state: str | None) -> Callable[[Any], bool]:
    return lambda answer: isinstance(answer, refusal) and answer.state == state


CASES: Final[dict[str, Case]] = {
    "add": Case(add_pending_earnings, lambda _c, name, _n: earning_of(name), _replayed),
    "add_many": Case(
        add_many_pending_earnings,
        lambda _c, name, _n: {"earnings": [Earning(**earning_of(name))]},
        lambda answer: _replayed(answer[0]),
    ),
    "deposit": Case(deposit, lambda _c, name, _n: _movement(name), _replayed),
    "withdraw": Case(withdraw, _has_a_balance, _replayed),
    "freeze": Case(
        freeze_hold,
        lambda c, name, now: {
            "hold_id": _hold(c, name, now),
            "kind": FreezeKind.RISK,
            **SAID,
            "reference": "freeze",
        },
        _replayed,
    ),
    "unfreeze": Case(
        unfreeze_hold,
        lambda c, name, now: {"freeze_id": _freeze(c, name, now), **SAID, "reference": "closing"},
        _replayed,
    ),
    "freeze_owner": Case(
        freeze_owner,
        lambda c, name, now: {
            "owner": (_hold(c, name, now), f"payee of {name}")[1],
            "kind": FreezeKind.RISK,
            **SAID,
            "reference": "owner freeze",
        },
        _replayed,
    ),
    "unfreeze_owner": Case(unfreeze_owner, _frozen_owner, _replayed),
    "request": Case(
        request_backjob,
        lambda c, name, now: (_hold(c, name, now), {"job": f"job of {name}", **SAID, "reference": "request"})[
            1
        ],
        _replayed,
    ),
    "reject": Case(
        reject_backjob, lambda c, name, now: {**_backjob(c, name, now), "reference": "rejection"}, _replayed
    ),
    "approve": Case(
        approve_backjob, lambda c, name, now: {**_backjob(c, name, now), "reference": "approval"}, _replayed
    ),
    "withdraw_backjob": Case(
        withdraw_backjob,
        lambda c, name, now: {**_backjob(c, name, now), "reference": "withdrawal"},
        _replayed,
    ),
    "refund": Case(refund_hold, _frozen, _replayed),
    "claw_back": Case(claw_back, _claw_back, _replayed),
    "recover_debts": Case(recover_debts, _recovery, _replayed),
    "forgive_debt": Case(
        forgive_debt,
        lambda c, name, now: {"debt_id": _debt(c, name, now), **SAID, "reference": f"forgiven of {name}"},
        _replayed,
    ),
    "forgiven_already": Case(
        forgive_debt,
        lambda c, name, now: {"debt_id": _debt(c, name, now), **SAID},
        _refused(DebtRefused, "CLOSED"),
    ),
    "reschedule": Case(
        reschedule_hold,
        lambda c, name, now: {
            "hold_id": _hold(c, name, now),
            "to": now + timedelta(days=9),
            **SAID,
            "as_admin": True,
            "reference": "move",
        },
        _replayed,
    ),
    "rescheduled_already": Case(
        reschedule_hold,
        lambda c, name, now: {
            "hold_id": _hold(c, name, now),
            "to": now + timedelta(days=9),
            **SAID,
            "as_admin": True,
        },
        _refused(DateRefused, None),
    ),
    "requested_already": Case(
        request_backjob,
        lambda c, name, now: (_hold(c, name, now), {"job": f"job of {name}", **SAID})[1],
        _refused(BackjobRefused, "OPEN"),
    ),
    "rejected_already": Case(reject_backjob, _backjob, _refused(BackjobRefused, "REJECTED")),
    "approved_already": Case(approve_backjob, _backjob, _refused(BackjobRefused, "APPROVED")),
    "withdrawn_already": Case(withdraw_backjob, _backjob, _refused(BackjobRefused, "WITHDRAWN")),
    "closed_already": Case(
        unfreeze_hold,
        lambda c, name, now: {"freeze_id": _freeze(c, name, now), **SAID},
        _refused(FreezeRefused, "CLOSED"),
    ),
    "released_already": Case(
        release_early,
        lambda c, name, now: {"hold_id": _hold(c, name, now), **SAID, "as_admin": True},
        _refused(StateRefused, "RELEASED"),
    ),
    "refunded_already": Case(
        refund_hold, _frozen, _refused(StateRefused, "REFUNDED"), changes={"reference": "another"}
    ),
    "request_payout": Case(request_payout, _payable, _replayed),
    # In a currency of its own, so that no batch takes it.
    "cancel_payout": Case(
        cancel_payout, lambda c, name, now: _requested(c, name, now, currency="EUR"), _replayed
    ),
    "approve_payouts": Case(
        approve_payout_batch,
        lambda c, name, now: {"payout_batch_id": _batched(c, name, now), "by": "finance-2"},
        _replayed,
        role="buffer_payouts",
    ),
    "send_payouts": Case(
        send_payout_batch,
        lambda c, name, now: {"payout_batch_id": _approved(c, name, now), "by": "finance-1"},
        _replayed,
        role="buffer_payouts",
    ),
    "cancel_payouts": Case(
        cancel_payout_batch,
        lambda c, name, now: {"payout_batch_id": _batched(c, name, now), **SAID},
        _replayed,
        role="buffer_payouts",
    ),
    "stands_for_another": Case(
        deposit,
        lambda _c, name, _n: _movement(name),
        _refused(ReferenceConflict, None),
        changes={"amount": "61"},
    ),
    "nothing_due": Case(
        release_matured, _due, lambda answer: answer == ReleaseBatch(), role="buffer_releaser"
    ),
}
