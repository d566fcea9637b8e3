"""Requests and decisions by a job's client and an admin, with default arguments."""

from collections.abc import Callable
from typing import Any, Final

from sqlalchemy import Connection, select

from buffer_pipeline.backjob import (
    Backjob,
    approve_backjob,
    reject_backjob,
    request_backjob,
    withdraw_backjob,
)
from buffer_pipeline.freeze import Freeze, freeze_hold
from buffer_pipeline.hold import FreezeKind
from buffer_pipeline.tables import backjob
from buffer_pipeline_tests.support.builders import ADMIN, JOB, NOON, PAYER

Decide = Callable[..., Backjob]
DECISIONS: Final[tuple[Decide, ...]] = (reject_backjob, approve_backjob, withdraw_backjob)


def request(connection: Connection, **changes: Any) -> Backjob:
    """Request a backjob on JOB as its client, with some arguments changed."""
    arguments = {"job": JOB, "by": PAYER, "reason": "not as agreed", "now": NOON}
    return request_backjob(connection, **{**arguments, **changes})


def decide(connection: Connection, decision: Decide, backjob_id: int, **changes: Any) -> Backjob:
    """Reject, approve or withdraw as an admin, with some arguments changed."""
    decided = {"backjob_id": backjob_id, "by": ADMIN, "reason": "looked at it", "now": NOON}
    return decision(connection, **{**decided, **changes})


def freeze(connection: Connection, hold_id: int, kind: FreezeKind = FreezeKind.RISK) -> Freeze:
    """Put one more freeze on a hold."""
    return freeze_hold(connection, hold_id=hold_id, kind=kind, by=ADMIN, reason="a look", now=NOON)


def backjob_row(connection: Connection, backjob_id: int) -> dict[str, Any]:
    """Return the backjob's row by column name."""
    return dict(
        connection.execute(select(backjob).where(backjob.c.backjob_id == backjob_id)).mappings().one()
    )
