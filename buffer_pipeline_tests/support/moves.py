"""Moves of a hold's release date, by its payer or by an admin."""

from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection

from buffer_pipeline.policy import RESCHEDULE_DAYS_MAX
from buffer_pipeline.reschedule import Rescheduled, reschedule_hold
from buffer_pipeline_tests.support.builders import ADMIN, DAY_7, NOON, PAYER

DAY: Final = timedelta(days=1)
TICK: Final = timedelta(microseconds=1)
LATEST: Final = DAY_7 + RESCHEDULE_DAYS_MAX * DAY


def move(connection: Connection, hold_id: int, to: datetime, **changes: Any) -> Rescheduled:
    """Move a hold as its payer, with some arguments changed."""
    move_arguments: dict[str, Any] = {"by": PAYER, "reason": "well done", "now": NOON}
    return reschedule_hold(connection, hold_id=hold_id, to=to, **{**move_arguments, **changes})


def later(connection: Connection, hold_id: int, to: datetime, **changes: Any) -> Rescheduled:
    """Move a hold as an admin."""
    return move(connection, hold_id, to, **{"by": ADMIN, "as_admin": True, "reason": "abroad", **changes})
