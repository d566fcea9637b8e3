"""An earning on JOB, added by itself or as one of many."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import pytest
from sqlalchemy import Connection

from buffer_pipeline.intake import AddedHold, Earning, add_many_pending_earnings, add_pending_earnings
from buffer_pipeline.shares import Share, ShareKind
from buffer_pipeline_tests.support.builders import JOB, NOON, PAYEE, PAYER

Add = Callable[..., AddedHold]

HALF_A_FEE: Final = (
    Share(kind=ShareKind.PAYEE),
    Share(kind=ShareKind.FEE, owner="platform", percent=50),
)

OF_A_FEW_UNITS: Final = (
    Share(kind=ShareKind.PAYEE),
    Share(kind=ShareKind.FEE, owner="platform", amount="0.02"),
    Share(kind=ShareKind.TAX, owner="treasury", amount="0.02"),
)
"""Shares of 0.05. A refund of 0.03 takes all of the payee's 0.01, and 0.01 of each other share."""


def add_one(connection: Connection, **changes: Any) -> AddedHold:
    """Add an earning of 10.00 PHP on JOB, with some arguments changed."""
    now = _now(changes)
    return add_pending_earnings(connection, **vars(earning(**changes)), now=now)


def add_in_many(connection: Connection, **changes: Any) -> AddedHold:
    """Add the same as one of many, and raise its refusal."""
    now = _now(changes)
    (outcome,) = add_many_pending_earnings(connection, [earning(**changes)], now=now)
    if not isinstance(outcome, AddedHold):
        raise outcome
    return outcome


def _now(changes: dict[str, Any]) -> datetime:
    now: datetime = changes.pop("now", None) or changes.get("held_at") or NOON
    return now


WAYS = pytest.mark.parametrize("add", [add_one, add_in_many])


def earning(**changes: Any) -> Earning:
    """Return an earning of 10.00 PHP on JOB, with some values changed."""
    content = {"reference": "late", "job": JOB, "payee": PAYEE, "payer": PAYER, "amount": "10.00"}
    return Earning(**{"currency": "PHP", **content, **changes})


EARNING: dict[str, Any] = {
    "reference": "invoice-1",
    "job": JOB,
    "payee": PAYEE,
    "payer": PAYER,
    "amount": "1000.00",
    "currency": "PHP",
}


def add(connection: Connection, **changes: Any) -> AddedHold:
    """Add EARNING with some values changed."""
    return add_pending_earnings(connection, **{**EARNING, "now": NOON, **changes})
